//! The broker on a Redis (or Valkey) server.
//!
//! Two connections: one on which this crate speaks the protocol itself, for what arrives, and one of fred's, for what is
//! published.
//!
//! - [`settings`]: where Redis is, bounds and time-outs;
//! - `channels`: what becomes of each wanted channel (pure);
//! - `wire`: the part of the protocol that a subscriber speaks (pure);
//! - `connection`: connect and authenticate;
//! - `link`: one subscriber connection while it lives;
//! - `deliver`: what it received, on its way to the shards;
//! - `subscriber`: the task that keeps such a connection;
//! - `commands`: the task that publishes;
//! - `health`, `backoff`: whether a connection is up, and when to try again;
//! - `internals`: the reader for benchmarks, where the feature of that name asks for it.

mod backoff;
mod channels;
mod commands;
mod connection;
mod deliver;
mod health;
#[cfg(feature = "internals")]
pub mod internals;
mod link;
pub mod settings;
mod subscriber;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::settings::{RedisSettings, SettingsError};

use self::channels::Channels;
use self::commands::{Publisher, publisher};
use self::health::Health;
use self::settings::Endpoint;
use self::subscriber::Subscriber;
use crate::broker::{Broker, BrokerError, BrokerHealth, PublishFuture, PublishRequest};
use crate::dispatch::{Dispatcher, Inboxes};
use crate::envelope::{self, Content};
use crate::interest::{Interest, InterestMap, ShardId};
use crate::publication::Channel;
use crate::stats::{BrokerStats, add};

/// A broker on one Redis server, for any number of nodes.
#[derive(Debug)]
pub struct RedisBroker {
    settings: Arc<RedisSettings>,
    interest: Arc<InterestMap>,
    channels: Arc<Channels>,
    dispatcher: Dispatcher,
    publisher: Publisher,
    subscribing: Arc<Health>,
    publishing: Arc<Health>,
    stats: Arc<BrokerStats>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl RedisBroker {
    /// Starts the broker's tasks on the current tokio runtime, which has to have I/O and time. Redis need not be
    /// reachable: the broker is degraded until it is.
    ///
    /// The tasks end with [`RedisBroker::shutdown`], or when the broker is dropped.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn start(settings: RedisSettings, inboxes: Inboxes) -> Result<Arc<Self>, SettingsError> {
        let endpoint = Endpoint::new(&settings)?;
        let settings = Arc::new(settings);
        let interest = Arc::<InterestMap>::default();
        let stats = Arc::<BrokerStats>::default();
        let channels = Arc::new(Channels::new(Arc::clone(&interest), settings.grace));
        let (subscribing, publishing) = (Arc::new(Health::connecting()), Arc::new(Health::connecting()));
        let dispatcher = Dispatcher::new(Arc::clone(&interest), inboxes, Arc::clone(&stats));
        let (stop, stopped) = watch::channel(false);

        let subscriber = Subscriber {
            settings: Arc::clone(&settings),
            endpoint: endpoint.clone(),
            channels: Arc::clone(&channels),
            dispatcher: dispatcher.clone(),
            stats: Arc::clone(&stats),
            health: Arc::clone(&subscribing),
            epoch: Arc::default(),
            warned: Mutex::default(),
            gap: Mutex::default(),
        };
        let (publisher, publisher_task) =
            publisher(Arc::clone(&settings), endpoint, Arc::clone(&publishing), Arc::clone(&stats));
        let tasks = vec![tokio::spawn(subscriber.run(stopped.clone())), tokio::spawn(publisher_task.run(stopped))];
        Ok(Arc::new(Self {
            settings,
            interest,
            channels,
            dispatcher,
            publisher,
            subscribing,
            publishing,
            stats,
            stop,
            tasks: Mutex::new(tasks),
        }))
    }

    /// Publishes what is queued, closes both connections, and waits for that. Afterwards nothing arrives any more,
    /// and publishes fail.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the Redis broker failed");
            }
        }
        self.publishing.degrade("shut down");
    }
}

impl Broker for RedisBroker {
    fn subscribe(&self, channel: &Channel, shard: ShardId) -> Interest {
        if self.dispatcher.has_shard(shard) {
            self.channels.subscribe(channel, shard, Instant::now())
        } else {
            Interest::Confirmed
        }
    }

    fn unsubscribe(&self, channel: &Channel, shard: ShardId) {
        if self.dispatcher.has_shard(shard) {
            self.channels.unsubscribe(channel, shard, Instant::now());
        }
    }

    fn publish(&self, request: PublishRequest) -> PublishFuture {
        let PublishRequest { channel, data, info, tags } = request;
        let payload = envelope::encode(Content { data, info, tags });
        // Every subscriber would drop it.
        if payload.len() > self.settings.max_payload {
            add(&self.stats.publish_errors, 1);
            let error = BrokerError::TooLong { length: payload.len(), limit: self.settings.max_payload };
            return Box::pin(std::future::ready(Err(error)));
        }
        self.publisher.publish(format!("{}{channel}", self.settings.prefix), payload)
    }

    fn interest(&self) -> &InterestMap {
        &self.interest
    }

    fn health(&self) -> BrokerHealth {
        match self.subscribing.get() {
            BrokerHealth::Healthy => self.publishing.get(),
            degraded => degraded,
        }
    }

    fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "redis"
    }
}
