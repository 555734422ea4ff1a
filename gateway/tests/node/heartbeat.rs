//! Whoever answers pings stays, whoever does not is closed with a code after which it may come back.

use std::time::{Duration, Instant};

use tidegate::shard::stats::Wire;
use tidegate::shard::wheel::TICK_MS;
use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::message::{Command, Reply};
use tokio::task::JoinSet;

use crate::support::client::{Client, Incoming, hello};
use crate::support::{TestNode, eventually, frame};

const INTERVAL: Duration = Duration::from_millis(600);
const TIMEOUT: Duration = Duration::from_millis(300);

/// Deadlines are kept in ticks: one may come up to a tick early, and a busy machine makes it late.
const TICK: Duration = Duration::from_millis(TICK_MS);

async fn pinging() -> TestNode {
    TestNode::start(|config| {
        config.client.ping_interval = INTERVAL;
        config.client.pong_timeout = TIMEOUT;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_ping_comes_between_half_an_interval_and_a_whole_one() {
    let node = pinging().await;
    for wire in Wire::ALL {
        let mut client = Client::open(&node, wire).await;
        let began = Instant::now();
        client.say_hello().await;
        assert_eq!(client.next_reply().await, Reply::default(), "a ping is an empty reply");
        let took = began.elapsed();
        assert!(took >= INTERVAL / 2 - TICK, "{took:?}");
        // The machine may be slow, but a ping that waits for another deadline is much later.
        assert!(took < INTERVAL * 4, "{took:?}");
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pong_keeps_the_session() {
    const ROUNDS: usize = 3;
    let node = TestNode::start(|config| {
        config.client.ping_interval = INTERVAL * 2;
        config.client.pong_timeout = INTERVAL;
    })
    .await;
    let mut answering = JoinSet::new();
    for wire in Wire::ALL {
        let mut client = Client::subscribed(&node, wire, "news").await;
        answering.spawn(async move {
            for _ in 0..ROUNDS {
                assert_eq!(client.next_reply().await, Reply::default());
                client.send_commands(&[Command::default()]).await;
            }
            client
        });
    }
    let clients = answering.join_all().await;
    assert!(node.count(|shard| shard.pings.get()) >= 3 * ROUNDS as u64);
    assert_eq!(node.count(|shard| shard.sessions.get()), 3);
    assert_eq!(node.disconnects(DisconnectCode::NoPong), 0);
    node.end(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pong_is_closed_with_3012() {
    let node = pinging().await;
    for wire in Wire::ALL {
        let mut client = Client::connect(&node, wire).await;
        assert_eq!(client.next_reply().await, Reply::default());
        let pinged = Instant::now();
        assert_eq!(client.close_code().await, 3012);
        assert!(pinged.elapsed() >= TIMEOUT - TICK * 2, "{:?}", pinged.elapsed());
    }
    assert_eq!(node.disconnects(DisconnectCode::NoPong), 3);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_pong_for_one_ping_is_a_bad_request() {
    let node = pinging().await;
    let mut client = Client::connect(&node, Wire::WebSocketJson).await;
    assert_eq!(client.next_reply().await, Reply::default());
    client.send_commands(&[Command::default(), Command::default()]).await;
    assert_eq!(client.close_code().await, 3501);
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_connects_is_closed_with_3502() {
    let delay = Duration::from_millis(400);
    let node = TestNode::start(|config| config.client.stale_close_delay = delay).await;
    for wire in Wire::ALL {
        let began = Instant::now();
        let mut client = Client::open(&node, wire).await;
        if wire.is_websocket() {
            client.send_bytes(&frame::masked(frame::PING, b"here")).await;
            assert_eq!(client.next().await, Incoming::Pong(b"here".to_vec()), "a ping frame is no connect");
        }
        assert_eq!(client.close_code().await, 3502, "{wire:?}");
        let took = began.elapsed();
        assert!(took >= delay - TICK && took < delay * 8, "{wire:?}: {took:?}");
    }
    assert_eq!(node.disconnects(DisconnectCode::Stale), 3);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_can_be_frames_of_the_transport() {
    let node = pinging().await;
    let mut client = Client::open_json(&node, "?cf_ws_frame_ping_pong=true").await;
    let id = client.send(hello()).await;
    let connect = client.reply_to(id).await.connect.unwrap();
    assert_eq!((connect.ping, connect.pong), (0, false), "the client need not know of them");
    for round in 1..=3 {
        let Incoming::Ping(payload) = client.next().await else { panic!("not a ping frame") };
        client.send_bytes(&frame::masked(frame::PONG, &payload)).await;
        assert!(node.count(|shard| shard.pings.get()) >= round);
    }
    // The fourth one is not answered.
    assert_eq!(client.close_code().await, 3012);
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pong_frame_that_nobody_asked_for_is_ignored() {
    let node = TestNode::ordinary().await;
    let mut client = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
    client.send_bytes(&frame::masked(frame::PONG, b"unasked")).await;
    client.send_bytes(&frame::masked(frame::PING, b"asked")).await;
    assert_eq!(client.next().await, Incoming::Pong(b"asked".to_vec()));
    node.publish("news", "1").await;
    client.publication("news").await;
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pong_later_than_the_lag_threshold_is_counted() {
    let node = TestNode::start(|config| {
        config.client.ping_interval = Duration::from_secs(2);
        config.client.pong_timeout = Duration::from_secs(1);
        config.client.lag_threshold = Duration::from_millis(100);
    })
    .await;
    let mut client = Client::connect(&node, Wire::TcpProtobuf).await;
    assert_eq!(client.next_reply().await, Reply::default());
    // The delay is what is tested.
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.send_commands(&[Command::default()]).await;
    eventually("a late pong is counted", || node.count(|shard| shard.lagging.get()), |late| *late == 1).await;
    assert_eq!(node.count(|shard| shard.sessions.get()), 1);
    node.end(client).await;
}
