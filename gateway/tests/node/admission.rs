//! The door: who does not fit in is told so at once and when to come back, and is counted; a place that is given
//! back is free.

use std::time::{Duration, Instant};

use tidegate::shard::stats::Wire;
use tidegate_protocol::message::Disconnect;
use tokio::net::TcpSocket;

use crate::bystanders::Bystanders;
use crate::support::client::{Client, Incoming};
use crate::support::http::{self, Answer};
use crate::support::{TestNode, eventually};

/// Asks for a WebSocket and holds on to it.
async fn knock(node: &TestNode) -> (Client, Answer) {
    knock_from("127.0.0.1", node).await
}

/// Asks for a WebSocket from one of the loopback addresses.
async fn knock_from(address: &str, node: &TestNode) -> (Client, Answer) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    let mut client = Client::dial(node, Wire::WebSocketJson, socket).await;
    // A refusal may come before the request.
    client.try_send_bytes(&http::upgrade_request("", "")).await;
    let answer = client.head().await;
    (client, answer)
}

fn is_refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    let seconds: u32 = answer.header("retry-after").expect("it says when to come back").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(answer.header("connection"), Some("close"));
}

async fn connections_are(node: &TestNode, expected: usize) {
    let connections = || node.node().admission().connections();
    eventually("places are given back", connections, |connections| *connections == expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_refuses_and_a_place_comes_back() {
    let node = TestNode::start(|config| config.client.connection_limit = 6).await;
    let mut bystanders = Bystanders::join(&node).await;
    let first = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
    let second = Client::subscribed(&node, Wire::TcpProtobuf, "news").await;
    for _ in 0..3 {
        let (mut refused, answer) = knock(&node).await;
        is_refused(&answer);
        assert_eq!(refused.end().await, b"node_limit\n");
    }
    assert_eq!(node.refused("node_limit").await, 3.0);
    bystanders.notice_nothing(&node).await;

    drop(first);
    connections_are(&node, 5).await;
    let third = Client::subscribed(&node, Wire::WebSocketProtobuf, "news").await;
    is_refused(&knock(&node).await.1);
    node.end((bystanders, second, third)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_tcp_is_refused_with_a_disconnect_after_which_clients_come_back() {
    let node = TestNode::start(|config| config.client.connection_limit = 1).await;
    let inside = Client::subscribed(&node, Wire::TcpProtobuf, "news").await;
    let mut refused = Client::open(&node, Wire::TcpProtobuf).await;
    let push = refused.next_reply().await.push.expect("a push");
    assert_eq!(push.disconnect, Some(Disconnect { code: 3013, reason: "node_limit".into(), reconnect: true }));
    assert_eq!(refused.next().await, Incoming::End);
    assert_eq!(node.refused("node_limit").await, 1.0);
    drop(inside);
    connections_are(&node, 0).await;
    let inside = Client::connect(&node, Wire::TcpProtobuf).await;
    node.end((inside, refused)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_only_so_many_connections() {
    let node = TestNode::start(|config| config.client.address_connection_limit = 2).await;
    let (first, answer) = knock_from("127.0.0.2", &node).await;
    assert_eq!(answer.status, 101);
    let (second, answer) = knock_from("127.0.0.2", &node).await;
    assert_eq!(answer.status, 101);
    is_refused(&knock_from("127.0.0.2", &node).await.1);
    assert_eq!(node.refused("address_limit").await, 1.0);
    let (other, answer) = knock_from("127.0.0.3", &node).await;
    assert_eq!(answer.status, 101, "another address is not concerned");
    drop(first);
    connections_are(&node, 2).await;
    let (third, answer) = knock_from("127.0.0.2", &node).await;
    assert_eq!(answer.status, 101);
    node.end((second, third, other)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_handshakes_are_under_way_at_once() {
    let node = TestNode::start(|config| config.client.handshake_limit = 2).await;
    let dial = async || Client::dial(&node, Wire::WebSocketJson, TcpSocket::new_v4().unwrap()).await;
    let (mut first, second) = (dial().await, dial().await);
    connections_are(&node, 2).await;
    is_refused(&knock(&node).await.1);
    assert_eq!(node.refused("handshake_limit").await, 1.0);

    // One finishes, and there is room for another one.
    first.send_bytes(&http::upgrade_request("", "")).await;
    assert_eq!(first.head().await.status, 101);
    let (third, answer) = knock(&node).await;
    assert_eq!(answer.status, 101);
    // One gives up, and there is room again.
    drop(second);
    connections_are(&node, 2).await;
    let (fourth, answer) = knock(&node).await;
    assert_eq!(answer.status, 101);
    node.end((first, third, fourth)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_lets_in_only_so_many() {
    const RATE: u32 = 5;
    let node = TestNode::start(|config| config.client.connection_rate_limit = RATE).await;
    let began = Instant::now();
    let (mut inside, mut refused) = (Vec::new(), 0);
    for _ in 0..40 {
        let (client, answer) = knock(&node).await;
        match answer.status {
            101 => inside.push(client),
            _ => {
                is_refused(&answer);
                refused += 1;
            }
        }
    }
    // Seconds are counted whole: the attempts have touched this many of them at most.
    let seconds = began.elapsed().as_secs() as usize + 2;
    assert!(inside.len() >= RATE as usize && inside.len() <= RATE as usize * seconds, "{}", inside.len());
    assert_eq!(node.refused("rate").await, f64::from(refused));
    eventually("the next second lets somebody in", || began.elapsed(), |passed| *passed > Duration::from_secs(2)).await;
    assert_eq!(knock(&node).await.1.status, 101);
    node.end(inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_memory_refuses_everybody_and_says_so() {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    node.node().admission().set_memory_short(true);
    is_refused(&knock(&node).await.1);
    assert_eq!(node.refused("memory").await, 1.0);
    bystanders.notice_nothing(&node).await;
    node.node().admission().set_memory_short(false);
    assert_eq!(knock(&node).await.1.status, 101);
    node.end(bystanders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_request_gives_its_place_back() {
    let node = TestNode::start(|config| config.client.connection_limit = 1).await;
    for _ in 0..3 {
        assert_eq!(http::get(node.http(), "/nowhere").await.status, 404);
        connections_are(&node, 0).await;
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_refusals_cost_those_inside_nothing() {
    let node = TestNode::start(|config| config.client.connection_limit = 4).await;
    let mut bystanders = Bystanders::join(&node).await;
    for round in 0..20 {
        let mut knocking = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (http, request) = (node.http(), http::upgrade_request("", ""));
            knocking.spawn(async move { http::exchange(http, &request).await });
        }
        bystanders.notice_nothing(&node).await;
        for answer in knocking.join_all().await {
            is_refused(&answer);
        }
        assert_eq!(node.refused("node_limit").await, f64::from((round + 1) * 50));
    }
    node.end(bystanders).await;
}
