//! A connection: a socket, the session behind it, and what is half done between them.

use tidegate_protocol::codec::Format;
use tidegate_protocol::websocket::assemble::Assembler;

use super::outbox::Outbox;
use super::palette::Marks;
use super::stats::Wire;
use super::wheel::Tick;
use crate::admission::Permit;
use crate::session::Session;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its HTTP request is awaited.
    Http,
    /// Its session speaks.
    Open(Wire),
    /// Nothing more is read from it or put into its queue. What is queued, a close frame last, is
    /// written, and then the peer is given a moment to close too: dropping a socket that has
    /// unread input would reset the connection, and take the close frame with it.
    Closing,
}

impl Wire {
    /// The wire of a WebSocket with this format.
    pub fn websocket(format: Format) -> Self {
        match format {
            Format::Json => Self::WebSocketJson,
            Format::Protobuf => Self::WebSocketProtobuf,
        }
    }

    /// How messages are encoded.
    pub fn format(self) -> Format {
        match self {
            Self::WebSocketJson => Format::Json,
            Self::WebSocketProtobuf | Self::TcpProtobuf => Format::Protobuf,
        }
    }

    /// Whether messages go into WebSocket frames.
    pub fn is_websocket(self) -> bool {
        self != Self::TcpProtobuf
    }
}

/// What the reactor watches a socket for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watch {
    /// The kernel knows the socket, and tells at least when it breaks.
    pub known: bool,
    /// Input is wanted.
    pub input: bool,
    /// Room for output is awaited.
    pub output: bool,
}

/// Input that could not be used yet. Exists only while there is some.
#[derive(Debug, Default)]
pub struct Input {
    /// Commands of a message whose first commands have been handled: they wait for the broker or
    /// for the next turn.
    pub commands: Vec<u8>,
    /// Bytes as they came from the socket, behind that message: an incomplete frame, or whatever
    /// came while the session waited.
    pub bytes: Vec<u8>,
}

/// A socket and its session. Small: an idle connection is this, its slot in a channel's list, and
/// nothing else.
#[derive(Debug)]
pub struct Connection<S> {
    /// The socket.
    pub socket: S,
    /// The place on the node.
    pub permit: Permit,
    /// The client.
    pub session: Session,
    /// Fragments of a WebSocket message.
    pub assembler: Assembler,
    /// Input that could not be used yet.
    pub input: Option<Box<Input>>,
    /// Output that the socket has not taken yet.
    pub outbox: Option<Box<Outbox>>,
    /// Output of this turn.
    pub marks: Marks,
    /// The tick in which the wheel brings this connection up; an entry for another tick is void.
    pub armed: Tick,
    /// When a handshake or a closing has to be over. An open session has its own deadlines.
    pub deadline: Tick,
    /// How far it is.
    pub phase: Phase,
    /// What the reactor watches for now.
    pub watched: Watch,
    /// Reading is on hold: commands wait for the broker or for the next turn.
    pub stalled: bool,
    /// The queue waits for the flush interval, not for the socket.
    pub delayed: bool,
    /// Nothing more will be written, and the peer knows.
    pub write_closed: bool,
    /// The peer has said that it closes: it will send nothing more, so that the socket can be
    /// dropped as soon as everything is written.
    pub peer_closes: bool,
}

impl<S> Connection<S> {
    /// What the reactor should watch for.
    pub fn wanted(&self) -> Watch {
        Watch { known: true, input: !self.stalled, output: self.outbox.is_some() && !self.delayed }
    }

    /// The wire of an open connection.
    pub fn wire(&self) -> Option<Wire> {
        match self.phase {
            Phase::Open(wire) => Some(wire),
            Phase::Http | Phase::Closing => None,
        }
    }

    /// Bytes that wait for the socket.
    pub fn queued(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }
}
