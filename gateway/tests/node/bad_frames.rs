//! A client that breaks the rules of WebSocket is closed with the standard's code, and costs nobody else anything.

use tidegate::shard::stats::Wire;

use crate::bystanders::Bystanders;
use crate::support::client::{Client, Incoming};
use crate::support::frame::{self, FIN, TEXT};
use crate::support::{TestNode, eventually};

/// Bytes of the longest message that a client may send.
const LIMIT: usize = 65_536;

/// Sends bytes that are no good after a proper connect, and holds what follows.
async fn closes_with(code: u16, bytes: &[u8]) {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    let mut client = Client::subscribed(&node, Wire::WebSocketJson, "mine").await;
    client.try_send_bytes(bytes).await;
    bystanders.notice_nothing(&node).await;

    assert_eq!(client.close_code().await, code);
    assert_eq!(node.count(|shard| shard.broken_frames.get()), 1);
    assert_eq!(node.count(|shard| shard.sessions.get()), 4, "its session is over");
    assert_eq!(node.count(|shard| shard.subscriptions.get()), 4, "and its subscription");
    bystanders.notice_nothing(&node).await;
    node.end((bystanders, client)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_over_the_limit_is_closed_with_1009() {
    closes_with(1009, &frame::masked(TEXT, &[b' '; LIMIT + 1])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_announces_too_much_is_closed_before_its_payload() {
    closes_with(1009, &frame::header(FIN | TEXT, LIMIT as u64 + 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_announces_two_to_the_63_bytes_is_closed_at_once() {
    closes_with(1009, &frame::header(FIN | TEXT, 1 << 63)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_that_add_up_to_more_than_the_limit_are_closed_with_1009() {
    let half = [b' '; LIMIT / 2 + 1];
    closes_with(1009, &[frame::masked_with(TEXT, &half), frame::masked_with(0, &half)].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_without_a_mask_is_closed_with_1002() {
    closes_with(1002, &frame::unmasked(TEXT, b"{\"id\":3,\"rpc\":{}}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserved_bits_are_closed_with_1002() {
    closes_with(1002, &frame::masked_with(FIN | 0x40 | TEXT, b"{\"id\":3,\"rpc\":{}}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_kind_of_frame_is_closed_with_1002() {
    closes_with(1002, &frame::masked(3, b"")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragmented_control_frame_is_closed_with_1002() {
    closes_with(1002, &frame::masked_with(frame::PING, b"half")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_frame_of_126_bytes_is_closed_with_1002() {
    closes_with(1002, &frame::masked(frame::PING, &[0; 126])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_continuation_of_nothing_is_closed_with_1002() {
    closes_with(1002, &frame::masked_with(FIN, b"more")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_within_a_fragmented_one_is_closed_with_1002() {
    closes_with(1002, &[frame::masked_with(TEXT, b"{"), frame::masked(TEXT, b"{}")].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_not_utf8_is_closed_with_1007() {
    closes_with(1007, &frame::masked(TEXT, b"{\"id\":3,\"publish\":{\"channel\":\"\xff\"}}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_frame_with_half_a_code_is_closed_with_1002() {
    closes_with(1002, &frame::masked(frame::CLOSE, b"\x03")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_after_the_upgrade_is_closed_with_1002() {
    closes_with(1002, &b"garbage, and a lot of it; ".repeat(10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_message_is_taken_in_one_frame_in_fragments_and_byte_by_byte() {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    let mut client = Client::connect(&node, Wire::WebSocketJson).await;
    let (start, end) = ("{\"id\":9,\"publish\":{\"channel\":\"c\",\"data\":\"", "\"}}");
    let message = format!("{start}{}{end}", "x".repeat(LIMIT - start.len() - end.len()));
    assert_eq!(message.len(), LIMIT);

    client.send_bytes(&frame::masked(TEXT, message.as_bytes())).await;
    assert!(client.reply_to(9).await.publish.is_some());

    let (first, rest) = message.as_bytes().split_at(1000);
    let (second, third) = rest.split_at(0x8000);
    for fragment in [frame::masked_with(TEXT, first), frame::masked_with(0, second)] {
        client.send_bytes(&fragment).await;
        client.send_bytes(&frame::masked(frame::PING, b"between fragments")).await;
        assert_eq!(client.next().await, Incoming::Pong(b"between fragments".to_vec()));
    }
    client.send_bytes(&frame::masked_with(FIN, third)).await;
    assert!(client.reply_to(9).await.publish.is_some());

    // Each byte is there before the next one is sent.
    let before = node.count(|shard| shard.bytes_in.get());
    let short = frame::masked(TEXT, b"{\"id\":10,\"rpc\":{}}");
    for (sent, byte) in short.iter().enumerate() {
        client.send_bytes(&[*byte]).await;
        let arrived = || node.count(|shard| shard.bytes_in.get()) - before;
        eventually("a byte arrives", arrived, |arrived| *arrived > sent as u64).await;
    }
    assert!(client.reply_to(10).await.error.is_some());
    bystanders.notice_nothing(&node).await;
    node.end((bystanders, client)).await;
}
