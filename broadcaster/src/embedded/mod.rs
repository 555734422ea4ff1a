//! The broker of a node that stands alone: everything happens inside the process.
//!
//! - here: interest and delivery;
//! - `streams`: what channels keep (pure);
//! - `presence`: who is in them (pure).

mod presence;
mod streams;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_protocol::message::ClientInfo;

use self::presence::Rooms;
use self::streams::{Appended, Streams};
use crate::broker::{
    Answer, Broker, BrokerError, BrokerHealth, HistoryFuture, PublishFuture, PublishRequest, Published,
};
use crate::dispatch::{Dispatcher, Inboxes};
use crate::history::HistoryQuery;
use crate::interest::{Entry, Interest, InterestMap, Link, MAX_SHARDS, ShardId};
use crate::presence::{Attendance, Change, Presence, PresenceStats};
use crate::publication::{Channel, Payload, Publication, PushKind};
use crate::stats::{BrokerStats, add};

/// How many publishes a shard's inbox takes while it has no room. Publishers wait for room, but one that drops its
/// future waits for nothing; beyond this number publishes to the shard are refused.
const MAX_OVERRUN: usize = 4096;

/// How long a publish waits for room in the inboxes before it answers all the same.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// The longest payload, in bytes, unless [`EmbeddedBroker::with_max_payload`] says otherwise.
const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// Streams that are looked at for what is too old with each publish: more than a publish can add.
const EXPIRED_AT_ONCE: usize = 4;

/// A broker without anything outside: one node.
#[derive(Debug)]
pub struct EmbeddedBroker {
    interest: Arc<InterestMap>,
    dispatcher: Dispatcher,
    stats: Arc<BrokerStats>,
    epoch: Arc<str>,
    /// The lock is also what puts the publishes of all threads into one order.
    state: Mutex<State>,
    max_payload: usize,
}

#[derive(Debug)]
struct State {
    /// For each shard, the publishes that it took since it last had room.
    overrun: Vec<usize>,
    streams: Streams,
    rooms: Rooms,
}

impl EmbeddedBroker {
    /// A broker for the shards behind these inboxes.
    pub fn new(inboxes: Inboxes) -> Self {
        let interest = Arc::new(InterestMap::default());
        let stats = Arc::new(BrokerStats::default());
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let state =
            Mutex::new(State { overrun: vec![0; MAX_SHARDS], streams: Streams::new(seed), rooms: Rooms::default() });
        let dispatcher = Dispatcher::new(Arc::clone(&interest), inboxes, Arc::clone(&stats));
        Self { interest, dispatcher, stats, epoch: Arc::default(), state, max_payload: DEFAULT_MAX_PAYLOAD }
    }

    /// The same with another bound on payloads, in bytes; 1 MiB unless said otherwise.
    pub fn with_max_payload(self, max_payload: usize) -> Self {
        Self { max_payload, ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers at once; where there was no room, the future waits for some.
    fn deliver(&self, request: PublishRequest) -> Result<(Published, Option<PublishFuture>), BrokerError> {
        let received = Instant::now();
        // A longer one would overflow the queue of every subscriber that is a little behind.
        let (length, limit) = (request.data.len(), self.max_payload);
        if length > limit {
            return Err(BrokerError::TooLong { length, limit });
        }
        let bytes = length as u64;
        // Before the lock: it takes time in proportion to the payload.
        let payload = Payload::new(Bytes::clone(&request.data));
        let mut state = self.state();
        let State { overrun, streams, .. } = &mut *state;

        let full = self.dispatcher.full(self.interest.shards(&request.channel));
        if let Some(taken) = full.iter().map(|shard| overrun[usize::from(shard)]).find(|taken| *taken >= MAX_OVERRUN) {
            return Err(BrokerError::Overloaded(taken));
        }
        let PublishRequest { channel, info, tags, retention, delta, idempotency_key, version, .. } = request;
        let delta = delta && retention.is_some();
        let publication = |offset, epoch| {
            let (channel, info) = (Channel::clone(&channel), info.map(Arc::new));
            let kind = PushKind::Publication;
            Arc::new(Publication { channel, kind, payload, offset, epoch, info, tags, delta, received })
        };
        let (published, publication) = match retention {
            None => (Published::default(), publication(0, Arc::clone(&self.epoch))),
            Some(retention) => {
                streams.expire(received, EXPIRED_AT_ONCE);
                let mut kept = None;
                let make = |offset, epoch| Arc::clone(kept.insert(publication(offset, epoch)));
                match (streams.append(&channel, retention, (idempotency_key, version), received, make), kept) {
                    (Appended::Kept(published), Some(publication)) => (published, publication),
                    (Appended::Kept(published) | Appended::Suppressed(published), _) => return Ok((published, None)),
                }
            }
        };
        let mut burst = self.dispatcher.burst();
        burst.received(1, bytes);
        burst.route_shared(&publication);
        let touched = burst.flush();
        for shard in touched.iter() {
            let taken = &mut overrun[usize::from(shard)];
            *taken = if full.contains(shard) { *taken + 1 } else { 0 };
        }
        drop(state);

        let full = self.dispatcher.full(touched);
        let wait = (!full.is_empty()).then(|| {
            add(&self.stats.backpressure_waits, 1);
            let (dispatcher, published) = (self.dispatcher.clone(), published.clone());
            Box::pin(async move {
                // The message is in the inbox already: after the wait the answer is the same either way.
                let _ = tokio::time::timeout(MAX_WAIT, dispatcher.room(full)).await;
                Ok(published)
            }) as PublishFuture
        });
        Ok((published, wait))
    }
}

impl Broker for EmbeddedBroker {
    fn subscribe(&self, channel: &Channel, shard: ShardId) -> Interest {
        if self.dispatcher.has_shard(shard) {
            let mut entry = self.interest.channels.entry(Channel::clone(channel)).or_insert_with(|| {
                add(&self.stats.subscribed_channels, 1);
                Entry { link: Link::Live, ..Default::default() }
            });
            entry.shards.insert(shard);
        }
        Interest::Confirmed
    }

    /// Lets the channel go at once: there is nobody whom a short absence would cost anything.
    fn unsubscribe(&self, channel: &Channel, shard: ShardId) {
        if !self.dispatcher.has_shard(shard) {
            return;
        }
        let removed = self.interest.channels.remove_if_mut(channel, |_, entry| {
            entry.shards.remove(shard);
            entry.shards.is_empty()
        });
        if removed.is_some() {
            self.stats.subscribed_channels.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn publish(&self, request: PublishRequest) -> PublishFuture {
        let called = Instant::now();
        match self.deliver(request) {
            Ok((published, wait)) => {
                add(&self.stats.publish_ok, 1);
                self.stats.publish_latency.record(called.elapsed());
                wait.unwrap_or_else(|| Box::pin(std::future::ready(Ok(published))))
            }
            Err(error) => {
                add(&self.stats.publish_errors, 1);
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }

    fn history(&self, channel: &Channel, query: HistoryQuery) -> HistoryFuture {
        let history = self.state().streams.read(channel, query, Instant::now());
        Box::pin(std::future::ready(Ok(history)))
    }

    fn remove_history(&self, channel: &Channel) -> Answer<()> {
        self.state().streams.remove(channel);
        Box::pin(std::future::ready(Ok(())))
    }

    fn attend(&self, channel: &Channel, info: &Arc<ClientInfo>, change: Change, attendance: Attendance) {
        let mut state = self.state();
        if attendance.presence {
            // A wrapping sum of ones and minus ones.
            self.stats.present.fetch_add(state.rooms.note(channel, info, change) as u64, Ordering::Relaxed);
        }
        if attendance.announce {
            let (channel, info) = (Channel::clone(channel), Arc::clone(info));
            let push = Publication::attendance(channel, change.push(), info, Instant::now());
            let mut burst = self.dispatcher.burst();
            burst.route_shared(&Arc::new(push));
            // It is as much as clients come and go: no reason to have anybody wait for room.
            let _ = burst.flush();
        }
    }

    fn presence(&self, channel: &Channel, limit: u32) -> Answer<Presence> {
        let presence = self.state().rooms.presence(channel, limit);
        Box::pin(std::future::ready(Ok(presence)))
    }

    fn presence_stats(&self, channel: &Channel) -> Answer<PresenceStats> {
        let stats = self.state().rooms.stats(channel);
        Box::pin(std::future::ready(Ok(stats)))
    }

    fn interest(&self) -> &InterestMap {
        &self.interest
    }

    fn health(&self) -> BrokerHealth {
        BrokerHealth::Healthy
    }

    fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "embedded"
    }
}
