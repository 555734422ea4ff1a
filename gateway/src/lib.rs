//! The gateway: from accepted sockets to closed ones.
//!
//! | module | what is in it |
//! |---|---|
//! | [`node`] | what starts and stops, in which order |
//! | [`config`], [`cli`], [`logging`] | settings with their sources and checks; flags; logs |
//! | [`listen`], [`admission`], [`refusal`], [`origin`] | the door: accepting, caps, how a refusal looks, whose pages may come in |
//! | [`shard`] | the threads that own sessions; the turn, input and output |
//! | [`session`] | one client's state machine (pure) |
//! | [`hub`] | who listens to what on a shard, and what goes out next (pure) |
//! | [`pressure`], [`monitor`] | memory pressure: the policy (pure), and what looks and acts |
//! | [`http`], [`api`] | requests that are no WebSocket: demo page, server API |
//! | [`operator`] | metrics and health |
//!
//! `docs/architecture.md` follows a message and a client from module to module.

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
