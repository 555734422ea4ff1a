//! The gateway: listeners, shards, sessions, API, operators' port.

pub mod admission;
pub mod cli;
pub mod config;
pub mod hub;
pub mod logging;
pub mod origin;
pub mod pressure;
pub mod refusal;
pub mod session;
pub mod shard;
