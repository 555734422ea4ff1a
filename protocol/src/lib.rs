//! The wire formats of Tidegate. No I/O and no clock: bytes in, messages out, and back.
//!
//! - [`message`]: the messages of the client protocol, generated from `proto/client.proto`.
//! - [`codec`]: commands and replies as JSON lines or as length-delimited Protobuf; [`codec::payload`] says what a
//!   published payload is and how JSON clients receive it; [`codec::delimited`] splits a raw TCP stream.
//! - [`websocket`]: the server's side of WebSocket: handshake, frame headers, messages from frames.
//! - [`delta`]: a payload as what is new in it; [`filter`]: publications by their tags.
//! - [`code`]: error, disconnect and unsubscribe codes.
//! - [`limits`]: what the decoders accept at most.
//!
//! Beside the sources: `fuzz/` (fuzz targets and their corpus, a workspace of its own; `fuzz/run`), and `conformance/`
//! (`conformance/run` drives the Autobahn cases for WebSocket against `examples/echo.rs`).
//!
//! A decoder answers any bytes with a value or an error: it does not panic, recurses only to a fixed depth, and
//! allocates in proportion to bytes that are there, never to a length that the wire announces.

#![forbid(unsafe_code)]

pub mod code;
pub mod codec;
pub mod delta;
pub mod filter;
pub mod limits;
pub mod message;
pub mod websocket;
