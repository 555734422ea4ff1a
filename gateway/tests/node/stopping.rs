//! A node that stops: not ready and closed to new connections at once, its sessions closed with 3001 over the drain,
//! what was queued for them first.

use std::time::{Duration, Instant};

use tidegate::shard::stats::Wire;
use tidegate_protocol::code::DisconnectCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::client::{Client, Incoming};
use crate::support::{DEADLINE, TestNode, eventually, http, within};

const DRAIN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_closed_with_3001_spread_over_the_drain() {
    const SESSIONS: usize = 60;
    let node = TestNode::start(|config| config.shutdown.drain = DRAIN).await;
    let shards: Vec<_> = node.node().shards().to_vec();
    let mut clients = Vec::new();
    for at in 0..SESSIONS {
        clients.push(Client::subscribed(&node, Wire::ALL[at % 3], "news").await);
    }
    let mut closing = JoinSet::new();
    for mut client in clients {
        closing.spawn(async move {
            assert_eq!(client.close_code().await, 3001);
            Instant::now()
        });
    }
    let began = Instant::now();
    let (closed, ()) = tokio::join!(closing.join_all(), within("the node stops", node.into_node().stop()));
    let took = began.elapsed();
    assert!(took >= DRAIN && took < DRAIN * 5, "{took:?}");

    let mut closed: Vec<_> = closed.into_iter().map(|at| at.duration_since(began)).collect();
    closed.sort();
    // Evenly: no third of the time closes more than half of them, even where a busy machine is late.
    for third in 0..3 {
        let (from, to) = (DRAIN / 3 * third, DRAIN / 3 * (third + 1));
        let share = closed.iter().filter(|at| (from..to).contains(at)).count();
        assert!(share <= SESSIONS / 2, "{share} of {SESSIONS} between {from:?} and {to:?}");
    }
    assert!(closed[SESSIONS - 1] < DRAIN * 4, "{:?}", closed[SESSIONS - 1]);
    let codes = shards.iter().map(|shard| shard.disconnects[DisconnectCode::Shutdown.index()].get());
    assert_eq!(codes.sum::<u64>(), SESSIONS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_is_not_ready_and_lets_nobody_in_but_serves_who_is_inside() {
    let node = TestNode::start(|config| config.shutdown.drain = Duration::from_secs(3)).await;
    let (http, tcp, operator) = (node.http(), node.tcp(), node.operator());
    let (broker, shards) = (node.node().broker(), node.node().shards().to_vec());
    assert_eq!(http::get(operator, "/health/ready").await.status, 200);
    // Two on each shard: the drain closes the first of them at once, and the second after half of its time.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::subscribed(&node, Wire::WebSocketJson, "news").await);
    }
    let sessions = || shards.iter().map(|shard| shard.sessions.get()).sum::<u64>();
    let stopping = tokio::spawn(node.into_node().stop());
    eventually("the drain has begun", sessions, |sessions| *sessions < 4).await;

    let ready = http::get(operator, "/health/ready").await;
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(http::get(operator, "/health/live").await.status, 200, "it is alive all the same");
    let refused = http::exchange(http, &http::upgrade_request("", "")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(
        !http::read_to_end(&mut TcpStream::connect(tcp).await.unwrap()).await.is_empty(),
        "raw TCP is told as well"
    );
    let metrics = http::get(operator, "/metrics").await.body;
    assert!(metrics.contains("tidegate_connections_refused_total{reason=\"draining\"} 2"), "{metrics}");

    // Who is still inside still receives.
    assert!(sessions() > 0, "the machine is too slow for this test: the drain is over");
    let request = tidegate_broadcaster::PublishRequest {
        channel: "news".into(),
        data: "1".into(),
        ..tidegate_broadcaster::PublishRequest::default()
    };
    broker.publish(request).await.unwrap();
    let mut received = 0;
    for client in &mut clients {
        match client.next_or_close().await {
            Ok(publication) => {
                assert_eq!(publication.data, "1");
                received += 1;
                assert_eq!(client.close_code().await, 3001);
            }
            Err(code) => assert_eq!(code, 3001),
        }
    }
    assert!(received > 0);
    drop(clients);
    within("the node stops", stopping).await.unwrap();
    assert!(TcpStream::connect(http).await.is_err(), "the port is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_is_written_before_the_close() {
    let node = TestNode::start(|config| config.client.queue_max_size = 64 << 20).await;
    let shards = node.node().shards().to_vec();
    let message = |number: u64| format!("\"{number:060000}\"");
    let mut clients = Vec::new();
    for wire in Wire::ALL {
        clients.push(Client::subscribed(&node, wire, "flood").await);
    }
    let mut published = 0;
    while shards.iter().any(|shard| shard.queue_bytes.get() == 0) {
        published += 1;
        assert!(published < 2000, "128 MB are in nobody's buffers");
        node.publish("flood", message(published)).await;
    }
    let offered = || node.count(|shard| shard.offered.get());
    eventually("everything is offered", offered, |offered| *offered == published * 3).await;

    let stopping = tokio::spawn(node.into_node().stop());
    let closed = || shards.iter().map(|shard| shard.disconnects[DisconnectCode::Shutdown.index()].get()).sum::<u64>();
    eventually("all of them are being closed", closed, |closed| *closed == 3).await;
    let mut reading = JoinSet::new();
    for mut client in clients {
        reading.spawn(async move {
            for number in 1..=published {
                assert_eq!(
                    client.next_or_close().await.map(|publication| publication.data.len()),
                    Ok(60_002),
                    "{number}"
                );
            }
            assert_eq!(client.close_code().await, 3001);
        });
    }
    reading.join_all().await;
    within("the node stops", stopping).await.unwrap();
    assert_eq!(shards.iter().map(|shard| shard.pending.get()).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_under_way_and_clients_that_never_connect_are_closed_as_well() {
    let node = TestNode::start(|config| config.shutdown.drain = DRAIN / 4).await;
    let mut silent = TcpStream::connect(node.http()).await.unwrap();
    let mut new = Client::open(&node, Wire::WebSocketJson).await;
    let connections = || node.node().admission().connections();
    eventually("both are inside", connections, |connections| *connections == 2).await;
    let stopping = tokio::spawn(node.into_node().stop());
    assert_eq!(http::Answer::parse(&http::read_to_end(&mut silent).await).status, 503);
    assert_eq!(new.close_code().await, 3001);
    drop((silent, new));
    within("the node stops", stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_alive_http_connection_does_not_hold_the_node_back() {
    let node = TestNode::start(|config| config.shutdown.drain = DRAIN / 4).await;
    let mut kept = TcpStream::connect(node.http()).await.unwrap();
    kept.write_all(b"GET /nowhere HTTP/1.1\r\nHost: tests\r\n\r\n").await.unwrap();
    let mut answer = [0; 4096];
    assert!(within("an answer", kept.read(&mut answer)).await.unwrap() > 0);
    let began = Instant::now();
    within("the node stops", node.into_node().stop()).await;
    // Well before the time that is there for peers which do not answer.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(http::read_to_end(&mut kept).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_neither_reads_nor_closes_does_not_hold_the_node_back_for_long() {
    let node = TestNode::ordinary().await;
    let client = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
    let began = Instant::now();
    within("the node stops", node.into_node().stop()).await;
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_dropped_ends_its_threads() {
    let node = TestNode::ordinary().await;
    let mut client = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
    let shards = node.node().shards().to_vec();
    drop(node.into_node());
    assert_eq!(client.next().await, Incoming::End);
    // What the threads held is gone with them.
    let held = || shards.iter().map(std::sync::Arc::strong_count).max();
    eventually("nobody holds the counters any more", held, |held| *held == Some(1)).await;
}
