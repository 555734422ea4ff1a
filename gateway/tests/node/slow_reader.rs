//! A client that stops reading costs at most its bound, is closed with 3008, and holds nobody else back.

use tidegate::shard::stats::{Dropped, Wire};
use tidegate_protocol::code::DisconnectCode;
use tokio::net::TcpSocket;

use crate::support::client::{Client, publish};
use crate::support::{TestNode, eventually};

const QUEUE: usize = 256 * 1024;

/// Bytes of one message.
const MESSAGE: usize = 16 * 1024;

async fn bounded() -> TestNode {
    TestNode::start(|config| {
        config.client.queue_max_size = QUEUE;
        config.shards = 1;
    })
    .await
}

/// A subscriber whose socket holds little, so that the queue begins soon.
async fn with_little_room(node: &TestNode, wire: Wire, channel: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Client::open_with(node, wire, "", socket).await;
    client.say_hello().await;
    client.subscribe(channel).await;
    client
}

/// A message that says which one it is.
fn message(number: u64) -> String {
    format!("\"{number:0width$}\"", width = MESSAGE - 2)
}

/// Publishes to a channel with one subscriber, who does not read, until messages wait for it; answers how many.
async fn publish_until_it_waits(node: &TestNode) -> u64 {
    let offered = || node.count(|shard| shard.offered.get());
    let before = offered();
    for published in 1..10_000 {
        node.publish("flood", message(published)).await;
        eventually("it is offered", || offered() - before, |offered| *offered == published).await;
        if node.count(|shard| shard.queue_bytes.get()) >= QUEUE as u64 {
            return published;
        }
    }
    panic!("160 MB are in nobody's buffers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_is_closed_with_3008_and_the_others_lose_nothing() {
    let node = bounded().await;
    for (round, wire) in (1..).zip(Wire::ALL) {
        let mut readers = Vec::new();
        for wire in Wire::ALL {
            readers.push(Client::subscribed(&node, wire, "flood").await);
        }
        let mut stalled = with_little_room(&node, wire, "flood").await;
        let mut published = 0;
        // The kernel's buffers take some megabytes before the queue begins.
        while node.disconnects(DisconnectCode::Slow) < round {
            published += 1;
            assert!(published < 10_000, "160 MB are in nobody's buffers");
            node.publish("flood", message(published)).await;
            for reader in &mut readers {
                assert_eq!(reader.publication("flood").await.data, message(published));
            }
            let queued = node.count(|shard| shard.queue_bytes.get());
            assert!(queued <= (QUEUE + MESSAGE + 64) as u64, "{queued} bytes are queued");
        }
        assert_eq!(node.count(|shard| shard.sessions.get()), 3, "its session is over");
        let dropped = node.dropped(Dropped::QueueFull);
        assert!(dropped > 0, "what was queued is counted");

        // What the kernel had taken arrives whole, then the code.
        let mut received = 0;
        let code = loop {
            match stalled.next_or_close().await {
                Ok(publication) => {
                    received += 1;
                    assert_eq!(publication.data, message(received));
                }
                Err(code) => break code,
            }
        };
        assert_eq!(code, 3008, "{wire:?}");
        assert!(received < published);
        drop(stalled);
        eventually("nothing is queued", || node.count(|shard| shard.queue_bytes.get()), |bytes| *bytes == 0).await;
        node.settled().await;
        for reader in &mut readers {
            reader.ask(crate::support::client::unsubscribe("flood")).await;
        }
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_on_in_time_gets_everything() {
    let node = TestNode::start(|config| config.client.queue_max_size = 64 << 20).await;
    for wire in Wire::ALL {
        let mut paused = with_little_room(&node, wire, "flood").await;
        let published = publish_until_it_waits(&node).await;
        let command = paused.send(publish("elsewhere", "1")).await;
        for number in 1..=published {
            assert_eq!(paused.publication("flood").await.data, message(number));
        }
        assert!(paused.reply_to(command).await.publish.is_some(), "in its place behind the queue");
        node.settled().await;
    }
    assert_eq!(node.disconnects(DisconnectCode::Slow), 0);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_and_goes_away_leaves_nothing_behind() {
    let node = TestNode::start(|config| config.client.queue_max_size = 64 << 20).await;
    let stalled = with_little_room(&node, Wire::WebSocketProtobuf, "flood").await;
    let published = publish_until_it_waits(&node).await;
    stalled.reset();
    eventually("nothing is queued", || node.count(|shard| shard.queue_bytes.get()), |bytes| *bytes == 0).await;
    node.settled().await;
    assert!(node.dropped(Dropped::Closed) > 0);
    assert_eq!(node.count(|shard| shard.delivered.get()) + node.dropped(Dropped::Closed), published);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_and_never_reads_is_closed_with_3008() {
    let node = bounded().await;
    let mut client = with_little_room(&node, Wire::TcpProtobuf, "mine").await;
    let commands: Vec<_> = (10..5010)
        .map(|id| tidegate_protocol::message::Command { id, ..crate::support::client::subscribe("no:such") })
        .collect();
    let message = crate::support::client::encode(Wire::TcpProtobuf.format(), &commands);
    let mut sent = 0;
    while node.disconnects(DisconnectCode::Slow) == 0 {
        sent += 1;
        assert!(sent < 2000, "its commands do not fill a queue");
        client.try_send_bytes(&message).await;
    }
    node.end(client).await;
}
