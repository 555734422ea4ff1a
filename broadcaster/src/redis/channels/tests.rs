//! The states one by one, and all of them against a model of Redis in random order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::connections::Connections;
use super::super::settings::Endpoint;
use super::super::topology::{Layout, SlotRange, Topology, slot};
use super::*;

const GRACE: Duration = Duration::from_millis(1000);
const IO_TIMEOUT: Duration = Duration::from_millis(4000);

/// Two connections, and the channels of the first.
fn two() -> (Connections, Arc<Channels>) {
    let connections = node(Topology::fixed(endpoint(0)), 1);
    let first = Arc::clone(&connections.each()[0].lanes[0]);
    (connections, first)
}

/// Two shards with so many connections each.
fn node(topology: Topology, lanes: usize) -> Connections {
    Connections::new(Arc::default(), Arc::new(topology), "push:".to_owned(), 2, lanes, GRACE)
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint { host: String::new(), port, user: None, password: None, db: None }
}

/// A cluster of two masters, with the lanes of these channels.
fn layout(lanes: &[(&str, u8)]) -> Layout {
    let range = |first, last, lane: u8| SlotRange { first, last, master: endpoint(lane.into()) };
    let mut ranges = vec![range(0, 8_191, 0), range(8_192, 16_383, 1)];
    for (channel, lane) in lanes {
        let slot = slot(format!("push:{channel}").as_bytes());
        ranges.push(range(slot, slot, *lane));
    }
    Layout::cluster(2).with_ranges(&ranges).0
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
    assert_eq!(channels.confirmed(&channel, start).waited.iter().collect::<Vec<_>>(), [0]);
    node.unsubscribe(&channel, 0, start);
    assert!(channels.take_leaving(10, start + GRACE - Duration::from_millis(1)).is_empty());
    assert_eq!(names(&channels.take_leaving(10, start + GRACE)), ["a"]);

    assert_eq!(node.subscribe(&channel, 1, start), Interest::Pending, "the unsubscribe is under way");
    assert!(channels.take_queued(10).channels.is_empty(), "one command at a time");
    assert!(channels.map.shards("a").is_empty(), "what still arrives is from before the answer");
    channels.left(&channel);
    assert_eq!(names(&channels.take_queued(10).channels), ["a"]);
    assert_eq!(channels.confirmed(&channel, start).waited.iter().collect::<Vec<_>>(), [1]);
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
    assert!(channels.desk().queue.is_empty() && !channels.waits.any());
    assert_eq!(channels.connected(), 0);
}

#[test]
fn the_wait_of_a_shard_that_came_back_counts_from_its_return() {
    let ((node, channels), start) = (two(), Instant::now());
    let channel: Channel = "a".into();
    node.subscribe(&channel, 0, start);
    node.unsubscribe(&channel, 0, start);
    node.subscribe(&channel, 0, start + IO_TIMEOUT / 2);
    let waits = Arc::clone(&channels.waits);
    assert!(waits.expire(node.map(), start).is_empty());
    assert_eq!(waits.expire(node.map(), start + IO_TIMEOUT / 2), [(channel, 0)]);
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
    assert!(desk.queue.capacity() + channels.waits.size().1 + desk.leaving.capacity() <= 3 * KEPT_CAPACITY);
}

#[test]
fn a_channel_stays_with_the_connection_of_its_first_shard_until_it_is_gone() {
    let ((node, first), start) = (two(), Instant::now());
    let second = &node.each()[1].lanes[0];
    let channel: Channel = "a".into();
    first.connected();
    second.connected();
    node.subscribe(&channel, 1, start);
    node.subscribe(&channel, 0, start);
    assert!(first.take_queued(10).channels.is_empty());
    assert_eq!(names(&second.take_queued(10).channels), ["a"]);
    assert_eq!(second.confirmed(&channel, start).waited.iter().collect::<Vec<_>>(), [0, 1]);
    node.unsubscribe(&channel, 1, start);
    assert!(second.take_leaving(10, start + GRACE).is_empty(), "the other shard still has it");
    first.disconnected(false);
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

#[test]
fn a_channel_whose_slot_moves_is_subscribed_at_its_new_master_and_those_who_have_it_are_told() {
    let node = node(Topology::found(layout(&[("a", 0)])), 2);
    let ([old, new], start) = ([0, 1].map(|lane| &node.each()[0].lanes[lane]), Instant::now());
    let channel: Channel = "a".into();
    old.connected();
    new.connected();
    node.subscribe(&channel, 0, start);
    assert_eq!(names(&old.take_queued(10).channels), ["a"]);
    let first = old.confirmed(&channel, start);
    assert!(first.resumed.is_empty(), "it was nowhere before");

    assert_eq!(old.dropped(&channel), Dropped::Wanted);
    node.park(&channel);
    assert!(node.map().shards("a").contains(0), "who has it keeps it");
    assert_eq!(node.subscribe(&channel, 1, start), Interest::Pending);
    node.unpark();
    assert_eq!(names(&old.take_queued(10).channels), ["a"], "nothing is known of the move yet");
    assert_eq!(old.put_off(&channel), Dropped::Wanted);
    node.park(&channel);
    node.topology().looked(Some(layout(&[("a", 1)])));
    node.rehome();
    node.unpark();
    assert!(old.take_queued(10).channels.is_empty());
    assert_eq!(names(&new.take_queued(10).channels), ["a"], "once, though queued twice");
    let moved = new.confirmed(&channel, start);
    assert_eq!(moved.waited.iter().collect::<Vec<_>>(), [1]);
    assert_eq!(moved.resumed.iter().collect::<Vec<_>>(), [0]);
    assert_eq!(old.dropped(&channel), Dropped::Unknown, "it is not the old master's any more");
}

#[test]
fn when_a_server_of_a_cluster_is_lost_each_of_its_channels_is_told_of_when_it_is_live_again() {
    let node = node(Topology::found(layout(&[("a", 0), ("b", 1)])), 2);
    let ([lost, other], start) = ([0, 1].map(|lane| &node.each()[0].lanes[lane]), Instant::now());
    lost.connected();
    other.connected();
    for name in ["a", "b"] {
        node.subscribe(&name.into(), 0, start);
    }
    for channels in [lost, other] {
        for channel in channels.take_queued(10).channels {
            channels.confirmed(&channel, start);
        }
    }
    assert_eq!(lost.disconnected(true), 1);
    assert_eq!(other.connected(), other.desk().queued, "the other one has nothing to restore");
    lost.connected();
    assert_eq!(names(&lost.take_queued(10).channels), ["a"]);
    assert_eq!(lost.confirmed(&"a".into(), start).resumed.iter().collect::<Vec<_>>(), [0]);
}

/// A command on its way to the model of Redis, or its answer on the way back.
#[derive(Debug, Clone)]
enum Wire {
    Subscribe(Channel),
    Unsubscribe(Channel),
    /// Only on the way back: the server has not got the channel's slot.
    Redirected(Channel),
    /// Only on the way back, unasked: it has given the channel's slot away.
    Dropped(Channel),
    /// Only on the way back: an unsubscribe has found nothing.
    NotThere(Channel),
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
    /// A channel's slot goes to the other master.
    Move(u8),
    /// The node looks at the masters.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 0..2_u8).prop_map(|(channel, shard)| Step::Subscribe(channel, shard)),
        6 => (0..3_u8, 0..2_u8).prop_map(|(channel, shard)| Step::Unsubscribe(channel, shard)),
        6 => (0..4_usize, 1..4_usize).prop_map(|(connection, n)| Step::Write(connection, n)),
        6 => (0..4_usize).prop_map(Step::Serve),
        6 => (0..4_usize).prop_map(Step::Read),
        5 => (1..1500_u64).prop_map(Step::Pass),
        2 => Just(Step::Expire),
        1 => (0..4_usize).prop_map(Step::Disconnect),
        2 => (0..4_usize).prop_map(Step::Connect),
        2 => (0..3_u8).prop_map(Step::Move),
        3 => Just(Step::Look),
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
    /// By shard, then by lane.
    connections: Vec<Connection>,
    lanes: usize,
    /// The master of each channel.
    masters: [u8; 3],
    beliefs: BTreeMap<(Channel, ShardId), Belief>,
}

impl Model {
    /// One server, or a cluster of two masters.
    fn new(lanes: usize) -> Self {
        let topology = match lanes {
            1 => Topology::fixed(endpoint(0)),
            _ => Topology::found(layout(&[("c0", 0), ("c1", 0), ("c2", 0)])),
        };
        Self {
            node: node(topology, lanes),
            now: Instant::now(),
            connections: (0..2 * lanes).map(|_| Connection::default()).collect(),
            lanes,
            masters: [0; 3],
            beliefs: BTreeMap::new(),
        }
    }

    fn channels(&self, connection: usize) -> &Arc<Channels> {
        &self.node.each()[connection / self.lanes].lanes[connection % self.lanes]
    }

    /// Whether the server of a connection has a channel's slot.
    fn is_master(&self, connection: usize, channel: &str) -> bool {
        let number: usize = channel[1..].parse().unwrap();
        self.lanes == 1 || usize::from(self.masters[number]) == connection % self.lanes
    }

    fn look(&mut self) {
        let lanes: Vec<(String, u8)> =
            self.masters.iter().enumerate().map(|(n, lane)| (format!("c{n}"), *lane)).collect();
        let lanes: Vec<(&str, u8)> = lanes.iter().map(|(name, lane)| (name.as_str(), *lane)).collect();
        self.node.topology().looked(Some(layout(&lanes)));
        self.node.rehome();
        self.node.unpark();
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
                        assert!(self.lanes > 1 || self.subscribed(&key.0), "confirmed at once, and Redis has it");
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
                let shards = self.node.each().iter();
                let expired = shards.flat_map(|shard| shard.waits.expire(self.node.map(), before));
                for key in expired.collect::<Vec<_>>() {
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
                let connection = connection % self.connections.len();
                if std::mem::take(&mut self.connections[connection]).up {
                    self.channels(connection).disconnected(self.lanes > 1);
                    self.node.rehome();
                }
            }
            Step::Connect(connection) => {
                let connection = connection % self.connections.len();
                if !std::mem::replace(&mut self.connections[connection].up, true) {
                    self.channels(connection).connected();
                }
            }
            Step::Move(channel) if self.lanes > 1 => {
                self.masters[usize::from(channel)] ^= 1;
                let channel: Channel = format!("c{channel}").into();
                for connection in &mut self.connections {
                    if connection.redis.remove(&channel) {
                        connection.from_redis.push_back(Wire::Dropped(Channel::clone(&channel)));
                    }
                }
            }
            Step::Look if self.lanes > 1 => self.look(),
            Step::Move(_) | Step::Look => {}
        }
        self.check();
    }

    fn write(&mut self, connection: usize, n: usize) {
        let connection = connection % self.connections.len();
        let channels = Arc::clone(self.channels(connection));
        let wire = &mut self.connections[connection];
        if wire.up {
            wire.to_redis.extend(channels.take_queued(n).channels.into_iter().map(Wire::Subscribe));
            wire.to_redis.extend(channels.take_leaving(n, self.now).into_iter().map(Wire::Unsubscribe));
        }
    }

    fn serve(&mut self, connection: usize) {
        let connection = connection % self.connections.len();
        let Some(command) = self.connections[connection].to_redis.pop_front() else { return };
        let (Wire::Subscribe(channel) | Wire::Unsubscribe(channel)) = &command else {
            panic!("no command: {command:?}")
        };
        let is_master = self.is_master(connection, channel);
        let wire = &mut self.connections[connection];
        let answer = match &command {
            Wire::Subscribe(channel) if !is_master => Wire::Redirected(Channel::clone(channel)),
            Wire::Subscribe(channel) => {
                assert!(wire.redis.insert(Channel::clone(channel)), "every command has an effect: {command:?}");
                command
            }
            Wire::Unsubscribe(channel) if !wire.redis.remove(channel) => {
                assert!(self.lanes > 1, "every command has an effect: {command:?}");
                Wire::NotThere(Channel::clone(channel))
            }
            _ => command,
        };
        wire.from_redis.push_back(answer);
    }

    fn read(&mut self, connection: usize) {
        let connection = connection % self.connections.len();
        let channels = Arc::clone(self.channels(connection));
        match self.connections[connection].from_redis.pop_front() {
            Some(Wire::Subscribe(channel)) => {
                for shard in channels.confirmed(&channel, self.now).waited.iter() {
                    let belief = self.beliefs.insert((Channel::clone(&channel), shard), Belief::Has);
                    assert!(matches!(belief, Some(Belief::Waiting { .. })), "an answer without a question: {belief:?}");
                }
            }
            Some(Wire::Unsubscribe(channel) | Wire::NotThere(channel)) => channels.left(&channel),
            Some(Wire::Redirected(channel)) => {
                let dropped = channels.put_off(&channel);
                if dropped == Dropped::Wanted {
                    self.node.park(&channel);
                }
            }
            Some(Wire::Dropped(channel)) => {
                let dropped = channels.dropped(&channel);
                if dropped == Dropped::Wanted {
                    self.node.park(&channel);
                }
            }
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
            let routed = self.node.map().shards(channel);
            for shard in 0..2 {
                assert_eq!(routed.contains(shard), having(shard), "{channel} is routed to those who have it");
            }
            let link = self.node.map().channels.get(channel).map(|entry| entry.link);
            // The word that a slot has moved may be on its way.
            if link == Some(Link::Live) && self.lanes == 1 {
                assert!(self.subscribed(channel), "what is live here is subscribed there");
            }
            let copies = self.connections.iter().filter(|connection| connection.redis.contains(channel)).count();
            assert!(copies <= 1, "Redis sends {channel} once");
        }
        let waiting = self.beliefs.values().filter(|belief| matches!(belief, Belief::Waiting { .. })).count();
        assert_eq!(self.node.each().iter().map(|shard| shard.waits.size().0).sum::<usize>(), waiting);
    }

    /// Lets everything come to rest, and checks that nothing is left over or missing.
    fn settle(&mut self) {
        for connection in 0..self.connections.len() {
            self.step(Step::Connect(connection));
        }
        for _ in 0..12 {
            self.now += GRACE;
            self.step(Step::Look);
            for connection in 0..self.connections.len() {
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
        assert_eq!(self.node.map().len(), wanted.len());
        for connection in 0..self.connections.len() {
            let channels = self.channels(connection);
            let desk = channels.desk();
            assert!(desk.queue.is_empty() && desk.leaving.is_empty() && !channels.waits.any(), "{desk:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_shards_and_redis_agree_in_the_end(
        lanes in 1..=2_usize,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut model = Model::new(lanes);
        for step in steps {
            model.step(step);
        }
        model.settle();
    }
}
