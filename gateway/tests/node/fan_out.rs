//! Every subscriber gets every message of its channel, once and in order, and every delivery is accounted for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tidegate::hub::fanout::QUANTUM;
use tidegate::shard::stats::{Dropped, Wire};
use tokio::task::JoinSet;

use crate::support::client::{Client, Incoming, unsubscribe};
use crate::support::{TestNode, eventually, within};

/// Opens `count` sessions on a channel, over all wires in turn, up to 16 at once.
async fn subscribers(node: &TestNode, count: usize, channel: &str) -> Vec<Client> {
    let wires = Wire::ALL.into_iter().cycle().take(count);
    stream::iter(wires).map(|wire| Client::subscribed(node, wire, channel)).buffer_unordered(16).collect().await
}

/// Reads the numbers from `first` to `last` from a channel, each once and in order, and nothing else.
async fn counts(client: &mut Client, channel: &str, first: u64, last: u64) {
    for expected in first..=last {
        assert_eq!(client.publication(channel).await.data, expected.to_string());
    }
}

/// Publishes the numbers from `first` to `last`.
async fn publish_numbers(node: &TestNode, channel: &str, first: u64, last: u64) {
    for number in first..=last {
        node.publish(channel, number.to_string()).await;
    }
}

/// Has every client count at once; gives the clients back.
async fn all_count(clients: Vec<Client>, channel: &'static str, first: u64, last: u64) -> Vec<Client> {
    let mut counting = JoinSet::new();
    for mut client in clients {
        counting.spawn(async move {
            counts(&mut client, channel, first, last).await;
            client
        });
    }
    within("everybody has counted", counting.join_all()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_wires_on_one_channel_get_the_same_messages_in_order() {
    let node = TestNode::ordinary().await;
    let clients = subscribers(&node, 6, "news").await;
    publish_numbers(&node, "news", 1, 1000).await;
    let clients = all_count(clients, "news", 1, 1000).await;
    node.settled().await;
    assert_eq!(node.count(|shard| shard.delivered.get()), 6000);
    node.end(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_sessions_get_two_hundred_messages_each() {
    const SESSIONS: u64 = 2000;
    const MESSAGES: u64 = 200;
    let node = TestNode::ordinary().await;
    let clients = subscribers(&node, SESSIONS as usize, "news").await;
    assert!(SESSIONS as usize > 3 * QUANTUM, "a fan-out takes several slices");
    let (clients, ()) =
        tokio::join!(all_count(clients, "news", 1, MESSAGES), publish_numbers(&node, "news", 1, MESSAGES));
    node.settled().await;
    assert_eq!(node.count(|shard| shard.offered.get()), SESSIONS * MESSAGES);
    assert_eq!(node.count(|shard| shard.delivered.get()), SESSIONS * MESSAGES);
    node.end(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_reaches_json_as_a_string_and_binary_only_protobuf() {
    let node = TestNode::ordinary().await;
    let mut clients = Vec::new();
    for wire in Wire::ALL {
        clients.push((wire, Client::subscribed(&node, wire, "raw").await));
    }
    let binary: &[u8] = b"\xff\x00\xfe";
    node.publish("raw", "plain \"text\"\n").await;
    node.publish("raw", binary).await;
    node.publish("raw", "{\"a\":\n1}").await;
    node.publish("raw", "").await;
    node.publish("raw", "\"last\"").await;
    for (wire, client) in &mut clients {
        let expected: &[&[u8]] = match wire {
            Wire::WebSocketJson => &[br#""plain \"text\"\n""#, br#"{"a":1}"#, br#""""#, br#""last""#],
            _ => &[b"plain \"text\"\n", binary, b"{\"a\":\n1}", b"", b"\"last\""],
        };
        for expected in expected {
            let data = client.publication("raw").await.data;
            // A line end within JSON may become any other white space.
            let data: Vec<u8> = match wire {
                Wire::WebSocketJson => data.iter().copied().filter(|byte| *byte != b' ' || data[0] == b'"').collect(),
                _ => data.to_vec(),
            };
            assert_eq!(data, *expected, "{wire:?}");
        }
    }
    node.settled().await;
    assert_eq!(node.dropped(Dropped::BinaryToJson), 1);
    assert_eq!(node.count(|shard| shard.delivered.get()), 14);
    node.end(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_channel_of_three_thousand_does_not_starve_a_small_one() {
    const SESSIONS: usize = 3000;
    // One shard: the two channels share everything.
    let node = TestNode::start(|config| config.shards = 1).await;
    let clients = subscribers(&node, SESSIONS, "large").await;
    let mut small = Client::subscribed(&node, Wire::WebSocketJson, "small").await;
    let arrived = AtomicBool::new(false);

    // The large channel is never done as long as the small one's message has not arrived.
    let flood = async {
        let mut published = 0;
        while !arrived.load(Ordering::Relaxed) {
            let offered = || node.count(|shard| shard.offered.get()) / SESSIONS as u64;
            eventually("the flood goes on", offered, |offered| *offered + 4 > published).await;
            published += 1;
            node.publish("large", published.to_string()).await;
            if published == 20 {
                node.publish("small", "1").await;
            }
        }
        published
    };
    let watch = async {
        counts(&mut small, "small", 1, 1).await;
        arrived.store(true, Ordering::Relaxed);
    };
    let (published, ()) = tokio::join!(flood, watch);
    assert!(published < 100, "{published} messages of the large channel went before it");
    let clients = all_count(clients, "large", 1, published).await;
    node.settled().await;
    assert_eq!(node.count(|shard| shard.delivered.get()), SESSIONS as u64 * published + 1);
    node.end((small, clients)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_in_the_middle_of_a_large_fan_out_costs_the_others_nothing() {
    const SESSIONS: usize = 1500;
    const MESSAGES: u64 = 100;
    let node = TestNode::start(|config| config.shards = 1).await;
    let mut clients = subscribers(&node, SESSIONS, "news").await;
    let mut leaving = Vec::new();
    let mut staying = Vec::new();
    for (at, client) in clients.drain(..).enumerate() {
        if at % 5 == 0 { leaving.push(client) } else { staying.push(client) }
    }

    let leave = async {
        for (at, mut client) in leaving.drain(..).enumerate() {
            match at % 3 {
                0 => client.reset(),
                1 => drop(client),
                // Unsubscribed in the middle of the flood, it still gets a run of numbers without a gap.
                _ => {
                    let id = client.send(unsubscribe("news")).await;
                    let mut last = 0;
                    loop {
                        let Incoming::Reply(reply) = client.next().await else { panic!("it is still connected") };
                        let Some(push) = reply.push else {
                            assert_eq!(reply.id, id);
                            break;
                        };
                        let data = push.r#pub.expect("a publication").data;
                        let number: u64 = std::str::from_utf8(&data).unwrap().parse().unwrap();
                        assert_eq!(number, last + 1);
                        last = number;
                    }
                }
            }
        }
    };
    let (staying, (), ()) =
        tokio::join!(all_count(staying, "news", 1, MESSAGES), publish_numbers(&node, "news", 1, MESSAGES), leave);
    node.settled().await;
    node.end(staying).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_in_the_middle_gets_everything_from_then_on() {
    const MESSAGES: u64 = 2000;
    let node = TestNode::ordinary().await;
    let old = subscribers(&node, 30, "news").await;
    let join = async {
        let mut joined = JoinSet::new();
        for wire in Wire::ALL.into_iter().cycle().take(60) {
            let mut client = Client::subscribed(&node, wire, "news").await;
            joined.spawn(async move {
                let mut last = None;
                while last != Some(MESSAGES) {
                    let data = client.publication("news").await.data;
                    let number: u64 = std::str::from_utf8(&data).unwrap().parse().unwrap();
                    assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}");
                    last = Some(number);
                }
                client
            });
        }
        // The last message is for everybody.
        node.publish("news", MESSAGES.to_string()).await;
        within("everybody who joined has the last one", joined.join_all()).await
    };
    let (old, new) = tokio::join!(all_count(old, "news", 1, MESSAGES), async {
        let ((), new) = tokio::join!(publish_numbers(&node, "news", 1, MESSAGES - 1), join);
        new
    });
    node.end((old, new)).await;
}

/// Has 51 sessions receive 200 messages, each in a turn of its own; answers the number of write calls.
async fn writes_with(flush_interval: Duration) -> u64 {
    const SESSIONS: u64 = 51;
    const MESSAGES: u64 = 200;
    let node = TestNode::start(|config| config.websocket.flush_interval = flush_interval).await;
    let clients = subscribers(&node, SESSIONS as usize, "news").await;
    let before = node.count(|shard| shard.writes.get());
    let (clients, ()) = tokio::join!(all_count(clients, "news", 1, MESSAGES), async {
        let offered = || node.count(|shard| shard.offered.get());
        for number in 1..=MESSAGES {
            node.publish("news", number.to_string()).await;
            eventually("its turn has come", offered, |offered| *offered == number * SESSIONS).await;
        }
    });
    node.settled().await;
    assert_eq!(node.count(|shard| shard.delivered.get()), SESSIONS * MESSAGES);
    let writes = node.count(|shard| shard.writes.get()) - before;
    node.end(clients).await;
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_interval_saves_writes_and_loses_nothing() {
    let at_once = writes_with(Duration::ZERO).await;
    let collected = writes_with(Duration::from_millis(100)).await;
    assert!(collected * 2 < at_once, "{collected} writes with the interval, {at_once} without");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_call_cannot_take_of_many_channels_follows_at_once() {
    // More than the slices of one `writev`; the socket has room for all of it and will not say so again.
    const CHANNELS: usize = 100;
    let node = TestNode::ordinary().await;
    let mut client = Client::connect(&node, Wire::ALL[0]).await;
    for channel in 0..CHANNELS {
        client.subscribe(&format!("c{channel}")).await;
    }
    for round in 0..20 {
        futures_util::future::join_all((0..CHANNELS).map(|channel| {
            let (node, channel) = (&node, format!("c{channel}"));
            async move { node.publish(&channel, round.to_string()).await }
        }))
        .await;
        for channel in 0..CHANNELS {
            assert_eq!(client.publication(&format!("c{channel}")).await.data, round.to_string());
        }
    }
    node.settled().await;
    node.end(client).await;
}
