//! Counters and flags that other rooms fill and this one shows.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

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

/// What the memory monitor does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum PressureLevel {
    /// Nothing.
    #[default]
    Normal = 0,
    /// New connections are refused.
    Refusing = 1,
    /// Sessions are evicted as well.
    Evicting = 2,
}

/// What the memory monitor last saw and did. One writer, the monitor.
#[derive(Debug, Default)]
pub struct PressureStats {
    /// Memory of the process in bytes, at the monitor's last look.
    pub used: AtomicU64,
    /// The limit in bytes that it is compared with.
    pub limit: AtomicU64,
    level: AtomicU8,
}

impl PressureStats {
    /// Notes a new level.
    pub fn set_level(&self, level: PressureLevel) {
        self.level.store(level as u8, Relaxed);
    }

    /// The level now.
    pub fn level(&self) -> PressureLevel {
        match self.level.load(Relaxed) {
            0 => PressureLevel::Normal,
            1 => PressureLevel::Refusing,
            _ => PressureLevel::Evicting,
        }
    }
}

/// What the broker counts, read at once. Totals since the start, but for `subscribed_channels`.
#[derive(Debug, Clone, Default)]
pub struct BrokerCounters {
    /// Messages received.
    pub messages: u64,
    /// Payload bytes of those.
    pub message_bytes: u64,
    /// Messages handed to at least one shard.
    pub delivered: u64,
    /// Messages that no shard wanted when they arrived.
    pub no_interest: u64,
    /// Messages dropped for their size.
    pub oversized: u64,
    /// Messages dropped because they could not be read.
    pub malformed: u64,
    /// Connections after the first one.
    pub reconnects: u64,
    /// Times in which messages may have been missed.
    pub gaps: u64,
    /// How long those were together, in milliseconds.
    pub gap_ms: u64,
    /// SUBSCRIBE commands.
    pub subscribe_batches: u64,
    /// UNSUBSCRIBE commands.
    pub unsubscribe_batches: u64,
    /// Subscribes that were not confirmed in time.
    pub subscribe_timeouts: u64,
    /// Subscribes that were refused.
    pub subscribe_refused: u64,
    /// Channels that are subscribed now.
    pub subscribed_channels: u64,
    /// Times at which reading stopped because a shard was full.
    pub backpressure_waits: u64,
    /// Publishes that succeeded.
    pub publish_ok: u64,
    /// Publishes that failed.
    pub publish_errors: u64,
    /// Durations of the publishes that succeeded: upper bounds in microseconds with the number in each bucket
    /// (not cumulated); the last bound is `None`.
    pub publish_latency: Vec<(Option<u64>, u64)>,
    /// The sum of those durations in microseconds.
    pub publish_latency_sum_us: u64,
}
