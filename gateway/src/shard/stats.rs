//! What a shard counts about itself.
//!
//! One writer, the shard's thread; readers, the scrapes of the metrics page, take a slightly
//! old value now and then. So an increment is a load and a store (1-2 ns), with no locked
//! instruction, where a counter of the metrics registry costs 10 ns and a macro 100.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_protocol::code::DisconnectCode;

use crate::hub::stream::Reason;

/// A number that only its shard writes: a counter where it is only ever added to, else a gauge.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only the owning shard's thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts, for gauges. Only the owning shard's thread may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces, for gauges. Only the owning shard's thread may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Reads, from any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram with fixed bounds, `N` of them, and one bucket more for what lies above.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [Count; N],
    above: Count,
    sum: Count,
}

impl<const N: usize> Histogram<N> {
    /// An empty histogram; a value belongs to the first bound that is not below it.
    pub fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Count::default()),
            above: Count::default(),
            sum: Count::default(),
        }
    }

    /// Records `times` observations of `value`.
    pub fn record(&self, value: u64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.buckets.get(at).unwrap_or(&self.above).add(times);
        self.sum.add(value.wrapping_mul(times));
    }

    /// Bounds with the number of observations in each bucket (not cumulated); the last bound is `None`.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let inner = self.bounds.iter().zip(&self.buckets).map(|(bound, count)| (Some(*bound), count.get()));
        inner.chain(std::iter::once((None, self.above.get())))
    }

    /// The sum of all observed values.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// Bounds for the time from a publication's arrival at the node to its first write: 50 us to 10 s, in ns.
pub const LATENCY_BOUNDS: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// Bounds for the number of messages that one write carries.
pub const BATCH_BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];

/// How a session is connected. The order is the order of [`ShardStats::connections`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// WebSocket with JSON.
    WebSocketJson,
    /// WebSocket with Protobuf.
    WebSocketProtobuf,
    /// Raw TCP with Protobuf.
    TcpProtobuf,
}

impl Wire {
    /// Every wire.
    pub const ALL: [Self; 3] = [Self::WebSocketJson, Self::WebSocketProtobuf, Self::TcpProtobuf];

    /// The `transport` and `format` labels of metrics.
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::WebSocketJson => ("websocket", "json"),
            Self::WebSocketProtobuf => ("websocket", "protobuf"),
            Self::TcpProtobuf => ("tcp", "protobuf"),
        }
    }
}

/// Why a delivery (one publication to one subscriber) did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// A binary payload and a JSON client.
    BinaryToJson,
    /// The session ended with the message queued, or before it could be queued.
    Closed,
    /// The session's queue was full; the session is closed with 3008.
    QueueFull,
    /// The session's queue was full; its oldest publications were dropped (`queue_policy`).
    QueueOldest,
    /// The session was evicted under memory pressure.
    Evicted,
    /// The subscription's filter does not let it through.
    Filtered,
}

impl Dropped {
    /// Every reason, in the order of [`ShardStats::dropped`].
    pub const ALL: [Self; 6] =
        [Self::BinaryToJson, Self::Closed, Self::QueueFull, Self::QueueOldest, Self::Evicted, Self::Filtered];

    /// The `reason` label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::BinaryToJson => "binary_to_json",
            Self::Closed => "closed",
            Self::QueueFull => "queue_full",
            Self::QueueOldest => "queue_oldest",
            Self::Evicted => "evicted",
            Self::Filtered => "filtered",
        }
    }
}

/// Everything that one shard counts.
#[derive(Debug)]
pub struct ShardStats {
    /// Open client connections by [`Wire`] (gauge).
    pub connections: [Count; 3],
    /// Connections by [`Wire`] since the start.
    pub opened: [Count; 3],
    /// Sockets whose HTTP or first TCP bytes are still awaited (gauge).
    pub handshaking: Count,
    /// Sessions that have connected with the protocol (gauge).
    pub sessions: Count,
    /// Subscriptions (gauge).
    pub subscriptions: Count,
    /// Channels with a subscriber on this shard (gauge).
    pub channels: Count,
    /// Bytes read from clients.
    pub bytes_in: Count,
    /// Commands read from clients.
    pub commands: Count,
    /// Error replies to clients.
    pub error_replies: Count,
    /// Bytes written to clients.
    pub bytes_out: Count,
    /// Messages (replies, pushes, pings) handed to the kernel completely.
    pub messages_out: Count,
    /// Write calls.
    pub writes: Count,
    /// Write calls that the kernel did not take completely.
    pub short_writes: Count,
    /// Publications taken from the inbox.
    pub publications: Count,
    /// Publication and subscriber pairs: `offered = delivered + conflated + dropped + pending`.
    pub offered: Count,
    /// Pairs whose bytes the kernel took.
    pub delivered: Count,
    /// Pairs that were given up, by [`Dropped`].
    pub dropped: [Count; Dropped::ALL.len()],
    /// Pairs whose place a newer publication of the channel took (`queue_policy`).
    pub conflated: Count,
    /// Pairs that wait in a session's queue (gauge).
    pub pending: Count,
    /// Times at which publications of a watched channel were missing, by [`Reason`].
    pub gaps: [Count; Reason::ALL.len()],
    /// Subscriptions that were told that they have missed something.
    pub insufficient: Count,
    /// Subscriptions that came back and asked for what they had missed: those that got it, and those that could not.
    pub recoveries: [Count; 2],
    /// Subscriptions that were ended because they would be others under new settings.
    pub renewed: Count,
    /// Questions who is in a channel that were not answered because too many are.
    pub presence_refused: Count,
    /// Publications that came again, and were passed over.
    pub repeated: Count,
    /// Comparisons of a channel's position with the broker's.
    pub position_checks: Count,
    /// Bytes that wait in sessions' queues (gauge).
    pub queue_bytes: Count,
    /// Bytes that wait in the shard's inbox (gauge).
    pub inbox_bytes: Count,
    /// Messages per write.
    pub batch: Histogram<10>,
    /// Time from a publication's arrival at the node to the write, per delivery, in ns.
    pub latency: Histogram<16>,
    /// Disconnects by code, in the order of [`DisconnectCode::ALL`].
    pub disconnects: [Count; DisconnectCode::ALL.len()],
    /// Connections that the client or the network ended.
    pub closed_by_peer: Count,
    /// HTTP requests that were refused before they were WebSockets: malformed, too slow, a foreign origin.
    pub refused_requests: Count,
    /// Connections ended because a frame broke the rules of WebSocket.
    pub broken_frames: Count,
    /// Sessions evicted under memory pressure.
    pub evicted: Count,
    /// Pings sent.
    pub pings: Count,
    /// Pongs that came later than the lag threshold.
    pub lagging: Count,
    /// Turns of the loop that had something to do.
    pub turns: Count,
    /// Time spent in turns, in ns: the shard's load.
    pub busy: Count,
    /// When the last turn began, in milliseconds since the shard started. There is one every second at least.
    pub last_turn: Count,
}

impl Default for ShardStats {
    fn default() -> Self {
        Self {
            connections: Default::default(),
            opened: Default::default(),
            handshaking: Count::default(),
            sessions: Count::default(),
            subscriptions: Count::default(),
            channels: Count::default(),
            bytes_in: Count::default(),
            commands: Count::default(),
            error_replies: Count::default(),
            bytes_out: Count::default(),
            messages_out: Count::default(),
            writes: Count::default(),
            short_writes: Count::default(),
            publications: Count::default(),
            offered: Count::default(),
            delivered: Count::default(),
            dropped: Default::default(),
            conflated: Count::default(),
            pending: Count::default(),
            gaps: Default::default(),
            insufficient: Count::default(),
            recoveries: Default::default(),
            renewed: Count::default(),
            presence_refused: Count::default(),
            repeated: Count::default(),
            position_checks: Count::default(),
            queue_bytes: Count::default(),
            inbox_bytes: Count::default(),
            batch: Histogram::new(&BATCH_BOUNDS),
            latency: Histogram::new(&LATENCY_BOUNDS),
            disconnects: std::array::from_fn(|_| Count::default()),
            closed_by_peer: Count::default(),
            refused_requests: Count::default(),
            broken_frames: Count::default(),
            evicted: Count::default(),
            pings: Count::default(),
            lagging: Count::default(),
            turns: Count::default(),
            busy: Count::default(),
            last_turn: Count::default(),
        }
    }
}
