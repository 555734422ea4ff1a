//! A node from outside: every promise to clients and operators, held through real sockets.
//!
//! One file for each promise; `support` is what they share.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helper fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod bad_commands;
mod bad_frames;
mod bad_requests;
mod bad_streams;
mod bystanders;
mod commands;
mod fan_out;
mod heartbeat;
mod leaving;
mod process;
mod slow_reader;
mod stopping;
mod upgrade;
