//! A client that breaks the rules of the protocol gets the protocol's code, and costs nobody else anything.

use tidegate::shard::stats::Wire;
use tidegate_protocol::code::{DisconnectCode, ErrorCode};
use tidegate_protocol::codec::Format;
use tidegate_protocol::message::{Command, ConnectRequest, PingRequest, RpcRequest};

use crate::bystanders::Bystanders;
use crate::support::TestNode;
use crate::support::client::{self, Client, hello, publish, subscribe, unsubscribe};

/// Has `misbehave` do its worst on each wire, and holds that the connection is closed with 3501 and nobody notices.
async fn is_a_bad_request(misbehave: impl AsyncFn(&TestNode, Wire) -> Client) {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    for (round, wire) in (1..).zip(Wire::ALL) {
        let mut client = misbehave(&node, wire).await;
        bystanders.notice_nothing(&node).await;
        assert_eq!(client.close_code().await, 3501, "{wire:?}");
        assert_eq!(node.disconnects(DisconnectCode::BadRequest), round);
        bystanders.notice_nothing(&node).await;
    }
    assert_eq!(node.count(|shard| shard.sessions.get()), 4);
    node.end(bystanders).await;
}

/// Connects, and then sends a message that is no good.
async fn message_is_a_bad_request(message: impl Fn(Format) -> Vec<u8>) {
    is_a_bad_request(async |node, wire| {
        let mut client = Client::subscribed(node, wire, "mine").await;
        client.send_message(&message(wire.format())).await;
        client
    })
    .await;
}

/// Connects, and then sends a command that is no good.
async fn command_is_a_bad_request(command: Command) {
    message_is_a_bad_request(|format| client::encode(format, std::slice::from_ref(&command))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_before_connect_is_a_bad_request() {
    is_a_bad_request(async |node, wire| {
        let mut client = Client::open(node, wire).await;
        client.send(subscribe("news")).await;
        client
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_without_an_id_is_a_bad_request() {
    is_a_bad_request(async |node, wire| {
        let mut client = Client::open(node, wire).await;
        client.send_commands(&[hello()]).await;
        client
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connect_is_a_bad_request() {
    command_is_a_bad_request(Command { id: 7, connect: Some(ConnectRequest::default()), ..Command::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pong_that_nobody_asked_for_is_a_bad_request() {
    command_is_a_bad_request(Command::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_a_request_is_a_bad_request() {
    command_is_a_bad_request(Command { id: 7, ..Command::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_command_is_a_bad_request() {
    command_is_a_bad_request(Command { id: 7, ping: Some(PingRequest::default()), ..Command::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_its_channel_is_a_bad_request() {
    for command in [subscribe(""), unsubscribe(""), publish("", "1")] {
        command_is_a_bad_request(Command { id: 7, ..command }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_command_are_a_bad_request() {
    message_is_a_bad_request(|format| match format {
        Format::Json => b"{\"id\":3,\"rpc\":[}".to_vec(),
        // A message of four bytes, the first of which is a field of a kind that does not exist.
        Format::Protobuf => b"\x04\x0f\x0f\x0f\x0f".to_vec(),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_commands_is_a_bad_request() {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    let nothing: [(Wire, &[u8]); 4] = [
        (Wire::WebSocketJson, b""),
        (Wire::WebSocketJson, b"\n"),
        (Wire::WebSocketJson, b" \n\r\n\t"),
        (Wire::WebSocketProtobuf, b""),
    ];
    for (wire, message) in nothing {
        let mut client = Client::connect(&node, wire).await;
        client.send_message(message).await;
        assert_eq!(client.close_code().await, 3501, "{wire:?} {message:?}");
    }
    assert_eq!(node.disconnects(DisconnectCode::BadRequest), 4);
    bystanders.notice_nothing(&node).await;
    node.end(bystanders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_json_is_a_bad_request() {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    for levels in [65, 30_000] {
        let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for message in [
            format!("{{\"id\":3,\"publish\":{{\"channel\":\"c\",\"data\":{deep}}}}}"),
            format!("{{\"id\":3,\"unknown\":{deep},\"rpc\":{{}}}}"),
            deep.clone(),
        ] {
            let mut client = Client::connect(&node, Wire::WebSocketJson).await;
            client.send_message(message.as_bytes()).await;
            bystanders.notice_nothing(&node).await;
            assert_eq!(client.close_code().await, 3501, "{levels} levels");
        }
    }
    assert_eq!(node.disconnects(DisconnectCode::BadRequest), 6);
    bystanders.notice_nothing(&node).await;
    node.end(bystanders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_name_of_300_bytes_costs_an_error_and_not_the_connection() {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    let long = "x".repeat(300);
    for wire in Wire::ALL {
        let mut client = Client::connect(&node, wire).await;
        for command in [subscribe(&long), publish(&long, "1")] {
            let error = client.ask_in_vain(command).await;
            assert_eq!(error.code, u32::from(ErrorCode::BadRequest.code()), "{wire:?}");
        }
        client.subscribe(&long[..255]).await;
    }
    assert_eq!(node.count(|shard| shard.error_replies.get()), 6);
    bystanders.notice_nothing(&node).await;
    node.end(bystanders).await;
}

/// As short as a command can be: six bytes of Protobuf.
fn call(id: u32) -> Command {
    Command { id, rpc: Some(RpcRequest::default()), ..Command::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_in_one_message_are_answered_in_order_while_others_go_on() {
    // JSON needs more room for them than the default limit.
    let node = TestNode::start(|config| config.websocket.message_size_limit = 1 << 20).await;
    let mut bystanders = Bystanders::join(&node).await;
    let commands: Vec<Command> = (2..10_002).map(call).collect();
    for wire in Wire::ALL {
        let mut client = Client::connect(&node, wire).await;
        client.send_commands(&commands).await;
        bystanders.notice_nothing(&node).await;
        for id in 2..10_002 {
            let reply = client.reply_to(id).await;
            assert_eq!(reply.error.map(|error| error.code), Some(108));
        }
    }
    assert_eq!(node.count(|shard| shard.error_replies.get()), 30_000);
    bystanders.notice_nothing(&node).await;
    node.end(bystanders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_fit_into_one_frame_of_the_default_limit() {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    let commands: Vec<Command> = (2..10_002).map(call).collect();
    let message = client::encode(Format::Protobuf, &commands);
    assert!(message.len() <= 65_536, "{}", message.len());
    let mut client = Client::connect(&node, Wire::WebSocketProtobuf).await;
    client.send_message(&message).await;
    for id in 2..10_002 {
        client.reply_to(id).await;
    }
    bystanders.notice_nothing(&node).await;
    node.end((bystanders, client)).await;
}
