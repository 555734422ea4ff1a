//! Messages behind their lengths as unsigned varints, in a stream of bytes: raw TCP, and Protobuf batches.

use super::DecodeError;

/// Bytes of the longest varint that holds 64 bits.
const VARINT_MAX: usize = 10;

/// What stands at the start of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delimited<'a> {
    /// Not yet a whole message: read more.
    Incomplete,
    /// A message.
    Message {
        /// Without its length.
        body: &'a [u8],
        /// Bytes to drop from the stream, the length's own included.
        consumed: usize,
    },
}

/// Takes the first message off a stream.
///
/// # Errors
///
/// [`DecodeError::TooBig`] as soon as a length beyond `limit` bytes is announced, before any of its payload, and
/// [`DecodeError::Length`] for a varint that does not end within 64 bits.
pub fn split_delimited(buf: &[u8], limit: usize) -> Result<Delimited<'_>, DecodeError> {
    let mut length = 0_u64;
    for (at, &byte) in buf.iter().enumerate().take(VARINT_MAX) {
        let bits = u64::from(byte & 0x7f);
        if at == VARINT_MAX - 1 && byte > 1 {
            return Err(DecodeError::Length);
        }
        length |= bits << (7 * at);
        if byte & 0x80 != 0 {
            continue;
        }
        let start = at + 1;
        return match usize::try_from(length) {
            Ok(length) if length <= limit => match buf.get(start..start.saturating_add(length)) {
                Some(body) => Ok(Delimited::Message { body, consumed: start + length }),
                None => Ok(Delimited::Incomplete),
            },
            _ => Err(DecodeError::TooBig { length, limit }),
        };
    }
    Ok(Delimited::Incomplete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_when_its_last_byte_is_there() {
        assert_eq!(split_delimited(b"", 10).unwrap(), Delimited::Incomplete);
        assert_eq!(split_delimited(b"\x03", 10).unwrap(), Delimited::Incomplete);
        assert_eq!(split_delimited(b"\x03ab", 10).unwrap(), Delimited::Incomplete);
        assert_eq!(split_delimited(b"\x03abcd", 10).unwrap(), Delimited::Message { body: b"abc", consumed: 4 });
        assert_eq!(split_delimited(b"\x00\x00", 10).unwrap(), Delimited::Message { body: b"", consumed: 1 });
    }

    #[test]
    fn a_length_of_two_bytes_is_read() {
        let mut buf = vec![0xac, 0x02];
        buf.resize(2 + 300, 7);
        let Delimited::Message { body, consumed } = split_delimited(&buf, 300).unwrap() else { panic!("incomplete") };
        assert_eq!((body.len(), consumed), (300, 302));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_payload() {
        let error = split_delimited(&[0xac, 0x02], 299).unwrap_err();
        assert!(matches!(error, DecodeError::TooBig { length: 300, limit: 299 }), "{error}");
        let error = split_delimited(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], usize::MAX - 1);
        assert!(matches!(error, Err(DecodeError::TooBig { length: u64::MAX, .. })), "{error:?}");
    }

    #[test]
    fn the_greatest_length_does_not_overflow() {
        let buf = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(split_delimited(&buf, usize::MAX).unwrap(), Delimited::Incomplete);
    }

    #[test]
    fn a_varint_that_does_not_end_is_refused() {
        assert_eq!(split_delimited(&[0xff; 9], 10).unwrap(), Delimited::Incomplete);
        assert!(matches!(split_delimited(&[0xff; 10], 10), Err(DecodeError::Length)));
        assert!(matches!(split_delimited(&[0xff; 11], 10), Err(DecodeError::Length)));
    }
}
