//! WebSocket as far as a load generator and its floor need it (RFC 6455): the upgrade of both sides, unmasked frames
//! from a server, masked frames from a client.

use tungstenite::handshake::derive_accept_key;

use super::{MAX_MESSAGE, Malformed};

/// Opcodes of RFC 6455, section 5.2.
pub(crate) const CONTINUATION: u8 = 0;
/// A text message.
pub(crate) const TEXT: u8 = 1;
/// A binary message.
pub(crate) const BINARY: u8 = 2;
/// The end, with a code.
pub(crate) const CLOSE: u8 = 8;
/// Asks for a [`PONG`] with the same payload.
pub(crate) const PING: u8 = 9;
/// Answers a [`PING`].
pub(crate) const PONG: u8 = 10;

/// An upgrade's head, of either side, is refused beyond this.
pub(crate) const MAX_HEAD: usize = 8 << 10;

/// Any 16 bytes in base64 will do (RFC 6455, section 4.1); the server's answer is checked against them.
const KEY: &str = "dGlkZWdhdGUtbG9hZGdlbg==";

/// Masking hides bytes from proxies that misread them; on a test's loopback one key for all frames is as good.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x91, 0x2e];

/// A complete frame at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Lower four bits of the first byte.
    pub(crate) opcode: u8,
    /// What the frame carries; still masked if it came from a client.
    pub(crate) payload: &'a [u8],
    /// The mask, if there is one.
    pub(crate) mask: Option<[u8; 4]>,
    /// Bytes that the frame takes, with its header.
    pub(crate) length: usize,
}

/// The frame that `bytes` begins with; `None` while it is incomplete.
///
/// # Errors
/// Reserved bits, fragments (no push server sends any) and a frame beyond [`MAX_MESSAGE`].
#[inline]
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err("frame with reserved bits");
    }
    let opcode = first & 0x0f;
    if first & 0x80 == 0 || opcode == CONTINUATION {
        return Err("fragmented message");
    }
    let (announced, rest, mut head) = match second & 0x7f {
        126 => {
            let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*length)), rest, 4)
        }
        127 => {
            let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*length), rest, 10)
        }
        length => (u64::from(length), rest, 2),
    };
    if announced > MAX_MESSAGE as u64 {
        return Err("frame over 32 MiB");
    }
    let (mask, rest) = if second & 0x80 == 0 {
        (None, rest)
    } else {
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        head += 4;
        (Some(*mask), rest)
    };
    let Some(payload) = rest.get(..announced as usize) else { return Ok(None) };
    Ok(Some(Frame { opcode, payload, mask, length: head + payload.len() }))
}

/// The code of a close frame's payload; 1005, "no status received", where there is none.
pub(crate) fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// Appends a frame as a server sends it.
pub(crate) fn push_server_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    push_length(payload.len(), 0, out);
    out.extend_from_slice(payload);
}

/// Appends a frame as a client sends it, masked.
pub(crate) fn push_client_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    push_length(payload.len(), 0x80, out);
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(MASK, &mut out[start..]);
}

fn push_length(length: usize, masked: u8, out: &mut Vec<u8>) {
    match length {
        0..126 => out.push(masked | length as u8),
        126..0x1_0000 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Masks or unmasks in place; both are the same.
pub(crate) fn apply_mask(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// A client's request for the upgrade.
pub(crate) fn upgrade_request(host: &str, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let subprotocol = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
    )
    .into_bytes()
}

/// What a server said to an upgrade.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Granted; the head is so many bytes long.
    Granted(usize),
    /// Refused with this HTTP status.
    Refused(u16),
}

/// Reads the answer to [`upgrade_request`]; `None` while it is incomplete.
///
/// # Errors
/// What is no HTTP, or grants the upgrade with a wrong key.
pub(crate) fn upgrade_response(bytes: &[u8]) -> Result<Option<Upgrade>, Malformed> {
    let Some(end) = head_end(bytes)? else { return Ok(None) };
    let head = str::from_utf8(&bytes[..end]).map_err(|_| "upgrade answer is not text")?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .ok_or("upgrade answer is not HTTP/1.1")?;
    if status != 101 {
        return Ok(Some(Upgrade::Refused(status)));
    }
    match header(head, "sec-websocket-accept") {
        Some(key) if key == derive_accept_key(KEY.as_bytes()) => Ok(Some(Upgrade::Granted(end))),
        _ => Err("upgrade answer with a wrong key"),
    }
}

/// Answers a client's upgrade request: the request's length and the bytes to send; `None` while it is incomplete.
///
/// # Errors
/// A request without a key, or one that is too long.
pub(crate) fn answer_upgrade(bytes: &[u8]) -> Result<Option<(usize, Vec<u8>)>, Malformed> {
    let Some(end) = head_end(bytes)? else { return Ok(None) };
    let head = str::from_utf8(&bytes[..end]).map_err(|_| "upgrade request is not text")?;
    let key = header(head, "sec-websocket-key").ok_or("upgrade request without a key")?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Ok(Some((end, answer.into_bytes())))
}

/// Where the body of an HTTP message begins.
pub(crate) fn head_end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    match memchr::memmem::find(bytes, b"\r\n\r\n") {
        Some(at) => Ok(Some(at + 4)),
        None if bytes.len() > MAX_HEAD => Err("HTTP head over 8 KiB"),
        None => Ok(None),
    }
}

/// The value of a header, its name given in lower case.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_frame_of_every_length_form_is_read_and_never_from_a_part_of_it() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7u8; length];
            let mut bytes = Vec::new();
            push_server_frame(BINARY, &payload, &mut bytes);
            let whole = bytes.len();
            bytes.extend_from_slice(b"next");
            let read = frame(&bytes).unwrap().unwrap();
            assert_eq!((read.opcode, read.payload, read.length), (BINARY, payload.as_slice(), whole));
            for cut in [0, 1, 2, 3, 9, whole - 1] {
                assert_eq!(frame(&bytes[..cut.min(whole - 1)]), Ok(None));
            }
        }
    }

    #[test]
    fn a_client_frame_is_masked_and_unmasks_to_what_was_sent() {
        let mut bytes = Vec::new();
        push_client_frame(TEXT, b"{}", &mut bytes);
        let read = frame(&bytes).unwrap().unwrap();
        assert_ne!(read.payload, b"{}");
        let mut payload = read.payload.to_vec();
        apply_mask(read.mask.unwrap(), &mut payload);
        assert_eq!(payload, b"{}");
    }

    #[test]
    fn fragments_reserved_bits_and_absurd_lengths_are_refused() {
        assert!(frame(&[0x01, 0]).is_err());
        assert!(frame(&[0x80, 0]).is_err());
        assert!(frame(&[0xc1, 0]).is_err());
        assert!(frame(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn an_upgrade_is_granted_by_the_right_key_only() {
        let request = upgrade_request("localhost", "/connection/websocket", Some("centrifuge-protobuf"));
        let (length, answer) = answer_upgrade(&request).unwrap().unwrap();
        assert_eq!(length, request.len());
        assert_eq!(upgrade_response(&answer), Ok(Some(Upgrade::Granted(answer.len()))));
        assert_eq!(upgrade_response(&answer[..answer.len() - 1]), Ok(None));
        let other = String::from_utf8(answer).unwrap().replace("Accept: ", "Accept: x");
        assert!(upgrade_response(other.as_bytes()).is_err());
    }

    #[test]
    fn the_key_is_16_bytes_in_base64_as_strict_servers_want_it() {
        assert!(KEY.len() == 24 && KEY.ends_with("==") && !KEY.ends_with("==="));
    }

    #[test]
    fn a_refused_upgrade_gives_its_status() {
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\n\r\n";
        assert_eq!(upgrade_response(refusal), Ok(Some(Upgrade::Refused(503))));
    }

    #[test]
    fn a_close_frame_without_a_code_counts_as_1005() {
        assert_eq!(close_code(&3008u16.to_be_bytes()), 3008);
        assert_eq!(close_code(&[]), 1005);
    }
}
