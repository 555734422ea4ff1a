//! Since when shards have been waiting for channels to be confirmed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::channels::KEPT_CAPACITY;
use crate::interest::{InterestMap, Link, ShardId};
use crate::publication::Channel;

type Since = HashMap<(Channel, ShardId), Instant, foldhash::fast::RandomState>;

/// The waits of the channels that belong to one shard's connections. Has an entry for each shard in the `waiting` of an
/// entry of the interest map. An entry's guard may be held while this is locked, never the other way round.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    since: Mutex<Since>,
    /// The first wait has begun.
    pub(crate) began: Notify,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, Since> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shard waits from now on, unless it does already.
    pub(crate) fn begin(&self, channel: &Channel, shard: ShardId, now: Instant) {
        let mut since = self.lock();
        if since.is_empty() {
            self.began.notify_one();
        }
        // The map's own copy of the name, so that the caller's can go.
        since.entry((Channel::clone(channel), shard)).or_insert(now);
    }

    /// Shards do not wait any more.
    pub(crate) fn end(&self, channel: &Channel, shards: impl Iterator<Item = ShardId>) {
        let mut since = self.lock();
        for shard in shards {
            since.remove(&(Channel::clone(channel), shard));
        }
        // Gives back what a storm of subscribes has left behind.
        if since.is_empty() && since.capacity() > KEPT_CAPACITY {
            *since = HashMap::default();
        }
    }

    /// Whether some shard waits for an answer.
    pub(crate) fn any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Gives up on what has been waiting since `before`. Answers who waited for what; their interest is gone.
    pub(crate) fn expire(&self, map: &InterestMap, before: Instant) -> Vec<(Channel, ShardId)> {
        let mut due = Vec::new();
        self.lock().retain(|(channel, shard), since| {
            let wait = *since > before;
            if !wait {
                due.push((Channel::clone(channel), *shard));
            }
            wait
        });
        due.retain(|(channel, shard)| {
            let mut expired = false;
            map.channels.remove_if_mut(channel, |name, entry| {
                // The shard may have left in between, and even have come back.
                expired = entry.waiting.contains(*shard) && !self.lock().contains_key(&(Channel::clone(name), *shard));
                if expired {
                    entry.waiting.remove(*shard);
                }
                !entry.wanted() && entry.link == Link::Queued
            });
            expired
        });
        due
    }

    /// How many waits there are, and the room that is kept for them.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        let since = self.lock();
        (since.len(), since.capacity())
    }
}
