//! The Redis broker against a real server: what it promises while all is well (`subscribe`, `publish`, `payloads`,
//! `history`, `presence`) and while it is not (`outage`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod history;
mod outage;
mod payloads;
mod presence;
mod publish;
mod subscribe;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::eventually;
use common::inbox::{Collector, shards};
use common::server::Server;
use tidegate_broadcaster::{Broker, BrokerHealth, Channel, Interest, PublishRequest, RedisBroker, RedisSettings};

/// Settings with the waiting made short.
fn quick(server: &Server) -> RedisSettings {
    let mut settings = RedisSettings::new(server.url());
    settings.grace = Duration::from_millis(50);
    settings.reconnect_first = Duration::from_millis(10);
    settings.reconnect_longest = Duration::from_millis(50);
    settings
}

fn start(settings: RedisSettings, n: usize) -> (Arc<RedisBroker>, Vec<Arc<Collector>>) {
    let (collectors, inboxes) = shards(n);
    (common::start(settings, inboxes), collectors)
}

async fn healthy(broker: &RedisBroker) {
    eventually("healthy", || broker.health() == BrokerHealth::Healthy).await;
}

async fn degraded(broker: &RedisBroker) {
    eventually("degraded", || matches!(broker.health(), BrokerHealth::Degraded { .. })).await;
}

/// Subscribes shard 0 and waits for the answer.
async fn subscribe(broker: &RedisBroker, shard: &Collector, name: &str) -> Channel {
    let channel: Channel = name.into();
    if broker.subscribe(&channel, 0) == Interest::Pending {
        assert_eq!(shard.answer().await, (name.to_owned(), Ok(())));
    }
    channel
}

fn request(channel: &Channel, data: impl Into<Bytes>) -> PublishRequest {
    PublishRequest { channel: Arc::clone(channel), data: data.into(), ..PublishRequest::default() }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
