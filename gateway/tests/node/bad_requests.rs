//! What is no proper HTTP request gets a clear answer within the time for handshakes, and costs nobody else anything.

use std::time::{Duration, Instant};

use tidegate::shard::wheel::TICK_MS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bystanders::Bystanders;
use crate::support::http::{self, Answer};
use crate::support::{TestNode, eventually, within};

/// Sends a request that is no good, and holds what follows.
async fn answers(status: u16, bytes: &[u8]) {
    let node = TestNode::ordinary().await;
    let mut bystanders = Bystanders::join(&node).await;
    let answer = http::exchange(node.http(), bytes).await;
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(node.count(|shard| shard.refused_requests.get()), 1);
    assert_eq!(node.count(|shard| shard.handshaking.get()), 0);
    bystanders.notice_nothing(&node).await;
    node.end(bystanders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_answered_with_400() {
    answers(400, b"garbage in place of a request\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_hello_is_answered_with_400() {
    answers(400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_never_ends_is_answered_with_400() {
    answers(400, &[b'A'; 100_000]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_over_16_kib_is_answered_with_431() {
    answers(431, &http::upgrade_request("", &format!("X-Long: {}\r\n", "x".repeat(16 * 1024)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_an_end_is_answered_with_431() {
    answers(431, &[b"GET / HTTP/1.1\r\nX-Long: ".as_slice(), &[b'x'; 20_000]].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_64_header_lines_are_answered_with_431() {
    answers(431, &http::upgrade_request("", &"X-One: 1\r\n".repeat(65))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_another_version_is_answered_with_426() {
    let request = String::from_utf8(http::upgrade_request("", "")).unwrap();
    answers(426, request.replace("Version: 13", "Version: 8").as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_with_a_bad_key_is_answered_with_400() {
    let request = String::from_utf8(http::upgrade_request("", "")).unwrap();
    answers(400, request.replace("dGhlIHNhbXBsZSBub25jZQ==", "short").as_bytes()).await;
}

const TIMEOUT: Duration = Duration::from_millis(500);

/// Deadlines are kept in ticks: one may come up to a tick early.
const TICK: Duration = Duration::from_millis(TICK_MS);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_handshake_held_open_is_answered_with_408() {
    let node = TestNode::start(|config| config.client.handshake_timeout = TIMEOUT).await;
    let mut bystanders = Bystanders::join(&node).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(node.http()).await.unwrap();
    let mut half = TcpStream::connect(node.http()).await.unwrap();
    half.write_all(b"GET /connection/websocket HTTP/1.1\r\nHost: tests\r\n").await.unwrap();
    let handshaking = || node.count(|shard| shard.handshaking.get());
    eventually("both are being waited for", handshaking, |handshaking| *handshaking == 2).await;
    bystanders.notice_nothing(&node).await;

    for stream in [&mut silent, &mut half] {
        let answer = Answer::parse(&http::read_to_end(stream).await);
        assert_eq!(answer.status, 408, "{answer:?}");
    }
    assert!(began.elapsed() >= TIMEOUT - TICK);
    assert_eq!(node.count(|shard| shard.refused_requests.get()), 2);
    assert_eq!(handshaking(), 0);
    bystanders.notice_nothing(&node).await;
    node.end((bystanders, silent, half)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_byte_by_byte_has_no_more_time_than_any_other() {
    let node = TestNode::start(|config| config.client.handshake_timeout = TIMEOUT).await;
    let mut bystanders = Bystanders::join(&node).await;
    let began = Instant::now();
    let (mut reader, mut writer) = TcpStream::connect(node.http()).await.unwrap().into_split();
    let mut answer = Vec::new();
    let endless = b"GET / HTTP/1.1\r\n".iter().copied().chain(b"X-Slow: loris\r\n".iter().copied().cycle());
    let mut bytes = endless.into_iter();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    within("an answer, though bytes keep coming", async {
        while answer.is_empty() {
            tokio::select! {
                read = reader.read_buf(&mut answer) => { read.unwrap(); }
                _ = pace.tick() => {
                    let byte = bytes.next().unwrap();
                    // Once the server has answered, this may fail.
                    let _ = writer.write_all(&[byte]).await;
                }
            }
        }
    })
    .await;
    assert_eq!(Answer::parse(&answer).status, 408);
    assert!(began.elapsed() >= TIMEOUT - TICK);
    assert!(began.elapsed() < TIMEOUT * 10, "it took {:?}", began.elapsed());
    assert_eq!(node.count(|shard| shard.refused_requests.get()), 1);
    bystanders.notice_nothing(&node).await;
    node.end((bystanders, reader, writer)).await;
}
