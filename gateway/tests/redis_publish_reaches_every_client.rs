//! What a plain `PUBLISH` in Redis carries reaches every subscriber, on each wire, in order, through the real program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::time::Duration;

use support_process::client::{Client, Wire};
use support_process::node::{Node, Setup};
use support_process::redis::Redis;
use support_process::{eventually, within};

fn redis_and_node() -> (Redis, Node) {
    let redis = Redis::start();
    let node = Setup::new().redis(&redis.url()).start();
    (redis, node)
}

#[test]
fn json_text_and_binary_reach_each_wire_in_the_form_that_it_takes() {
    let (redis, node) = redis_and_node();
    let mut clients = Wire::ALL.map(|wire| Client::connect(&node, wire));
    for client in &mut clients {
        client.subscribe("news");
    }
    let mut backend = redis.client();
    let json = br#"{"b":  1.00, "a":[1e5,"x"]}"#;
    let text = "plain wörds, \"quoted\"";
    let binary = [0, 1, 0xff, 0xfe];
    for payload in [&json[..], text.as_bytes(), &binary, b"7"] {
        assert_eq!(backend.publish("news", payload), 1, "one connection to Redis for all clients");
    }
    for client in &mut clients {
        client.expect("news", json);
        if client.wire == Wire::Json {
            client.expect("news", serde_json::to_string(text).unwrap().as_bytes());
        } else {
            client.expect("news", text.as_bytes());
            client.expect("news", &binary);
        }
        client.expect("news", b"7");
    }
    // A client may have its message a moment before the shard has counted it.
    let metrics = eventually("eleven deliveries and the drop are counted", || {
        let metrics = node.metrics();
        let dropped = metrics.sum("tidegate_deliveries_dropped_total", &["reason=\"binary_to_json\""]);
        let delivered = metrics.sum("tidegate_deliveries_delivered_total", &[]);
        ((dropped, delivered) == (1, 11)).then_some(metrics)
    });
    metrics.assert_all_accounted_for();
}

#[test]
fn a_client_publishes_to_the_clients_of_another_node_and_is_named_to_them() {
    let (redis, node) = redis_and_node();
    let other = Setup::new().redis(&redis.url()).start();
    for wire in Wire::ALL {
        let mut publisher = Client::connect(&node, wire);
        let mut readers = Wire::ALL.map(|wire| Client::connect(&other, wire));
        for reader in &mut readers {
            reader.subscribe("chat");
        }
        publisher.publish("chat", br#"{"from":  "afar"}"#);
        for mut reader in readers {
            let (channel, publication) = reader.publication();
            assert_eq!((channel.as_str(), &publication.data[..]), ("chat", &br#"{"from":  "afar"}"#[..]));
            let info = publication.info.expect("who published");
            assert_eq!((info.client, info.user), (publisher.id.clone(), String::new()));
        }
    }
}

#[test]
fn a_message_published_right_after_the_subscribe_reply_is_never_lost() {
    let (redis, node) = redis_and_node();
    let mut backend = redis.client();
    let mut clients = Wire::ALL.map(|wire| Client::connect(&node, wire));
    for round in 0..200 {
        let client = &mut clients[round % 3];
        // Half of the channels are new to the node, the others have been left just before.
        let channel = format!("round-{}", if round % 2 == 0 { round } else { round - 1 });
        client.subscribe(&channel);
        assert_eq!(backend.publish(&channel, b"1"), 1, "round {round}: Redis knows of the subscription");
        client.expect(&channel, b"1");
        client.unsubscribe(&channel);
    }
}

#[test]
fn a_payload_of_20_mb_is_a_counted_drop_and_nobody_else_notices() {
    let (redis, node) = redis_and_node();
    let mut clients = Wire::ALL.map(|wire| Client::connect(&node, wire));
    for client in &mut clients {
        client.subscribe("big");
        client.subscribe("small");
    }
    let mut backend = redis.client();
    let huge = vec![b'7'; 20 << 20];
    backend.publish_all([("big", &b"1"[..]), ("big", &huge), ("small", b"2"), ("big", b"3")]);
    for client in &mut clients {
        client.expect_each(&[("big", b"1"), ("small", b"2"), ("big", b"3")]);
    }
    let metrics = node.metrics();
    assert_eq!(metrics.sum("tidegate_broker_messages_oversized_total", &[]), 1);
    assert_eq!(metrics.sum("tidegate_broker_gaps_total", &[]), 0);
    assert_eq!(metrics.sum("tidegate_broker_reconnects_total", &[]), 0);
    assert_eq!(node.ready().1["status"], "ok");
    let warning = eventually("the drop is logged", || node.logged("payload is too long"));
    assert_eq!((&warning["channel"], &warning["length"]), (&"push:big".into(), &(20 << 20).into()));
}

#[test]
fn order_holds_for_20_000_messages_to_50_sessions_on_mixed_wires() {
    const MESSAGES: usize = 20_000;
    let (redis, node) = redis_and_node();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..50)
            .map(|n| {
                let mut client = Client::connect(&node, Wire::ALL[n % 3]);
                client.subscribe("flood");
                scope.spawn(move || {
                    for expected in 0..MESSAGES {
                        client.expect("flood", format!("{expected}").as_bytes());
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut backend = redis.client();
            let payloads: Vec<String> = (0..MESSAGES).map(|n| n.to_string()).collect();
            for burst in payloads.chunks(500) {
                backend.publish_all(burst.iter().map(|payload| ("flood", payload.as_bytes())));
            }
        });
        for reader in readers {
            reader.join().unwrap();
        }
    });
    let metrics = within(Duration::from_secs(5), "every delivery is counted", || {
        let metrics = node.metrics();
        (metrics.sum("tidegate_deliveries_delivered_total", &[]) == 50 * MESSAGES as u64).then_some(metrics)
    });
    metrics.assert_all_accounted_for();
    assert_eq!(metrics.sum("tidegate_deliveries_dropped_total", &[]), 0);
}
