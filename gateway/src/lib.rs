//! The gateway: listeners, shards, sessions, API, operators' port.

pub mod api;
pub mod http;
pub mod operator;
pub mod shard;
