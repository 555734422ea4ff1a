//! Messages from the frames that a client sends.
//!
//! The caller keeps the bytes and calls [`Assembler::step`] on them again and again, each time behind what the last
//! step consumed. An idle connection's assembler is one pointer; only a fragmented message allocates.

use std::borrow::Cow;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::frame::CONTROL_MAX;

/// How a client broke WebSocket's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A client's frames must be masked.
    #[error("a frame without a mask")]
    Unmasked,
    /// Reserved bits belong to extensions, and none is agreed.
    #[error("reserved bits in a frame")]
    ReservedBits,
    /// An opcode without a meaning.
    #[error("a frame of unknown kind {0:#x}")]
    ReservedOpcode(u8),
    /// A control frame in pieces.
    #[error("a fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("a control frame of {0} bytes")]
    LongControl(u64),
    /// A continuation of nothing.
    #[error("a continuation without a message to continue")]
    Continuation,
    /// A new message before the last one ended.
    #[error("a new message within a fragmented one")]
    Interleaved,
    /// A close frame whose payload is half a code, or a code that may not be sent.
    #[error("a close frame with a bad code")]
    CloseCode,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// A message beyond the limit.
    #[error("a message of at least {length} bytes, beyond the limit of {limit}")]
    TooBig {
        /// Bytes of the message as far as announced.
        length: u64,
        /// Bytes allowed.
        limit: usize,
    },
}

impl FrameError {
    /// The code to close with.
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::Utf8 => 1007,
            Self::TooBig { .. } => 1009,
            _ => 1002,
        }
    }
}

/// What stood at the start of the bytes. `consumed` counts the bytes of the frame, to be dropped by the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'b> {
    /// Not yet a whole frame. The bytes are untouched: keep them and come again with more behind them.
    Incomplete,
    /// A message is complete.
    Message {
        /// Text, or binary.
        opcode_text: bool,
        /// The message. Borrowed from the bytes unless it came in fragments.
        payload: Cow<'b, [u8]>,
        /// Bytes of the frame.
        consumed: usize,
    },
    /// A ping, to be answered with the same payload.
    Ping {
        /// At most 125 bytes.
        payload: &'b [u8],
        /// Bytes of the frame.
        consumed: usize,
    },
    /// A pong.
    Pong {
        /// Bytes of the frame.
        consumed: usize,
    },
    /// The client closes. What follows is to be ignored.
    Close {
        /// Why, if it says so.
        code: Option<u16>,
        /// More words on it, at most 123 bytes.
        reason: &'b str,
        /// Bytes of the frame.
        consumed: usize,
    },
    /// A fragment was taken in; its message goes on.
    Continue {
        /// Bytes of the frame.
        consumed: usize,
    },
}

/// The fragments so far.
#[derive(Debug)]
struct Fragments {
    text: bool,
    data: Vec<u8>,
    /// Bytes at the start of `data` that are whole characters.
    checked: usize,
}

impl Fragments {
    /// Takes a fragment in. `last` demands that text ends with a whole character.
    fn push(&mut self, payload: &[u8], last: bool, validate_utf8: bool) -> Result<(), FrameError> {
        self.data.extend_from_slice(payload);
        if !(self.text && validate_utf8) {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.data[self.checked..]) {
            Ok(_) => self.checked = self.data.len(),
            Err(error) if error.error_len().is_none() && !last => self.checked += error.valid_up_to(),
            Err(_) => return Err(FrameError::Utf8),
        }
        Ok(())
    }
}

/// A connection's state between frames: nothing, or the fragments of a message.
#[derive(Debug, Default)]
pub struct Assembler {
    fragments: Option<Box<Fragments>>,
}

/// A frame's header with its lengths checked.
struct Header {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// Bytes of the header.
    start: usize,
    /// Bytes of the payload.
    length: usize,
}

impl Assembler {
    /// Bytes held for a message of which fragments came.
    pub fn buffered(&self) -> usize {
        self.fragments.as_ref().map_or(0, |fragments| fragments.data.capacity())
    }

    /// Takes the frame at the start of `buf`, unmasked in place.
    ///
    /// A message has at most `max_message` bytes, and is refused when its header says that it will be longer.
    /// `validate_utf8` checks the text of text messages; the reason of a close is always checked.
    ///
    /// # Errors
    ///
    /// A violation of the protocol, after which the connection is to be closed with [`FrameError::close_code`].
    pub fn step<'b>(
        &mut self,
        buf: &'b mut [u8],
        max_message: usize,
        validate_utf8: bool,
    ) -> Result<Step<'b>, FrameError> {
        let Some(header) = self.parse(buf, max_message)? else { return Ok(Step::Incomplete) };
        let consumed = header.start + header.length;
        let Some(payload) = buf.get_mut(header.start..consumed) else { return Ok(Step::Incomplete) };
        unmask(payload, header.mask);
        match header.opcode {
            OpCode::Control(Control::Close) => close(payload, consumed),
            OpCode::Control(Control::Ping) => Ok(Step::Ping { payload, consumed }),
            OpCode::Control(_) => Ok(Step::Pong { consumed }),
            OpCode::Data(kind) => {
                let text = kind == Data::Text;
                let Some(mut fragments) = self.fragments.take().or_else(|| (!header.is_final).then(|| new(text)))
                else {
                    if text && validate_utf8 && simdutf8::basic::from_utf8(payload).is_err() {
                        return Err(FrameError::Utf8);
                    }
                    return Ok(Step::Message { opcode_text: text, payload: Cow::Borrowed(payload), consumed });
                };
                fragments.push(payload, header.is_final, validate_utf8)?;
                if header.is_final {
                    return Ok(Step::Message {
                        opcode_text: fragments.text,
                        payload: Cow::Owned(fragments.data),
                        consumed,
                    });
                }
                self.fragments = Some(fragments);
                Ok(Step::Continue { consumed })
            }
        }
    }

    /// Reads the header and holds it to every rule that can be judged without the payload.
    fn parse(&self, buf: &[u8], max_message: usize) -> Result<Option<Header>, FrameError> {
        let mut cursor = Cursor::new(buf);
        // The parser's one objection is to the opcode; a slice gives no other error.
        let parsed = FrameHeader::parse(&mut cursor)
            .map_err(|_| FrameError::ReservedOpcode(buf.first().map_or(0, |byte| byte & 0x0f)))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameError::ReservedBits);
        }
        let Some(mask) = header.mask else { return Err(FrameError::Unmasked) };
        let limit = match header.opcode {
            OpCode::Control(_) if !header.is_final => return Err(FrameError::FragmentedControl),
            OpCode::Control(_) if length > CONTROL_MAX as u64 => return Err(FrameError::LongControl(length)),
            OpCode::Control(_) => CONTROL_MAX,
            OpCode::Data(Data::Continue) if self.fragments.is_none() => return Err(FrameError::Continuation),
            OpCode::Data(Data::Text | Data::Binary) if self.fragments.is_some() => return Err(FrameError::Interleaved),
            OpCode::Data(_) => max_message,
        };
        let before = match (header.opcode, &self.fragments) {
            (OpCode::Data(_), Some(fragments)) => fragments.data.len(),
            _ => 0,
        };
        match usize::try_from(length) {
            Ok(length) if length <= limit.saturating_sub(before) => {
                // A cursor's position within a slice fits.
                let start = cursor.position() as usize;
                Ok(Some(Header { opcode: header.opcode, is_final: header.is_final, mask, start, length }))
            }
            _ => Err(FrameError::TooBig { length: length.saturating_add(before as u64), limit }),
        }
    }
}

/// An empty list of fragments.
fn new(text: bool) -> Box<Fragments> {
    Box::new(Fragments { text, data: Vec::new(), checked: 0 })
}

/// Reads a close frame's payload.
fn close(payload: &[u8], consumed: usize) -> Result<Step<'_>, FrameError> {
    match payload {
        [] => Ok(Step::Close { code: None, reason: "", consumed }),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(FrameError::CloseCode);
            }
            let reason = simdutf8::basic::from_utf8(reason).map_err(|_| FrameError::Utf8)?;
            Ok(Step::Close { code: Some(code), reason, consumed })
        }
        [_] => Err(FrameError::CloseCode),
    }
}

/// Takes the mask off, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const LIMIT: usize = 1000;

    /// A masked frame with this first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            length @ 0..=125 => out.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    /// What comes out of some frames: payloads of messages with a letter for their kind, and the error at the end.
    fn run(frames: &[Vec<u8>]) -> (Vec<(char, Vec<u8>)>, Option<FrameError>) {
        let mut buf = frames.concat();
        let (mut assembler, mut found, mut at) = (Assembler::default(), Vec::new(), 0);
        loop {
            at += match assembler.step(&mut buf[at..], LIMIT, true) {
                Ok(Step::Incomplete) => break,
                Ok(Step::Message { opcode_text, payload, consumed }) => {
                    found.push((if opcode_text { 't' } else { 'b' }, payload.into_owned()));
                    consumed
                }
                Ok(Step::Ping { payload, consumed }) => {
                    found.push(('p', payload.to_vec()));
                    consumed
                }
                Ok(Step::Pong { consumed } | Step::Continue { consumed }) => consumed,
                Ok(Step::Close { code, reason, consumed }) => {
                    found.push(('c', format!("{code:?} {reason}").into_bytes()));
                    consumed
                }
                Err(error) => return (found, Some(error)),
            };
        }
        assert_eq!(at, buf.len(), "bytes left over");
        (found, None)
    }

    fn error(frames: &[Vec<u8>]) -> Option<FrameError> {
        run(frames).1
    }

    #[test]
    fn an_idle_assembler_is_one_pointer() {
        assert_eq!(size_of::<Assembler>(), size_of::<usize>());
    }

    #[test]
    fn messages_come_out_unmasked() {
        for length in [0, 1, 7, 8, 9, 125, 126, 127, 1000] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            assert_eq!(run(&[frame(0x82, &payload)]), (vec![('b', payload)], None));
        }
        assert_eq!(run(&[frame(0x81, b"Hello")]), (vec![('t', b"Hello".to_vec())], None));
    }

    #[test]
    fn an_unfragmented_message_is_borrowed() {
        let mut buf = frame(0x82, b"data");
        let step = Assembler::default().step(&mut buf, LIMIT, true).unwrap();
        assert!(matches!(step, Step::Message { payload: Cow::Borrowed(b"data"), consumed: 10, .. }));
    }

    #[test]
    fn an_incomplete_frame_is_left_untouched() {
        let whole = frame(0x81, &[b'x'; 200]);
        for end in 0..whole.len() {
            let mut part = whole[..end].to_vec();
            assert_eq!(Assembler::default().step(&mut part, LIMIT, true), Ok(Step::Incomplete), "{end}");
            assert_eq!(part, whole[..end]);
        }
    }

    #[test]
    fn fragments_become_one_message_with_control_frames_between() {
        let frames = [frame(0x01, b"ab"), frame(0x89, b"?"), frame(0x00, b""), frame(0x8a, b"!"), frame(0x80, b"cd")];
        assert_eq!(run(&frames), (vec![('p', b"?".to_vec()), ('t', b"abcd".to_vec())], None));
        let frames = [frame(0x02, b"\xff"), frame(0x80, b"\xfe"), frame(0x82, b"next")];
        assert_eq!(run(&frames), (vec![('b', b"\xff\xfe".to_vec()), ('b', b"next".to_vec())], None));
    }

    #[test]
    fn nothing_is_held_once_a_fragmented_message_is_out() {
        let mut assembler = Assembler::default();
        assembler.step(&mut frame(0x02, b"abc"), LIMIT, true).unwrap();
        assert!(assembler.buffered() >= 3);
        assembler.step(&mut frame(0x80, b"d"), LIMIT, true).unwrap();
        assert_eq!(assembler.buffered(), 0);
    }

    #[test]
    fn violations_have_their_close_codes() {
        let mut unmasked = frame(0x81, b"");
        unmasked[1] = 0;
        let cases = [
            (vec![unmasked], FrameError::Unmasked, 1002),
            (vec![frame(0xc1, b"")], FrameError::ReservedBits, 1002),
            (vec![frame(0xa1, b"")], FrameError::ReservedBits, 1002),
            (vec![frame(0x99, b"")], FrameError::ReservedBits, 1002),
            (vec![frame(0x83, b"")], FrameError::ReservedOpcode(3), 1002),
            (vec![frame(0x8b, b"")], FrameError::ReservedOpcode(11), 1002),
            (vec![frame(0x09, b"")], FrameError::FragmentedControl, 1002),
            (vec![frame(0x89, &[0; 126])], FrameError::LongControl(126), 1002),
            (vec![frame(0x80, b"x")], FrameError::Continuation, 1002),
            (vec![frame(0x00, b"x")], FrameError::Continuation, 1002),
            (vec![frame(0x01, b"x"), frame(0x81, b"y")], FrameError::Interleaved, 1002),
            (vec![frame(0x88, &[3])], FrameError::CloseCode, 1002),
            (vec![frame(0x88, b"\x03\xe8\xff")], FrameError::Utf8, 1007),
            (vec![frame(0x81, b"\xc3")], FrameError::Utf8, 1007),
            (vec![frame(0x82, &[0; 1001])], FrameError::TooBig { length: 1001, limit: 1000 }, 1009),
        ];
        for (frames, expected, code) in cases {
            assert_eq!(error(&frames), Some(expected));
            assert_eq!(expected.close_code(), code);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_payload() {
        for length in [1001_u64, 1 << 32, 1 << 63, u64::MAX] {
            let mut header = vec![0x82, 0x80 | 127];
            header.extend_from_slice(&length.to_be_bytes());
            header.extend_from_slice(&MASK);
            assert_eq!(error(&[header]), Some(FrameError::TooBig { length, limit: LIMIT }));
        }
    }

    #[test]
    fn fragments_count_together_against_the_limit() {
        assert_eq!(run(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 400])]).0.len(), 1);
        let expected = FrameError::TooBig { length: 1001, limit: 1000 };
        assert_eq!(error(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 401])]), Some(expected));
    }

    #[test]
    fn a_control_frame_passes_within_a_message_at_the_limit() {
        let frames = [frame(0x02, &[0; 1000]), frame(0x89, b"?"), frame(0x80, b"")];
        assert_eq!(run(&frames).0.len(), 2);
    }

    #[test]
    fn close_codes_are_judged() {
        for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
            let (found, error) = run(&[frame(0x88, &[&code.to_be_bytes(), "zü".as_bytes()].concat())]);
            assert_eq!((found.len(), error), (1, None), "{code}");
            assert_eq!(found[0].1, format!("Some({code}) zü").into_bytes());
        }
        for code in [0_u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            assert_eq!(error(&[frame(0x88, &code.to_be_bytes())]), Some(FrameError::CloseCode), "{code}");
        }
        assert_eq!(run(&[frame(0x88, b"")]), (vec![('c', b"None ".to_vec())], None));
    }

    #[test]
    fn characters_may_be_split_between_fragments() {
        let text = "aé€😀z".as_bytes();
        for at in 0..=text.len() {
            let frames = [frame(0x01, &text[..at]), frame(0x80, &text[at..])];
            assert_eq!(run(&frames), (vec![('t', text.to_vec())], None), "{at}");
        }
        let mut single: Vec<_> = text.iter().map(|byte| frame(0x00, &[*byte])).collect();
        single[0][0] = 0x01;
        single.push(frame(0x80, b""));
        assert_eq!(run(&single), (vec![('t', text.to_vec())], None));
    }

    #[test]
    fn invalid_text_is_refused_at_the_fragment_that_holds_it() {
        assert_eq!(error(&[frame(0x01, b"a\xed\xa0")]), Some(FrameError::Utf8), "a surrogate");
        assert_eq!(error(&[frame(0x01, b"\xf4"), frame(0x00, b"\x90")]), Some(FrameError::Utf8), "beyond U+10FFFF");
        assert_eq!(error(&[frame(0x01, b"\xe2\x82"), frame(0x80, b"")]), Some(FrameError::Utf8), "cut short");
    }

    #[test]
    fn text_is_not_checked_unless_asked() {
        let step = Assembler::default().step(&mut frame(0x81, b"\xff"), LIMIT, false).map(|_| ());
        assert_eq!(step, Ok(()));
        let mut assembler = Assembler::default();
        assert!(assembler.step(&mut frame(0x01, b"\xff"), LIMIT, false).is_ok());
        assert!(assembler.step(&mut frame(0x80, b"\xff"), LIMIT, false).is_ok());
    }
}
