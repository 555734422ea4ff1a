//! What becomes of each wanted channel on the way to Redis and back. No I/O and no clock.
//!
//! A channel's state is its entry in the interest map ([`Link`]), and there is at most one command per channel
//! under way, so that a confirmation is never ambiguous:
//!
//! ```text
//! (none) --subscribe--> Queued --taken--> Subscribing --confirmed--> Live --grace over, unwanted--> Unsubscribing
//!                         ^                                                                             |
//!                         +------------------------- wanted again ------------------------- left -------+--> (none)
//! ```
//!
//! A loss of the connection brings every wanted channel back to Queued and forgets the rest. Beside the map there is a
//! desk with the queues; an entry's guard may be held while the desk is locked, never the other way round.
//!
//! [`super::connections`] has the [`Channels`] of every connection of the node, and says which connection a channel
//! belongs to. A channel changes its connection only while it is queued, so that a command under way is always the
//! connection's own.
//!
//! The calls of shards come from their threads; everything else from the one task that owns the connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::waits::Waits;
use crate::interest::{ConnectionId, Entry, Interest, InterestMap, Link, ShardId, ShardSet};
use crate::publication::Channel;

/// The channels of a connection and how far each is.
#[derive(Debug)]
pub(crate) struct Channels {
    map: Arc<InterestMap>,
    id: ConnectionId,
    desk: Mutex<Desk>,
    grace: Duration,
    /// There are channels to subscribe or to let go.
    pub(crate) work: Notify,
    waits: Arc<Waits>,
}

#[derive(Debug, Default)]
struct Desk {
    /// Whether there is a connection. Without one nothing is queued: the next connection asks for every channel.
    up: bool,
    /// Channels to subscribe. May hold one twice or one that is gone.
    queue: VecDeque<Channel>,
    /// How many channels were ever put into `queue`, and taken out.
    queued: u64,
    taken: u64,
    /// Channels whose last subscriber has left, and when; each once.
    leaving: VecDeque<(Instant, Channel)>,
}

/// The capacity that an empty queue keeps. A storm of subscribes needs much more, for a short while.
pub(super) const KEPT_CAPACITY: usize = 1024;

impl Desk {
    /// Gives back what a storm has left behind.
    fn trim(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > KEPT_CAPACITY {
            self.queue = VecDeque::new();
        }
        if self.leaving.is_empty() && self.leaving.capacity() > KEPT_CAPACITY {
            self.leaving = VecDeque::new();
        }
    }

    fn enqueue(&mut self, channel: Channel) {
        self.queue.push_back(channel);
        self.queued += 1;
    }
}

/// Channels for one SUBSCRIBE.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) channels: Vec<Channel>,
    /// How many channels have been taken from the queue, these included.
    pub(crate) total: u64,
}

/// What became of a channel that Redis has confirmed.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    /// Shards that waited for it.
    pub(crate) waited: ShardSet,
    /// Shards that had it on another server before, and may have missed something in between.
    pub(crate) resumed: ShardSet,
}

impl Channels {
    pub(super) fn new(map: Arc<InterestMap>, id: ConnectionId, grace: Duration, waits: Arc<Waits>) -> Self {
        Self { map, id, desk: Mutex::default(), grace, work: Notify::new(), waits }
    }

    /// Whose connection this is, and where to.
    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shard wants a channel whose entry is this connection's.
    pub(super) fn wanted(
        &self,
        name: &Channel,
        entry: &mut Entry,
        shard: ShardId,
        new: bool,
        now: Instant,
    ) -> Interest {
        if entry.link == Link::Live {
            entry.shards.insert(shard);
            return Interest::Confirmed;
        }
        entry.waiting.insert(shard);
        self.waits.begin(name, shard, now);
        if new {
            self.enqueue(name);
        }
        Interest::Pending
    }

    /// Queues a channel, unless there is no connection: the next one asks for every channel.
    pub(super) fn enqueue(&self, name: &Channel) {
        let mut desk = self.desk();
        if desk.up {
            if desk.queue.is_empty() {
                self.work.notify_one();
            }
            desk.enqueue(Channel::clone(name));
        }
    }

    /// A shard does not want a channel any more whose entry is this connection's. Answers whether the entry is to go.
    pub(super) fn unwanted(&self, name: &Channel, entry: &mut Entry, shard: ShardId, now: Instant) -> bool {
        entry.shards.remove(shard);
        if entry.waiting.contains(shard) {
            entry.waiting.remove(shard);
            self.waits.end(name, std::iter::once(shard));
        }
        if entry.wanted() {
            return false;
        }
        match entry.link {
            Link::Queued => return true,
            Link::Live => self.linger(name, entry, now),
            // The confirmation under way decides.
            Link::Subscribing | Link::Unsubscribing => {}
        }
        false
    }

    /// A live channel has lost its last subscriber: it is let go after the grace, unless somebody comes.
    fn linger(&self, name: &Channel, entry: &mut Entry, now: Instant) {
        if entry.lingering {
            entry.left_again = true;
            return;
        }
        entry.lingering = true;
        let mut desk = self.desk();
        if desk.leaving.is_empty() {
            self.work.notify_one();
        }
        desk.leaving.push_back((now, Channel::clone(name)));
    }

    /// There is a connection: every wanted channel is queued. Answers how many channels will have been taken from the
    /// queue when all of them have.
    pub(crate) fn connected(&self) -> u64 {
        {
            let mut desk = self.desk();
            desk.up = true;
            desk.queue.clear();
            desk.taken = desk.queued;
        }
        // What a shard asks for from here on it queues itself, so nothing is missed; a channel that is queued twice
        // is skipped the second time.
        let mut wanted = Vec::new();
        for entry in &self.map.channels {
            if entry.connection == self.id && entry.link == Link::Queued {
                wanted.push(Channel::clone(entry.key()));
            }
        }
        let mut desk = self.desk();
        desk.queued += wanted.len() as u64;
        desk.queue.extend(wanted);
        desk.queued
    }

    /// The connection is lost: nothing of it is confirmed any more. `one_by_one`: whoever has a channel is to be told
    /// when that channel is live again. Answers how many channels are still wanted.
    pub(crate) fn disconnected(&self, one_by_one: bool) -> usize {
        {
            let mut desk = self.desk();
            desk.up = false;
            desk.taken = desk.queued;
            desk.queue = VecDeque::new();
            desk.leaving = VecDeque::new();
        }
        let mut wanted = 0;
        self.map.channels.retain(|_, entry| {
            if entry.connection != self.id {
                return true;
            }
            entry.link = Link::Queued;
            entry.lingering = false;
            entry.left_again = false;
            entry.moved |= one_by_one && !entry.shards.is_empty();
            wanted += usize::from(entry.wanted());
            entry.wanted()
        });
        wanted
    }

    /// Takes up to `max` channels that are to be subscribed, and regards the command as written.
    pub(crate) fn take_queued(&self, max: usize) -> Taken {
        let (mut channels, total) = {
            let mut desk = self.desk();
            let n = desk.queue.len().min(max);
            desk.taken += n as u64;
            let channels: Vec<_> = desk.queue.drain(..n).collect();
            desk.trim();
            (channels, desk.taken)
        };
        channels.retain(|channel| {
            // A channel that is gone, or queued twice, is no longer what it was queued as; one that came back may be
            // another connection's.
            let Some(mut entry) = self.map.channels.get_mut(channel) else { return false };
            let queued = entry.connection == self.id && entry.link == Link::Queued;
            if queued {
                entry.link = Link::Subscribing;
            }
            queued
        });
        Taken { channels, total }
    }

    /// Whether channels are queued.
    pub(crate) fn has_queued(&self) -> bool {
        !self.desk().queue.is_empty()
    }

    /// When the next channel may be let go.
    pub(crate) fn next_leave(&self) -> Option<Instant> {
        self.desk().leaving.front().map(|(since, _)| *since + self.grace)
    }

    /// Takes up to `max` channels that nobody came back to, and regards the command as written.
    pub(crate) fn take_leaving(&self, max: usize, now: Instant) -> Vec<Channel> {
        let mut due = Vec::new();
        {
            let mut desk = self.desk();
            while due.len() < max && desk.leaving.front().is_some_and(|(since, _)| *since + self.grace <= now) {
                due.extend(desk.leaving.pop_front().map(|(_, channel)| channel));
            }
            desk.trim();
        }
        due.retain(|channel| {
            let Some(mut entry) = self.map.channels.get_mut(channel) else { return false };
            if entry.connection != self.id {
                return false;
            }
            let again = std::mem::take(&mut entry.left_again);
            entry.lingering = false;
            if entry.wanted() || entry.link != Link::Live {
                return false;
            }
            if again {
                // It was wanted in between. Nobody noted when it was left again: the grace starts over.
                let (name, entry) = entry.pair_mut();
                self.linger(name, entry, now);
                return false;
            }
            entry.link = Link::Unsubscribing;
            true
        });
        due
    }

    /// Redis has confirmed a subscription.
    pub(crate) fn confirmed(&self, channel: &Channel, now: Instant) -> Confirmed {
        let Some(mut entry) = self.map.channels.get_mut(channel) else { return Confirmed::default() };
        let (name, entry) = entry.pair_mut();
        entry.link = Link::Live;
        let resumed = if std::mem::take(&mut entry.moved) { entry.shards } else { ShardSet::default() };
        let waited = self.answered(name, entry);
        entry.shards = entry.shards.union(waited);
        if !entry.wanted() {
            self.linger(name, entry, now);
        }
        Confirmed { waited, resumed }
    }

    /// The server has the channel no more, without being asked. Answers whether it was live and is still wanted: then
    /// it is queued nowhere, and [`super::connections::Connections::park`] has to see to it.
    pub(crate) fn dropped(&self, channel: &Channel) -> Dropped {
        let mut dropped = Dropped::Unknown;
        self.map.channels.remove_if_mut(channel, |_, entry| {
            // The answer to a command under way decides.
            if entry.connection != self.id || entry.link != Link::Live {
                return false;
            }
            // Its place in the queue of those that leave is void.
            entry.lingering = false;
            entry.left_again = false;
            dropped = if requeue(entry) { Dropped::Wanted } else { Dropped::Unwanted };
            dropped == Dropped::Unwanted
        });
        dropped
    }

    /// The server does not take the subscription now: it has not got the channel's slot. As [`Channels::dropped`].
    pub(crate) fn put_off(&self, channel: &Channel) -> Dropped {
        let mut dropped = Dropped::Unknown;
        self.map.channels.remove_if_mut(channel, |_, entry| {
            dropped = if requeue(entry) { Dropped::Wanted } else { Dropped::Unwanted };
            dropped == Dropped::Unwanted
        });
        dropped
    }

    /// Redis refuses a channel: its entry goes. Answers the shards that waited for it or had it.
    pub(crate) fn refused(&self, channel: &Channel) -> ShardSet {
        let mut told = ShardSet::default();
        self.map.channels.remove_if_mut(channel, |name, entry| {
            told = self.answered(name, entry).union(entry.shards);
            true
        });
        told
    }

    /// Redis has let a channel go.
    pub(crate) fn left(&self, channel: &Channel) {
        self.map.channels.remove_if_mut(channel, |name, entry| {
            if !entry.wanted() {
                return true;
            }
            entry.link = Link::Queued;
            self.desk().enqueue(Channel::clone(name));
            false
        });
    }

    /// Empties an entry's waiting shards, because they are being answered.
    fn answered(&self, name: &Channel, entry: &mut Entry) -> ShardSet {
        let waited = std::mem::take(&mut entry.waiting);
        if !waited.is_empty() {
            self.waits.end(name, waited.iter());
        }
        waited
    }
}

/// What [`Channels::dropped`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Some shard wants the channel.
    Wanted,
    /// Nobody does: its entry is gone.
    Unwanted,
    /// It was not this connection's live channel.
    Unknown,
}

/// Back to the queue, to whichever server. Answers whether some shard wants the channel.
fn requeue(entry: &mut Entry) -> bool {
    entry.link = Link::Queued;
    entry.moved |= !entry.shards.is_empty();
    entry.wanted()
}

#[cfg(test)]
mod tests;
