//! HTTP/1.1 by hand: what the tests send has to be exact, and sometimes exactly wrong.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads an answer from its bytes; the body is what follows the head.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends bytes, and reads the answer until the server ends the connection. The write may fail half-way: a server
/// may answer and close before it has read everything.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = within("a connection", TcpStream::connect(address)).await.expect("the listener accepts");
    // What counts is the answer.
    let _ = within("the request is sent", stream.write_all(bytes)).await;
    Answer::parse(&read_to_end(&mut stream).await)
}

/// Everything until the end of the stream; a reset ends it as well.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    within("the end of the stream", async { while stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} })
        .await;
    answer
}

/// `GET` on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n").as_bytes()).await
}

/// The request that opens a WebSocket. `query` begins with `?` or is empty; `headers` are whole lines with `\r\n`.
pub(crate) fn upgrade_request(query: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET /connection/websocket{query} HTTP/1.1\r\nHost: tests\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}
