//! The opening of a connection: an HTTP/1.1 request head, and the answer if it asks for WebSocket (RFC 6455, 4.2).

use tungstenite::handshake::derive_accept_key;

use crate::codec::Format;

/// Header lines of one request.
const HEADERS_MAX: usize = 64;

/// Bytes of the longest method of HTTP's registry, and some. Something longer at the start is no HTTP.
const METHOD_MAX: usize = 24;

/// The subprotocols that a client can ask for, with what they choose.
const SUBPROTOCOLS: [(&str, Format); 2] =
    [("centrifuge-json", Format::Json), ("centrifuge-protobuf", Format::Protobuf)];

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not HTTP/1.x.
    #[error("not an HTTP request: {0}")]
    Malformed(&'static str),
    /// The head does not end within the limit.
    #[error("the request head is longer than {limit} bytes")]
    HeadTooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// More than 64 header lines.
    #[error("more than {HEADERS_MAX} header lines")]
    TooManyHeaders,
    /// It asks for WebSocket, but not as the standard says.
    #[error("not a WebSocket upgrade: {0}")]
    Upgrade(&'static str),
    /// Not version 13 of WebSocket.
    #[error("WebSocket version 13 is the one spoken here")]
    Version,
}

impl HandshakeError {
    /// The HTTP status of the answer.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Upgrade(_) => 400,
            Self::Version => 426,
            Self::HeadTooLong { .. } | Self::TooManyHeaders => 431,
        }
    }

    /// Appends the whole answer, after which the connection ends.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        let status: &[u8] = match self.status() {
            426 => b"426 Upgrade Required\r\nSec-WebSocket-Version: 13",
            431 => b"431 Request Header Fields Too Large",
            _ => b"400 Bad Request",
        };
        let body = self.to_string();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status);
        out.extend_from_slice(b"\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body.as_bytes());
    }
}

/// What the bytes of a new connection are so far.
#[derive(Debug)]
pub enum Head<'b> {
    /// The start of a request: read more.
    Incomplete,
    /// A request head.
    Request(RequestHead<'b>),
}

/// A request head, borrowed from the bytes that were read.
#[derive(Debug, Clone)]
pub struct RequestHead<'b> {
    /// The method, as written.
    pub method: &'b str,
    /// The target's path, not decoded.
    pub path: &'b str,
    /// The target's query without its question mark, not decoded; empty if there is none.
    pub query: &'b str,
    /// Bytes of the head, its blank line included.
    pub length: usize,
    minor_version: u8,
    headers: Vec<httparse::Header<'b>>,
}

impl<'b> RequestHead<'b> {
    /// The first header line of this name, in any case of letters. A value that is not UTF-8 is there, but empty, so
    /// that a garbled `Origin` does not pass for none.
    pub fn header(&self, name: &str) -> Option<&'b str> {
        self.values(name).next()
    }

    /// Every header line of this name.
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b str> + 'h {
        let named = self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim_ascii())
    }

    /// The elements of a header that is a list, over all of its lines.
    fn tokens<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b str> + 'h {
        self.values(name).flat_map(|value| value.split(',')).map(str::trim_ascii).filter(|token| !token.is_empty())
    }

    /// Whether a list has this element, in any case of letters.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|found| found.eq_ignore_ascii_case(token))
    }

    /// Whether the query has this pair.
    fn has_pair(&self, pair: &str) -> bool {
        self.query.split('&').any(|found| found == pair)
    }
}

/// Reads the head of a request from the first bytes of a connection.
///
/// # Errors
///
/// As soon as the bytes cannot become a request; [`HandshakeError::HeadTooLong`] when `limit` bytes hold no end of it.
pub fn parse_head(buf: &[u8], limit: usize) -> Result<Head<'_>, HandshakeError> {
    // The parser would wait for the end of a method as long as letters come.
    if buf.len() > METHOD_MAX && !buf[..=METHOD_MAX].contains(&b' ') {
        return Err(HandshakeError::Malformed("no method"));
    }
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let length = match request.parse(buf) {
        Ok(httparse::Status::Complete(length)) if length <= limit => length,
        Ok(httparse::Status::Complete(_)) => return Err(HandshakeError::HeadTooLong { limit }),
        Ok(httparse::Status::Partial) if buf.len() >= limit => return Err(HandshakeError::HeadTooLong { limit }),
        Ok(httparse::Status::Partial) => return Ok(Head::Incomplete),
        Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooManyHeaders),
        Err(error) => return Err(HandshakeError::Malformed(describe(error))),
    };
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version) else {
        return Err(HandshakeError::Malformed("no request line"));
    };
    let (path, query) = split_target(target);
    let headers = request.headers.to_vec();
    Ok(Head::Request(RequestHead { method, path, query, length, minor_version, headers }))
}

/// What the parser objects to.
const fn describe(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "bad header name",
        httparse::Error::HeaderValue => "bad header value",
        httparse::Error::NewLine => "bad line end",
        httparse::Error::Version => "bad version",
        _ => "bad request line",
    }
}

/// Path and query of a request target. A target that names the server as well (RFC 9112, 3.2.2) loses that part.
fn split_target(target: &str) -> (&str, &str) {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => target,
    };
    match target.split_once('?') {
        Some(("", query)) => ("/", query),
        Some(split) => split,
        None => (target, ""),
    }
}

/// A connection that becomes a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// How its messages are written.
    pub format: Format,
    /// The subprotocol to name in the answer, where the client asked for one that is spoken here.
    pub subprotocol: Option<&'static str>,
    /// The proof that the request was understood: the value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// Whether the client wants WebSocket pings in place of the protocol's own.
    pub frame_ping: bool,
}

/// Reads a request for WebSocket; `None` is any other request.
///
/// The format is Protobuf where the subprotocol or the query (`format` or `cf_protocol`) says so, else JSON.
///
/// # Errors
///
/// [`HandshakeError::Version`] and [`HandshakeError::Upgrade`] for a request that asks for WebSocket wrongly.
pub fn upgrade(head: &RequestHead<'_>) -> Result<Option<Upgrade>, HandshakeError> {
    if !head.has_token("Upgrade", "websocket") {
        return Ok(None);
    }
    if head.method != "GET" {
        return Err(HandshakeError::Upgrade("the method is not GET"));
    }
    if head.minor_version < 1 {
        return Err(HandshakeError::Upgrade("HTTP/1.0 has no upgrades"));
    }
    if !head.has_token("Connection", "upgrade") {
        return Err(HandshakeError::Upgrade("the Connection header does not say Upgrade"));
    }
    if head.header("Sec-WebSocket-Version") != Some("13") {
        return Err(HandshakeError::Version);
    }
    let mut keys = head.values("Sec-WebSocket-Key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(HandshakeError::Upgrade("not one Sec-WebSocket-Key header"));
    };
    if !is_key(key) {
        return Err(HandshakeError::Upgrade("the Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    let subprotocol =
        head.tokens("Sec-WebSocket-Protocol").find_map(|wanted| SUBPROTOCOLS.iter().find(|(name, _)| *name == wanted));
    let protobuf = matches!(subprotocol, Some((_, Format::Protobuf)))
        || head.has_pair("format=protobuf")
        || head.has_pair("cf_protocol=protobuf");
    Ok(Some(Upgrade {
        format: if protobuf { Format::Protobuf } else { Format::Json },
        subprotocol: subprotocol.map(|(name, _)| *name),
        accept: derive_accept_key(key.as_bytes()),
        frame_ping: head.has_pair("cf_ws_frame_ping_pong=true"),
    }))
}

/// Whether these are 16 bytes in base64: 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default().as_bytes();
    digits.len() == 22 && digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// Appends the answer that makes the connection a WebSocket.
pub fn write_response(upgrade: &Upgrade, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(upgrade.accept.as_bytes());
    if let Some(subprotocol) = upgrade.subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(subprotocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, 1.2, with one thing changed.
    fn request(from: &str, to: &str) -> Vec<u8> {
        let text = "GET /connection/websocket?x=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Origin: http://example.com\r\nSec-WebSocket-Version: 13\r\n\r\n";
        assert!(text.contains(from), "{from}");
        text.replace(from, to).into_bytes()
    }

    fn head(buf: &[u8]) -> RequestHead<'_> {
        match parse_head(buf, 16_384).unwrap() {
            Head::Request(head) => head,
            Head::Incomplete => panic!("incomplete: {}", String::from_utf8_lossy(buf)),
        }
    }

    fn upgraded(from: &str, to: &str) -> Result<Option<Upgrade>, HandshakeError> {
        upgrade(&head(&request(from, to)))
    }

    #[test]
    fn a_head_is_read_when_its_last_byte_is_there() {
        let mut buf = request("", "");
        let length = buf.len();
        for end in 0..length {
            assert!(matches!(parse_head(&buf[..end], 16_384), Ok(Head::Incomplete)), "{end}");
        }
        buf.extend_from_slice(b"\x81\x80rest");
        let head = head(&buf);
        assert_eq!((head.method, head.path, head.query), ("GET", "/connection/websocket", "x=1"));
        assert_eq!(head.length, length);
        assert_eq!(head.header("ORIGIN"), Some("http://example.com"));
        assert_eq!(head.header("cookie"), None);
    }

    #[test]
    fn targets_have_a_path_and_a_query() {
        let cases = [
            ("/", ("/", "")),
            ("/a?", ("/a", "")),
            ("/a?b?c=d/e", ("/a", "b?c=d/e")),
            ("*", ("*", "")),
            ("/a?u=http://b/c", ("/a", "u=http://b/c")),
            ("http://host:80/a?b", ("/a", "b")),
            ("http://host", ("/", "")),
            ("http://host?b", ("/", "b")),
        ];
        for (target, expected) in cases {
            assert_eq!(split_target(target), expected, "{target}");
        }
    }

    #[test]
    fn garbage_is_refused_at_once() {
        let cases: [&[u8]; 8] = [
            b"\x16\x03\x01\x02\x00\x01",
            b"\x81\x85\x00\x00",
            b"GET / HTTP/2.0\r\n",
            b"GET /\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n",
            b"GET / HTTP/1.1\r\nA: \x00\r\n",
            &[b'A'; 25],
            b"AVERYLONGMETHODOFTWENTYSIX / HTTP/1.1\r\n\r\n",
        ];
        for garbage in cases {
            let error = parse_head(garbage, 16_384).unwrap_err();
            assert!(matches!(error, HandshakeError::Malformed(_)), "{error}");
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn a_head_beyond_the_limit_is_refused() {
        let mut buf = b"GET / HTTP/1.1\r\nA: ".to_vec();
        buf.resize(100, b'a');
        assert!(matches!(parse_head(&buf, 101), Ok(Head::Incomplete)));
        let error = parse_head(&buf, 100).unwrap_err();
        assert_eq!((error, error.status()), (HandshakeError::HeadTooLong { limit: 100 }, 431));
        buf.extend_from_slice(b"\r\n\r\n");
        assert!(parse_head(&buf, 103).is_err());
        assert!(parse_head(&buf, 104).is_ok());
    }

    #[test]
    fn too_many_header_lines_are_refused() {
        let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count)).into_bytes();
        assert!(parse_head(&lines(HEADERS_MAX), 16_384).is_ok());
        let error = parse_head(&lines(HEADERS_MAX + 1), 16_384).unwrap_err();
        assert_eq!((error, error.status()), (HandshakeError::TooManyHeaders, 431));
    }

    #[test]
    fn a_header_that_is_not_utf8_is_present_and_empty() {
        let buf = b"GET / HTTP/1.1\r\nOrigin: \xff\r\n\r\n";
        assert_eq!(head(buf).header("Origin"), Some(""));
    }

    #[test]
    fn the_standards_own_example_is_accepted() {
        let upgrade = upgraded("", "").unwrap().unwrap();
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        write_response(&upgrade, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn lists_of_tokens_are_searched_in_any_case() {
        assert!(upgraded("Connection: Upgrade", "Connection: keep-alive, UPGRADE").unwrap().is_some());
        assert!(upgraded("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade").unwrap().is_some());
        assert!(upgraded("Upgrade: websocket", "Upgrade: h2c, WebSocket").unwrap().is_some());
    }

    #[test]
    fn other_requests_are_not_upgrades() {
        assert_eq!(upgraded("Upgrade: websocket\r\n", ""), Ok(None));
        assert_eq!(upgraded("Upgrade: websocket", "Upgrade: h2c"), Ok(None));
    }

    #[test]
    fn a_wrong_request_for_websocket_is_refused() {
        let cases = [
            ("GET /", "POST /", 400),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("Connection: Upgrade", "Connection: keep-alive", 400),
            ("Connection: Upgrade\r\n", "", 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ===", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQQQ", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j-Q==", 400),
            ("Origin", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin", 400),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
        ];
        for (from, to, status) in cases {
            let error = upgraded(from, to).unwrap_err();
            assert_eq!(error.status(), status, "{from} -> {to}: {error}");
        }
    }

    #[test]
    fn the_format_is_json_unless_subprotocol_or_query_say_protobuf() {
        use Format::{Json, Protobuf};
        let cases = [
            ("Origin", "Origin", Json, None),
            ("Origin", "Sec-WebSocket-Protocol:\r\nOrigin", Json, None),
            ("Origin", "Sec-WebSocket-Protocol: chat\r\nOrigin", Json, None),
            ("Origin", "Sec-WebSocket-Protocol: centrifuge-json\r\nOrigin", Json, Some("centrifuge-json")),
            (
                "Origin",
                "Sec-WebSocket-Protocol: chat, centrifuge-protobuf\r\nOrigin",
                Protobuf,
                Some("centrifuge-protobuf"),
            ),
            ("x=1", "format=protobuf", Protobuf, None),
            ("x=1", "x=1&cf_protocol=protobuf", Protobuf, None),
            ("x=1", "cf_protocol_version=v2", Json, None),
            ("x=1", "format=json&x=format=protobuf", Json, None),
        ];
        for (from, to, format, subprotocol) in cases {
            let upgrade = upgraded(from, to).unwrap().unwrap();
            assert_eq!((upgrade.format, upgrade.subprotocol), (format, subprotocol), "{to}");
            let mut out = Vec::new();
            write_response(&upgrade, &mut out);
            let echoed = String::from_utf8(out).unwrap();
            assert_eq!(echoed.contains("Sec-WebSocket-Protocol"), subprotocol.is_some());
        }
    }

    #[test]
    fn frame_pings_are_asked_for_in_the_query() {
        assert!(!upgraded("", "").unwrap().unwrap().frame_ping);
        assert!(upgraded("x=1", "cf_ws_frame_ping_pong=true").unwrap().unwrap().frame_ping);
        assert!(!upgraded("x=1", "cf_ws_frame_ping_pong=false").unwrap().unwrap().frame_ping);
    }

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let mut out = Vec::new();
        HandshakeError::Version.write_response(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
    }
}
