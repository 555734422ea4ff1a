//! The payload of every message: valid JSON of the wanted size that says which message it is and when it was due.
//!
//! ```text
//! {"lt":"RRRRCCCCCCSSSSSSSSTTTTTTTTTTTTTTTT","p":"xxxx"}
//!        |   |     |       due time, ns on the machine's monotonic clock
//!        |   |     sequence number within the channel
//!        |   channel
//!        round
//! ```
//!
//! The figures are hexadecimal digits of fixed width, so that a client reads them at fixed places and a gateway can
//! neither shorten nor reorder them.

/// The smallest payload in bytes that holds a stamp.
pub(crate) const MIN_PAYLOAD: usize = HEAD.len() + DIGITS + MIDDLE.len() + TAIL.len();

/// How every payload begins; also what a JSON client looks for in a reply.
pub(crate) const HEAD: &[u8] = b"{\"lt\":\"";

const MIDDLE: &[u8] = b"\",\"p\":\"";
const TAIL: &[u8] = b"\"}";
const DIGITS: usize = 4 + 6 + 8 + 16;

/// The most channels that a stamp can tell apart.
pub(crate) const MAX_CHANNELS: u32 = 1 << 24;

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
    pub(crate) fn write(&self, size: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(HEAD);
        push_hex(u64::from(self.round), 4, out);
        push_hex(u64::from(self.channel), 6, out);
        push_hex(u64::from(self.sequence), 8, out);
        push_hex(self.due, 16, out);
        out.extend_from_slice(MIDDLE);
        out.resize(size.max(MIN_PAYLOAD) - TAIL.len(), b'x');
        out.extend_from_slice(TAIL);
    }

    /// Reads the stamp of a payload of `size` bytes that `bytes` begins with; `None` where that is not what is there.
    pub(crate) fn read(bytes: &[u8], size: usize) -> Option<Self> {
        let payload = bytes.get(..size)?;
        let digits = payload.strip_prefix(HEAD)?.get(..DIGITS)?;
        if !payload.ends_with(TAIL) {
            return None;
        }
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

    #[test]
    fn a_payload_has_the_wanted_size_is_json_and_gives_its_stamp_back() {
        let mut payload = Vec::new();
        for size in [MIN_PAYLOAD, 64, 128, 4096] {
            STAMP.write(size, &mut payload);
            assert_eq!(payload.len(), size);
            assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok());
            assert_eq!(Stamp::read(&payload, size), Some(STAMP));
        }
    }

    #[test]
    fn bytes_behind_the_payload_do_not_matter() {
        let mut payload = Vec::new();
        STAMP.write(128, &mut payload);
        payload.extend_from_slice(b"}}}");
        assert_eq!(Stamp::read(&payload, 128), Some(STAMP));
    }

    #[test]
    fn a_payload_that_was_cut_or_changed_has_no_stamp() {
        let mut payload = Vec::new();
        STAMP.write(128, &mut payload);
        assert_eq!(Stamp::read(&payload[..127], 128), None);
        assert_eq!(Stamp::read(&payload, 127), None);
        payload[HEAD.len()] = b'g';
        assert_eq!(Stamp::read(&payload, 128), None);
    }
}
