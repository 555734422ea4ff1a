//! The node as the API and the operators see it.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_broadcaster::Broker;
use tokio::sync::oneshot;

use crate::api::Pattern;
use crate::api::view::{Asked, ChannelCounts, NodeInfo, NodeView, ViewError};
use crate::operator::BrokerCounters;
use crate::shard::inbox::{Inbox, Message};
use crate::shard::stats::ShardStats;

/// A shard whose last turn is older than this is stuck: even an idle one has a turn every second.
pub const MAX_TURN_AGE: Duration = Duration::from_secs(10);

/// How long the shards have to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The node.
pub struct View {
    /// Names this run of the node.
    pub uid: String,
    /// Names the node.
    pub name: String,
    /// When it started.
    pub start: Instant,
    /// What the shards count.
    pub shards: Arc<[Arc<ShardStats>]>,
    /// The broker, which knows the channels of all shards.
    pub broker: Arc<dyn Broker>,
    /// How the shards are asked.
    pub inboxes: Arc<[Arc<Inbox<TcpStream>>]>,
}

impl View {
    fn sum(&self, of: impl Fn(&ShardStats) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard)).sum()
    }
}

impl NodeView for View {
    fn info(&self) -> NodeInfo {
        let num_clients = self.sum(|shard| shard.sessions.get());
        NodeInfo {
            uid: self.uid.clone(),
            name: self.name.clone(),
            version: super::resolve::version(),
            num_clients,
            // Every session is anonymous so far, and all anonymous ones count as one user.
            num_users: num_clients.min(1),
            // Those whose last subscriber left within the last second are still among them.
            num_channels: self.broker.interest().len() as u64,
            num_subs: self.sum(|shard| shard.subscriptions.get()),
            uptime: self.start.elapsed().as_secs(),
        }
    }

    fn channels(&self, pattern: Option<Pattern>) -> Asked<ChannelCounts> {
        let pattern = Arc::new(pattern);
        let answers: Vec<_> = self
            .inboxes
            .iter()
            .map(|inbox| {
                let (answer, answered) = oneshot::channel();
                let pattern = Arc::clone(&pattern);
                inbox.send(Message::Inspect(Box::new(move |hub| {
                    let wanted = hub.channels().filter(|(name, subscribers)| {
                        *subscribers > 0 && pattern.as_ref().as_ref().is_none_or(|pattern| pattern.matches(name))
                    });
                    let found: Vec<(String, u64)> =
                        wanted.map(|(name, subscribers)| (name.to_string(), subscribers as u64)).collect();
                    // Whoever asked may have gone.
                    let _ = answer.send(found);
                })));
                answered
            })
            .collect();
        Box::pin(async move {
            let mut all: ChannelCounts = BTreeMap::new();
            for answer in answers {
                let found = tokio::time::timeout(ANSWER_WITHIN, answer)
                    .await
                    .map_err(|_| ViewError(format!("a shard did not answer within {ANSWER_WITHIN:?}")))?
                    .map_err(|_| ViewError("a shard has ended".into()))?;
                for (name, subscribers) in found {
                    *all.entry(name).or_insert(0) += subscribers;
                }
            }
            Ok(all)
        })
    }
}

/// How long ago each shard's last turn was.
pub fn turn_ages(shards: &[Arc<ShardStats>], start: Instant) -> Vec<Duration> {
    let now = start.elapsed();
    shards.iter().map(|shard| now.saturating_sub(Duration::from_millis(shard.last_turn.get()))).collect()
}

/// Reads what the broker counts, for the metrics page.
pub fn broker_counters(broker: &Arc<dyn Broker>) -> Box<dyn Fn() -> BrokerCounters + Send + Sync> {
    let broker = Arc::clone(broker);
    Box::new(move || {
        use std::sync::atomic::Ordering::Relaxed;
        let stats = broker.stats();
        let last = tidegate_broadcaster::stats::LATENCY_BUCKETS - 1;
        let latency = &stats.publish_latency;
        BrokerCounters {
            messages: stats.messages.load(Relaxed),
            message_bytes: stats.message_bytes.load(Relaxed),
            delivered: stats.delivered.load(Relaxed),
            no_interest: stats.no_interest.load(Relaxed),
            oversized: stats.oversized.load(Relaxed),
            malformed: stats.malformed.load(Relaxed),
            reconnects: stats.reconnects.load(Relaxed),
            gaps: stats.gaps.load(Relaxed),
            gap_ms: stats.gap_ms.load(Relaxed),
            subscribe_batches: stats.subscribe_batches.load(Relaxed),
            unsubscribe_batches: stats.unsubscribe_batches.load(Relaxed),
            subscribe_timeouts: stats.subscribe_timeouts.load(Relaxed),
            subscribe_refused: stats.subscribe_refused.load(Relaxed),
            subscribed_channels: stats.subscribed_channels.load(Relaxed),
            backpressure_waits: stats.backpressure_waits.load(Relaxed),
            publish_ok: stats.publish_ok.load(Relaxed),
            publish_errors: stats.publish_errors.load(Relaxed),
            publish_latency: latency
                .buckets
                .iter()
                .enumerate()
                .map(|(i, count)| {
                    let bound = (i < last).then(|| tidegate_broadcaster::stats::Latency::bound_us(i));
                    (bound, count.load(Relaxed))
                })
                .collect(),
            publish_latency_sum_us: latency.sum_us.load(Relaxed),
        }
    })
}
