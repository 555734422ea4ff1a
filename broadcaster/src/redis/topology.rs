//! Which Redis servers there are, and which of them has which channel.
//!
//! A broker numbers the servers that it talks to: each has a *lane*, with connections of its own. One Redis, or the
//! master that Sentinels name, is lane 0. In a cluster each master has a lane, and a channel goes to the lane of its
//! slot. [`Layout`] is what is known now; [`Topology`] shares it with everybody who has connections or wants one.
//! [`super::discovery`] keeps it up to date.

use std::sync::Arc;

use fred::util::redis_keyslot;
use tokio::sync::{Notify, watch};

use super::settings::Endpoint;

/// A server's number on this node.
pub(crate) type Lane = u8;

/// The number of slots of a cluster (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).
pub(crate) const SLOTS: usize = 16_384;

/// Stands in a slot's place where no master has it. No lane has this number.
const NOBODY: Lane = Lane::MAX;

/// The largest number of lanes.
pub(crate) const MAX_LANES: usize = NOBODY as usize;

/// The slot of a key or a shard channel.
pub(crate) fn slot(name: &[u8]) -> u16 {
    redis_keyslot(name)
}

/// A master, and the first and the last slot of a range that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) master: Endpoint,
}

/// The servers by lane, and the lane of each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    servers: Vec<Option<Endpoint>>,
    /// None: no cluster, lane 0 has everything.
    slots: Option<Box<[Lane]>>,
}

impl Layout {
    /// One server for everything; none: it is not known yet.
    pub(crate) fn single(server: Option<Endpoint>) -> Self {
        Self { servers: vec![server], slots: None }
    }

    /// A cluster of which nothing is known yet, with room for so many masters.
    pub(crate) fn cluster(max_masters: usize) -> Self {
        Self { servers: vec![None; max_masters.min(MAX_LANES)], slots: Some(vec![NOBODY; SLOTS].into()) }
    }

    /// What a cluster is like now. A master keeps its lane for as long as it has slots. Answers the layout, and how
    /// many masters found no lane because there are too many.
    pub(crate) fn with_ranges(&self, ranges: &[SlotRange]) -> (Self, usize) {
        let is_there = |server: &Endpoint| ranges.iter().any(|range| range.master == *server);
        let mut servers: Vec<Option<Endpoint>> =
            self.servers.iter().map(|server| server.clone().filter(&is_there)).collect();
        let mut without: Vec<&Endpoint> = Vec::new();
        let mut slots = vec![NOBODY; SLOTS];
        for SlotRange { first, last, master } in ranges {
            let known = servers.iter().position(|server| server.as_ref() == Some(master));
            let Some(lane) = known.or_else(|| servers.iter().position(Option::is_none)) else {
                if !without.contains(&master) {
                    without.push(master);
                }
                continue;
            };
            if let Some(server) = servers.get_mut(lane) {
                *server = Some(master.clone());
            }
            if let Some(range) = slots.get_mut(usize::from(*first)..=usize::from(*last)) {
                range.fill(lane as Lane);
            }
        }
        (Self { servers, slots: Some(slots.into()) }, without.len())
    }

    /// The server of a lane.
    pub(crate) fn server(&self, lane: Lane) -> Option<&Endpoint> {
        self.servers.get(usize::from(lane))?.as_ref()
    }

    /// Any server.
    pub(crate) fn any(&self) -> Option<&Endpoint> {
        self.servers.iter().flatten().next()
    }

    /// Every server.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Endpoint> {
        self.servers.iter().flatten()
    }

    /// The number of lanes, those without a server included.
    pub(crate) fn lanes(&self) -> usize {
        self.servers.len()
    }

    /// The lane of a slot; none where no master has it.
    pub(crate) fn lane(&self, slot: u16) -> Option<Lane> {
        match &self.slots {
            None => Some(0),
            Some(slots) => slots.get(usize::from(slot)).copied().filter(|lane| *lane != NOBODY),
        }
    }

    /// The lane of the server at this address.
    pub(crate) fn lane_of(&self, host: &str, port: u16) -> Option<Lane> {
        let is_there = |server: &Option<Endpoint>| server.as_ref().is_some_and(|it| it.host == host && it.port == port);
        self.servers.iter().position(is_there).map(|lane| lane as Lane)
    }

    /// How many slots no master has.
    pub(crate) fn uncovered(&self) -> usize {
        self.slots.iter().flatten().filter(|lane| **lane == NOBODY).count()
    }

    /// How many slots of a cluster have another master than in the layout before, among those that had one.
    pub(crate) fn moved_since(&self, before: &Self) -> usize {
        if self.slots.is_none() {
            return 0;
        }
        let masters = (0..SLOTS as u16).map(|slot| (before.master(slot), self.master(slot)));
        masters.filter(|(old, new)| old.is_some() && old != new).count()
    }

    fn master(&self, slot: u16) -> Option<&Endpoint> {
        self.lane(slot).and_then(|lane| self.server(lane))
    }
}

/// The layout, shared.
#[derive(Debug)]
pub(crate) struct Topology {
    layout: watch::Sender<Arc<Layout>>,
    /// How many looks at the servers have ended. They are taken only where the layout can change.
    looks: watch::Sender<u64>,
    is_fixed: bool,
    is_cluster: bool,
    wanted: Notify,
}

impl Topology {
    /// One server, always.
    pub(crate) fn fixed(server: Endpoint) -> Self {
        Self::new(Layout::single(Some(server)), true)
    }

    /// Servers that have to be found.
    pub(crate) fn found(layout: Layout) -> Self {
        Self::new(layout, false)
    }

    fn new(layout: Layout, is_fixed: bool) -> Self {
        let is_cluster = layout.slots.is_some();
        let layout = watch::Sender::new(Arc::new(layout));
        Self { layout, looks: watch::Sender::new(0), is_fixed, is_cluster, wanted: Notify::new() }
    }

    /// What is known now.
    pub(crate) fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.borrow())
    }

    /// Whether channels are spread over servers by slots.
    pub(crate) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Tells of every look that has ended.
    pub(crate) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// Waits until a server is to be had, and answers it. `choose` picks it from the layout.
    pub(crate) async fn server(&self, choose: impl Fn(&Layout) -> Option<Endpoint>) -> Endpoint {
        let mut layout = self.layout.subscribe();
        loop {
            if let Some(server) = choose(&layout.borrow_and_update()) {
                return server;
            }
            // It cannot end: the sender is this value's own.
            if layout.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until `holds` does not hold of the layout any more.
    pub(crate) async fn ends(&self, holds: impl Fn(&Layout) -> bool) {
        let mut layout = self.layout.subscribe();
        if layout.wait_for(|layout| !holds(layout)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks for a look at the servers, because something speaks against what is known.
    pub(crate) fn ask(&self) {
        self.wanted.notify_one();
    }

    /// Asks for a look, and waits until one has ended.
    pub(crate) async fn look(&self) {
        if self.is_fixed {
            return;
        }
        let mut looks = self.looks.subscribe();
        self.ask();
        let _ = looks.changed().await;
    }

    /// Waits until somebody asks for a look.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A look has ended, perhaps with another layout.
    pub(super) fn looked(&self, layout: Option<Layout>) {
        if let Some(layout) = layout {
            self.layout.send_replace(Arc::new(layout));
        }
        self.looks.send_modify(|looks| *looks += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { host: "127.0.0.1".to_owned(), port, user: None, password: None, db: None }
    }

    fn range(first: u16, last: u16, port: u16) -> SlotRange {
        SlotRange { first, last, master: endpoint(port) }
    }

    #[test]
    fn a_channel_and_its_keys_have_one_slot() {
        for name in ["push:news", "push:a:b", "push:{user}:x", "push:é"] {
            let base = if name.contains('{') { name.to_owned() } else { format!("{{{name}}}") };
            assert_eq!(slot(name.as_bytes()), slot(format!("{base}:stream").as_bytes()), "{name}");
        }
        // As in the specification.
        assert_eq!(slot(b"123456789"), 0x31C3 % SLOTS as u16);
    }

    #[test]
    fn a_master_keeps_its_lane_while_others_come_and_go() {
        let empty = Layout::cluster(3);
        assert_eq!((empty.lane(0), empty.uncovered(), empty.any()), (None, SLOTS, None));
        let (two, without) = empty.with_ranges(&[range(0, 9_999, 1), range(10_000, 16_383, 2)]);
        assert_eq!((without, two.lane(9_999), two.lane(10_000), two.uncovered()), (0, Some(0), Some(1), 0));
        assert_eq!(two.moved_since(&empty), 0, "they had no master before");

        let (three, _) = two.with_ranges(&[range(10_000, 16_383, 3), range(0, 99, 2), range(100, 9_999, 1)]);
        assert_eq!((three.lane_of("127.0.0.1", 3), three.lane_of("127.0.0.1", 4)), (Some(2), None));
        assert_eq!((three.lane(16_383), three.lane(0), three.lane(100)), (Some(2), Some(1), Some(0)));
        assert_eq!(three.moved_since(&two), 6_384 + 100);

        let single = [1, 2].map(|port| Layout::single(Some(endpoint(port))));
        assert_eq!(single[1].moved_since(&single[0]), 0, "there are no slots");
        let (gone, _) = three.with_ranges(&[range(0, 99, 2), range(100, 199, 4)]);
        assert_eq!((gone.server(0), gone.server(2)), (Some(&endpoint(4)), None), "a lane is used again");
        assert_eq!(gone.uncovered(), SLOTS - 200);
    }

    #[test]
    fn masters_beyond_the_bound_get_no_lane_and_are_counted() {
        let ranges = [range(0, 1, 1), range(2, 3, 2), range(4, 5, 3), range(6, 7, 3)];
        let (layout, without) = Layout::cluster(2).with_ranges(&ranges);
        assert_eq!((without, layout.lane(3), layout.lane(4)), (1, Some(1), None));
    }

    #[test]
    fn ranges_that_make_no_sense_are_left_out() {
        let (layout, _) = Layout::cluster(2).with_ranges(&[range(9, 3, 1), range(16_000, 60_000, 2)]);
        assert_eq!(layout.uncovered(), SLOTS);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_server_gets_it_and_learns_when_it_has_gone() {
        let topology = Topology::found(Layout::single(None));
        let wait = topology.server(|layout| layout.server(0).cloned());
        let find = async { topology.looked(Some(Layout::single(Some(endpoint(1))))) };
        let (server, ()) = tokio::join!(wait, find);
        assert_eq!(server, endpoint(1));
        let gone = topology.ends(|layout| layout.server(0) == Some(&server));
        let (_, ()) = tokio::join!(gone, async { topology.looked(Some(Layout::single(Some(endpoint(2))))) });
        let (_, ()) = tokio::join!(topology.look(), async { topology.looked(None) });
    }
}
