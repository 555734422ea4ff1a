//! WebSocket frames (RFC 6455, 5.2) as a client writes and reads them.

/// A text message.
pub(crate) const TEXT: u8 = 1;
/// A binary message.
pub(crate) const BINARY: u8 = 2;
/// The end.
pub(crate) const CLOSE: u8 = 8;
/// Asks for a pong.
pub(crate) const PING: u8 = 9;
/// Answers a ping.
pub(crate) const PONG: u8 = 10;

/// "This is the whole message".
pub(crate) const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client has to write it: final and masked.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked_with(FIN | opcode, payload)
}

/// A masked frame with any first byte: without [`FIN`] it is a fragment.
pub(crate) fn masked_with(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header, with its mask, of a masked frame that announces `length` bytes.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..126 => header.push(0x80 | length as u8),
        126..0x1_0000 => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}

/// A frame without a mask, as only servers may write it.
pub(crate) fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short frames are enough");
    let mut frame = vec![FIN | opcode, payload.len() as u8];
    frame.extend(payload);
    frame
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// Takes the first frame off the bytes; `None` while it is incomplete. Fails at what a server must not write.
pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(first & 0xf0, FIN, "the server's frames are final and have no reserved bits");
    assert_eq!(second & 0x80, 0, "the server's frames have no mask");
    let (start, length) = match second {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().expect("two bytes")))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().expect("eight bytes"))),
        length => (2, u64::from(length)),
    };
    let end = start + usize::try_from(length).expect("a length that fits");
    let payload = bytes.get(start..end)?.to_vec();
    bytes.drain(..end);
    Some(Frame { opcode: first & 0x0f, payload })
}
