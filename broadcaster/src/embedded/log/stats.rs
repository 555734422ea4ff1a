//! What the log counts.

use std::sync::atomic::AtomicU64;

use crate::stats::Latency;

/// Counters of the embedded broker's histories and of their log. Totals since the start unless they say otherwise.
#[derive(Debug, Default)]
pub struct LogStats {
    /// Bytes of memory that histories take (a gauge).
    pub history_bytes: AtomicU64,
    /// Publications that went before their time, because histories took as much memory as they may.
    pub evicted: AtomicU64,
    /// Bytes of the log's files (a gauge).
    pub bytes: AtomicU64,
    /// Bytes of the log's snapshot (a gauge).
    pub snapshot_bytes: AtomicU64,
    /// Segments that no snapshot covers (a gauge).
    pub segments: AtomicU64,
    /// Bytes that wait to be written, as of the last write (a gauge).
    pub pending_bytes: AtomicU64,
    /// Publishes refused because the disk takes nothing, or not as fast as they come.
    pub refused: AtomicU64,
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Writes of a batch of records.
    pub writes: AtomicU64,
    /// How long the disk took to make writes durable, for each time.
    pub syncs: Latency,
    /// Writes and syncs that failed.
    pub errors: AtomicU64,
    /// Snapshots written.
    pub compactions: AtomicU64,
    /// Records read at the start.
    pub replayed: AtomicU64,
    /// How long reading the log took at the start, in milliseconds (a gauge).
    pub replay_ms: AtomicU64,
    /// Bytes of torn writes that were cut off at the start.
    pub cut_bytes: AtomicU64,
    /// Damaged files that were set aside at the start.
    pub corrupt: AtomicU64,
    /// Channels whose numbering began anew at the start, because something of them may be missing.
    pub renewed: AtomicU64,
}
