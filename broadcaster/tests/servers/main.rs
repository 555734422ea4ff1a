//! The Redis broker where there are several servers: a real cluster whose slots move and whose masters die (`cluster`),
//! and a master that Sentinels watch (`sentinel`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod sentinel;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::eventually;
use common::inbox::{Collector, shards};
use tidegate_broadcaster::{
    Broker, BrokerHealth, Channel, Event, HistoryQuery, Interest, PublishRequest, RedisBroker, RedisSettings,
    Retention, Servers,
};

/// Settings with the waiting made short.
fn quick(servers: Servers) -> RedisSettings {
    let mut settings = RedisSettings::with_servers(servers);
    settings.grace = Duration::from_millis(50);
    settings.reconnect_first = Duration::from_millis(10);
    settings.reconnect_longest = Duration::from_millis(50);
    settings.topology_interval = Duration::from_millis(500);
    settings
}

async fn start(settings: RedisSettings, n: usize) -> (Arc<RedisBroker>, Vec<Arc<Collector>>) {
    let (collectors, inboxes) = shards(n);
    let broker = common::start(settings, inboxes);
    healthy(&broker).await;
    (broker, collectors)
}

async fn healthy(broker: &RedisBroker) {
    eventually("healthy", || broker.health() == BrokerHealth::Healthy).await;
}

/// Subscribes shard 0 and waits for the answer.
async fn subscribe(broker: &RedisBroker, shard: &Collector, name: &str) -> Channel {
    let channel: Channel = name.into();
    if broker.subscribe(&channel, 0) == Interest::Pending {
        assert_eq!(shard.answer().await, (name.to_owned(), Ok(())));
    }
    channel
}

/// A publication that is kept.
fn kept(channel: &Channel, data: &str) -> PublishRequest {
    let retention = Retention { size: 10_000, ttl: Duration::from_secs(300), meta_ttl: Duration::from_secs(300) };
    let data = data.to_owned().into();
    PublishRequest { channel: Arc::clone(channel), data, retention: Some(retention), ..PublishRequest::default() }
}

fn plain(channel: &Channel, data: &str) -> PublishRequest {
    PublishRequest { channel: Arc::clone(channel), data: data.to_owned().into(), ..PublishRequest::default() }
}

/// What a channel has kept.
async fn history(broker: &RedisBroker, channel: &Channel) -> Vec<String> {
    let query = HistoryQuery { since: None, limit: 100_000, reverse: false, meta_ttl: Duration::from_secs(300) };
    let history = broker.history(channel, query).await.unwrap();
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    history.publications.iter().map(|publication| text(&publication.payload.data)).collect()
}

/// What has come to a shard so far, in its order: publications by their text, and channels that it was told to look at.
#[derive(Debug, Default)]
struct Seen {
    publications: Vec<(String, String)>,
    resumed: Vec<String>,
}

impl Seen {
    fn take(&mut self, shard: &Collector) {
        for event in shard.take() {
            match event {
                Event::Publications(batch) => self.publications.extend(batch.iter().map(|publication| {
                    let text = String::from_utf8_lossy(&publication.payload.data).into_owned();
                    (publication.channel.to_string(), text)
                })),
                Event::ChannelResumed(channel) => self.resumed.push(channel.to_string()),
                Event::Resumed => {}
                Event::Subscribed { channel, result } => panic!("{channel}: {result:?}, unasked"),
            }
        }
    }

    fn of(&self, channel: &str) -> Vec<&str> {
        self.publications.iter().filter(|(name, _)| name == channel).map(|(_, text)| text.as_str()).collect()
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
