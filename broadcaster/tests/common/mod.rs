//! What the broker tests share: [`inbox`] is a shard that only listens, [`server`] a real Redis, [`deployment`]
//! several.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod deployment;
pub mod inbox;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use inbox::DEADLINE;
use tidegate_broadcaster::{Inboxes, RedisBroker, RedisSettings};

/// A broker with everything that belongs to it running on the test's runtime.
pub fn start(settings: RedisSettings, inboxes: Inboxes) -> Arc<RedisBroker> {
    let (broker, receivers) = RedisBroker::start(settings, inboxes).expect("settings that can be used");
    for receiver in receivers {
        tokio::spawn(receiver.run());
    }
    broker
}

/// Waits until `holds`, and fails the test with `what` where it does not in time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "within the deadline: {what}");
}
