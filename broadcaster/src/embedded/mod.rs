//! The broker of a node that stands alone: everything happens inside the process.
//!
//! - here: interest and delivery;
//! - `streams`: what channels keep (pure);
//! - [`log`]: how they keep it over a restart;
//! - `histories`: both together, under the broker's lock;
//! - `presence`: who is in them (pure).

mod histories;
pub mod log;
mod presence;
mod streams;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_protocol::message::ClientInfo;

use self::log::queue::Ticket;
use self::log::{Log, LogError, LogSettings};
use self::presence::Rooms;
use self::streams::Streams;
use crate::broker::{
    Answer, Broker, BrokerError, BrokerHealth, HistoryFuture, PublishFuture, PublishRequest, Published,
};
use crate::dispatch::{Dispatcher, Inboxes};
use crate::history::HistoryQuery;
use crate::interest::{Entry, Interest, InterestMap, Link, MAX_SHARDS, ShardId, ShardSet};
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

/// Bytes of memory that histories take at most, unless [`EmbeddedBroker::with_history_memory`] says otherwise.
const DEFAULT_HISTORY_MEMORY: usize = 512 * 1024 * 1024;

/// A broker without anything outside: one node.
#[derive(Debug)]
pub struct EmbeddedBroker {
    interest: Arc<InterestMap>,
    dispatcher: Dispatcher,
    stats: Arc<BrokerStats>,
    epoch: Arc<str>,
    /// The lock is also what puts the publishes of all threads into one order.
    state: Arc<Mutex<State>>,
    max_payload: usize,
    history_memory: usize,
    log: Option<Log>,
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
        let state = State { overrun: vec![0; MAX_SHARDS], streams: Streams::new(seed), rooms: Rooms::default() };
        let state = Arc::new(Mutex::new(state));
        let dispatcher = Dispatcher::new(Arc::clone(&interest), inboxes, Arc::clone(&stats));
        let (max_payload, history_memory) = (DEFAULT_MAX_PAYLOAD, DEFAULT_HISTORY_MEMORY);
        Self { interest, dispatcher, stats, epoch: Arc::default(), state, max_payload, history_memory, log: None }
    }

    /// The same with another bound on payloads, in bytes; 1 MiB unless said otherwise.
    pub fn with_max_payload(self, max_payload: usize) -> Self {
        Self { max_payload, ..self }
    }

    /// The same with another bound on the memory that histories take, in bytes; 512 MiB unless said otherwise. Where
    /// they would take more, what would go next goes at once.
    pub fn with_history_memory(self, history_memory: usize) -> Self {
        Self { history_memory, ..self }
    }

    /// The same with histories that outlive the process. Reads what is there, which can take seconds.
    ///
    /// # Errors
    /// The directory cannot be used, or another process has it.
    pub fn with_log(mut self, settings: LogSettings) -> Result<Self, LogError> {
        let log = histories::open(&self.state, &self.dispatcher, &self.stats, settings, self.history_memory)?;
        self.log = Some(log);
        Ok(self)
    }

    /// Writes what waits for the log, and notes that the node has stopped in good order. Publishes that come later are
    /// refused where they have a history. Dropping the broker does the same. Blocks until the disk is done.
    pub fn close(&self) {
        if let Some(log) = &self.log {
            log.close();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers at once, or when it is safe where there is a log. What is left to wait for comes with the answer.
    fn deliver(&self, request: PublishRequest) -> Result<(Published, Wait), BrokerError> {
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

        let shards = self.interest.shards(&request.channel);
        let full = self.dispatcher.full(shards);
        let overrun = full.iter().map(|shard| state.overrun[usize::from(shard)]);
        if let Some(taken) = overrun.into_iter().find(|taken| *taken >= MAX_OVERRUN) {
            return Err(BrokerError::Overloaded(taken));
        }
        let PublishRequest { channel, info, tags, retention, delta, idempotency_key, version, .. } = request;
        let delta = delta && retention.is_some();
        let publication = |offset, epoch| {
            let (channel, info) = (Channel::clone(&channel), info.map(Arc::new));
            let kind = PushKind::Publication;
            Arc::new(Publication { channel, kind, payload, offset, epoch, info, tags, delta, is_late: false, received })
        };
        let (published, ticket, now) = match retention {
            None => {
                let now = self.pass(&mut state, publication(0, Arc::clone(&self.epoch)))?;
                (Published::default(), None, now)
            }
            Some(retention) => {
                let terms = histories::Terms { retention, idempotency_key, version, received };
                let kept = self.keep(&mut state, &channel, terms, publication)?;
                if kept.is_suppressed {
                    return Ok((kept.published, Wait { ticket: kept.ticket, shards: ShardSet::default() }));
                }
                (kept.published, kept.ticket, kept.deliver_now)
            }
        };
        let mut burst = self.dispatcher.burst();
        burst.received(1, bytes);
        let touched = match now {
            Some(publication) => {
                burst.route_shared(&publication);
                burst.flush()
            }
            // The log delivers it, to whoever is there then.
            None => shards,
        };
        for shard in touched.iter() {
            let taken = &mut state.overrun[usize::from(shard)];
            *taken = if full.contains(shard) { *taken + 1 } else { 0 };
        }
        drop(state);
        Ok((published, Wait { ticket, shards: touched }))
    }

    /// Waits until the log has it, and until the shards that it went to have room.
    fn answer(&self, called: Instant, published: Published, wait: Wait) -> PublishFuture {
        let Wait { ticket, shards } = wait;
        let full = self.dispatcher.full(shards);
        if ticket.is_none() && full.is_empty() {
            self.count(called);
            return Box::pin(std::future::ready(Ok(published)));
        }
        let (dispatcher, stats) = (self.dispatcher.clone(), Arc::clone(&self.stats));
        if ticket.is_none() {
            self.count(called);
            add(&stats.backpressure_waits, 1);
        }
        Box::pin(async move {
            if let Some(ticket) = ticket {
                let safe = ticket.wait().await;
                count(&stats, called, safe.is_ok());
                safe?;
            }
            let full = dispatcher.full(shards);
            if !full.is_empty() {
                // The message is in the inbox already: after the wait the answer is the same either way.
                let _ = tokio::time::timeout(MAX_WAIT, dispatcher.room(full)).await;
            }
            Ok(published)
        })
    }

    fn count(&self, called: Instant) {
        count(&self.stats, called, true);
    }
}

/// What a publish that was accepted waits for.
struct Wait {
    ticket: Option<Ticket>,
    /// The shards that it goes to.
    shards: ShardSet,
}

/// Counts the answer to a publish.
fn count(stats: &BrokerStats, called: Instant, good: bool) {
    if good {
        add(&stats.publish_ok, 1);
        stats.publish_latency.record(called.elapsed());
    } else {
        add(&stats.publish_errors, 1);
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
            Ok((published, wait)) => self.answer(called, published, wait),
            Err(error) => {
                count(&self.stats, called, false);
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }

    fn history(&self, channel: &Channel, query: HistoryQuery) -> HistoryFuture {
        self.read(channel, query)
    }

    fn remove_history(&self, channel: &Channel) -> Answer<()> {
        self.remove(channel)
    }

    fn attend(&self, channel: &Channel, info: &Arc<ClientInfo>, change: Change, attendance: Attendance) {
        let mut state = self.state();
        if attendance.presence {
            // A wrapping sum of ones and minus ones.
            self.stats.present.fetch_add(state.rooms.note(channel, info, change) as u64, Ordering::Relaxed);
        }
        if attendance.announce {
            let (channel, info) = (Channel::clone(channel), Arc::clone(info));
            let push = Arc::new(Publication::attendance(channel, change.push(), info, Instant::now()));
            match self.pass(&mut state, push) {
                Ok(Some(push)) => {
                    let mut burst = self.dispatcher.burst();
                    burst.route_shared(&push);
                    // It is as much as clients come and go: no reason to have anybody wait for room.
                    let _ = burst.flush();
                }
                // The log delivers it behind what its channel waits for.
                Ok(None) => {}
                Err(_) => add(&self.stats.publish_errors, 1),
            }
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
        let failing = self.log.as_ref().and_then(|log| log.queue.failing());
        failing.map_or(BrokerHealth::Healthy, |failing| BrokerHealth::Degraded {
            since: failing.since.elapsed(),
            reason: failing.reason,
        })
    }

    fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "embedded"
    }
}
