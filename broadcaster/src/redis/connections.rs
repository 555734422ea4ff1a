//! Which connection a channel belongs to.
//!
//! There is one connection for each shard and each server that the node subscribes to, and each has its [`Channels`]. A
//! channel belongs to the connections of the shard that wanted it first, until its entry goes: Redis sends a message to
//! a node once, and where only one shard wants it, it arrives on that shard's own thread. Which of the shard's
//! connections it is the channel's slot says; without a cluster there is but one.
//!
//! A channel that its server does not have (any more) is parked until the servers have been looked at.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::Entry as Slot;
use tokio::sync::watch;

use super::channels::Channels;
use super::topology::{Lane, Layout, Topology, slot};
use super::waits::Waits;
use crate::interest::{ConnectionId, Entry, Interest, InterestMap, Link, ShardId};
use crate::publication::Channel;

/// The channels of all connections of a node.
#[derive(Debug)]
pub(crate) struct Connections {
    map: Arc<InterestMap>,
    topology: Arc<Topology>,
    prefix: String,
    /// By shard, then by lane.
    each: Box<[ShardConnections]>,
    /// Channels that wait for a look at the servers; may hold one twice or one that is gone.
    parked: Mutex<Vec<Channel>>,
    /// Held while channels get their lanes, so that the newest layout is the one that stays.
    rehoming: Mutex<()>,
}

/// The connections of one shard.
#[derive(Debug)]
pub(crate) struct ShardConnections {
    pub(crate) lanes: Box<[Arc<Channels>]>,
    pub(crate) waits: Arc<Waits>,
}

impl Connections {
    /// Connections without channels: for so many shards (at least one), with so many lanes each.
    pub(crate) fn new(
        map: Arc<InterestMap>,
        topology: Arc<Topology>,
        prefix: String,
        shards: usize,
        lanes: usize,
        grace: Duration,
    ) -> Self {
        let of_shard = |shard: usize| {
            let waits = Arc::<Waits>::default();
            let channels = |lane: usize| {
                let id = ConnectionId { shard: shard as ShardId, lane: lane as Lane };
                Arc::new(Channels::new(Arc::clone(&map), id, grace, Arc::clone(&waits)))
            };
            ShardConnections { lanes: (0..lanes.max(1)).map(channels).collect(), waits }
        };
        let each = (0..shards.max(1)).map(of_shard).collect();
        Self { map, topology, prefix, each, parked: Mutex::default(), rehoming: Mutex::default() }
    }

    /// Which shards want which channel.
    pub(crate) fn map(&self) -> &InterestMap {
        &self.map
    }

    #[cfg(test)]
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The connections of each shard.
    pub(crate) fn each(&self) -> &[ShardConnections] {
        &self.each
    }

    fn of(&self, id: ConnectionId) -> &Arc<Channels> {
        &self.each[usize::from(id.shard)].lanes[usize::from(id.lane)]
    }

    /// The lane of a channel; none where no server has it, or none is known to have it.
    fn lane(&self, layout: &Layout, channel: &str) -> Option<Lane> {
        if self.each.first().is_none_or(|shard| shard.lanes.len() == 1) {
            return Some(0);
        }
        layout.lane(slot(format!("{}{channel}", self.prefix).as_bytes()))
    }

    /// A shard wants a channel. The shard must be one that has connections.
    pub(crate) fn subscribe(&self, channel: &Channel, shard: ShardId, now: Instant) -> Interest {
        let (mut entry, new) = match self.map.channels.entry(Channel::clone(channel)) {
            Slot::Occupied(slot) => (slot.into_ref(), false),
            Slot::Vacant(slot) => {
                // The layout is read while the entry's place is locked: when it changes, `rehome` finds the entry.
                let lane = self.lane(&self.topology.layout(), channel).unwrap_or_default();
                (slot.insert(Entry { connection: ConnectionId { shard, lane }, ..Entry::default() }), true)
            }
        };
        let (name, entry) = entry.pair_mut();
        self.of(entry.connection).wanted(name, entry, shard, new, now)
    }

    /// A shard does not want a channel any more.
    pub(crate) fn unsubscribe(&self, channel: &Channel, shard: ShardId, now: Instant) {
        self.map
            .channels
            .remove_if_mut(channel, |name, entry| self.of(entry.connection).unwanted(name, entry, shard, now));
    }

    /// A queued channel waits until the servers have been looked at.
    pub(crate) fn park(&self, channel: &Channel) {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).push(Channel::clone(channel));
        self.topology.ask();
    }

    /// Brings channels to where they belong after each look at the servers, until told to stop or until nobody is left
    /// who could.
    pub(crate) async fn follow(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let (mut looks, mut known) = (self.topology.looks(), self.topology.layout());
        loop {
            tokio::select! {
                _ = looks.changed() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let layout = self.topology.layout();
            if !Arc::ptr_eq(&layout, &known) {
                self.rehome();
                known = layout;
            }
            self.unpark();
        }
    }

    /// The servers have been looked at: parked channels are tried where they belong now.
    pub(super) fn unpark(&self) {
        let _newest = self.rehoming.lock().unwrap_or_else(PoisonError::into_inner);
        let parked = std::mem::take(&mut *self.parked.lock().unwrap_or_else(PoisonError::into_inner));
        let layout = self.topology.layout();
        for channel in parked {
            let Some(mut entry) = self.map.channels.get_mut(&channel) else { continue };
            if entry.link == Link::Queued {
                let (name, entry) = entry.pair_mut();
                self.give_lane(&layout, name, entry);
                self.of(entry.connection).enqueue(name);
            }
        }
    }

    /// Servers have come or gone: every queued channel goes to the connection where it belongs now.
    pub(crate) fn rehome(&self) {
        let _newest = self.rehoming.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = self.topology.layout();
        for mut entry in self.map.channels.iter_mut() {
            if entry.link == Link::Queued {
                let (name, entry) = entry.pair_mut();
                if self.give_lane(&layout, name, entry) {
                    self.of(entry.connection).enqueue(name);
                }
            }
        }
    }

    /// Answers whether the channel has another lane than before.
    fn give_lane(&self, layout: &Layout, name: &Channel, entry: &mut Entry) -> bool {
        // A channel that no server has stays where it is, and is asked for there again and again.
        let Some(lane) = self.lane(layout, name) else { return false };
        let other = entry.connection.lane != lane;
        if other {
            entry.connection.lane = lane;
            entry.moved |= !entry.shards.is_empty();
        }
        other
    }
}
