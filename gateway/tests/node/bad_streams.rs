//! A raw TCP stream that is no stream of commands ends with 3501, and costs nobody else anything.

use tidegate::shard::stats::Wire;
use tidegate_protocol::code::DisconnectCode;

use crate::bystanders::Bystanders;
use crate::support::client::{self, Client};
use crate::support::{TestNode, eventually, http};

/// Sends bytes that are no good after a proper connect, and holds what follows.
async fn ends_with_3501(bytes: &[u8]) {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    let mut client = Client::subscribed(&node, Wire::TcpProtobuf, "mine").await;
    client.try_send_bytes(bytes).await;
    bystanders.notice_nothing(&node).await;
    assert_eq!(client.close_code().await, 3501);
    assert_eq!(node.disconnects(DisconnectCode::BadRequest), 1);
    assert_eq!(node.count(|shard| shard.subscriptions.get()), 4, "its subscription is over");
    bystanders.notice_nothing(&node).await;
    node.end((bystanders, client)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_never_ends() {
    ends_with_3501(&[0xff; 10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_over_the_limit_before_any_of_its_message() {
    ends_with_3501(&[0x81, 0x80, 0x04]).await; // 65,537
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_of_two_to_the_63() {
    ends_with_3501(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage() {
    ends_with_3501(&b"\xf1\x07garbage, and a lot of it; ".repeat(10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_request() {
    ends_with_3501(&http::upgrade_request("", "")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_be_cut_anywhere() {
    let node = TestNode::ordinary().await;
    let mut client = Client::open(&node, Wire::TcpProtobuf).await;
    let mut commands = [client::hello(), client::subscribe("news"), client::publish("news", "1")];
    client.number(&mut commands);
    let before = node.count(|shard| shard.bytes_in.get());
    for (sent, byte) in client::encode(Wire::TcpProtobuf.format(), &commands).into_iter().enumerate() {
        client.send_bytes(&[byte]).await;
        let arrived = || node.count(|shard| shard.bytes_in.get()) - before;
        eventually("a byte arrives", arrived, |arrived| *arrived > sent as u64).await;
    }
    assert!(client.reply_to(1).await.connect.is_some());
    assert!(client.reply_to(2).await.subscribe.is_some());
    let mut rest = [client.next_reply().await, client.next_reply().await];
    rest.sort_by_key(|reply| reply.id); // the publication and the reply may change places
    assert!(rest[0].push.is_some() && rest[1].publish.is_some(), "{rest:?}");
    node.end(client).await;
}
