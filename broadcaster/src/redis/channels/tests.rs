//! The states one by one, and all of them against a model of Redis in random order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_millis(1000);
const IO_TIMEOUT: Duration = Duration::from_millis(4000);

fn channels() -> Channels {
    Channels::new(Arc::default(), GRACE)
}

fn names(channels: &[Channel]) -> Vec<&str> {
    channels.iter().map(|channel| &**channel).collect()
}

#[test]
fn a_channel_that_is_asked_for_again_while_it_is_let_go_is_subscribed_after_that() {
    let (channels, start) = (channels(), Instant::now());
    let channel: Channel = "a".into();
    channels.connected();
    assert_eq!(channels.subscribe(&channel, 0, start), Interest::Pending);
    assert_eq!(names(&channels.take_queued(10).channels), ["a"]);
    assert_eq!(channels.confirmed(&channel, start).iter().collect::<Vec<_>>(), [0]);
    channels.unsubscribe(&channel, 0, start);
    assert!(channels.take_leaving(10, start + GRACE - Duration::from_millis(1)).is_empty());
    assert_eq!(names(&channels.take_leaving(10, start + GRACE)), ["a"]);

    assert_eq!(channels.subscribe(&channel, 1, start), Interest::Pending, "the unsubscribe is under way");
    assert!(channels.take_queued(10).channels.is_empty(), "one command at a time");
    assert!(channels.map.shards("a").is_empty(), "what still arrives is from before the answer");
    channels.left(&channel);
    assert_eq!(names(&channels.take_queued(10).channels), ["a"]);
    assert_eq!(channels.confirmed(&channel, start).iter().collect::<Vec<_>>(), [1]);
    assert_eq!(channels.subscribe(&channel, 0, start), Interest::Confirmed);
}

#[test]
fn a_channel_left_often_within_its_grace_is_queued_once_and_its_grace_starts_over() {
    let (channels, start) = (channels(), Instant::now());
    let channel: Channel = "a".into();
    channels.connected();
    channels.subscribe(&channel, 0, start);
    channels.take_queued(10);
    channels.confirmed(&channel, start);
    for _ in 0..1000 {
        channels.unsubscribe(&channel, 0, start);
        assert_eq!(channels.subscribe(&channel, 0, start), Interest::Confirmed);
    }
    assert_eq!(channels.desk().leaving.len(), 1);
    channels.unsubscribe(&channel, 0, start + GRACE / 2);
    assert!(channels.take_leaving(10, start + GRACE).is_empty());
    assert_eq!(names(&channels.take_leaving(10, start + GRACE * 2)), ["a"]);
}

#[test]
fn asking_and_leaving_while_redis_is_away_leaves_nothing_behind() {
    let (channels, start) = (channels(), Instant::now());
    for n in 0..1000 {
        let channel: Channel = format!("c{n}").into();
        assert_eq!(channels.subscribe(&channel, 0, start), Interest::Pending);
        channels.unsubscribe(&channel, 0, start);
    }
    assert_eq!(channels.len(), 0);
    assert!(channels.desk().queue.is_empty() && channels.desk().waits.is_empty());
    assert_eq!(channels.connected(), 0);
}

#[test]
fn the_wait_of_a_shard_that_came_back_counts_from_its_return() {
    let (channels, start) = (channels(), Instant::now());
    let channel: Channel = "a".into();
    channels.subscribe(&channel, 0, start);
    channels.unsubscribe(&channel, 0, start);
    channels.subscribe(&channel, 0, start + IO_TIMEOUT / 2);
    assert!(channels.expire(start).is_empty());
    assert_eq!(channels.expire(start + IO_TIMEOUT / 2), [(channel, 0)]);
    assert_eq!(channels.len(), 0);
}

#[test]
fn after_a_storm_the_queues_give_their_memory_back() {
    let (channels, start) = (channels(), Instant::now());
    channels.connected();
    let all: Vec<Channel> = (0..50_000).map(|n| format!("c{n}").into()).collect();
    for channel in &all {
        channels.subscribe(channel, 0, start);
    }
    while !channels.take_queued(512).channels.is_empty() {}
    for channel in &all {
        channels.confirmed(channel, start);
    }
    let desk = channels.desk();
    assert!(desk.queue.capacity() + desk.waits.capacity() + desk.leaving.capacity() <= 3 * KEPT_CAPACITY);
}

/// A command on its way to the model of Redis, or its answer on the way back.
#[derive(Debug, Clone)]
enum Wire {
    Subscribe(Channel),
    Unsubscribe(Channel),
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(u8, ShardId),
    Unsubscribe(u8, ShardId),
    /// Commands are written.
    Write(usize),
    /// Redis takes a command and answers.
    Serve,
    /// The answer is read.
    Read,
    Pass(u64),
    Expire,
    Disconnect,
    Connect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 0..2_u8).prop_map(|(channel, shard)| Step::Subscribe(channel, shard)),
        6 => (0..3_u8, 0..2_u8).prop_map(|(channel, shard)| Step::Unsubscribe(channel, shard)),
        6 => (1..4_usize).prop_map(Step::Write),
        6 => Just(Step::Serve),
        6 => Just(Step::Read),
        5 => (1..1500_u64).prop_map(Step::Pass),
        2 => Just(Step::Expire),
        1 => Just(Step::Disconnect),
        2 => Just(Step::Connect),
    ]
}

/// What a shard believes of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    Waiting { since: Instant },
    Has,
}

struct Model {
    channels: Channels,
    now: Instant,
    up: bool,
    to_redis: VecDeque<Wire>,
    from_redis: VecDeque<Wire>,
    redis: BTreeSet<Channel>,
    beliefs: BTreeMap<(Channel, ShardId), Belief>,
}

impl Model {
    fn new() -> Self {
        Self {
            channels: channels(),
            now: Instant::now(),
            up: false,
            to_redis: VecDeque::new(),
            from_redis: VecDeque::new(),
            redis: BTreeSet::new(),
            beliefs: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Subscribe(channel, shard) => {
                let key: (Channel, ShardId) = (format!("c{channel}").into(), shard);
                if self.beliefs.contains_key(&key) {
                    return;
                }
                let belief = match self.channels.subscribe(&key.0, shard, self.now) {
                    Interest::Confirmed => {
                        assert!(self.redis.contains(&key.0), "confirmed at once, and Redis has it");
                        Belief::Has
                    }
                    Interest::Pending => Belief::Waiting { since: self.now },
                };
                self.beliefs.insert(key, belief);
            }
            Step::Unsubscribe(channel, shard) => {
                let key: (Channel, ShardId) = (format!("c{channel}").into(), shard);
                if self.beliefs.remove(&key).is_some() {
                    self.channels.unsubscribe(&key.0, shard, self.now);
                }
            }
            Step::Write(n) => self.write(n),
            Step::Serve => self.serve(),
            Step::Read => self.read(),
            Step::Pass(millis) => self.now += Duration::from_millis(millis),
            Step::Expire => {
                let before = self.now.checked_sub(IO_TIMEOUT);
                for key in before.map(|before| self.channels.expire(before)).unwrap_or_default() {
                    match self.beliefs.remove(&key) {
                        Some(Belief::Waiting { since }) => assert!(self.now - since >= IO_TIMEOUT, "too early"),
                        other => panic!("expired without waiting: {other:?}"),
                    }
                }
                for belief in self.beliefs.values() {
                    if let Belief::Waiting { since } = belief {
                        assert!(self.now - *since < IO_TIMEOUT, "too late");
                    }
                }
            }
            Step::Disconnect => {
                if std::mem::take(&mut self.up) {
                    self.to_redis.clear();
                    self.from_redis.clear();
                    self.redis.clear();
                    self.channels.disconnected();
                }
            }
            Step::Connect => {
                if !std::mem::replace(&mut self.up, true) {
                    self.channels.connected();
                }
            }
        }
        self.check();
    }

    fn write(&mut self, n: usize) {
        if self.up {
            self.to_redis.extend(self.channels.take_queued(n).channels.into_iter().map(Wire::Subscribe));
            self.to_redis.extend(self.channels.take_leaving(n, self.now).into_iter().map(Wire::Unsubscribe));
        }
    }

    fn serve(&mut self) {
        if let Some(command) = self.to_redis.pop_front() {
            let changed = match &command {
                Wire::Subscribe(channel) => self.redis.insert(Channel::clone(channel)),
                Wire::Unsubscribe(channel) => self.redis.remove(channel),
            };
            assert!(changed, "every command has an effect: {command:?}");
            self.from_redis.push_back(command);
        }
    }

    fn read(&mut self) {
        match self.from_redis.pop_front() {
            Some(Wire::Subscribe(channel)) => {
                for shard in self.channels.confirmed(&channel, self.now).iter() {
                    let belief = self.beliefs.insert((Channel::clone(&channel), shard), Belief::Has);
                    assert!(matches!(belief, Some(Belief::Waiting { .. })), "an answer without a question: {belief:?}");
                }
            }
            Some(Wire::Unsubscribe(channel)) => self.channels.left(&channel),
            None => {}
        }
    }

    /// What holds at any moment.
    fn check(&self) {
        for channel in ["c0", "c1", "c2"] {
            let having = |shard| self.beliefs.get(&(channel.into(), shard)) == Some(&Belief::Has);
            let routed = self.channels.map.shards(channel);
            for shard in 0..2 {
                assert_eq!(routed.contains(shard), having(shard), "{channel} is routed to those who have it");
            }
            let link = self.channels.map.channels.get(channel).map(|entry| entry.link);
            if link == Some(Link::Live) {
                assert!(self.redis.contains(channel), "what is live here is subscribed there");
            }
        }
        let waiting = self.beliefs.values().filter(|belief| matches!(belief, Belief::Waiting { .. })).count();
        assert_eq!(self.channels.desk().waits.len(), waiting);
    }

    /// Lets everything come to rest, and checks that nothing is left over or missing.
    fn settle(&mut self) {
        self.step(Step::Connect);
        for _ in 0..12 {
            self.now += GRACE;
            self.write(10);
            while !self.to_redis.is_empty() || !self.from_redis.is_empty() {
                self.serve();
                self.read();
                self.check();
            }
        }
        let wanted: BTreeSet<Channel> = self.beliefs.keys().map(|(channel, _)| Channel::clone(channel)).collect();
        assert!(
            self.beliefs.values().all(|belief| *belief == Belief::Has),
            "everybody is answered: {:?}",
            self.beliefs
        );
        assert_eq!(self.redis, wanted);
        assert_eq!(self.channels.len(), wanted.len());
        let desk = self.channels.desk();
        assert!(desk.queue.is_empty() && desk.leaving.is_empty() && desk.waits.is_empty(), "{desk:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_shards_and_redis_agree_in_the_end(steps in prop::collection::vec(step(), 0..80)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.settle();
    }
}
