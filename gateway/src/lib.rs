//! The gateway: listeners, shards, sessions, API, operators' port.

pub mod config;
pub mod shard;
