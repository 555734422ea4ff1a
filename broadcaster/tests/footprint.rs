//! What the Redis broker keeps in memory. The tests watch the memory of the whole process, so they are a binary of
//! their own and take turns.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::Ordering;

use common::eventually;
use common::inbox::shards;
use common::server::Server;
use tidegate_broadcaster::{Broker, Channel, Event, Interest, RedisSettings};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

/// A number of bytes that `/proc/self/status` has under this name.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it has this line");
    let kib: u64 = line.trim_matches([':', '\t', ' ', 'k', 'B']).trim().parse().expect("a number of kB");
    kib * 1024
}

#[tokio::test]
async fn a_payload_of_20_mb_is_skipped_without_being_kept_and_the_rest_goes_on() {
    const SIZE: usize = 20 * 1024 * 1024;
    let _turn = TURN.lock().await;
    let server = Server::start().await;
    let (collectors, inboxes) = shards(1);
    let broker = common::start(RedisSettings::new(server.url()), inboxes);
    let channel: Channel = "big".into();
    if broker.subscribe(&channel, 0) == Interest::Pending {
        collectors[0].answer().await.1.unwrap();
    }
    let mut client = server.client().await;
    client.publish("push:big", b"warm up").await;
    collectors[0].publications(1).await;

    let before = memory("VmHWM");
    for round in 1..=3 {
        // The server makes the payload itself, so that this process never has it.
        let script = format!("return redis.call('PUBLISH', KEYS[1], string.rep('x', {SIZE}))");
        client.call(&[b"EVAL", script.as_bytes(), b"1", b"push:big"]).await;
        assert_eq!(client.publish("push:big", b"small").await, 1);
        assert_eq!(collectors[0].publications(1).await[0].payload.data, "small");
        assert_eq!(broker.stats().oversized.load(Ordering::Relaxed), round);
    }
    let grown = memory("VmHWM") - before;
    assert!(grown < 2 * 1024 * 1024, "the highest memory use ever grew by {grown} bytes");
    assert_eq!(broker.stats().all_gaps(), 0);
}

#[tokio::test]
async fn a_channel_with_one_subscriber_costs_at_most_250_bytes_of_the_broker() {
    const CHANNELS: u64 = 100_000;
    let _turn = TURN.lock().await;
    let server = Server::start().await;
    let (collectors, inboxes) = shards(1);
    let broker = common::start(RedisSettings::new(server.url()), inboxes);
    let subscribe = async |from: u64, to: u64| {
        for first in (from..to).step_by(500) {
            // A few at a time, so that the answers in the test's own inbox do not count. Nor does it keep the names.
            let pending = (first..first + 500)
                .filter(|n| broker.subscribe(&format!("channel:{n:010}").into(), 0) == Interest::Pending)
                .count();
            for _ in 0..pending {
                assert!(matches!(collectors[0].next().await, Event::Subscribed { result: Ok(()), .. }));
            }
        }
        eventually("all are live", || broker.stats().subscribed_channels.load(Ordering::Relaxed) == to).await;
    };
    subscribe(0, 5_000).await;
    let before = memory("VmRSS");
    subscribe(5_000, CHANNELS).await;
    let each = memory("VmRSS").saturating_sub(before) / (CHANNELS - 5_000);
    println!("{each} bytes for each channel");
    assert!(each <= 250, "{each} bytes for each channel");
    broker.shutdown().await;
}
