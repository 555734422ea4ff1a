//! The broker on a Redis (or Valkey) server.
//!
//! For what arrives, a connection for each shard, on which this crate speaks the protocol itself; for what is published,
//! one of fred's.
//!
//! - [`settings`]: where Redis is, bounds and time-outs;
//! - `channels`: what becomes of each wanted channel (pure);
//! - `wire`: the part of the protocol that a subscriber speaks (pure);
//! - `connection`: connect and authenticate;
//! - `link`: one subscriber connection while it lives;
//! - `deliver`: what it received, on its way to the shards;
//! - `subscriber`: what keeps such a connection, and is run for each shard: [`Receiver`];
//! - `commands`: the task that sends commands;
//! - `functions`: what runs within Redis;
//! - `presence`: the task that keeps who is in which channel;
//! - `health`, `backoff`: whether a connection is up, and when to try again;
//! - `internals`: the reader for benchmarks, where the feature of that name asks for it.

mod backoff;
mod channels;
mod commands;
mod connection;
mod deliver;
mod functions;
mod health;
#[cfg(feature = "internals")]
pub mod internals;
mod link;
mod presence;
pub mod settings;
mod subscriber;
mod wire;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use fred::types::Value;
use tidegate_protocol::message::ClientInfo;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::settings::{RedisSettings, SettingsError};

pub use self::subscriber::Receiver;

use self::channels::Connections;
use self::commands::{Call, Publisher, publisher};
use self::functions::Function;
use self::health::Health;
use self::presence::{Line, PresenceTask};
use self::settings::Endpoint;
use self::subscriber::Subscriber;
use crate::broker::{
    Answer, Broker, BrokerError, BrokerHealth, HistoryFuture, PublishFuture, PublishRequest, Published,
};
use crate::dispatch::{Dispatcher, Inboxes};
use crate::envelope::{self, Content};
use crate::history::HistoryQuery;
use crate::interest::{Interest, InterestMap, MAX_SHARDS, ShardId};
use crate::presence::{Attendance, Change, Presence, PresenceStats};
use crate::publication::Channel;
use crate::stats::{BrokerStats, add};

/// A broker on one Redis server, for any number of nodes.
#[derive(Debug)]
pub struct RedisBroker {
    settings: Arc<RedisSettings>,
    interest: Arc<InterestMap>,
    connections: Connections,
    dispatcher: Dispatcher,
    publisher: Arc<Publisher>,
    /// The way to the task that keeps presence.
    attendance: Line,
    /// Of each shard's connection.
    subscribing: Vec<Arc<Health>>,
    publishing: Arc<Health>,
    stats: Arc<BrokerStats>,
    stop: watch::Sender<bool>,
    publisher_task: Mutex<Option<JoinHandle<()>>>,
    presence_task: Mutex<Option<JoinHandle<()>>>,
}

impl RedisBroker {
    /// Starts the publishing side on the current tokio runtime, which has to have I/O and time, and answers with the
    /// receiving side of each shard, in their order, which the caller has to run. Redis need not be reachable: the
    /// broker is degraded until it is.
    ///
    /// All of them end with [`RedisBroker::shutdown`], or when the broker is dropped.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn start(settings: RedisSettings, inboxes: Inboxes) -> Result<(Arc<Self>, Vec<Receiver>), SettingsError> {
        let endpoint = Endpoint::new(&settings)?;
        let settings = Arc::new(settings);
        let interest = Arc::<InterestMap>::default();
        let stats = Arc::<BrokerStats>::default();
        let connections = Connections::new(Arc::clone(&interest), inboxes.len().min(MAX_SHARDS), settings.grace);
        let dispatcher = Dispatcher::new(Arc::clone(&interest), inboxes, Arc::clone(&stats));
        let (stop, stopped) = watch::channel(false);

        let epoch: Arc<str> = Arc::default();
        let receiver = |channels: &Arc<_>| Receiver {
            subscriber: Subscriber {
                settings: Arc::clone(&settings),
                endpoint: endpoint.clone(),
                channels: Arc::clone(channels),
                confirmed: AtomicU64::default(),
                dispatcher: dispatcher.clone(),
                stats: Arc::clone(&stats),
                health: Arc::new(Health::connecting()),
                epoch: Arc::clone(&epoch),
                warned: Mutex::default(),
                gap: Mutex::default(),
            },
            stop: stopped.clone(),
        };
        let receivers: Vec<Receiver> = connections.each().iter().map(receiver).collect();
        let subscribing = receivers.iter().map(|receiver| Arc::clone(&receiver.subscriber.health)).collect();
        let publishing = Arc::new(Health::connecting());
        let (publisher, task) =
            publisher(Arc::clone(&settings), endpoint.clone(), Arc::clone(&publishing), Arc::clone(&stats));
        let publisher = Arc::new(publisher);
        let (attendance, presence) =
            PresenceTask::new(Arc::clone(&settings), Arc::clone(&publisher), Arc::clone(&stats));
        let broker = Self {
            settings: Arc::clone(&settings),
            interest,
            connections,
            dispatcher: dispatcher.clone(),
            publisher,
            attendance,
            subscribing,
            publishing,
            stats: Arc::clone(&stats),
            stop,
            publisher_task: Mutex::new(Some(tokio::spawn(task.run(stopped.clone())))),
            presence_task: Mutex::new(Some(tokio::spawn(presence.run()))),
        };
        Ok((Arc::new(broker), receivers))
    }

    /// Leaves all channels, publishes what is queued, waits for that, and ends the receivers. Afterwards nothing arrives any
    /// more, and publishes fail.
    pub async fn shutdown(&self) {
        self.attendance.stop().await;
        ended(&self.presence_task, "presence").await;
        self.stop.send_replace(true);
        ended(&self.publisher_task, "publishing").await;
        self.publishing.degrade("shut down");
    }
}

/// Waits until a task has ended.
async fn ended(task: &Mutex<Option<JoinHandle<()>>>, what: &str) {
    let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(task) = task
        && let Err(error) = task.await
    {
        tracing::error!(%error, "the {what} task of the Redis broker failed");
    }
}

impl RedisBroker {
    /// A question about presence, behind what the node has told before.
    fn ask(&self, function: Function, channel: &str, args: Vec<Bytes>) -> Answer<Value> {
        self.attendance.ask(Call::Function { function, key: self.settings.key(channel), args })
    }

    /// The answer to a payload that every subscriber would drop.
    fn too_long(&self, payload: &Bytes) -> Option<PublishFuture> {
        let (length, limit) = (payload.len(), self.settings.max_payload);
        (length > limit).then(|| {
            add(&self.stats.publish_errors, 1);
            Box::pin(std::future::ready(Err(BrokerError::TooLong { length, limit }))) as PublishFuture
        })
    }
}

impl Broker for RedisBroker {
    fn subscribe(&self, channel: &Channel, shard: ShardId) -> Interest {
        if self.dispatcher.has_shard(shard) {
            self.connections.subscribe(channel, shard, Instant::now())
        } else {
            Interest::Confirmed
        }
    }

    fn unsubscribe(&self, channel: &Channel, shard: ShardId) {
        if self.dispatcher.has_shard(shard) {
            self.connections.unsubscribe(channel, shard, Instant::now());
        }
    }

    fn publish(&self, request: PublishRequest) -> PublishFuture {
        let key = self.settings.key(&request.channel);
        let Some(retention) = request.retention else {
            let PublishRequest { data, info, tags, .. } = request;
            let payload = envelope::encode(Content { data, info, tags, ..Content::default() });
            if let Some(refused) = self.too_long(&payload) {
                return refused;
            }
            let answer = self.publisher.call(Call::Publish { channel: key, payload });
            return Box::pin(async { answer.await.map(|_| Published::default()) });
        };
        let args = functions::publish_args(request, retention);
        if let Some(refused) = args.first().and_then(|payload| self.too_long(payload)) {
            return refused;
        }
        let answer = self.publisher.call(Call::Function { function: Function::Publish, key, args });
        Box::pin(async { functions::published(answer.await?) })
    }

    fn history(&self, channel: &Channel, query: HistoryQuery) -> HistoryFuture {
        let args = functions::history_args(query);
        let answer =
            self.publisher.call(Call::Function { function: Function::History, key: self.settings.key(channel), args });
        let channel = Channel::clone(channel);
        Box::pin(async move { functions::history(&channel, answer.await?) })
    }

    fn remove_history(&self, channel: &Channel) -> Answer<()> {
        let call =
            Call::Function { function: Function::RemoveHistory, key: self.settings.key(channel), args: Vec::new() };
        let answer = self.publisher.call(call);
        Box::pin(async { answer.await.map(|_| ()) })
    }

    fn attend(&self, channel: &Channel, info: &Arc<ClientInfo>, change: Change, attendance: Attendance) {
        self.attendance.attend(channel, info, change, attendance);
    }

    fn presence(&self, channel: &Channel, limit: u32) -> Answer<Presence> {
        let answer = self.ask(Function::Presence, channel, vec![functions::number(limit.into())]);
        Box::pin(async { functions::presence(answer.await?) })
    }

    fn presence_stats(&self, channel: &Channel) -> Answer<PresenceStats> {
        let answer = self.ask(Function::PresenceStats, channel, Vec::new());
        Box::pin(async { functions::presence_stats(answer.await?) })
    }

    fn interest(&self) -> &InterestMap {
        &self.interest
    }

    fn health(&self) -> BrokerHealth {
        let all = self.subscribing.iter().chain([&self.publishing]).map(|health| health.get());
        all.into_iter().find(|health| *health != BrokerHealth::Healthy).unwrap_or(BrokerHealth::Healthy)
    }

    fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "redis"
    }
}
