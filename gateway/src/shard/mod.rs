//! The shard: one thread that owns its sessions.

pub mod stats;
