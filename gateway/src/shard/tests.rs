//! A whole shard with virtual sockets: no network, no clock.

mod presence;
mod recovery;
mod reload;
mod socket;
mod world;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;
use tidegate_broadcaster::{Broker, EmbeddedBroker, Inboxes, PublishRequest, ShardInbox};

use super::connection::Phase;
use super::entropy::Entropy;
use super::inbox::{Inbox, Message};
use super::socket::Socket;
use super::stats::{Dropped, ShardStats};
use super::{Call, Setup, Shard};
use crate::admission::{Admission, Caps};
use crate::config::{ChannelOptions, Config, QueuePolicy};
use crate::node::resolve;
use crate::origin::Origins;
use crate::session::settings::ChannelRules;
use world::{Client, PLENTY, World, config};

#[test]
fn what_is_published_in_one_turn_is_written_at_once() {
    let mut world = World::new(|_| {});
    let client = world.client(PLENTY, &["a", "b"]);
    let before = world.clients[client].wire.lock().unwrap().writes;
    for n in 0..10 {
        world.publish("a", &format!("a{n}"));
        world.publish("b", &format!("b{n}"));
    }
    world.settle();
    let received = world.clients[client].received();
    assert_eq!(world.clients[client].wire.lock().unwrap().writes, before + 1, "one write a turn");
    let of = |channel: &str| received.iter().filter(|data| data.starts_with(channel)).cloned().collect::<Vec<_>>();
    assert_eq!(of("a"), (0..10).map(|n| format!("a{n}")).collect::<Vec<_>>());
    assert_eq!(of("b"), (0..10).map(|n| format!("b{n}")).collect::<Vec<_>>());
    assert_eq!(world.stats.delivered.get(), 20);
}

#[test]
fn a_message_of_many_sessions_is_stored_once() {
    let mut world = World::new(|_| {});
    for _ in 0..100 {
        world.client(60, &["news"]); // room for the replies, not for a message
    }
    world.publish("news", &"x".repeat(10_000));
    world.settle();
    let mut pointers = std::collections::HashSet::new();
    for client in &world.clients {
        let connection = world.shard.connection(client.key.unwrap()).unwrap();
        let mut slices = [io::IoSlice::new(&[]); super::outbox::MAX_SLICES];
        let used = connection.outbox.as_ref().unwrap().slices(&mut slices);
        let last = &slices[used - 1]; // behind what is left of the replies
        pointers.insert((last.as_ptr() as usize, last.len()));
    }
    assert_eq!(pointers.len(), 1, "every queue ends in the same bytes");
    assert_eq!(world.stats.pending.get(), 100);
}

/// What a client gets that was behind for 20 messages of two channels each, published one at a time or all at once.
fn behind_with(policy: QueuePolicy, at_once: bool) -> (World, Vec<String>) {
    let mut world = World::new(|config| {
        config.client.queue_max_size = 2000;
        config.channel.without_namespace.queue_policy = policy;
    });
    let client = world.client(60, &["a", "b"]);
    for n in 0..20 {
        world.publish("a", &format!("a{n:0100}"));
        world.publish("b", &format!("b{n:0100}"));
        if !at_once {
            world.settle();
        }
    }
    world.settle();
    world.clients[client].wire.lock().unwrap().room = PLENTY;
    world.settle();
    let received = world.clients[client].received().into_iter().skip(3);
    let short = |data: String| data.replacen(&"0".repeat(98), "", 1);
    let received = received.map(short).collect();
    (world, received)
}

#[test]
fn the_newest_of_each_channel_takes_the_place_of_the_one_before_it() {
    for at_once in [false, true] {
        let (world, received) = behind_with(QueuePolicy::Latest, at_once);
        let of = |channel| received.iter().filter(|data: &&String| data.starts_with(channel)).count();
        assert_eq!(received.iter().filter(|data| *data == "a19" || *data == "b19").count(), 2, "{received:?}");
        // The first of all may have been half written.
        assert!(of('a') <= 2 && of('b') <= 2, "{received:?}");
        let stats = &world.stats;
        assert_eq!(stats.conflated.get(), 40 - received.len() as u64);
        assert_eq!((stats.pending.get(), stats.queue_bytes.get(), world.dropped()), (0, 0, 0));
    }
}

#[test]
fn the_oldest_are_dropped_where_that_is_the_policy_and_the_session_stays() {
    let (world, received) = behind_with(QueuePolicy::DropOldest, false);
    assert_eq!(received.last().map(String::as_str), Some("b19"));
    assert!((10..20).contains(&received.len()), "as many as the queue holds: {received:?}");
    let numbers: Vec<u32> =
        received.iter().filter(|data| data.starts_with('a')).map(|data| data[1..].parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let stats = &world.stats;
    assert_eq!(stats.dropped[Dropped::QueueOldest as usize].get(), 40 - received.len() as u64);
    assert_eq!(
        (stats.pending.get(), stats.queue_bytes.get(), stats.disconnects.iter().map(|n| n.get()).sum()),
        (0, 0, 0_u64)
    );
}

#[test]
fn a_full_queue_ends_the_session_and_nobody_else() {
    let mut world = World::new(|config| config.client.queue_max_size = 1000);
    let stalled = world.client(60, &["news"]);
    let healthy = world.client(PLENTY, &["news"]);
    for _ in 0..20 {
        world.publish("news", &"x".repeat(100));
        world.settle();
    }
    assert_eq!(world.clients[healthy].received().len(), 22);
    assert_eq!(
        world.stats.dropped[Dropped::QueueFull as usize].get()
            + world.stats.delivered.get()
            + world.stats.pending.get(),
        world.stats.offered.get()
    );
    let key = world.clients[stalled].key.unwrap();
    let connection = world.shard.connection(key).unwrap();
    assert_eq!(connection.phase, Phase::Closing);
    assert!(connection.queued() <= 1000, "{}", connection.queued());
    world.clients[stalled].wire.lock().unwrap().room = PLENTY;
    world.settle();
    assert_eq!(world.clients[stalled].received().last().map(String::as_str), Some("d3008"));
    assert!(world.clients[stalled].wire.lock().unwrap().shut);
    assert_eq!(world.stats.queue_bytes.get(), 0);
    world.pass(Duration::from_secs(6));
    assert!(world.shard.connection(key).is_none(), "a peer that does not close is dropped");
}

#[test]
fn a_flooded_channel_leaves_room_for_a_small_one() {
    let mut world = World::new(|_| {});
    let small = world.client(PLENTY, &["small"]);
    for _ in 0..3000 {
        world.client(PLENTY, &["large"]);
    }
    world.publish("large", "1");
    assert!(world.turn(), "the large channel is not done in one turn");
    world.publish("small", "hello");
    world.turn();
    assert_eq!(world.clients[small].received().last().map(String::as_str), Some("hello"));
    assert!(world.stats.delivered.get() < 3001, "the large channel is still not done");
    world.settle();
    assert_eq!(world.stats.delivered.get(), 3001);
}

#[test]
fn output_waits_for_the_flush_interval() {
    let mut world = World::new(|config| config.websocket.flush_interval = Duration::from_millis(250));
    let client = world.client(PLENTY, &["news"]);
    world.pass(Duration::from_millis(400));
    let before = world.clients[client].wire.lock().unwrap().writes;
    for n in 0..5 {
        world.publish("news", &n.to_string());
        world.settle();
    }
    assert_eq!(world.clients[client].wire.lock().unwrap().writes, before);
    assert!(world.shard.next_wake().is_some_and(|wake| wake <= world.now + Duration::from_millis(250)));
    world.pass(Duration::from_millis(300));
    assert_eq!(world.clients[client].wire.lock().unwrap().writes, before + 1);
    assert_eq!(world.clients[client].received()[2..], ["0", "1", "2", "3", "4"]);
}

#[test]
fn a_reply_does_not_wait_for_the_flush_interval_and_takes_what_waits_with_it() {
    let mut world = World::new(|config| config.websocket.flush_interval = Duration::from_secs(3600));
    let client = world.client(PLENTY, &["news"]);
    assert_eq!(world.clients[client].received(), ["c", "s"]);
    world.publish("news", "first");
    world.settle();
    assert_eq!(world.clients[client].received(), ["c", "s"]);
    world.clients[client].unsubscribe("news");
    world.settle();
    assert_eq!(world.clients[client].received(), ["c", "s", "first", "u"]);
    assert_eq!(world.stats.queue_bytes.get(), 0);
}

#[test]
fn many_small_messages_of_one_session_are_handled_in_slices() {
    let mut world = World::new(|_| {});
    let client = world.client(PLENTY, &[]);
    let before = world.stats.commands.get();
    for n in 0..1000 {
        world.clients[client].unsubscribe(&n.to_string());
    }
    assert!(world.turn(), "there is more to do");
    assert_eq!(world.stats.commands.get() - before, 256);
    world.settle();
    assert_eq!(world.stats.commands.get() - before, 1000);
}

#[test]
fn a_drain_is_spread_and_ends_everybody() {
    let mut world = World::new(|_| {});
    for _ in 0..100 {
        world.client(PLENTY, &["news"]);
    }
    world.inbox.send(Message::Drain(Duration::from_secs(10)));
    world.pass(Duration::from_secs(5));
    let told =
        |world: &World| world.clients.iter().filter(|client| client.received().contains(&"d3001".into())).count();
    let half = told(&world);
    assert!((45..=55).contains(&half), "{half} of 100 after half the time");
    world.pass(Duration::from_secs(6));
    assert_eq!(told(&world), 100);
    world.pass(Duration::from_secs(6));
    assert!(world.shard.is_empty());
}

#[test]
fn eviction_takes_the_longest_queues_and_says_come_back() {
    let mut world = World::new(|_| {});
    let stalled: Vec<usize> = (0..5).map(|_| world.client(60, &["news"])).collect();
    let healthy = world.client(PLENTY, &["news"]);
    world.publish("news", &"x".repeat(20_000));
    world.settle();
    world.inbox.send(Message::Evict(100_000));
    world.settle();
    for client in &stalled {
        let key = world.clients[*client].key.unwrap();
        assert_eq!(world.shard.connection(key).map(|connection| connection.phase), Some(Phase::Closing));
    }
    assert_eq!(world.stats.evicted.get(), 5);
    world.publish("news", "still here");
    world.settle();
    assert_eq!(world.clients[healthy].received().last().map(String::as_str), Some("still here"));
}

#[test]
fn what_a_late_shard_has_not_read_yet_still_counts() {
    let mut world = World::new(|_| {});
    let (answers, silent) = (world.client(1 << 20, &["a"]), world.client(1 << 20, &["a"]));
    while [answers, silent].iter().any(|client| !world.clients[*client].received().contains(&"ping".to_owned())) {
        world.now += Duration::from_millis(100);
        world.turn();
    }
    world.clients[answers].send(tidegate_protocol::message::Command::default());
    world.now += Duration::from_secs(9); // client.pong_timeout is 8 s
    world.blind_turn();
    world.publish("a", "1");
    world.settle();
    assert_eq!(world.clients[answers].received().last().unwrap(), "1");
    assert_eq!(world.clients[silent].received().last().unwrap(), "d3012");
}

#[test]
fn a_connection_that_went_away_leaves_nothing_behind() {
    let mut world = World::new(|_| {});
    let client = world.client(60, &["a", "b", "c"]);
    world.publish("a", &"x".repeat(1000));
    world.settle();
    world.clients[client].wire.lock().unwrap().closed = true;
    world.settle();
    assert!(world.shard.is_empty());
    assert!(world.shard.hub.is_empty());
    let stats = &world.stats;
    let gauges = [&stats.sessions, &stats.subscriptions, &stats.channels, &stats.pending, &stats.queue_bytes];
    assert_eq!(gauges.map(|gauge| gauge.get()), [0; 5]);
    assert_eq!(stats.connections.iter().map(|count| count.get()).sum::<u64>(), 0);
    assert_eq!(stats.closed_by_peer.get(), 1);
    assert_eq!(world.admission.connections(), 0);
    assert_eq!(world.inbox.bytes(), 0);
}

#[test]
fn an_idle_connection_is_small() {
    // What docs/architecture.md says of a session's memory rests on this.
    let size = size_of::<super::connection::Connection<std::net::TcpStream>>();
    assert!(size <= 168, "{size} bytes");
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    Subscribe(prop::sample::Index, usize),
    Unsubscribe(prop::sample::Index, usize),
    Publish(usize),
    Room(prop::sample::Index, usize),
    Leave(prop::sample::Index),
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    let client = any::<prop::sample::Index>;
    prop_oneof![
        2 => prop_oneof![Just(PLENTY), 40_usize..400].prop_map(Step::Join),
        3 => (client(), 0..3_usize).prop_map(|(client, channel)| Step::Subscribe(client, channel)),
        2 => (client(), 0..3_usize).prop_map(|(client, channel)| Step::Unsubscribe(client, channel)),
        8 => (0..3_usize).prop_map(Step::Publish),
        3 => (client(), 1_usize..300).prop_map(|(client, room)| Step::Room(client, room)),
        1 => client().prop_map(Step::Leave),
        8 => Just(Step::Turn),
    ]
}

const CHANNELS: [&str; 3] = ["a", "b", "c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever clients do and however little their sockets take: every session sees each channel's
    /// publications in order, without a gap or a repetition between a subscribe and an unsubscribe,
    /// and the books balance after every turn (`check_accounting`).
    #[test]
    fn order_and_accounting_hold_whatever_happens(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new(|config| config.client.queue_max_size = 4000);
        let mut next = 0;
        for step in steps {
            let pick = |index: prop::sample::Index, world: &World| (!world.clients.is_empty()).then(|| index.index(world.clients.len()));
            match step {
                Step::Join(room) => { world.client(room, &[]); }
                Step::Subscribe(client, channel) => if let Some(at) = pick(client, &world) { world.clients[at].subscribe(CHANNELS[channel]); }
                Step::Unsubscribe(client, channel) => if let Some(at) = pick(client, &world) { world.clients[at].unsubscribe(CHANNELS[channel]); }
                Step::Publish(channel) => { world.publish(CHANNELS[channel], &format!("{}{next}", CHANNELS[channel])); next += 1; }
                Step::Room(client, room) => if let Some(at) = pick(client, &world) {
                    let mut wire = world.clients[at].wire.lock().unwrap();
                    wire.room = wire.room.saturating_add(room);
                }
                Step::Leave(client) => if let Some(at) = pick(client, &world) { world.clients[at].wire.lock().unwrap().closed = true; }
                Step::Turn => { world.turn(); }
            }
        }
        for client in &world.clients { client.wire.lock().unwrap().room = PLENTY; }
        world.settle();
        for client in &world.clients {
            let mut last = [None; 3];
            for message in client.received() {
                let Some(channel) = CHANNELS.iter().position(|name| message.starts_with(name)) else { continue };
                let Ok(number) = message[1..].parse::<u64>() else { continue };
                prop_assert!(last[channel] < Some(number), "{number} after {:?}", last[channel]);
                last[channel] = Some(number);
            }
        }
        prop_assert_eq!(world.stats.pending.get(), 0);
        prop_assert_eq!(world.inbox.bytes(), 0);
        // Everybody leaves, and nothing is left.
        for client in &world.clients { client.wire.lock().unwrap().closed = true; }
        world.settle();
        prop_assert!(world.shard.is_empty() && world.shard.hub.is_empty());
        prop_assert_eq!(world.stats.subscriptions.get(), 0);
    }
}
