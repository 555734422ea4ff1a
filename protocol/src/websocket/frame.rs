//! The frames that a server sends: unmasked, never fragmented.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes of the longest payload of a control frame (RFC 6455, 5.5).
pub const CONTROL_MAX: usize = 125;

/// Bytes of the longest header that a server writes.
pub const HEADER_MAX: usize = 10;

/// A text message's opcode.
pub const TEXT: OpCode = OpCode::Data(Data::Text);

/// A binary message's opcode.
pub const BINARY: OpCode = OpCode::Data(Data::Binary);

/// Appends the header of an unfragmented frame with `length` bytes of payload.
pub fn write_header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let written = header.format(length as u64, out);
    debug_assert!(written.is_ok(), "a Vec takes every write");
}

/// A close frame. A reason beyond 123 bytes is cut, at a character's boundary.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    control(Control::Close, &payload)
}

/// The answer to a close frame that came without a code: one without a code.
pub fn close_without_code() -> Vec<u8> {
    control(Control::Close, b"")
}

/// A ping without a payload.
pub fn ping() -> Vec<u8> {
    control(Control::Ping, b"")
}

/// The answer to a ping, with the ping's payload.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    control(Control::Pong, payload)
}

/// A control frame. A payload beyond [`CONTROL_MAX`] is cut: a frame that long would be a violation.
fn control(control: Control, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(CONTROL_MAX)];
    let mut out = Vec::with_capacity(2 + payload.len());
    write_header(OpCode::Control(control), payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_the_shortest_form() {
        let cases: &[(usize, &[u8])] = &[
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ];
        for (length, expected) in cases {
            let mut out = Vec::new();
            write_header(TEXT, *length, &mut out);
            assert_eq!(out, *expected, "{length}");
            assert!(out.len() <= HEADER_MAX);
        }
    }

    #[test]
    fn control_frames_have_their_bytes() {
        assert_eq!(close(3001, "shutdown"), b"\x88\x0a\x0b\xb9shutdown");
        assert_eq!(close_without_code(), b"\x88\x00");
        assert_eq!(ping(), b"\x89\x00");
        assert_eq!(pong(b"hi"), b"\x8a\x02hi");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(1000, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
