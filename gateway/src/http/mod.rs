//! Ordinary HTTP: what arrives on a listener and is no WebSocket upgrade.
//!
//! A shard accepts the socket, reads the request's first bytes, sees that they are none of its
//! business and hands both to [`serve_connection`], which runs on the runtime beside the shards.
//!
//! - [`prefixed`]: a socket whose first bytes were read already;
//! - [`serve`]: one connection from its first request to its end, and a listener of its own for the operators' port;
//! - [`site`]: what the clients' port serves beside WebSocket;
//! - [`demo`]: the demo page of `--dev`;
//! - [`reply`]: the few shapes of answers that every route shares.

pub mod demo;
pub mod prefixed;
pub mod reply;
pub mod serve;
pub mod site;

pub use demo::Demo;
pub use serve::{HttpSettings, serve_connection, serve_listener};
