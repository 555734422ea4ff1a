//! Which shards of this node want which channel.

use dashmap::DashMap;

use crate::publication::Channel;

/// A shard's number on its node, from 0.
pub type ShardId = u8;

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

/// What is known of a wanted channel.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    /// Who wants it.
    pub(crate) shards: ShardSet,
    /// Whether the broker has confirmed it.
    pub(crate) confirmed: bool,
}

impl InterestMap {
    /// The shards that want `channel` now.
    pub fn shards(&self, channel: &str) -> ShardSet {
        self.channels.get(channel).map(|entry| entry.shards).unwrap_or_default()
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
