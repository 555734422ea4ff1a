//! From a burst of publications to the shards that want them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::inbox::{Event, ShardInbox};
use crate::interest::{InterestMap, MAX_SHARDS, ShardId, ShardSet};
use crate::publication::{Channel, Publication};
use crate::stats::{BrokerStats, add};

/// The inboxes of all shards of a node; a shard's number is its place.
pub type Inboxes = Arc<[Arc<dyn ShardInbox>]>;

/// Routes publications to shards. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    interest: Arc<InterestMap>,
    inboxes: Inboxes,
    stats: Arc<BrokerStats>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("shards", &self.inboxes.len()).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher for these shards. There can be [`MAX_SHARDS`]; whatever is beyond is told nothing.
    pub fn new(interest: Arc<InterestMap>, mut inboxes: Inboxes, stats: Arc<BrokerStats>) -> Self {
        if inboxes.len() > MAX_SHARDS {
            tracing::error!(shards = inboxes.len(), max = MAX_SHARDS, "too many shards; the last ones receive nothing");
            inboxes = inboxes.iter().take(MAX_SHARDS).cloned().collect();
        }
        Self { interest, inboxes, stats }
    }

    /// Starts a burst: what is routed through it reaches each shard as one event.
    pub fn burst(&self) -> Burst<'_> {
        let batches = self.inboxes.iter().map(|_| Vec::new()).collect();
        Burst { dispatcher: self, batches, recent: None, routed: 0, unwanted: 0 }
    }

    /// Hands an event to one shard. A shard that does not exist is ignored.
    pub fn tell(&self, shard: ShardId, event: Event) {
        if let Some(inbox) = self.inboxes.get(usize::from(shard)) {
            inbox.push(event);
        }
    }

    /// Hands an event to every shard.
    pub fn tell_all(&self, event: &Event) {
        for inbox in self.inboxes.iter() {
            inbox.push(event.clone());
        }
    }

    /// Whether a shard with this number exists.
    pub fn has_shard(&self, shard: ShardId) -> bool {
        usize::from(shard) < self.inboxes.len()
    }

    /// Those of `shards` whose inbox has no room.
    pub fn full(&self, shards: ShardSet) -> ShardSet {
        let mut full = ShardSet::default();
        for shard in shards.iter() {
            if self.inboxes.get(usize::from(shard)).is_some_and(|inbox| !inbox.has_room()) {
                full.insert(shard);
            }
        }
        full
    }

    /// Waits until each of `shards` has room. May be dropped and asked again at any time.
    pub async fn room(&self, shards: ShardSet) {
        for shard in shards.iter() {
            if let Some(inbox) = self.inboxes.get(usize::from(shard)) {
                inbox.room().await;
            }
        }
    }
}

/// Publications on their way to the shards, in the order of their arrival.
#[derive(Debug)]
pub struct Burst<'a> {
    dispatcher: &'a Dispatcher,
    batches: Vec<Vec<Arc<Publication>>>,
    /// The channel that was looked up last. Messages come in runs of one channel, and whoever asks for
    /// a channel while its burst is being routed was not there when the burst was received.
    recent: Option<(Channel, ShardSet)>,
    routed: u64,
    unwanted: u64,
}

impl Burst<'_> {
    /// Routes one message. `publication` is asked for it only where some shard wants the channel,
    /// and may answer with none (a message that cannot be read, which the caller counts).
    pub fn route(&mut self, channel: &str, publication: impl FnOnce(Channel) -> Option<Publication>) {
        if self.recent.as_ref().is_none_or(|(name, _)| **name != *channel) {
            self.recent = self.dispatcher.interest.find(channel);
        }
        let Some((name, shards)) = &self.recent else {
            self.unwanted += 1;
            return;
        };
        let Some(publication) = publication(Channel::clone(name)) else { return };
        let publication = Arc::new(publication);
        self.routed += 1;
        for shard in shards.iter() {
            if let Some(batch) = self.batches.get_mut(usize::from(shard)) {
                batch.push(Arc::clone(&publication));
            }
        }
    }

    /// Routes a message that exists whether any shard wants it or not.
    pub fn route_shared(&mut self, publication: &Arc<Publication>) {
        let shards = self.dispatcher.interest.shards(&publication.channel);
        if shards.is_empty() {
            self.unwanted += 1;
            return;
        }
        self.routed += 1;
        for shard in shards.iter() {
            if let Some(batch) = self.batches.get_mut(usize::from(shard)) {
                batch.push(Arc::clone(publication));
            }
        }
    }

    /// Forgets what was looked up, because interest may have changed within the burst.
    pub(crate) fn forget(&mut self) {
        self.recent = None;
    }

    /// Hands every shard its part and tells which shards had one.
    #[must_use = "the caller has to wait for the room of the shards that were touched"]
    pub fn flush(self) -> ShardSet {
        let mut touched = ShardSet::default();
        for ((shard, batch), inbox) in (0..).zip(self.batches).zip(self.dispatcher.inboxes.iter()) {
            if !batch.is_empty() {
                touched.insert(shard);
                inbox.push(Event::Publications(batch));
            }
        }
        add(&self.dispatcher.stats.delivered, self.routed);
        add(&self.dispatcher.stats.no_interest, self.unwanted);
        touched
    }

    /// Counts messages of the burst that were received, with the bytes of their payloads.
    pub(crate) fn received(&self, messages: u64, bytes: u64) {
        let counters: [(&AtomicU64, u64); 2] =
            [(&self.dispatcher.stats.messages, messages), (&self.dispatcher.stats.message_bytes, bytes)];
        for (counter, n) in counters {
            add(counter, n);
        }
    }
}
