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
