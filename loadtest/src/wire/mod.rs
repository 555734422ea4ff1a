//! What goes over a connection: the three wires that a session can speak, without any socket.
//!
//! - [`websocket`]: the upgrade, frames of both directions
//! - [`reply`]: the commands that a session sends and the replies that it looks for, in JSON and in Protobuf
//!
//! Parsing is as small as measuring allows: a publication is found without decoding the message around it, everything
//! else (a handful of messages per session) goes through the complete decoders.

pub(crate) mod reply;
pub(crate) mod websocket;

/// A transport with an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wire {
    /// WebSocket with newline-separated JSON.
    WsJson,
    /// WebSocket with varint-delimited Protobuf.
    WsProtobuf,
    /// Raw TCP with varint-delimited Protobuf from the first byte.
    Tcp,
}

impl Wire {
    /// Whether an HTTP upgrade comes first and frames surround the messages.
    pub(crate) fn is_websocket(self) -> bool {
        self != Self::Tcp
    }

    /// Whether messages are JSON.
    pub(crate) fn is_json(self) -> bool {
        self == Self::WsJson
    }
}

/// Why a connection's bytes make no sense; the session is closed and counted under this text.
pub(crate) type Malformed = &'static str;
