//! The gateway: listeners, shards, sessions, API, operators' port.

pub mod cli;
pub mod config;
pub mod logging;
pub mod shard;
