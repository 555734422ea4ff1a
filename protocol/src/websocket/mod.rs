//! The server's side of WebSocket (RFC 6455), without I/O.
//!
//! - [`handshake`]: the HTTP request head, whether it is an upgrade, and the answer to it.
//! - [`frame`]: the frames that a server sends.
//! - [`assemble`]: messages from the frames that a client sends.

pub mod assemble;
pub mod frame;
pub mod handshake;

pub use tungstenite::protocol::frame::coding::OpCode;
