//! The gateway: listeners, shards, sessions, API, operators' port.

pub mod admission;
pub mod api;
pub mod cli;
pub mod config;
pub mod http;
pub mod hub;
pub mod listen;
pub mod logging;
pub mod monitor;
pub mod node;
pub mod operator;
pub mod origin;
pub mod pressure;
pub mod refusal;
pub mod session;
pub mod shard;
