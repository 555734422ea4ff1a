//! What the broker tests share: [`inbox`] is a shard that only listens, [`server`] a real Redis.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod inbox;
