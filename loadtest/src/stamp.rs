//! The payload of every message: it has the wanted size and says which message it is and when it was due.
//!
//! ```text
//! {"lt#":"RRRRCCCCCCSSSSSSSSTTTTTTTTTTTTTTTT","p":"xxxx"}     a JSON object
//! "lt#RRRRCCCCCCSSSSSSSSTTTTTTTTTTTTTTTT:xxxx;"               a JSON string
//! lt#RRRRCCCCCCSSSSSSSSTTTTTTTTTTTTTTTT:xxxx;                 plain text
//!    |   |     |       due time, ns on the machine's monotonic clock
//!    |   |     sequence number within the channel
//!    |   channel
//!    round
//! ```
//!
//! The figures are hexadecimal digits of fixed width, so that a client reads them at fixed places and a gateway can
//! neither shorten nor reorder them.

/// The smallest payload in bytes that holds a stamp, in any format.
pub(crate) const MIN_PAYLOAD: usize = HEAD.len() + DIGITS + MIDDLE.len() + TAIL.len();

/// What every payload has near its beginning, and what a JSON client looks for in a reply. Plain text begins with it.
pub(crate) const MARK: &[u8] = b"lt#";

/// How a payload begins that is a JSON object.
pub(crate) const HEAD: &[u8] = b"{\"lt#\":\"";

const MIDDLE: &[u8] = b"\",\"p\":\"";
const TAIL: &[u8] = b"\"}";
const TEXT_TAIL: u8 = b';';
const DIGITS: usize = 4 + 6 + 8 + 16;

/// The most channels that a stamp can tell apart.
pub(crate) const MAX_CHANNELS: u32 = 1 << 24;

/// What a payload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// A JSON object.
    #[default]
    Object,
    /// A JSON string.
    String,
    /// Plain text, which is no JSON; a server gives it to JSON clients as a JSON string.
    Text,
}

/// What a payload says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The measurement that the message belongs to; others are leftovers.
    pub(crate) round: u16,
    /// The channel's number, below [`MAX_CHANNELS`].
    pub(crate) channel: u32,
    /// The message's number within its channel and round, from 0.
    pub(crate) sequence: u32,
    /// When the message was due, in ns of [`crate::clock::now`].
    pub(crate) due: u64,
}

impl Stamp {
    /// Writes a payload of exactly `size` bytes over what `out` held. A size below [`MIN_PAYLOAD`] counts as that.
    pub(crate) fn write(&self, format: Format, size: usize, out: &mut Vec<u8>) {
        let (head, middle, tail): (&[u8], &[u8], &[u8]) = match format {
            Format::Object => (HEAD, MIDDLE, TAIL),
            Format::String => (b"\"lt#", b":", b";\""),
            Format::Text => (MARK, b":", b";"),
        };
        out.clear();
        out.extend_from_slice(head);
        push_hex(u64::from(self.round), 4, out);
        push_hex(u64::from(self.channel), 6, out);
        push_hex(u64::from(self.sequence), 8, out);
        push_hex(self.due, 16, out);
        out.extend_from_slice(middle);
        out.resize(size.max(MIN_PAYLOAD) - tail.len(), b'x');
        out.extend_from_slice(tail);
    }

    /// Reads the stamp of a payload of `size` bytes that `bytes` begins with, in any format, also that of a plain text
    /// which has become a JSON string on its way; `None` where that is not what is there.
    #[inline]
    pub(crate) fn read(bytes: &[u8], size: usize) -> Option<Self> {
        match bytes.first()? {
            b'{' => {
                let payload = bytes.get(..size)?;
                if !payload.ends_with(TAIL) {
                    return None;
                }
                Self::digits(payload.strip_prefix(HEAD)?)
            }
            b'"' => {
                let text = match bytes.get(..size)? {
                    [b'"', text @ .., TEXT_TAIL, b'"'] => text,
                    _ if bytes.get(size + 1) == Some(&b'"') => bytes[1..=size].strip_suffix(&[TEXT_TAIL])?,
                    _ => return None,
                };
                Self::digits(text.strip_prefix(MARK)?)
            }
            _ => Self::digits(bytes.get(..size)?.strip_suffix(&[TEXT_TAIL])?.strip_prefix(MARK)?),
        }
    }

    #[inline]
    fn digits(text: &[u8]) -> Option<Self> {
        let digits = text.get(..DIGITS)?;
        Some(Self {
            round: hex(&digits[..4])? as u16,
            channel: hex(&digits[4..10])? as u32,
            sequence: hex(&digits[10..18])? as u32,
            due: hex(&digits[18..34])?,
        })
    }
}

fn push_hex(value: u64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        let digit = (value >> (place * 4)) & 0xf;
        out.push(b"0123456789abcdef"[digit as usize]);
    }
}

/// At most 16 lower-case hexadecimal digits as a number.
fn hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    let mut wrong = 0u8;
    for &digit in digits {
        let nibble = NIBBLES[usize::from(digit)];
        wrong |= nibble;
        value = (value << 4) | u64::from(nibble & 0xf);
    }
    (wrong & NOT_A_DIGIT == 0).then_some(value)
}

const NOT_A_DIGIT: u8 = 0x80;

/// The value of each lower-case hexadecimal digit; a table, because this runs 34 times per delivery.
const NIBBLES: [u8; 256] = {
    let mut table = [NOT_A_DIGIT; 256];
    let mut value = 0u8;
    while value < 16 {
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { round: 0xfffe, channel: 0x00a1_b2c3, sequence: 0xdead_beef, due: 0x0123_4567_89ab_cdef };

    const FORMATS: [Format; 3] = [Format::Object, Format::String, Format::Text];

    #[test]
    fn a_payload_has_the_wanted_size_is_what_it_says_and_gives_its_stamp_back() {
        let mut payload = Vec::new();
        for format in FORMATS {
            for size in [MIN_PAYLOAD, 64, 128, 4096] {
                STAMP.write(format, size, &mut payload);
                assert_eq!(payload.len(), size);
                let json = serde_json::from_slice::<serde_json::Value>(&payload).ok();
                assert_eq!(
                    (json.as_ref().is_some_and(|json| json.is_object()), json.is_some_and(|json| json.is_string())),
                    (format == Format::Object, format == Format::String)
                );
                assert_eq!(Stamp::read(&payload, size), Some(STAMP), "{format:?} {size}");
            }
        }
    }

    #[test]
    fn a_text_that_was_made_a_json_string_gives_its_stamp_back() {
        let mut payload = Vec::new();
        STAMP.write(Format::Text, 128, &mut payload);
        let quoted = serde_json::to_vec(str::from_utf8(&payload).unwrap()).unwrap();
        assert_eq!(Stamp::read(&quoted, 128), Some(STAMP));
        assert_eq!(Stamp::read(&quoted, 127), None);
        assert_eq!(Stamp::read(&quoted, 129), None);
    }

    #[test]
    fn bytes_behind_the_payload_do_not_matter() {
        let mut payload = Vec::new();
        for format in FORMATS {
            STAMP.write(format, 128, &mut payload);
            payload.extend_from_slice(b"}}}");
            assert_eq!(Stamp::read(&payload, 128), Some(STAMP), "{format:?}");
        }
    }

    #[test]
    fn a_payload_that_was_cut_or_changed_has_no_stamp() {
        let mut payload = Vec::new();
        for format in FORMATS {
            STAMP.write(format, 128, &mut payload);
            assert_eq!(Stamp::read(&payload[..127], 128), None);
            assert_eq!(Stamp::read(&payload, 127), None);
            let digit = memchr::memmem::find(&payload, b"fffe").unwrap();
            payload[digit] = b'g';
            assert_eq!(Stamp::read(&payload, 128), None);
        }
    }
}
