//! The interface between the gateway and whatever carries messages between nodes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_protocol::message::ClientInfo;

use crate::history::{History, HistoryQuery, Retention};
use crate::interest::{Interest, InterestMap, ShardId};
use crate::presence::{Attendance, Change, Presence, PresenceStats};
use crate::publication::Channel;
use crate::stats::BrokerStats;

/// Carries publications between publishers and the shards of every node.
///
/// Calls never block. What they start is answered through a shard's inbox
/// ([`crate::Event`]) or through the returned future.
pub trait Broker: Send + Sync + 'static {
    /// Notes that `shard` has a subscriber of `channel`.
    ///
    /// [`Interest::Confirmed`]: the channel is live already. [`Interest::Pending`]: the
    /// answer follows as [`crate::Event::Subscribed`] in the shard's inbox, exactly once.
    /// A shard calls this once for its first subscriber of the channel, not again until
    /// it has called [`Broker::unsubscribe`].
    fn subscribe(&self, channel: &Channel, shard: ShardId) -> Interest;

    /// Notes that the last subscriber of `channel` on `shard` is gone. The broker keeps
    /// the channel for a second, in case another one comes.
    fn unsubscribe(&self, channel: &Channel, shard: ShardId);

    /// Publishes. The request takes its place in the order of publishes at the call, not
    /// when the future is first polled; the future only waits for the answer, and may be
    /// dropped without taking the publish back.
    ///
    /// With [`PublishRequest::retention`] the publication gets the channel's next offset and is kept, in one step with
    /// being delivered: no reader sees one without the other.
    fn publish(&self, request: PublishRequest) -> PublishFuture;

    /// Reads of a channel's history. A channel that has none yet gets its epoch by being asked.
    fn history(&self, channel: &Channel, query: HistoryQuery) -> HistoryFuture;

    /// Forgets a channel's publications. Its numbering goes on, so that readers learn that they missed something.
    fn remove_history(&self, channel: &Channel) -> Answer<()>;

    /// Notes that a client has come into a channel or has left it, and tells it to the channel's subscribers, as far as
    /// the channel does either. Takes effect before whatever this node asks about presence afterwards; what the broker cannot
    /// take now it is told when it can. A client comes once and leaves once.
    fn attend(&self, channel: &Channel, info: &Arc<ClientInfo>, change: Change, attendance: Attendance);

    /// Who is in a channel, if there are no more than `limit`.
    fn presence(&self, channel: &Channel, limit: u32) -> Answer<Presence>;

    /// How many are in a channel.
    fn presence_stats(&self, channel: &Channel) -> Answer<PresenceStats>;

    /// Which shards want which channel.
    fn interest(&self) -> &InterestMap;

    /// How the broker is now.
    fn health(&self) -> BrokerHealth;

    /// What the broker has counted since its start.
    fn stats(&self) -> &BrokerStats;

    /// What the broker is, for metrics and logs: `embedded` or `redis`.
    fn name(&self) -> &'static str;
}

/// What is published.
#[derive(Debug, Clone, Default)]
pub struct PublishRequest {
    /// The channel.
    pub channel: Channel,
    /// The payload, passed on untouched.
    pub data: Bytes,
    /// The publisher, where a client publishes.
    pub info: Option<ClientInfo>,
    /// Tags, for filters.
    pub tags: BTreeMap<String, String>,
    /// What the channel keeps; `None`: the publication is delivered and not kept.
    pub retention: Option<Retention>,
    /// The publication may be sent as a delta to the one before. Counts only where the channel keeps a history.
    pub delta: bool,
    /// A publish with a key that was seen a short while ago is answered as that one was, and not repeated. Counts only
    /// where the channel keeps a history.
    pub idempotency_key: Option<String>,
    /// The state that the publication is about; an older one than the channel has seen is not published. Counts only
    /// where the channel keeps a history.
    pub version: Option<Version>,
}

/// A version of the state that a channel's publications describe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// Grows with the state; at least 1.
    pub number: u64,
    /// Versions of different epochs do not compare: the newer publish wins.
    pub epoch: String,
}

/// What a publish came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// Position in the channel's history, from 1; 0 where the channel keeps none.
    pub offset: u64,
    /// The history's epoch; empty where the channel keeps none.
    pub epoch: String,
}

/// What the broker answers.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BrokerError>> + Send>>;

/// The answer to a publish.
pub type PublishFuture = Answer<Published>;

/// The answer to a question about history.
pub type HistoryFuture = Answer<History>;

/// Why the broker could not do what it was asked. Each but the last is the broker's fault, and a retry may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// There is no connection to the broker now.
    #[error("the broker is not connected: {0}")]
    Disconnected(Arc<str>),
    /// The broker did not answer in time.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
    /// The broker answered with an error.
    #[error("the broker refused: {0}")]
    Refused(Arc<str>),
    /// Too many requests wait for the broker already.
    #[error("{0} requests wait for the broker already")]
    Overloaded(usize),
    /// The publisher's fault: the payload is longer than `redis_publish.max_payload`, and would reach nobody.
    #[error("a payload of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// Bytes, those of the envelope included where there is one.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// How the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerHealth {
    /// Connected, and every wanted channel is subscribed or being subscribed.
    Healthy,
    /// Not connected: sessions stay, publications do not arrive.
    Degraded {
        /// Since how long.
        since: Duration,
        /// Why, for a person.
        reason: Arc<str>,
    },
}
