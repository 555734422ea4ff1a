//! What goes over a connection: the wires that a session can speak, without any socket.
//!
//! - [`websocket`]: the upgrade, frames of both directions
//! - [`reply`]: what a session looks for in what a server sends; the Centrifuge protocol in JSON and in Protobuf
//! - [`nats`], [`mqtt`]: the protocols of those servers
//!
//! Nchan has no protocol of its own: the channel is in the request's path, and every frame is a payload.
//!
//! Parsing is as small as measuring allows: a publication is found without decoding the message around it, everything
//! else (a handful of messages per session) goes through the complete decoders.

pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod reply;
pub(crate) mod websocket;

use self::reply::Reply;

/// A transport with an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wire {
    /// WebSocket with newline-separated JSON of the Centrifuge protocol; the floor's as well.
    #[value(alias = "floor")]
    WsJson,
    /// WebSocket with varint-delimited Protobuf of the Centrifuge protocol.
    WsProtobuf,
    /// Raw TCP with varint-delimited Protobuf of the Centrifuge protocol from the first byte.
    Tcp,
    /// A WebSocket subscriber of Nchan; the channel's name is the end of the path.
    Nchan,
    /// The NATS protocol over WebSocket.
    Nats,
    /// MQTT 3.1.1 over TCP.
    Mqtt,
}

/// A frame, reply or message beyond this is no answer of a push server to this tool: 32 MiB.
pub(crate) const MAX_MESSAGE: usize = 32 << 20;

/// The longest name of a channel in bytes; far below what any server takes.
const MAX_CHANNEL: usize = 200;

/// Why a connection's bytes make no sense; the session is closed and counted under this text.
pub(crate) type Malformed = &'static str;

impl Wire {
    /// Whether an HTTP upgrade comes first and frames surround the messages.
    pub(crate) fn is_websocket(self) -> bool {
        !matches!(self, Self::Tcp | Self::Mqtt)
    }

    /// The port that servers of this wire usually listen to.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::WsJson | Self::WsProtobuf => 8000,
            Self::Tcp => 8001,
            Self::Nchan => 80,
            Self::Nats => 8080,
            Self::Mqtt => 1883,
        }
    }

    /// The WebSocket path where none is given. Nchan's ends with the channel's name.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::WsJson | Self::WsProtobuf => "/connection/websocket",
            Self::Nchan => "/sub",
            Self::Nats | Self::Tcp | Self::Mqtt => "/",
        }
    }

    /// What an upgrade asks for in `Sec-WebSocket-Protocol`. JSON is asked for by none, as the SDKs do it.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        (self == Self::WsProtobuf).then_some("centrifuge-protobuf")
    }

    /// The opcode of the frames that a session sends.
    pub(crate) fn opcode(self) -> u8 {
        if self == Self::WsJson { websocket::TEXT } else { websocket::BINARY }
    }

    /// Whether a server's data frames may have this opcode.
    pub(crate) fn takes(self, opcode: u8) -> bool {
        // Nchan's depends on the publisher's Content-Type.
        opcode == self.opcode() || (self == Self::Nchan && opcode == websocket::TEXT)
    }

    /// Whether frames are cut without regard to messages.
    pub(crate) fn cuts_messages(self) -> bool {
        self == Self::Nats
    }

    /// What asks for subscriptions of these channels, without framing; Nchan has none beyond the upgrade. Only the
    /// Centrifuge protocol takes more than one here.
    pub(crate) fn opening(self, mut channels: impl Iterator<Item = String>) -> Vec<u8> {
        match self {
            Self::WsJson => reply::opening_json(channels),
            Self::WsProtobuf | Self::Tcp => reply::opening_protobuf(channels),
            Self::Nchan => Vec::new(),
            Self::Nats => nats::opening(&channels.next().unwrap_or_default()),
            Self::Mqtt => mqtt::opening(&channels.next().unwrap_or_default()),
        }
    }

    /// Whether it carries the Centrifuge protocol.
    pub(crate) fn is_centrifuge(self) -> bool {
        matches!(self, Self::WsJson | Self::WsProtobuf | Self::Tcp)
    }

    /// What answers a [`Reply::Ping`], without framing.
    pub(crate) fn pong(self) -> &'static [u8] {
        match self {
            Self::WsJson => b"{}",
            Self::WsProtobuf | Self::Tcp => &[0],
            Self::Nats => nats::PONG,
            Self::Nchan | Self::Mqtt => b"",
        }
    }

    /// Goes through the complete messages at the beginning of `bytes`, a frame's payload or a stream; says how many
    /// bytes they took.
    ///
    /// # Errors
    /// What makes no sense; the messages before it have been seen.
    #[inline]
    pub(crate) fn each(self, bytes: &[u8], mut seen: impl FnMut(Reply<'_>)) -> Result<usize, Malformed> {
        match self {
            Self::WsJson => reply::each_json(bytes, seen).map(|()| bytes.len()),
            Self::WsProtobuf | Self::Tcp => reply::each_protobuf(bytes, seen),
            Self::Nchan => {
                seen(Reply::Publication(bytes));
                Ok(bytes.len())
            }
            Self::Nats => nats::each(bytes, seen),
            Self::Mqtt => mqtt::each(bytes, seen),
        }
    }

    /// Refuses a channel that cannot be named on this wire.
    ///
    /// # Errors
    /// Says what a name may be.
    pub(crate) fn check_channel(self, channel: &str) -> Result<(), &'static str> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if channel.is_empty() || channel.len() > MAX_CHANNEL || !channel.bytes().all(plain) {
            return Err("a name of 1 to 200 printable ASCII characters without quotes and backslashes");
        }
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        match self {
            Self::Nchan if !channel.bytes().all(unreserved) => {
                Err("with Nchan, a name of letters, digits and -._~, because it is a part of the path")
            }
            Self::Nats if !nats::is_subject(channel) => {
                Err("with NATS, a subject without wildcards: tokens with dots between them")
            }
            Self::Mqtt if !mqtt::is_topic(channel) => {
                Err("with MQTT, a topic without + and # that does not begin with $")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_its_wire_cannot_name_is_refused() {
        for wire in [Wire::WsJson, Wire::Tcp, Wire::Nchan, Wire::Nats, Wire::Mqtt] {
            assert_eq!(wire.check_channel("loadtest"), Ok(()));
            for wrong in ["", "a b", "a\"b", "a\r\nb", &"x".repeat(MAX_CHANNEL + 1)] {
                assert!(wire.check_channel(wrong).is_err(), "{wire:?} {wrong}");
            }
        }
        assert_eq!(Wire::WsJson.check_channel("a/#"), Ok(()));
        assert!(Wire::Nchan.check_channel("a/b").is_err());
        assert!(Wire::Nats.check_channel("a.>").is_err());
        assert!(Wire::Mqtt.check_channel("a/#").is_err());
    }
}
