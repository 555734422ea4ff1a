//! Answers over HTTP/1.1 with keep-alive, as far as the two publishers over HTTP need them.

use crate::wire::websocket::{head_end, header};

/// The longest body that is understood: 1 MiB.
const MAX_BODY: usize = 1 << 20;

/// A complete answer at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response<'a> {
    /// The status, such as 200.
    pub(super) status: u16,
    /// The body.
    pub(super) body: &'a [u8],
    /// Bytes of all of it.
    pub(super) length: usize,
    /// The server ends the connection behind it.
    pub(super) last: bool,
}

/// The answer that `bytes` begins with; `None` while it is incomplete.
///
/// # Errors
/// What is no HTTP/1.1, or has no length or too great a one.
pub(super) fn response(bytes: &[u8]) -> Result<Option<Response<'_>>, &'static str> {
    let Some(start) = head_end(bytes)? else { return Ok(None) };
    let head = str::from_utf8(&bytes[..start]).map_err(|_| "HTTP head that is no text")?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or("answer that is not HTTP/1.1")?;
    let length = match header(head, "content-length") {
        Some(length) => length.parse().ok().filter(|length| *length <= MAX_BODY),
        // RFC 9110, section 15.3.5.
        None if status == 204 => Some(0),
        None => None,
    };
    let length = length.ok_or("answer without a sensible Content-Length")?;
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let last = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Response { status, body, length: start + length, last }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let bytes = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}HTTP/1.1 ";
        let whole = bytes.len() - b"HTTP/1.1 ".len();
        assert_eq!(response(bytes), Ok(Some(Response { status: 201, body: b"{}", length: whole, last: true })));
        for cut in 0..whole {
            assert_eq!(response(&bytes[..cut]), Ok(None));
        }
    }

    #[test]
    fn absurd_lengths_and_strangers_are_refused() {
        for wrong in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"-ERR 'x'\r\n\r\n",
            b"\xff\r\n\r\n",
        ] {
            assert!(response(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
