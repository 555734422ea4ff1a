//! Whoever goes is gone at once: with a close frame, with a FIN, or without a word.

use tidegate::shard::stats::{Dropped, Wire};

use crate::support::client::{Client, Incoming, publish, unsubscribe};
use crate::support::frame::{self, CLOSE};
use crate::support::{TestNode, eventually};

async fn nobody_is_subscribed(node: &TestNode) {
    eventually("its subscription is over", || node.count(|shard| shard.subscriptions.get()), |left| *left == 0).await;
    assert_eq!(node.count(|shard| shard.sessions.get()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_frame_is_answered_with_its_code_and_the_stream_ends() {
    let node = TestNode::ordinary().await;
    let cases: [(&[u8], Option<u16>); 3] = [(b"", None), (b"\x03\xe8", Some(1000)), (b"\x0b\xb8bye", Some(3000))];
    for (closes, (payload, code)) in (1..).zip(cases) {
        let mut client = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
        client.send_bytes(&frame::masked(CLOSE, payload)).await;
        assert_eq!(client.next().await, Incoming::Close { code, reason: String::new() });
        // The answer was written at the end of the turn in which the frame was read: everything else was, too.
        assert_eq!(node.count(|shard| shard.subscriptions.get()), 0);
        assert_eq!(node.count(|shard| shard.closed_by_peer.get()), closes);
        assert_eq!(client.next().await, Incoming::End);
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_close_frame_is_ignored() {
    let node = TestNode::ordinary().await;
    let mut client = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
    let mut bytes = frame::masked(CLOSE, b"\x03\xe8");
    bytes.extend(frame::masked(frame::TEXT, b"{\"id\":9,\"publish\":{\"channel\":\"news\",\"data\":1}}"));
    client.send_bytes(&bytes).await;
    assert_eq!(client.next().await, Incoming::Close { code: Some(1000), reason: String::new() });
    assert_eq!(client.next().await, Incoming::End);
    assert_eq!(node.count(|shard| shard.publications.get()), 0);
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_right_before_a_fin_is_still_answered() {
    let node = TestNode::ordinary().await;
    for wire in Wire::ALL {
        let mut client = Client::subscribed(&node, wire, "news").await;
        let id = client.send(unsubscribe("news")).await;
        client.finish().await;
        assert!(client.reply_to(id).await.unsubscribe.is_some());
        assert_eq!(client.next().await, Incoming::End);
    }
    assert_eq!(node.count(|shard| shard.subscriptions.get()), 0);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fin_ends_the_session() {
    let node = TestNode::ordinary().await;
    for (ended, wire) in (1..).zip(Wire::ALL) {
        let mut client = Client::subscribed(&node, wire, "news").await;
        client.finish().await;
        assert_eq!(client.next().await, Incoming::End);
        nobody_is_subscribed(&node).await;
        assert_eq!(node.count(|shard| shard.closed_by_peer.get()), ended);
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_ends_the_session() {
    let node = TestNode::ordinary().await;
    for (ended, wire) in (1..).zip(Wire::ALL) {
        let client = Client::subscribed(&node, wire, "news").await;
        client.reset();
        nobody_is_subscribed(&node).await;
        assert_eq!(node.count(|shard| shard.closed_by_peer.get()), ended);
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_answer_a_close_frame_is_dropped_with_its_messages_counted() {
    let node = TestNode::ordinary().await;
    let mut client = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
    client.send_bytes(&frame::unmasked(frame::TEXT, b"{}")).await;
    eventually("its session is over", || node.count(|shard| shard.sessions.get()), |left| *left == 0).await;
    // What is published now has nobody to go to.
    node.publish("news", "1").await;
    assert_eq!(client.close_code().await, 1002);
    assert_eq!(node.node().admission().connections(), 1, "the peer has a moment to close as well");
    let connections = || node.node().admission().connections();
    eventually("it is dropped", connections, |connections| *connections == 0).await;
    assert_eq!(node.dropped(Dropped::Closed), 0);
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_commands_before_a_fin_take_effect_even_if_they_have_to_wait() {
    const PUBLISHES: u32 = 2000;
    // JSON needs more room for them than the default limit.
    let node = TestNode::start(|config| config.websocket.message_size_limit = 1 << 20).await;
    let published = || node.node().broker().stats().messages.load(std::sync::atomic::Ordering::Relaxed);
    for wire in Wire::ALL {
        let before = published();
        let mut client = Client::connect(&node, wire).await;
        // Many more than may be with the broker at once.
        let mut commands = vec![publish("news", "1"); PUBLISHES as usize];
        client.number(&mut commands);
        client.send_commands(&commands).await;
        client.finish().await;
        for command in &commands {
            assert!(client.reply_to(command.id).await.publish.is_some());
        }
        assert_eq!(client.next().await, Incoming::End);
        assert_eq!(published() - before, u64::from(PUBLISHES), "{wire:?}");
    }
    node.end(()).await;
}
