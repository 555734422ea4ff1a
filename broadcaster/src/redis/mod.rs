//! The broker on Redis (or Valkey): one server, a cluster, or the master that Sentinels name.
//!
//! For what arrives, a connection for each shard, on which this crate speaks the protocol itself; for what is
//! published, one of fred's. In a cluster there are as many for each master.
//!
//! - [`settings`]: where Redis is, bounds and time-outs;
//! - `topology`: which servers there are, and which has which channel; `discovery` keeps that up to date;
//! - `channels`: what becomes of each wanted channel (pure); `connections`: on which connection; `waits`: since when
//!   shards wait for it;
//! - `wire`: the part of the protocol that a subscriber speaks (pure); `redirection`: a cluster's refusals (pure);
//! - `connection`: connect and authenticate;
//! - `link`: one subscriber connection while it lives; `answers`: what the answers to its commands mean;
//! - `deliver`: what it received, on its way to the shards;
//! - `subscriber`: what keeps such connections, and is run for each shard: [`Receiver`];
//! - `commands`: what is published and asked; `pipeline`: the task that sends it to a server;
//! - `router`: which server of a cluster; `held`: the order while slots move (pure);
//! - `functions`: what runs within Redis;
//! - `presence`: the task that keeps who is in which channel;
//! - `client`: a connection of fred's;
//! - `health`, `backoff`: whether a connection is up, and when to try again;
//! - `internals`: the reader for benchmarks, where the feature of that name asks for it.

mod answers;
mod backoff;
mod channels;
mod client;
mod commands;
mod connection;
mod connections;
mod deliver;
mod discovery;
mod functions;
mod health;
mod held;
#[cfg(feature = "internals")]
pub mod internals;
mod link;
mod pipeline;
mod presence;
mod redirection;
mod router;
pub mod settings;
mod start;
mod subscriber;
mod topology;
mod waits;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use fred::types::Value;
use tidegate_protocol::message::ClientInfo;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::settings::{RedisSettings, Servers, SettingsError};

pub use self::subscriber::Receiver;

use self::commands::{Call, Publisher};
use self::connections::Connections;
use self::functions::Function;
use self::health::Health;
use self::presence::Line;
use self::topology::{Lane, Topology};
use crate::broker::{
    Answer, Broker, BrokerError, BrokerHealth, HistoryFuture, PublishFuture, PublishRequest, Published,
};
use crate::dispatch::Dispatcher;
use crate::envelope::{self, Content};
use crate::history::HistoryQuery;
use crate::interest::{Interest, InterestMap, ShardId};
use crate::presence::{Attendance, Change, Presence, PresenceStats};
use crate::publication::Channel;
use crate::stats::{BrokerStats, add};

/// A broker on Redis, for any number of nodes.
#[derive(Debug)]
pub struct RedisBroker {
    settings: Arc<RedisSettings>,
    interest: Arc<InterestMap>,
    topology: Arc<Topology>,
    connections: Arc<Connections>,
    dispatcher: Dispatcher,
    publisher: Arc<Publisher>,
    /// The way to the task that keeps presence.
    attendance: Line,
    /// Of each shard's connections, by lane.
    subscribing: Vec<Vec<Arc<Health>>>,
    /// Of the connections for commands, by lane.
    publishing: Arc<[Arc<Health>]>,
    /// Whether it is known which servers there are.
    discovering: Arc<Health>,
    stats: Arc<BrokerStats>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl RedisBroker {
    /// Leaves all channels, publishes what is queued, waits for that, and ends the receivers. Afterwards nothing arrives any
    /// more, and publishes fail.
    pub async fn shutdown(&self) {
        self.attendance.stop().await;
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the Redis broker failed");
            }
        }
        for health in self.publishing.iter() {
            health.degrade("shut down");
        }
    }

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
        let args = functions::publish_args(request, retention, self.settings.sharded);
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
        let layout = self.topology.layout();
        // In a cluster there are lanes without a server, which nobody misses.
        let is_used = |lane: usize| layout.server(lane as Lane).is_some();
        let subscribing = self.subscribing.iter().flat_map(|lanes| {
            // Without sharded pub/sub there is one connection for each shard, to whichever server.
            lanes.iter().enumerate().filter(|(lane, _)| lanes.len() == 1 || is_used(*lane)).map(|(_, health)| health)
        });
        let publishing =
            self.publishing.iter().enumerate().filter(|(lane, _)| is_used(*lane)).map(|(_, health)| health);
        let all = [&self.discovering].into_iter().chain(subscribing).chain(publishing).map(|health| health.get());
        all.into_iter().find(|health| *health != BrokerHealth::Healthy).unwrap_or(BrokerHealth::Healthy)
    }

    fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "redis"
    }
}
