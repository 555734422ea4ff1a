//! Who may come in: caps on connections, per address, on handshakes at once, and on their rate.
//!
//! Every accepted socket holds a [`Permit`] for as long as it lives, wherever it goes. Refusing is
//! cheap, and says when to come back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use dashmap::DashMap;
use tidegate_broadcaster::ShardId;

/// Why a connection was refused before it became a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The node has as many connections as it may.
    NodeLimit,
    /// The client's address has as many connections as it may.
    AddressLimit,
    /// More connections in a second than are let in.
    Rate,
    /// Memory is short.
    Memory,
    /// As many handshakes are under way as may be.
    HandshakeLimit,
    /// The node goes away.
    Draining,
    /// As many ordinary HTTP connections as may be.
    HttpLimit,
}

impl RefusalReason {
    /// Every reason, in the order of [`AdmissionStats`].
    pub const ALL: [Self; 7] = [
        Self::NodeLimit,
        Self::AddressLimit,
        Self::Rate,
        Self::Memory,
        Self::HandshakeLimit,
        Self::Draining,
        Self::HttpLimit,
    ];

    /// The `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NodeLimit => "node_limit",
            Self::AddressLimit => "address_limit",
            Self::Rate => "rate",
            Self::Memory => "memory",
            Self::HandshakeLimit => "handshake_limit",
            Self::Draining => "draining",
            Self::HttpLimit => "http_limit",
        }
    }
}

/// Refusals by reason, for the whole node.
#[derive(Debug, Default)]
pub struct AdmissionStats([AtomicU64; RefusalReason::ALL.len()]);

impl AdmissionStats {
    /// Counts a refusal.
    pub fn refuse(&self, reason: RefusalReason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// How many were refused for this reason.
    pub fn refused(&self, reason: RefusalReason) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }
}

/// Seconds after which trying again makes sense.
pub fn retry_after(reason: RefusalReason) -> u32 {
    match reason {
        RefusalReason::Rate | RefusalReason::HandshakeLimit | RefusalReason::HttpLimit => 1,
        RefusalReason::Draining => 2,
        RefusalReason::Memory => 5,
        RefusalReason::NodeLimit | RefusalReason::AddressLimit => 10,
    }
}

/// The bounds. Zero switches one off, except the first.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Connections on the node.
    pub connections: usize,
    /// Connections from one address.
    pub per_address: u32,
    /// New connections in a second.
    pub rate: u32,
    /// Handshakes at once.
    pub handshakes: usize,
}

/// The node's door.
#[derive(Debug)]
pub struct Admission {
    caps: Caps,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    /// Connections by shard: a shard that has too many gives new ones to the one with the fewest.
    shards: Box<[AtomicUsize]>,
    addresses: DashMap<IpAddr, u32, foldhash::fast::RandomState>,
    started: Instant,
    /// The second that `in_second` counts.
    second: AtomicU64,
    in_second: AtomicU32,
    stats: Arc<AdmissionStats>,
    memory_short: AtomicBool,
    draining: AtomicBool,
}

impl Admission {
    /// A door with nobody inside.
    pub fn new(caps: Caps, shards: usize, stats: Arc<AdmissionStats>, now: Instant) -> Self {
        Self {
            caps,
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            shards: (0..shards.max(1)).map(|_| AtomicUsize::new(0)).collect(),
            addresses: DashMap::default(),
            started: now,
            second: AtomicU64::new(0),
            in_second: AtomicU32::new(0),
            stats,
            memory_short: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Lets a connection in that the shard `here` has accepted, or says why not (and counts it). The permit says
    /// which shard is to serve it.
    ///
    /// # Errors
    /// The reason to refuse.
    pub fn admit(self: &Arc<Self>, address: IpAddr, here: ShardId, now: Instant) -> Result<Permit, RefusalReason> {
        self.check(address, here, now).inspect_err(|reason| self.stats.refuse(*reason))
    }

    fn check(self: &Arc<Self>, address: IpAddr, here: ShardId, now: Instant) -> Result<Permit, RefusalReason> {
        if self.draining.load(Relaxed) {
            return Err(RefusalReason::Draining);
        }
        if self.memory_short.load(Relaxed) {
            return Err(RefusalReason::Memory);
        }
        if self.connections.load(Relaxed) >= self.caps.connections {
            return Err(RefusalReason::NodeLimit);
        }
        if self.caps.handshakes > 0 && self.handshakes.load(Relaxed) >= self.caps.handshakes {
            return Err(RefusalReason::HandshakeLimit);
        }
        if self.caps.rate > 0 && !self.within_rate(now) {
            return Err(RefusalReason::Rate);
        }
        let counted = self.caps.per_address > 0;
        if counted {
            let mut here = self.addresses.entry(address).or_insert(0);
            if *here >= self.caps.per_address {
                return Err(RefusalReason::AddressLimit);
            }
            *here += 1;
        }
        let shard = self.place(here);
        self.connections.fetch_add(1, Relaxed);
        self.handshakes.fetch_add(1, Relaxed);
        self.shards[usize::from(shard)].fetch_add(1, Relaxed);
        Ok(Permit {
            admission: Arc::clone(self),
            address: counted.then(|| Box::new(address)),
            shard,
            handshaking: true,
        })
    }

    /// Counts by whole seconds. Two shards at the edge of a second may let a few too many in, and nothing worse.
    fn within_rate(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.started).as_secs();
        if self.second.swap(second, Relaxed) != second {
            self.in_second.store(0, Relaxed);
        }
        self.in_second.fetch_add(1, Relaxed) < self.caps.rate
    }

    /// Who is to serve a connection that `here` has accepted: `here`, which costs nothing, unless it has an eighth
    /// more than the shard with the fewest. The kernel spreads connections at random, so that this is seldom but
    /// while there are few.
    fn place(&self, here: ShardId) -> ShardId {
        let mine = self.shards.get(usize::from(here)).map_or(usize::MAX, |count| count.load(Relaxed));
        let fewest = self.shards.iter().map(|count| count.load(Relaxed)).enumerate().min_by_key(|(_, count)| *count);
        match fewest {
            Some((shard, count)) if mine > count + count / 8 => shard as ShardId,
            _ => here,
        }
    }

    /// Refuses everybody while memory is short.
    pub fn set_memory_short(&self, short: bool) {
        self.memory_short.store(short, Relaxed);
    }

    /// Refuses everybody from now on.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the node is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// The most connections there may be.
    pub fn connection_limit(&self) -> usize {
        self.caps.connections
    }
}

/// A place on the node. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    /// Boxed because the cap that needs it is off by default, and every connection has a permit.
    address: Option<Box<IpAddr>>,
    shard: ShardId,
    handshaking: bool,
}

impl Permit {
    /// The shard that the connection belongs to.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The handshake is over.
    pub fn established(&mut self) {
        if std::mem::take(&mut self.handshaking) {
            self.admission.handshakes.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.established();
        self.admission.connections.fetch_sub(1, Relaxed);
        self.admission.shards[usize::from(self.shard)].fetch_sub(1, Relaxed);
        if let Some(address) = self.address.take() {
            self.admission.addresses.remove_if_mut(&address, |_, count| {
                *count = count.saturating_sub(1);
                *count == 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    fn door(caps: Caps) -> (Arc<Admission>, Instant) {
        let now = Instant::now();
        (Arc::new(Admission::new(caps, 2, Arc::default(), now)), now)
    }

    const OPEN: Caps = Caps { connections: 100, per_address: 0, rate: 0, handshakes: 0 };

    #[test]
    fn the_node_has_a_cap_and_a_place_comes_back() {
        let (door, now) = door(Caps { connections: 2, ..OPEN });
        let first = door.admit(HOME, 0, now).unwrap();
        let _second = door.admit(HOME, 0, now).unwrap();
        assert_eq!(door.admit(HOME, 0, now).unwrap_err(), RefusalReason::NodeLimit);
        drop(first);
        assert!(door.admit(HOME, 0, now).is_ok());
        assert_eq!(door.stats.refused(RefusalReason::NodeLimit), 1);
    }

    #[test]
    fn an_address_has_a_cap_of_its_own() {
        let (door, now) = door(Caps { per_address: 1, ..OPEN });
        let first = door.admit(HOME, 0, now).unwrap();
        assert_eq!(door.admit(HOME, 0, now).unwrap_err(), RefusalReason::AddressLimit);
        assert!(door.admit(AWAY, 0, now).is_ok());
        drop(first);
        assert!(door.admit(HOME, 0, now).is_ok());
        assert!(door.addresses.is_empty(), "an address without connections is forgotten");
    }

    #[test]
    fn handshakes_at_once_have_a_cap() {
        let (door, now) = door(Caps { handshakes: 1, ..OPEN });
        let mut first = door.admit(HOME, 0, now).unwrap();
        assert_eq!(door.admit(HOME, 0, now).unwrap_err(), RefusalReason::HandshakeLimit);
        first.established();
        let second = door.admit(HOME, 0, now).unwrap();
        drop(second);
        assert!(door.admit(HOME, 0, now).is_ok(), "a handshake that failed counts no more");
    }

    #[test]
    fn a_second_lets_in_only_so_many() {
        let (door, now) = door(Caps { rate: 2, ..OPEN });
        let admitted = (0..5).filter(|_| door.admit(HOME, 0, now).is_ok()).count();
        assert_eq!(admitted, 2);
        assert!(door.admit(HOME, 0, now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn while_there_are_few_a_connection_goes_to_the_shard_with_the_fewest() {
        let (door, now) = door(OPEN);
        let first = door.admit(HOME, 0, now).unwrap();
        let second = door.admit(HOME, 0, now).unwrap();
        assert_ne!(first.shard(), second.shard());
        let free = first.shard();
        drop(first);
        assert_eq!(door.admit(HOME, 0, now).unwrap().shard(), free);
    }

    #[test]
    fn a_shard_keeps_what_it_accepts_until_it_has_an_eighth_more_than_another() {
        let (door, now) = door(OPEN);
        let other: Vec<_> = (0..16).map(|_| door.admit(HOME, 1, now).unwrap()).collect();
        assert_eq!(other.iter().filter(|permit| permit.shard() == 0).count(), 8, "few are spread evenly");
        let kept: Vec<_> = (0..3).map(|_| door.admit(HOME, 0, now).unwrap()).collect();
        assert_eq!(kept.iter().map(Permit::shard).collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn short_memory_and_draining_refuse_everybody() {
        let (door, now) = door(OPEN);
        door.set_memory_short(true);
        assert_eq!(door.admit(HOME, 0, now).unwrap_err(), RefusalReason::Memory);
        door.set_memory_short(false);
        assert!(door.admit(HOME, 0, now).is_ok());
        door.drain();
        assert_eq!(door.admit(HOME, 0, now).unwrap_err(), RefusalReason::Draining);
    }
}
