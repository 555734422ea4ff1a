//! How a WebSocket is opened: formats, subprotocols, origins.

use tidegate::shard::stats::Wire;
use tidegate_protocol::codec::Format;
use tokio::net::TcpSocket;

use crate::support::client::{self, Client, hello};
use crate::support::{TestNode, frame, http};

/// Upgrades with these header lines and this query; answers the format that the server speaks then, and the
/// subprotocol that it names.
async fn upgraded(node: &TestNode, query: &str, headers: &str) -> (Format, Option<String>) {
    let mut found = None;
    for format in [Format::Json, Format::Protobuf] {
        let wire = Wire::websocket(format);
        let socket = TcpSocket::new_v4().unwrap();
        let (mut client, answer) = Client::upgrade(node, wire, &http::upgrade_request(query, headers), socket).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        // Whichever format the server does not speak is a bad request.
        let hello = client::encode(format, &[tidegate_protocol::message::Command { id: 1, ..hello() }]);
        client.send_bytes(&frame::masked(frame::BINARY, &hello)).await;
        if client.first_opcode().await != frame::CLOSE {
            assert_eq!(found, None, "two formats at once");
            found = Some((format, answer.header("sec-websocket-protocol").map(str::to_owned)));
        }
    }
    found.expect("one of the formats")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_format_is_json_unless_the_subprotocol_or_the_query_says_protobuf() {
    let node = TestNode::ordinary().await;
    let json = Some("centrifuge-json".to_owned());
    let protobuf = Some("centrifuge-protobuf".to_owned());
    for (query, headers, expected) in [
        ("", "", (Format::Json, None)),
        ("", "Sec-WebSocket-Protocol:\r\n", (Format::Json, None)),
        ("", "Sec-WebSocket-Protocol: \r\n", (Format::Json, None)),
        ("", "Sec-WebSocket-Protocol: something-else\r\n", (Format::Json, None)),
        ("", "Sec-WebSocket-Protocol: centrifuge-json\r\n", (Format::Json, json)),
        ("", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n", (Format::Protobuf, protobuf.clone())),
        ("", "Sec-WebSocket-Protocol: a, centrifuge-protobuf\r\n", (Format::Protobuf, protobuf)),
        ("?format=protobuf", "", (Format::Protobuf, None)),
        ("?a=b&cf_protocol=protobuf", "", (Format::Protobuf, None)),
        ("?cf_protocol_version=v2", "", (Format::Json, None)),
        ("", "Sec-WebSocket-Extensions: permessage-deflate\r\n", (Format::Json, None)),
    ] {
        assert_eq!(upgraded(&node, query, headers).await, expected, "{query:?} {headers:?}");
    }
    node.end(()).await;
}

async fn status_for_origin(node: &TestNode, origin: &str) -> u16 {
    let request = http::upgrade_request("", &format!("Origin: {origin}\r\n"));
    let (_client, answer) = Client::upgrade(node, Wire::WebSocketJson, &request, TcpSocket::new_v4().unwrap()).await;
    answer.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_are_refused_with_403() {
    let node = TestNode::start(|config| {
        config.client.allowed_origins = vec!["https://*.example.com".into(), "http://localhost:3000".into()];
    })
    .await;
    for (origin, status) in [
        ("https://app.example.com", 101),
        ("HTTPS://APP.EXAMPLE.COM", 101),
        ("http://localhost:3000", 101),
        ("http://localhost:3001", 403),
        ("https://example.org", 403),
        ("https://app.example.com.evil.org", 403),
        ("null", 403),
        ("", 403),
    ] {
        assert_eq!(status_for_origin(&node, origin).await, status, "{origin:?}");
    }
    assert_eq!(node.count(|shard| shard.refused_requests.get()), 5);
    // No browser: no origin.
    Client::connect(&node, Wire::WebSocketJson).await;
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_allowed_origins_no_page_may_connect_and_with_a_star_every_page() {
    let closed = TestNode::ordinary().await;
    assert_eq!(status_for_origin(&closed, "https://example.com").await, 403);
    closed.end(()).await;
    let open = TestNode::start(|config| config.client.allowed_origins = vec!["*".into()]).await;
    assert_eq!(status_for_origin(&open, "https://example.com").await, 101);
    open.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_may_follow_the_upgrade_without_waiting_for_its_answer() {
    let node = TestNode::ordinary().await;
    let mut request = http::upgrade_request("", "");
    request
        .extend(frame::masked(frame::TEXT, b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}"));
    let (mut client, answer) =
        Client::upgrade(&node, Wire::WebSocketJson, &request, TcpSocket::new_v4().unwrap()).await;
    assert_eq!(answer.status, 101);
    assert!(client.reply_to(1).await.connect.is_some());
    assert!(client.reply_to(2).await.subscribe.is_some());
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_upgrade_is_served_as_http_on_the_same_port() {
    let node = TestNode::ordinary().await;
    assert_eq!(http::get(node.http(), "/connection/websocket").await.status, 426);
    assert_eq!(http::get(node.http(), "/nowhere").await.status, 404);
    let body = r#"{"channel":"news","data":{"a":1}}"#;
    let mut client = Client::subscribed(&node, Wire::WebSocketJson, "news").await;
    let key = crate::support::API_KEY;
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: tests\r\nX-API-Key: {key}\r\nContent-Length: {}\r\nConnection: close\r\n\
         \r\n{body}",
        body.len()
    );
    let answer = http::exchange(node.http(), request.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("\"result\""), "{answer:?}");
    assert_eq!(client.publication("news").await.data, r#"{"a":1}"#);
    assert_eq!(http::exchange(node.http(), request.replace(key, "wrong").as_bytes()).await.status, 401);
    node.end(client).await;
}
