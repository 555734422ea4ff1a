//! What a broker counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::embedded::log::LogStats;

/// The number of buckets of [`Latency`].
pub const LATENCY_BUCKETS: usize = 24;

/// Counters of a broker, read by the metrics page. All are totals since the start unless they say otherwise.
#[derive(Debug, Default)]
pub struct BrokerStats {
    /// Messages received from the broker (embedded: publishes accepted).
    pub messages: AtomicU64,
    /// Payload bytes of [`BrokerStats::messages`].
    pub message_bytes: AtomicU64,
    /// Messages handed to at least one shard. A message for three shards counts once.
    pub delivered: AtomicU64,
    /// Messages that no shard wanted any more (or yet) when they arrived.
    pub no_interest: AtomicU64,
    /// Messages dropped because their payload was longer than the configured bound.
    pub oversized: AtomicU64,
    /// Messages dropped because their envelope could not be read.
    pub malformed: AtomicU64,
    /// Connections to the broker that were established after the first one.
    pub reconnects: AtomicU64,
    /// Times during which messages may have been missed, by [`GapReason`]: one for each lost subscriber connection.
    pub gaps: [AtomicU64; GapReason::ALL.len()],
    /// Milliseconds of all gaps that are over, each from the last byte received before it to the
    /// moment when every channel was confirmed again.
    pub gap_ms: AtomicU64,
    /// Subscriber connections that there should be now (a gauge): one for each shard and server.
    pub connections: AtomicU64,
    /// Those of [`BrokerStats::connections`] that are made and have every channel confirmed (a gauge).
    pub connections_up: AtomicU64,
    /// Slots of a cluster that went from one master to another.
    pub slots_moved: AtomicU64,
    /// Channels that went to another server while they were live.
    pub channels_moved: AtomicU64,
    /// Commands that a server of a cluster has sent elsewhere or put off: MOVED, ASK, TRYAGAIN, CLUSTERDOWN.
    pub redirections: AtomicU64,
    /// SUBSCRIBE commands written.
    pub subscribe_batches: AtomicU64,
    /// UNSUBSCRIBE commands written.
    pub unsubscribe_batches: AtomicU64,
    /// Subscribes that the broker did not confirm in time.
    pub subscribe_timeouts: AtomicU64,
    /// Channels that the broker refused to subscribe.
    pub subscribe_refused: AtomicU64,
    /// Channels that are confirmed now (a gauge).
    pub subscribed_channels: AtomicU64,
    /// Times at which the reader stopped reading because a shard's inbox had no room.
    pub backpressure_waits: AtomicU64,
    /// Clients of this node that are noted as present, one for each channel (a gauge).
    pub present: AtomicU64,
    /// Times at which a channel's part of this node had to be told to the broker anew.
    pub presence_restored: AtomicU64,
    /// Publishes that succeeded.
    pub publish_ok: AtomicU64,
    /// Publishes that failed, for whatever reason.
    pub publish_errors: AtomicU64,
    /// From the call of publish to the broker's answer, for those that succeeded.
    pub publish_latency: Latency,
    /// What the embedded broker's histories and their log count.
    pub log: Arc<LogStats>,
}

/// Why messages may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Redis closed the connection: it stopped, somebody ended it, or the node was too slow for its output buffer.
    Closed,
    /// The connection broke.
    Broken,
    /// Nothing was heard of Redis any more.
    Silent,
    /// Redis said something that makes no sense.
    Protocol,
    /// Another server has the channels now: a fail-over, or a cluster that changed.
    Replaced,
}

impl GapReason {
    /// Every reason, in the order of [`BrokerStats::gaps`].
    pub const ALL: [Self; 5] = [Self::Closed, Self::Broken, Self::Silent, Self::Protocol, Self::Replaced];

    /// The `reason` label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Protocol => "protocol",
            Self::Replaced => "replaced",
        }
    }
}

impl BrokerStats {
    /// Gaps for all reasons.
    pub fn all_gaps(&self) -> u64 {
        self.gaps.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// A histogram of durations with buckets that double.
#[derive(Debug, Default)]
pub struct Latency {
    /// Bucket `i` counts durations below `2^i` microseconds that no earlier bucket holds; the last one
    /// counts everything longer as well.
    pub buckets: [AtomicU64; LATENCY_BUCKETS],
    /// The sum of all durations, in microseconds.
    pub sum_us: AtomicU64,
}

impl Latency {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        add(&self.buckets[bucket.min(LATENCY_BUCKETS - 1)], 1);
        add(&self.sum_us, micros);
    }

    /// The upper bound of bucket `i`, exclusive, in microseconds.
    pub const fn bound_us(i: usize) -> u64 {
        1 << i
    }
}

/// Adds to a counter. Counters order nothing, so relaxed is enough.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_whose_bound_is_above_it() {
        let latency = Latency::default();
        for micros in [0, 1, 2, 3, 4, 1_000] {
            latency.record(Duration::from_micros(micros));
        }
        latency.record(Duration::from_secs(100_000));
        let counts: Vec<u64> = latency.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        assert_eq!(counts[..4], [1, 1, 2, 1]);
        assert_eq!(counts[10], 1, "1000 us is below 2^10");
        assert_eq!(counts[LATENCY_BUCKETS - 1], 1, "the last bucket takes the rest");
        assert_eq!(counts.iter().sum::<u64>(), 7);
    }
}
