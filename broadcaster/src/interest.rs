//! Which shards of this node want which channel.

use dashmap::DashMap;

use crate::publication::Channel;

/// A shard's number on its node, from 0.
pub type ShardId = u8;

/// A subscriber connection of the node: there is one for each shard and each server that it subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ConnectionId {
    /// The shard whose thread it is on.
    pub(crate) shard: ShardId,
    /// The server's number.
    pub(crate) lane: u8,
}

/// The largest number of shards on one node: one bit each in a [`ShardSet`].
pub const MAX_SHARDS: usize = 64;

/// What a shard learns when it asks for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// The channel is live: publications from now on arrive.
    Confirmed,
    /// The broker has been asked; the answer follows in the inbox.
    Pending,
}

/// A set of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet(u64);

impl ShardSet {
    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1 << shard;
    }

    /// Removes a shard.
    pub fn remove(&mut self, shard: ShardId) {
        self.0 &= !(1 << shard);
    }

    /// Whether a shard is in the set.
    pub fn contains(self, shard: ShardId) -> bool {
        self.0 & (1 << shard) != 0
    }

    /// Every shard of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no shard is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The shards, lowest first.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let shard = rest.trailing_zeros() as ShardId;
                rest &= rest - 1;
                shard
            })
        })
    }
}

/// Channel to shards, shared by the broker's reader and the shards.
///
/// An entry lives from the first subscriber until the broker lets the channel go.
#[derive(Debug, Default)]
pub struct InterestMap {
    pub(crate) channels: DashMap<Channel, Entry, foldhash::fast::RandomState>,
}

/// What is known of a wanted channel. One per channel and node, so it is kept small.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    /// Shards that receive the channel's publications.
    pub(crate) shards: ShardSet,
    /// Shards that have asked and not been answered yet. They receive nothing before the answer.
    pub(crate) waiting: ShardSet,
    /// The connection that the channel arrives on, where the broker has several.
    pub(crate) connection: ConnectionId,
    /// How far the channel is with the broker.
    pub(crate) link: Link,
    /// Whether the channel stands in the queue of those whose last subscriber has left.
    pub(crate) lingering: bool,
    /// Whether the channel was wanted and left again while it stood in that queue.
    pub(crate) left_again: bool,
    /// Whether the channel has been taken from a server of a cluster that had it live: those who have it are told when
    /// it is live again.
    pub(crate) moved: bool,
}

/// How far a channel is with the broker. At most one command per channel is under way at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Link {
    /// Wanted; nothing has been written.
    #[default]
    Queued,
    /// The subscribe is written and not confirmed.
    Subscribing,
    /// Confirmed.
    Live,
    /// The unsubscribe is written and not confirmed.
    Unsubscribing,
}

impl Entry {
    /// Whether some shard wants the channel.
    pub(crate) fn wanted(&self) -> bool {
        !(self.shards.is_empty() && self.waiting.is_empty())
    }
}

impl InterestMap {
    /// Bytes of a channel's place in the map, beside its name.
    pub const ENTRY_SIZE: usize = size_of::<(Channel, Entry)>();

    /// The shards that receive the publications of `channel` now.
    pub fn shards(&self, channel: &str) -> ShardSet {
        self.channels.get(channel).map(|entry| entry.shards).unwrap_or_default()
    }

    /// The shards that receive the publications of `channel` now, with the node's shared name of
    /// the channel; nothing where there are none.
    pub fn find(&self, channel: &str) -> Option<(Channel, ShardSet)> {
        let entry = self.channels.get(channel)?;
        (!entry.shards.is_empty()).then(|| (Channel::clone(entry.key()), entry.shards))
    }

    /// The number of channels with at least one subscriber or within their second of grace.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}
