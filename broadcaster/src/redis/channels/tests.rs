//! The states one by one, and all of them against a model of Redis in random order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_millis(1000);
const IO_TIMEOUT: Duration = Duration::from_millis(4000);

/// Two connections, and the channels of the first.
fn two() -> (Connections, Arc<Channels>) {
    let connections = Connections::new(Arc::default(), 2, GRACE);
    let first = Arc::clone(&connections.each()[0]);
    (connections, first)
}

fn names(channels: &[Channel]) -> Vec<&str> {
    channels.iter().map(|channel| &**channel).collect()
}

#[test]
fn a_channel_that_is_asked_for_again_while_it_is_let_go_is_subscribed_after_that() {
    let ((node, channels), start) = (two(), Instant::now());
    let channel: Channel = "a".into();
    channels.connected();
    assert_eq!(node.subscribe(&channel, 0, start), Interest::Pending);
    assert_eq!(names(&channels.take_queued(10).channels), ["a"]);
    assert_eq!(channels.confirmed(&channel, start).iter().collect::<Vec<_>>(), [0]);
    node.unsubscribe(&channel, 0, start);
    assert!(channels.take_leaving(10, start + GRACE - Duration::from_millis(1)).is_empty());
    assert_eq!(names(&channels.take_leaving(10, start + GRACE)), ["a"]);

    assert_eq!(node.subscribe(&channel, 1, start), Interest::Pending, "the unsubscribe is under way");
    assert!(channels.take_queued(10).channels.is_empty(), "one command at a time");
    assert!(channels.map.shards("a").is_empty(), "what still arrives is from before the answer");
    channels.left(&channel);
    assert_eq!(names(&channels.take_queued(10).channels), ["a"]);
    assert_eq!(channels.confirmed(&channel, start).iter().collect::<Vec<_>>(), [1]);
    assert_eq!(node.subscribe(&channel, 0, start), Interest::Confirmed);
}

#[test]
fn a_channel_left_often_within_its_grace_is_queued_once_and_its_grace_starts_over() {
    let ((node, channels), start) = (two(), Instant::now());
    let channel: Channel = "a".into();
    channels.connected();
    node.subscribe(&channel, 0, start);
    channels.take_queued(10);
    channels.confirmed(&channel, start);
    for _ in 0..1000 {
        node.unsubscribe(&channel, 0, start);
        assert_eq!(node.subscribe(&channel, 0, start), Interest::Confirmed);
    }
    assert_eq!(channels.desk().leaving.len(), 1);
    node.unsubscribe(&channel, 0, start + GRACE / 2);
    assert!(channels.take_leaving(10, start + GRACE).is_empty());
    assert_eq!(names(&channels.take_leaving(10, start + GRACE * 2)), ["a"]);
}

#[test]
fn asking_and_leaving_while_redis_is_away_leaves_nothing_behind() {
    let ((node, channels), start) = (two(), Instant::now());
    for n in 0..1000 {
        let channel: Channel = format!("c{n}").into();
        assert_eq!(node.subscribe(&channel, 0, start), Interest::Pending);
        node.unsubscribe(&channel, 0, start);
    }
    assert_eq!(channels.map.len(), 0);
    assert!(channels.desk().queue.is_empty() && channels.desk().waits.is_empty());
    assert_eq!(channels.connected(), 0);
}

#[test]
fn the_wait_of_a_shard_that_came_back_counts_from_its_return() {
    let ((node, channels), start) = (two(), Instant::now());
    let channel: Channel = "a".into();
    node.subscribe(&channel, 0, start);
    node.unsubscribe(&channel, 0, start);
    node.subscribe(&channel, 0, start + IO_TIMEOUT / 2);
    assert!(channels.expire(start).is_empty());
    assert_eq!(channels.expire(start + IO_TIMEOUT / 2), [(channel, 0)]);
    assert_eq!(channels.map.len(), 0);
}

#[test]
fn after_a_storm_the_queues_give_their_memory_back() {
    let ((node, channels), start) = (two(), Instant::now());
    channels.connected();
    let all: Vec<Channel> = (0..50_000).map(|n| format!("c{n}").into()).collect();
    for channel in &all {
        node.subscribe(channel, 0, start);
    }
    while !channels.take_queued(512).channels.is_empty() {}
    for channel in &all {
        channels.confirmed(channel, start);
    }
    let desk = channels.desk();
    assert!(desk.queue.capacity() + desk.waits.capacity() + desk.leaving.capacity() <= 3 * KEPT_CAPACITY);
}

#[test]
fn a_channel_stays_with_the_connection_of_its_first_shard_until_it_is_gone() {
    let ((node, first), start) = (two(), Instant::now());
    let second = &node.each()[1];
    let channel: Channel = "a".into();
    first.connected();
    second.connected();
    node.subscribe(&channel, 1, start);
    node.subscribe(&channel, 0, start);
    assert!(first.take_queued(10).channels.is_empty());
    assert_eq!(names(&second.take_queued(10).channels), ["a"]);
    assert_eq!(second.confirmed(&channel, start).iter().collect::<Vec<_>>(), [0, 1]);
    node.unsubscribe(&channel, 1, start);
    assert!(second.take_leaving(10, start + GRACE).is_empty(), "the other shard still has it");
    first.disconnected();
    assert_eq!(first.connected(), 0, "it is not the other connection's to restore");
    assert_eq!(node.subscribe(&channel, 1, start), Interest::Confirmed);

    node.unsubscribe(&channel, 1, start);
    node.unsubscribe(&channel, 0, start);
    assert_eq!(names(&second.take_leaving(10, start + GRACE)), ["a"]);
    second.left(&channel);
    node.subscribe(&channel, 0, start);
    assert!(second.take_queued(10).channels.is_empty());
    assert_eq!(names(&first.take_queued(10).channels), ["a"]);
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
    Write(usize, usize),
    /// Redis takes a command of a connection and answers.
    Serve(usize),
    /// The answer is read.
    Read(usize),
    Pass(u64),
    Expire,
    Disconnect(usize),
    Connect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 0..2_u8).prop_map(|(channel, shard)| Step::Subscribe(channel, shard)),
        6 => (0..3_u8, 0..2_u8).prop_map(|(channel, shard)| Step::Unsubscribe(channel, shard)),
        6 => (0..2_usize, 1..4_usize).prop_map(|(connection, n)| Step::Write(connection, n)),
        6 => (0..2_usize).prop_map(Step::Serve),
        6 => (0..2_usize).prop_map(Step::Read),
        5 => (1..1500_u64).prop_map(Step::Pass),
        2 => Just(Step::Expire),
        1 => (0..2_usize).prop_map(Step::Disconnect),
        2 => (0..2_usize).prop_map(Step::Connect),
    ]
}

/// What a shard believes of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    Waiting { since: Instant },
    Has,
}

/// A connection, and what Redis knows of it.
#[derive(Default)]
struct Connection {
    up: bool,
    to_redis: VecDeque<Wire>,
    from_redis: VecDeque<Wire>,
    redis: BTreeSet<Channel>,
}

struct Model {
    node: Connections,
    now: Instant,
    connections: [Connection; 2],
    beliefs: BTreeMap<(Channel, ShardId), Belief>,
}

impl Model {
    fn new() -> Self {
        Self { node: two().0, now: Instant::now(), connections: Default::default(), beliefs: BTreeMap::new() }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Subscribe(channel, shard) => {
                let key: (Channel, ShardId) = (format!("c{channel}").into(), shard);
                if self.beliefs.contains_key(&key) {
                    return;
                }
                let belief = match self.node.subscribe(&key.0, shard, self.now) {
                    Interest::Confirmed => {
                        assert!(self.subscribed(&key.0), "confirmed at once, and Redis has it");
                        Belief::Has
                    }
                    Interest::Pending => Belief::Waiting { since: self.now },
                };
                self.beliefs.insert(key, belief);
            }
            Step::Unsubscribe(channel, shard) => {
                let key: (Channel, ShardId) = (format!("c{channel}").into(), shard);
                if self.beliefs.remove(&key).is_some() {
                    self.node.unsubscribe(&key.0, shard, self.now);
                }
            }
            Step::Write(connection, n) => self.write(connection, n),
            Step::Serve(connection) => self.serve(connection),
            Step::Read(connection) => self.read(connection),
            Step::Pass(millis) => self.now += Duration::from_millis(millis),
            Step::Expire => {
                let before = self.now - IO_TIMEOUT;
                let expired = |channels: &Arc<Channels>| channels.expire(before);
                for key in self.node.each().iter().flat_map(expired).collect::<Vec<_>>() {
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
            Step::Disconnect(connection) => {
                if std::mem::take(&mut self.connections[connection]).up {
                    self.node.each()[connection].disconnected();
                }
            }
            Step::Connect(connection) => {
                if !std::mem::replace(&mut self.connections[connection].up, true) {
                    self.node.each()[connection].connected();
                }
            }
        }
        self.check();
    }

    fn write(&mut self, connection: usize, n: usize) {
        let (channels, wire) = (&self.node.each()[connection], &mut self.connections[connection]);
        if wire.up {
            wire.to_redis.extend(channels.take_queued(n).channels.into_iter().map(Wire::Subscribe));
            wire.to_redis.extend(channels.take_leaving(n, self.now).into_iter().map(Wire::Unsubscribe));
        }
    }

    fn serve(&mut self, connection: usize) {
        let wire = &mut self.connections[connection];
        if let Some(command) = wire.to_redis.pop_front() {
            let changed = match &command {
                Wire::Subscribe(channel) => wire.redis.insert(Channel::clone(channel)),
                Wire::Unsubscribe(channel) => wire.redis.remove(channel),
            };
            assert!(changed, "every command has an effect: {command:?}");
            wire.from_redis.push_back(command);
        }
    }

    fn read(&mut self, connection: usize) {
        let channels = &self.node.each()[connection];
        match self.connections[connection].from_redis.pop_front() {
            Some(Wire::Subscribe(channel)) => {
                for shard in channels.confirmed(&channel, self.now).iter() {
                    let belief = self.beliefs.insert((Channel::clone(&channel), shard), Belief::Has);
                    assert!(matches!(belief, Some(Belief::Waiting { .. })), "an answer without a question: {belief:?}");
                }
            }
            Some(Wire::Unsubscribe(channel)) => channels.left(&channel),
            None => {}
        }
    }

    /// Whether Redis has the channel on some connection.
    fn subscribed(&self, channel: &str) -> bool {
        self.connections.iter().any(|connection| connection.redis.contains(channel))
    }

    /// What holds at any moment.
    fn check(&self) {
        for channel in ["c0", "c1", "c2"] {
            let having = |shard| self.beliefs.get(&(channel.into(), shard)) == Some(&Belief::Has);
            let routed = self.node.map.shards(channel);
            for shard in 0..2 {
                assert_eq!(routed.contains(shard), having(shard), "{channel} is routed to those who have it");
            }
            let link = self.node.map.channels.get(channel).map(|entry| entry.link);
            if link == Some(Link::Live) {
                assert!(self.subscribed(channel), "what is live here is subscribed there");
            }
            let copies = self.connections.iter().filter(|connection| connection.redis.contains(channel)).count();
            assert!(copies <= 1, "Redis sends {channel} once");
        }
        let waiting = self.beliefs.values().filter(|belief| matches!(belief, Belief::Waiting { .. })).count();
        assert_eq!(self.node.each().iter().map(|channels| channels.desk().waits.len()).sum::<usize>(), waiting);
    }

    /// Lets everything come to rest, and checks that nothing is left over or missing.
    fn settle(&mut self) {
        for connection in 0..2 {
            self.step(Step::Connect(connection));
        }
        for _ in 0..12 {
            self.now += GRACE;
            for connection in 0..2 {
                self.write(connection, 10);
                while !self.connections[connection].to_redis.is_empty()
                    || !self.connections[connection].from_redis.is_empty()
                {
                    self.serve(connection);
                    self.read(connection);
                    self.check();
                }
            }
        }
        let wanted: BTreeSet<Channel> = self.beliefs.keys().map(|(channel, _)| Channel::clone(channel)).collect();
        assert!(
            self.beliefs.values().all(|belief| *belief == Belief::Has),
            "everybody is answered: {:?}",
            self.beliefs
        );
        let subscribed: Vec<&Channel> = self.connections.iter().flat_map(|connection| &connection.redis).collect();
        assert_eq!(subscribed.len(), wanted.len());
        assert!(subscribed.into_iter().all(|channel| wanted.contains(channel)));
        assert_eq!(self.node.map.len(), wanted.len());
        for channels in self.node.each() {
            let desk = channels.desk();
            assert!(desk.queue.is_empty() && desk.leaving.is_empty() && desk.waits.is_empty(), "{desk:?}");
        }
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
