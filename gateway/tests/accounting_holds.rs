//! Where every message went, over a long run of a real node: offered = delivered + conflated + dropped + pending, and what was
//! delivered is what clients have received.
//!
//! `ACCOUNTING_SECONDS=600 cargo test -p tidegate --test accounting_holds` runs for so long; without it, for a few seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the figures of a long run")]

mod support_process;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use socket2::{Domain, Socket, Type};
use support_process::node::{Node, Setup};
use support_process::within;
use tidegate_protocol::codec::delimited::{Delimited, split_delimited};
use tidegate_protocol::message::{Command, ConnectRequest, Reply, SubscribeRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OPEN: &str = "allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n";

/// Readers that take what comes, and readers that take a little now and then.
const PROMPT: usize = 100;
const SLOW: usize = 20;

/// Clients that come and go while others stay.
const COMING: usize = 20;

/// Publications of each channel in a phase.
const PUBLICATIONS: usize = 100;

const CHANNELS: [&str; 4] = ["plain", "kept:1", "latest:1", "oldest:1"];

fn settings() -> String {
    let namespace = |name: &str, options: &str| format!("[[channel.namespaces]]\nname = \"{name}\"\n{OPEN}{options}\n");
    [
        "[client]\nqueue_max_size = 65536\n".to_owned(),
        namespace("kept", "history_size = 1000\nhistory_ttl = \"60s\"\nforce_recovery = true"),
        namespace("latest", "queue_policy = \"latest\""),
        namespace("oldest", "queue_policy = \"drop_oldest\""),
    ]
    .concat()
}

/// What clients do, told to all of them.
#[derive(Default)]
struct Shared {
    /// Publications that readers who stay have received.
    received: AtomicU64,
    /// Slow readers are slow.
    slowly: AtomicBool,
}

async fn connect(address: SocketAddr, channels: &[&str], buffer: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer).unwrap();
        // Segments as on a real network: with those of loopback (64 KB) the kernel gives the sender megabytes.
        socket.set_tcp_mss(1400).unwrap();
    }
    socket.connect(&address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into()).unwrap();
    let mut commands = Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() }
        .encode_length_delimited_to_vec();
    for (id, channel) in (2..).zip(channels) {
        let subscribe = Some(SubscribeRequest { channel: (*channel).to_owned(), ..SubscribeRequest::default() });
        commands.extend(Command { id, subscribe, ..Command::default() }.encode_length_delimited_to_vec());
    }
    stream.write_all(&commands).await.unwrap();
    stream
}

/// Reads for ever; answers pings.
async fn read(mut stream: TcpStream, shared: Arc<Shared>, is_slow: bool) {
    let (mut input, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let room = if is_slow && shared.slowly.load(Ordering::Relaxed) {
            // It is what makes it slow.
            tokio::time::sleep(Duration::from_millis(20)).await;
            1000
        } else {
            buffer.len()
        };
        let n = stream.read(&mut buffer[..room]).await.unwrap();
        assert!(n > 0, "a reader that stays was closed");
        input.extend_from_slice(&buffer[..n]);
        let (mut done, mut pongs) = (0, Vec::new());
        while let Ok(Delimited::Message { body, consumed }) = split_delimited(&input[done..], 1 << 30) {
            done += consumed;
            if body.is_empty() {
                pongs.push(0);
                continue;
            }
            let push = Reply::decode(body).unwrap().push.unwrap_or_default();
            assert!(push.disconnect.is_none(), "{push:?}");
            shared.received.fetch_add(u64::from(push.r#pub.is_some()), Ordering::Relaxed);
        }
        input.drain(..done);
        stream.write_all(&pongs).await.unwrap();
    }
}

/// Publishes to all channels, in requests of many.
fn publish(node: &Node) {
    let text = "x".repeat(4000);
    for n in 0..PUBLICATIONS {
        let channels = serde_json::json!({ "channels": CHANNELS, "data": { "n": n, "text": text } });
        node.api("broadcast", &channels.to_string());
    }
}

/// Looks that have to show the same before everything is at rest: a page of metrics takes its figures one after the other, and
/// what a client has received may still be on its way.
const LOOKS: usize = 10;

/// Waits until nothing waits any more, and checks the sum. Answers what was delivered, and what readers who stay have received.
fn settle(node: &Node, shared: &Shared) -> (u64, u64) {
    let mut same = ([0; 6], 0);
    let metrics = within(Duration::from_secs(60), "nothing waits any more", || {
        let metrics = node.metrics();
        let [offered, delivered, conflated, dropped, pending, waiting] = [
            "tidegate_deliveries_offered_total",
            "tidegate_deliveries_delivered_total",
            "tidegate_deliveries_conflated_total",
            "tidegate_deliveries_dropped_total",
            "tidegate_deliveries_pending",
            "tidegate_inbox_bytes",
        ]
        .map(|name| metrics.sum(name, &[]));
        let now = [offered, delivered, conflated, dropped, pending + waiting, shared.received.load(Ordering::Relaxed)];
        same = if same.0 == now { (now, same.1 + 1) } else { (now, 0) };
        (same.1 >= LOOKS && pending + waiting == 0).then_some(metrics)
    });
    metrics.assert_all_accounted_for();
    (metrics.sum("tidegate_deliveries_delivered_total", &[]), shared.received.load(Ordering::Relaxed))
}

#[test]
fn every_delivery_is_accounted_for_and_what_was_delivered_was_received() {
    let seconds = std::env::var("ACCOUNTING_SECONDS").map_or(8, |text| text.parse().expect("a number of seconds"));
    let node = Setup::new().settings(&settings()).start();
    let shared = Arc::<Shared>::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..PROMPT {
        let stream = runtime.block_on(connect(node.tcp, &CHANNELS, None));
        runtime.spawn(read(stream, Arc::clone(&shared), false));
    }
    for _ in 0..SLOW {
        let stream = runtime.block_on(connect(node.tcp, &["latest:1", "oldest:1"], Some(4096)));
        runtime.spawn(read(stream, Arc::clone(&shared), true));
    }
    let subscriptions = (PROMPT * CHANNELS.len() + SLOW * 2) as u64;
    within(Duration::from_secs(30), "all have subscribed", || {
        (node.metrics().sum("tidegate_subscriptions", &[]) == subscriptions).then_some(())
    });

    let began = Instant::now();
    let mut phases = 0;
    while phases < 2 || began.elapsed() < Duration::from_secs(seconds) {
        // Everybody stays: what was delivered has been received.
        let before = settle(&node, &shared);
        shared.slowly.store(true, Ordering::Relaxed);
        publish(&node);
        shared.slowly.store(false, Ordering::Relaxed);
        let after = settle(&node, &shared);
        assert_eq!(after.1 - before.1, after.0 - before.0, "what was delivered has been received");

        // Others come and go meanwhile, without reading: how much of it they got, nobody knows.
        let coming: Vec<_> = (0..COMING).map(|_| runtime.block_on(connect(node.tcp, &CHANNELS, Some(4096)))).collect();
        publish(&node);
        drop(coming);
        phases += 1;
    }
    let metrics = node.metrics();
    let sum = |name: &str| metrics.sum(name, &[]);
    let (conflated, dropped) = (sum("tidegate_deliveries_conflated_total"), sum("tidegate_deliveries_dropped_total"));
    eprintln!(
        "{phases} phases in {:.0} s: {} offered, {} delivered, {conflated} conflated, {dropped} dropped; {} closed with 3008",
        began.elapsed().as_secs_f64(),
        sum("tidegate_deliveries_offered_total"),
        sum("tidegate_deliveries_delivered_total"),
        metrics.sum("tidegate_disconnects_total", &["code=\"3008\""]),
    );
    // A run in which nothing is left out shows nothing.
    assert!(conflated > 0 && dropped > 0);
    runtime.shutdown_timeout(Duration::from_secs(10));
}
