//! The part of RESP2 that a subscriber connection speaks.
//!
//! Redis sends a subscriber messages, confirmations, and answers to PING and AUTH. They are read one at a time from the
//! front of what has arrived. A message's header is read before its payload is there, so that a payload beyond the bound
//! is known, and can be skipped, without being buffered.
//! (The protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/>; the shape of what subscribers
//! receive: <https://redis.io/docs/latest/develop/pubsub/>.)

use std::ops::Range;

use bytes::{BufMut, BytesMut};

/// The longest line (length, status, error) that is accepted, in bytes without its end.
const MAX_LINE: usize = 8 * 1024;

/// The most digits of a number that is accepted: as many as 64 bits can have.
const MAX_DIGITS: usize = 20;

/// The longest channel name that is accepted, in bytes. Only names that were subscribed come back, so this is a guard
/// against a stream that is out of step, not a setting.
const MAX_NAME: u64 = 64 * 1024;

/// What nearly everything starts with that a subscriber receives.
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n";

/// The same in a cluster with sharded pub/sub.
const SHARD_MESSAGE: &[u8] = b"*3\r\n$8\r\nsmessage\r\n";

/// What stands at the front of the stream. Ranges are places in the slice that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A message.
    Message {
        /// The Redis channel.
        channel: Range<usize>,
        /// The payload.
        payload: Range<usize>,
    },
    /// The header of a message whose payload is longer than the bound. The payload and two bytes follow.
    Oversized {
        /// The Redis channel.
        channel: Range<usize>,
        /// The payload's length in bytes.
        length: u64,
    },
    /// The channel is subscribed.
    Subscribed(Range<usize>),
    /// The channel is not subscribed any more.
    Unsubscribed(Range<usize>),
    /// The answer to a PING.
    Pong,
    /// The command succeeded.
    Ok,
    /// The answer is an error.
    Error(Range<usize>),
}

/// What [`parse`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// An item, and how many bytes it takes.
    Item(Item, usize),
    /// There is no whole item yet. It takes at least so many bytes, counted from the start of the slice.
    Incomplete(usize),
}

/// The stream is no RESP2, or nothing that a subscriber is sent: the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unexpected data from Redis: {0}")]
pub(crate) struct WireError(&'static str);

enum Stop {
    More(usize),
    Bad(WireError),
}

fn bad<T>(reason: &'static str) -> Result<T, Stop> {
    Err(Stop::Bad(WireError(reason)))
}

/// Reads the item at the front of `bytes`.
///
/// # Errors
/// See [`WireError`].
pub(crate) fn parse(bytes: &[u8], max_payload: usize) -> Result<Parsed, WireError> {
    let mut reader = Reader { bytes, at: 0 };
    match reader.item(max_payload as u64) {
        Ok(item) => Ok(Parsed::Item(item, reader.at)),
        Err(Stop::More(need)) => Ok(Parsed::Incomplete(need)),
        Err(Stop::Bad(error)) => Err(error),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn item(&mut self, max_payload: u64) -> Result<Item, Stop> {
        if self.bytes.starts_with(MESSAGE) {
            self.at = MESSAGE.len();
            return self.message(max_payload);
        }
        if self.bytes.starts_with(SHARD_MESSAGE) {
            self.at = SHARD_MESSAGE.len();
            return self.message(max_payload);
        }
        match self.bytes.first() {
            None => Err(Stop::More(1)),
            Some(b'*') => self.array(max_payload),
            Some(b'+') => {
                let line = self.line(b'+')?;
                match &self.bytes[line] {
                    b"PONG" => Ok(Item::Pong),
                    _ => Ok(Item::Ok),
                }
            }
            Some(b'-') => Ok(Item::Error(self.line(b'-')?)),
            Some(_) => bad("neither array, status nor error"),
        }
    }

    fn message(&mut self, max_payload: u64) -> Result<Item, Stop> {
        let channel = self.name()?;
        let length = self.number(b'$')?;
        if length > max_payload {
            return Ok(Item::Oversized { channel, length });
        }
        Ok(Item::Message { channel, payload: self.bulk(length)? })
    }

    fn array(&mut self, max_payload: u64) -> Result<Item, Stop> {
        let elements = self.number(b'*')?;
        let kind = self.name()?;
        match (&self.bytes[kind], elements) {
            (b"message" | b"smessage", 3) => self.message(max_payload),
            (b"subscribe" | b"ssubscribe", 3) => {
                let channel = self.name()?;
                self.number(b':')?;
                Ok(Item::Subscribed(channel))
            }
            (b"unsubscribe" | b"sunsubscribe", 3) => {
                let channel = self.name()?;
                self.number(b':')?;
                Ok(Item::Unsubscribed(channel))
            }
            (b"pong", 2) => {
                self.name()?;
                Ok(Item::Pong)
            }
            _ => bad("an array that no subscriber is sent"),
        }
    }

    /// A short string: a kind or a channel's name.
    fn name(&mut self) -> Result<Range<usize>, Stop> {
        let length = self.number(b'$')?;
        if length > MAX_NAME {
            return bad("a name beyond its bound");
        }
        self.bulk(length)
    }

    /// The bytes of a string whose length is known and bounded, and the end of line behind them.
    fn bulk(&mut self, length: u64) -> Result<Range<usize>, Stop> {
        let Ok(length) = usize::try_from(length) else { return bad("a length beyond its bound") };
        let end = self.at + length;
        match self.bytes.get(end..end + 2) {
            None => Err(Stop::More(end + 2)),
            Some(b"\r\n") => {
                let range = self.at..end;
                self.at = end + 2;
                Ok(range)
            }
            Some(_) => bad("a string that does not end where its length says"),
        }
    }

    /// A line that starts with `kind` and holds a number that is not negative. Four of them stand in every message, so
    /// it is read in one pass.
    fn number(&mut self, kind: u8) -> Result<u64, Stop> {
        let start = self.kind(kind)?;
        let mut number: u64 = 0;
        let mut at = start;
        loop {
            match self.bytes.get(at) {
                Some(digit @ b'0'..=b'9') if at - start < MAX_DIGITS => {
                    let value = u64::from(digit - b'0');
                    match number.checked_mul(10).and_then(|n| n.checked_add(value)) {
                        Some(next) => number = next,
                        None => return bad("a number beyond 64 bits"),
                    }
                    at += 1;
                }
                Some(b'0'..=b'9') => return bad("a number beyond 64 bits"),
                Some(b'\r') if at == start => return bad("a number without digits"),
                Some(b'\r') => break,
                Some(_) => return bad("a number with something else than digits"),
                None => return Err(Stop::More(at + 1)),
            }
        }
        self.at = self.end_of_line(at)?;
        Ok(number)
    }

    /// A line that starts with `kind`, without that and without its end.
    fn line(&mut self, kind: u8) -> Result<Range<usize>, Stop> {
        let start = self.kind(kind)?;
        let rest = &self.bytes[start..];
        match rest.iter().take(MAX_LINE + 1).position(|byte| *byte == b'\r') {
            Some(length) => {
                self.at = self.end_of_line(start + length)?;
                Ok(start..start + length)
            }
            None if rest.len() > MAX_LINE => bad("a line beyond its bound"),
            None => Err(Stop::More(self.bytes.len() + 1)),
        }
    }

    /// The place behind the byte that says what a line holds.
    fn kind(&self, kind: u8) -> Result<usize, Stop> {
        match self.bytes.get(self.at) {
            None => Err(Stop::More(self.at + 1)),
            Some(first) if *first == kind => Ok(self.at + 1),
            Some(_) => bad("another type than expected"),
        }
    }

    /// The place behind the end of a line whose carriage return is at `at`.
    fn end_of_line(&self, at: usize) -> Result<usize, Stop> {
        match self.bytes.get(at + 1) {
            None => Err(Stop::More(at + 2)),
            Some(b'\n') => Ok(at + 2),
            Some(_) => bad("a carriage return inside a line"),
        }
    }
}

/// Writes a command with these arguments.
pub(crate) fn command(out: &mut BytesMut, arguments: &[&[u8]]) {
    header(out, b'*', arguments.len());
    for argument in arguments {
        header(out, b'$', argument.len());
        out.put_slice(argument);
        out.put_slice(b"\r\n");
    }
}

/// Writes a command whose arguments are channels, each behind `prefix`.
pub(crate) fn channels_command<'a>(
    out: &mut BytesMut,
    name: &str,
    prefix: &str,
    channels: impl ExactSizeIterator<Item = &'a str>,
) {
    header(out, b'*', channels.len() + 1);
    header(out, b'$', name.len());
    out.put_slice(name.as_bytes());
    out.put_slice(b"\r\n");
    for channel in channels {
        header(out, b'$', prefix.len() + channel.len());
        out.put_slice(prefix.as_bytes());
        out.put_slice(channel.as_bytes());
        out.put_slice(b"\r\n");
    }
}

fn header(out: &mut BytesMut, kind: u8, number: usize) {
    out.put_u8(kind);
    let mut digits = [0; MAX_DIGITS];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis_protocol::resp2::decode::decode;
    use redis_protocol::resp2::types::OwnedFrame;

    use super::*;

    const MAX: usize = 100;

    fn item(bytes: &[u8]) -> Item {
        match parse(bytes, MAX) {
            Ok(Parsed::Item(item, taken)) => {
                assert_eq!(taken, bytes.len());
                item
            }
            other => panic!("{other:?} for {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn each_kind_of_answer_is_told_apart() {
        assert_eq!(item(b"+PONG\r\n"), Item::Pong);
        assert_eq!(item(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"), Item::Pong);
        assert_eq!(item(b"+OK\r\n"), Item::Ok);
        assert_eq!(item(b"-NOAUTH who?\r\n"), Item::Error(1..12));
        assert_eq!(item(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"), Item::Subscribed(23..24));
        assert_eq!(item(b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"), Item::Unsubscribed(26..27));
        assert_eq!(item(b"*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n"), Item::Subscribed(25..26));
        assert_eq!(item(b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n"), Item::Unsubscribed(27..28));
        assert_eq!(
            item(b"*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"),
            Item::Message { channel: 22..23, payload: 29..31 }
        );
        assert_eq!(
            item(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"),
            Item::Message { channel: 21..22, payload: 28..30 }
        );
    }

    #[test]
    fn a_payload_beyond_the_bound_is_known_by_its_header_alone() {
        let header = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$101\r\n";
        assert_eq!(item(header), Item::Oversized { channel: 21..22, length: 101 });
        let huge = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$18446744073709551615\r\n";
        assert_eq!(item(huge), Item::Oversized { channel: 21..22, length: u64::MAX });
    }

    #[test]
    fn a_payload_of_exactly_the_bound_says_how_much_it_needs() {
        let header = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$100\r\n";
        assert_eq!(parse(header, MAX), Ok(Parsed::Incomplete(header.len() + 102)));
    }

    #[test]
    fn nonsense_is_an_error_and_no_wait_for_more() {
        for bytes in [
            &b"hello"[..],
            b"$-1\r\n",
            b":1\r\n",
            b"*-1\r\n",
            b"*3\r\n*3\r\n",
            b"*3\r\n$99999\r\n",
            b"*3\r\n$7\r\nmessage\r\n$99999\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$99999999999999999999\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\nab\r\n",
            b"*4\r\n$8\r\npmessage\r\n",
            b"*12\r3\n",
            b"*12x",
            b"*000000000000000000000", // longer than any number, and no end yet
            b"+a\rb\r\n",
        ] {
            assert!(parse(bytes, MAX).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(parse(&[b'-'; 2 * MAX_LINE], MAX).is_err(), "a line without an end");
    }

    #[test]
    fn commands_are_written_as_arrays_of_strings() {
        let mut out = BytesMut::new();
        channels_command(&mut out, "SUBSCRIBE", "push:", ["a", "twelve chars"].into_iter());
        command(&mut out, &[b"PING"]);
        let expected = "*3\r\n$9\r\nSUBSCRIBE\r\n$6\r\npush:a\r\n$17\r\npush:twelve chars\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!(out, expected.as_bytes());
    }

    proptest! {
        /// The oracle is another implementation of the protocol.
        #[test]
        fn a_message_is_read_as_redis_protocol_reads_it(
            channel in prop::collection::vec(any::<u8>(), 0..40),
            payload in prop::collection::vec(any::<u8>(), 0..MAX),
            rest in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut bytes = BytesMut::new();
            command(&mut bytes, &[b"message", &channel, &payload]);
            let length = bytes.len();
            bytes.extend_from_slice(&rest);

            let Ok(Some((OwnedFrame::Array(frames), taken))) = decode(&bytes) else { panic!("the oracle") };
            prop_assert_eq!(taken, length);
            let Ok(Parsed::Item(Item::Message { channel, payload }, taken)) = parse(&bytes, MAX) else { panic!("no message") };
            prop_assert_eq!(taken, length);
            prop_assert_eq!(&frames[1], &OwnedFrame::BulkString(bytes[channel].to_vec()));
            prop_assert_eq!(&frames[2], &OwnedFrame::BulkString(bytes[payload].to_vec()));

            for cut in 0..length {
                let Ok(Parsed::Incomplete(need)) = parse(&bytes[..cut], MAX) else { panic!("cut at {cut}") };
                prop_assert!(need > cut && need <= length, "cut at {}: needs {} of {}", cut, need, length);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(prop::sample::select(b"*$:+-\r\n0123789message".to_vec()), 0..60)) {
            if let Ok(Parsed::Item(_, taken)) = parse(&bytes, MAX) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
