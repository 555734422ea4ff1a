//! Commands and replies as bytes, in the two formats of the client protocol.
//!
//! - [`json`]: the JSON form of the messages, one object a line.
//! - [`protobuf`]: the Protobuf form, each message behind its length.
//! - [`delimited`]: splits a byte stream into length-delimited messages.
//! - [`payload`]: what a published payload is, and its form for JSON clients.
//!
//! This file: the choice between the formats, and the iterator over one transport message.

use std::collections::BTreeMap;

use crate::code::DisconnectCode;
use crate::limits::Limits;
use crate::message::{ClientInfo, Command, Reply};

pub mod delimited;
pub mod json;
pub mod payload;
pub mod protobuf;

pub use delimited::{Delimited, split_delimited};

/// How a connection's messages are written, fixed when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Objects separated by newlines.
    Json,
    /// Messages behind their lengths as varints.
    Protobuf,
}

/// Why bytes are not a command (or, for clients, not a reply).
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A message is longer than the limit, or says that it will be.
    #[error("a message of {length} bytes is beyond the limit of {limit}")]
    TooBig {
        /// Bytes, as announced or as found.
        length: u64,
        /// Bytes allowed.
        limit: usize,
    },
    /// JSON nests more deeply than allowed.
    #[error("JSON nests deeper than {limit} levels")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// Something else than a JSON object where a command should start, or between two.
    #[error("expected {expected}, found byte {found:#04x}")]
    Unexpected {
        /// What could have stood there.
        expected: &'static str,
        /// What does.
        found: u8,
    },
    /// The bytes end within a message.
    #[error("the bytes end within a message")]
    Truncated,
    /// A length that is no varint of at most 64 bits.
    #[error("a message length that is no 64-bit varint")]
    Length,
    /// Not JSON, or not this message's JSON.
    #[error("bad JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not this message's Protobuf.
    #[error("bad Protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

impl DecodeError {
    /// The code that ends the connection. A WebSocket may close with 1009 instead where [`Self::is_too_big`].
    pub const fn disconnect(&self) -> DisconnectCode {
        DisconnectCode::BadRequest
    }

    /// Whether only the size was wrong.
    pub const fn is_too_big(&self) -> bool {
        matches!(self, Self::TooBig { .. })
    }
}

/// One message's bytes, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split<'a> {
    body: &'a [u8],
    rest: &'a [u8],
}

/// The commands of one transport message, decoded one at a time. After an error there is nothing more.
///
/// A message without any command yields nothing; whether that is a violation is the session's business.
#[derive(Debug, Clone)]
pub struct Commands<'a> {
    format: Format,
    rest: &'a [u8],
    message_size: usize,
    json_depth: usize,
}

impl<'a> Commands<'a> {
    /// Decodes `message` with the given bounds.
    pub fn new(format: Format, message: &'a [u8], limits: &Limits) -> Self {
        Self { format, rest: message, message_size: limits.message_size, json_depth: limits.json_depth }
    }

    /// What has not been decoded yet, so that a session can stop here and go on later with a new iterator.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next command's bytes.
    fn split(&self) -> Result<Option<Split<'a>>, DecodeError> {
        match self.format {
            Format::Json => match json::split_object(self.rest, self.json_depth)? {
                Some(Split { body, .. }) if body.len() > self.message_size => {
                    Err(DecodeError::TooBig { length: body.len() as u64, limit: self.message_size })
                }
                split => Ok(split),
            },
            Format::Protobuf if self.rest.is_empty() => Ok(None),
            Format::Protobuf => match split_delimited(self.rest, self.message_size)? {
                Delimited::Message { body, consumed } => Ok(Some(Split { body, rest: &self.rest[consumed..] })),
                Delimited::Incomplete => Err(DecodeError::Truncated),
            },
        }
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let command = match self.split() {
            Ok(None) => {
                self.rest = &[];
                return None;
            }
            Ok(Some(Split { body, rest })) => {
                self.rest = rest;
                decode_body(self.format, body)
            }
            Err(error) => Err(error),
        };
        if command.is_err() {
            self.rest = &[];
        }
        Some(command)
    }
}

/// Decodes a body whose depth is known to be bounded.
fn decode_body(format: Format, body: &[u8]) -> Result<Command, DecodeError> {
    match format {
        // A pong: what clients send most often.
        Format::Json if body == b"{}" => Ok(Command::default()),
        Format::Json => Ok(serde_json::from_slice(body)?),
        Format::Protobuf => Ok(prost::Message::decode(body)?),
    }
}

/// Decodes one command from its body alone: a JSON object, or Protobuf without its length. JSON may nest as deeply as
/// [`Limits::default`] says. An empty Protobuf body is the empty command: a pong.
pub fn decode_command(format: Format, body: &[u8]) -> Result<Command, DecodeError> {
    if format == Format::Json {
        check_object(body)?;
    }
    decode_body(format, body)
}

/// Decodes one reply from its body alone, as a client does. Bounds as for [`decode_command`].
pub fn decode_reply(format: Format, body: &[u8]) -> Result<Reply, DecodeError> {
    match format {
        Format::Json => {
            check_object(body)?;
            Ok(serde_json::from_slice(body)?)
        }
        Format::Protobuf => Ok(prost::Message::decode(body)?),
    }
}

/// Holds `body` to be one object of bounded depth and nothing else.
fn check_object(body: &[u8]) -> Result<(), DecodeError> {
    match json::split_object(body, Limits::default().json_depth)? {
        None => Err(DecodeError::Truncated),
        Some(Split { rest, .. }) => match rest.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => Ok(()),
            Some(&found) => Err(DecodeError::Unexpected { expected: "the end", found }),
        },
    }
}

/// Appends one reply: a JSON object without a newline, or Protobuf behind its length.
///
/// Payloads (`bytes` fields) that are not JSON reach JSON clients as [`payload::json_form`] says, binary as `null`.
pub fn encode_reply(format: Format, reply: &Reply, out: &mut Vec<u8>) {
    match format {
        Format::Json => json::encode_reply(reply, out),
        Format::Protobuf => protobuf::encode(reply, out),
    }
}

/// Appends one command, as a client does; framed as by [`encode_reply`].
pub fn encode_command(format: Format, command: &Command, out: &mut Vec<u8>) {
    match format {
        Format::Json => json::put_value(out, command),
        Format::Protobuf => protobuf::encode(command, out),
    }
}

/// One publication for the subscribers of a channel, in borrowed parts.
#[derive(Debug, Clone, Copy)]
pub struct PublicationParts<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The payload. For JSON it is written as it is, so it must be what [`payload::json_form`] gave.
    pub data: &'a [u8],
    /// Who published, where a client did.
    pub info: Option<&'a ClientInfo>,
    /// Position in the channel's history; 0 is left out.
    pub offset: u64,
    /// The history's epoch; left out when empty. Live publications need it with offset 1 only.
    pub epoch: &'a str,
    /// Tags; left out when there are none.
    pub tags: &'a BTreeMap<String, String>,
    /// The payload is a delta to the publication before ([`crate::delta`]). For JSON it is a string then.
    pub delta: bool,
}

/// Appends the reply that carries one publication, framed as by [`encode_reply`], without building messages first.
pub fn encode_publication(format: Format, parts: &PublicationParts<'_>, out: &mut Vec<u8>) {
    match format {
        Format::Json => json::encode_publication(parts, out),
        Format::Protobuf => protobuf::encode_publication(parts, out),
    }
}

/// The ping: an empty reply.
pub const fn ping(format: Format) -> &'static [u8] {
    match format {
        Format::Json => b"{}",
        Format::Protobuf => &[0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{PublishRequest, SendRequest, SubscribeRequest};

    fn ids(commands: &mut Commands<'_>) -> Vec<u32> {
        commands.map(|command| command.unwrap().id).collect()
    }

    /// Commands as one Protobuf batch.
    fn batch(commands: &[Command]) -> Vec<u8> {
        commands.iter().flat_map(prost::Message::encode_length_delimited_to_vec).collect()
    }

    #[test]
    fn a_message_can_hold_many_commands() {
        let limits = Limits::default();
        let text = b"{\"id\":1}\n{\"id\":2}\n\n{}\n";
        assert_eq!(ids(&mut Commands::new(Format::Json, text, &limits)), [1, 2, 0]);
        let bytes = batch(&[
            Command { id: 1, ..Default::default() },
            Command { id: 2, send: Some(SendRequest::default()), ..Default::default() },
            Command::default(),
        ]);
        assert_eq!(ids(&mut Commands::new(Format::Protobuf, &bytes, &limits)), [1, 2, 0]);
    }

    #[test]
    fn an_empty_message_has_no_commands() {
        for (format, message) in [(Format::Json, b"".as_slice()), (Format::Json, b" \n\r\n"), (Format::Protobuf, b"")] {
            assert!(Commands::new(format, message, &Limits::default()).next().is_none());
        }
    }

    #[test]
    fn decoding_stops_and_goes_on_where_it_was() {
        let limits = Limits::default();
        let bytes = batch(&[1, 2, 3].map(|id| Command { id, ..Default::default() }));
        for (format, message) in
            [(Format::Json, b"{\"id\":1}\n{\"id\":2}\n{\"id\":3}".as_slice()), (Format::Protobuf, &bytes)]
        {
            let mut first = Commands::new(format, message, &limits);
            assert_eq!(first.next().unwrap().unwrap().id, 1);
            assert_eq!(ids(&mut Commands::new(format, first.rest(), &limits)), [2, 3]);
            assert_eq!(ids(&mut first), [2, 3]);
            assert!(first.rest().is_empty());
        }
    }

    #[test]
    fn commands_before_an_error_come_out_and_none_after_it() {
        let limits = Limits::default();
        let mut bytes = batch(&[Command { id: 1, ..Default::default() }]);
        bytes.extend_from_slice(&[1, 0x0f, 2, 8, 3]);
        for (format, message) in
            [(Format::Json, b"{\"id\":1}\n{\"id\":x}\n{\"id\":3}".as_slice()), (Format::Protobuf, &bytes)]
        {
            let mut commands = Commands::new(format, message, &limits);
            assert_eq!(commands.next().unwrap().unwrap().id, 1);
            assert_eq!(commands.next().unwrap().unwrap_err().disconnect(), DisconnectCode::BadRequest);
            assert!(commands.next().is_none());
            assert!(commands.rest().is_empty());
        }
    }

    #[test]
    fn a_command_beyond_the_size_limit_is_refused() {
        let limits = Limits { message_size: 20, ..Default::default() };
        let mut commands = Commands::new(Format::Json, b"{\"id\":1}\n{\"id\":2,\"send\":{}}   \n{\"id\":3}", &limits);
        assert_eq!(ids(&mut commands), [1, 2, 3]);
        let mut commands = Commands::new(Format::Json, b"{\"id\":1,\"send\":{}   }", &limits);
        assert!(commands.next().unwrap().unwrap_err().is_too_big());
        let mut commands = Commands::new(Format::Protobuf, &[21], &limits);
        assert!(commands.next().unwrap().unwrap_err().is_too_big());
    }

    #[test]
    fn deep_json_is_refused() {
        let nested = |levels: usize| {
            let payload = "[".repeat(levels) + &"]".repeat(levels);
            format!("{{\"id\":1,\"publish\":{{\"channel\":\"c\",\"data\":{payload}}}}}")
        };
        let limits = Limits::default();
        let text = nested(limits.json_depth - 2);
        assert!(Commands::new(Format::Json, text.as_bytes(), &limits).next().unwrap().is_ok());
        assert!(decode_command(Format::Json, text.as_bytes()).is_ok());
        let text = nested(limits.json_depth - 1);
        let error = Commands::new(Format::Json, text.as_bytes(), &limits).next().unwrap().unwrap_err();
        assert!(matches!(error, DecodeError::TooDeep { limit: 64 }), "{error}");
        assert!(decode_command(Format::Json, text.as_bytes()).is_err());
    }

    #[test]
    fn a_deep_protobuf_filter_is_refused() {
        let mut node = vec![];
        for _ in 0..1000 {
            let mut outer = vec![0x32];
            prost::encoding::encode_varint(node.len() as u64, &mut outer);
            outer.append(&mut node);
            node = outer;
        }
        let mut subscribe = vec![0x6a];
        prost::encoding::encode_varint(node.len() as u64, &mut subscribe);
        subscribe.append(&mut node);
        let mut command = vec![0x2a];
        prost::encoding::encode_varint(subscribe.len() as u64, &mut command);
        command.append(&mut subscribe);
        assert!(matches!(decode_command(Format::Protobuf, &command), Err(DecodeError::Protobuf(_))));
    }

    #[test]
    fn a_cut_protobuf_batch_is_refused() {
        let bytes = batch(&[Command {
            id: 1,
            subscribe: Some(SubscribeRequest { channel: "news".into(), ..Default::default() }),
            ..Default::default()
        }]);
        for end in 1..bytes.len() {
            let mut commands = Commands::new(Format::Protobuf, &bytes[..end], &Limits::default());
            assert!(matches!(commands.next(), Some(Err(DecodeError::Truncated))), "{end}");
        }
    }

    #[test]
    fn one_command_is_one_object_and_nothing_else() {
        assert_eq!(decode_command(Format::Json, b" {\"id\":1} \n").unwrap().id, 1);
        assert!(decode_command(Format::Json, b"{}\n{}").is_err());
        assert!(decode_command(Format::Json, b"").is_err());
        assert_eq!(decode_command(Format::Protobuf, b"").unwrap(), Command::default());
    }

    #[test]
    fn a_protobuf_payload_may_be_any_bytes() {
        let publish = PublishRequest { channel: "c".into(), data: b"\xff\x00".as_slice().into(), ..Default::default() };
        let command = Command { id: 1, publish: Some(publish), ..Default::default() };
        assert_eq!(decode_command(Format::Protobuf, &prost::Message::encode_to_vec(&command)).unwrap(), command);
    }

    #[test]
    fn the_ping_is_an_empty_reply() {
        for format in [Format::Json, Format::Protobuf] {
            let mut out = Vec::new();
            encode_reply(format, &Reply::default(), &mut out);
            assert_eq!(out, ping(format));
        }
    }
}
