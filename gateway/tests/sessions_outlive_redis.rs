//! While Redis is away sessions stay, and after it is back every channel works again without a client doing anything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::time::{Duration, Instant};

use support_process::client::{Client, Wire};
use support_process::node::{Node, Setup};
use support_process::redis::Redis;
use support_process::{DEADLINE, eventually};

/// How long an SDK waits for the reply to a command before it gives up (`timeout` in its options).
const SDK_TIMEOUT: Duration = Duration::from_secs(5);

/// Subscriber connections of a test node: one for each of its shards.
const CONNECTIONS: u64 = 2;

struct Outage {
    redis: Redis,
    node: Node,
    clients: [Client; 3],
}

impl Outage {
    /// A node on a Redis, with a client on each wire that has a channel of its own and one that all share.
    fn new(settings: &str) -> Self {
        let redis = Redis::start();
        let node = Setup::new().redis(&redis.url()).settings(settings).start();
        let clients = Wire::ALL.map(|wire| {
            let mut client = Client::connect(&node, wire);
            client.subscribe("all");
            client.subscribe(&format!("{wire:?}"));
            client
        });
        let mut outage = Self { redis, node, clients };
        outage.every_channel_works();
        outage
    }

    /// The node notices: it stays ready, and says what is wrong.
    fn is_noticed(&self, within: Duration) {
        let (status, detail) = self.node.wait_for_check(within, "broker", "degraded");
        assert_eq!(status, 200, "{detail}");
        assert_eq!(self.node.ready().1["status"], "degraded");
        assert!(detail.contains("redis: not connected for "), "{detail}");
    }

    /// The node has found back by itself.
    fn is_over(&self) {
        let (status, _) = self.node.wait_for_check(DEADLINE, "broker", "ok");
        assert_eq!(status, 200);
    }

    /// Nothing has come to any client, and each still has its connection.
    fn no_client_has_noticed(&mut self) {
        for client in &mut self.clients {
            assert!(client.is_quiet_for(Duration::from_millis(20)), "{:?}", client.wire);
        }
    }

    fn every_channel_works(&mut self) {
        let mut backend = self.redis.client();
        assert_eq!(backend.publish("all", b"1"), 1);
        for wire in Wire::ALL {
            assert_eq!(backend.publish(&format!("{wire:?}"), b"2"), 1);
        }
        for client in &mut self.clients {
            let own = format!("{:?}", client.wire);
            client.expect_each(&[("all", b"1"), (&own, b"2")]);
        }
    }

    /// The gap is counted for each subscriber connection, and the log says how long it was.
    fn the_gap_is_known(&self) {
        let metrics = self.node.metrics();
        assert_eq!(metrics.sum("tidegate_broker_gaps_total", &[]), CONNECTIONS);
        assert_eq!(metrics.sum("tidegate_broker_reconnects_total", &[]), CONNECTIONS);
        let lost = self.node.all_logged("the subscriber connection to Redis is lost");
        assert!(lost.iter().all(|entry| entry["level"] == "WARN"), "{lost:?}");
        let channels: u64 = lost.iter().map(|entry| entry["channels"].as_u64().unwrap()).sum();
        assert_eq!((lost.len() as u64, channels), (CONNECTIONS, 4), "{lost:?}");
        let back = self.node.all_logged("messages published in the gap are missed");
        assert_eq!(back.len() as u64, CONNECTIONS);
        assert!(back.iter().all(|entry| entry["gap_ms"].as_u64().is_some()), "{back:?}");
    }
}

#[test]
fn a_restart_of_redis_costs_no_session_and_every_channel_works_again() {
    let mut outage = Outage::new("");
    outage.redis.kill();
    outage.is_noticed(DEADLINE);

    let client = &mut outage.clients[0];
    let asked = Instant::now();
    assert_eq!(client.try_subscribe("later"), Err(100));
    assert!(asked.elapsed() < SDK_TIMEOUT, "the SDK has given up: {:?}", asked.elapsed());
    assert_eq!(client.try_publish("all", b"0"), Err(100));
    assert_eq!(outage.node.api("publish", r#"{"channel":"all","data":0}"#)["error"]["code"], 100);
    outage.no_client_has_noticed();
    let mut newcomer = Client::connect(&outage.node, Wire::Json);

    outage.redis.restart();
    outage.is_over();
    outage.no_client_has_noticed();
    outage.every_channel_works();
    newcomer.subscribe("later");
    assert_eq!(outage.redis.client().publish("later", b"3"), 1);
    newcomer.expect("later", b"3");
    outage.clients[0].publish("all", b"4");
    for client in &mut outage.clients {
        client.expect("all", b"4");
    }
    outage.the_gap_is_known();
}

#[test]
fn a_subscriber_connection_that_redis_kills_is_made_anew_and_every_channel_works_again() {
    let mut outage = Outage::new("");
    assert_eq!(outage.redis.client().words("CLIENT KILL TYPE pubsub"), CONNECTIONS as i64);
    let metrics = || outage.node.metrics();
    eventually("the gap is counted", || {
        (metrics().sum("tidegate_broker_gaps_total", &[]) == CONNECTIONS).then_some(())
    });
    outage.is_over();
    outage.no_client_has_noticed();
    outage.every_channel_works();
    outage.the_gap_is_known();
}

#[test]
fn a_node_that_starts_before_its_redis_works_as_soon_as_that_is_there() {
    let mut redis = Redis::start();
    redis.kill();
    let node = Setup::new().redis(&redis.url()).start_anyhow();
    let (status, detail) = node.wait_for_check(DEADLINE, "broker", "degraded");
    assert_eq!(status, 200, "{detail}");
    let mut client = Client::connect(&node, Wire::Protobuf);
    redis.restart();
    node.wait_for_check(DEADLINE, "broker", "ok");
    client.subscribe("all");
    assert_eq!(redis.client().publish("all", b"1"), 1);
    client.expect("all", b"1");
    assert_eq!(node.metrics().sum("tidegate_broker_gaps_total", &[]), 0, "nobody can have missed anything");
}

#[test]
fn a_redis_that_hangs_is_found_out_and_every_channel_works_again_once_it_goes_on() {
    let mut outage = Outage::new("[engine.redis]\nio_timeout = \"1s\"\n");
    outage.redis.freeze();
    let asked = Instant::now();
    assert_eq!(outage.clients[1].try_subscribe("later"), Err(100));
    assert!(asked.elapsed() < SDK_TIMEOUT, "the SDK has given up: {:?}", asked.elapsed());
    // After 5 s of silence a probe, and another second without an answer to it.
    outage.is_noticed(Duration::from_secs(5 + 1 + 3));
    outage.no_client_has_noticed();
    outage.redis.thaw();
    outage.is_over();
    outage.no_client_has_noticed();
    outage.every_channel_works();
    let lost = outage.node.logged("the subscriber connection to Redis is lost").unwrap();
    assert!(lost["reason"].as_str().unwrap().contains("nothing was heard from Redis for"), "{lost}");
    let metrics = outage.node.metrics();
    assert!(metrics.sum("tidegate_broker_gaps_total", &[]) >= 1);
    assert!(metrics.sum("tidegate_broker_gap_seconds_total", &[]) >= 5);
    assert_eq!(metrics.sum("tidegate_broker_subscribe_timeouts_total", &[]), 1);
}
