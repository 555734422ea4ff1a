//! Metrics of the broker: whether it is there, and what it has counted.

use std::sync::atomic::Ordering::Relaxed;

use tidegate_broadcaster::stats::{GapReason, LATENCY_BUCKETS, Latency};
use tidegate_broadcaster::{Broker, BrokerHealth, BrokerStats};

use super::text::Text;

/// Microseconds as seconds.
const MICROS: f64 = 1e-6;

/// Name, help, and where the broker keeps it.
type OfBroker = (&'static str, &'static str, fn(&BrokerStats) -> f64);

/// The broker's totals.
const BROKER_TOTALS: &[OfBroker] = &[
    ("tidegate_broker_messages_total", "Messages received from the broker.", |broker| {
        broker.messages.load(Relaxed) as f64
    }),
    ("tidegate_broker_message_bytes_total", "Payload bytes received from the broker.", |broker| {
        broker.message_bytes.load(Relaxed) as f64
    }),
    ("tidegate_broker_messages_delivered_total", "Messages handed to at least one shard.", |broker| {
        broker.delivered.load(Relaxed) as f64
    }),
    ("tidegate_broker_messages_unwanted_total", "Messages that no shard wanted when they arrived.", |broker| {
        broker.no_interest.load(Relaxed) as f64
    }),
    ("tidegate_broker_messages_oversized_total", "Messages dropped for their size.", |broker| {
        broker.oversized.load(Relaxed) as f64
    }),
    ("tidegate_broker_messages_malformed_total", "Messages dropped because they could not be read.", |broker| {
        broker.malformed.load(Relaxed) as f64
    }),
    ("tidegate_broker_reconnects_total", "Connections to the broker after the first one.", |broker| {
        broker.reconnects.load(Relaxed) as f64
    }),
    ("tidegate_broker_gap_seconds_total", "Duration of the gaps that are over.", |broker| {
        broker.gap_ms.load(Relaxed) as f64 / 1e3
    }),
    ("tidegate_broker_subscribe_batches_total", "SUBSCRIBE commands sent.", |broker| {
        broker.subscribe_batches.load(Relaxed) as f64
    }),
    ("tidegate_broker_unsubscribe_batches_total", "UNSUBSCRIBE commands sent.", |broker| {
        broker.unsubscribe_batches.load(Relaxed) as f64
    }),
    ("tidegate_broker_subscribe_timeouts_total", "Subscribes that the broker did not confirm in time.", |broker| {
        broker.subscribe_timeouts.load(Relaxed) as f64
    }),
    ("tidegate_broker_subscribe_refused_total", "Subscribes that the broker refused.", |broker| {
        broker.subscribe_refused.load(Relaxed) as f64
    }),
    ("tidegate_broker_backpressure_waits_total", "Times at which reading stopped for a full shard.", |broker| {
        broker.backpressure_waits.load(Relaxed) as f64
    }),
    ("tidegate_presence_restored_total", "Times at which a channel's presence was told to Redis anew.", |broker| {
        broker.presence_restored.load(Relaxed) as f64
    }),
    ("tidegate_broker_slots_moved_total", "Slots of the cluster that went from one master to another.", |broker| {
        broker.slots_moved.load(Relaxed) as f64
    }),
    ("tidegate_broker_channels_moved_total", "Channels that a master of the cluster gave away while live.", |broker| {
        broker.channels_moved.load(Relaxed) as f64
    }),
    ("tidegate_broker_redirections_total", "Commands that the cluster sent elsewhere or put off.", |broker| {
        broker.redirections.load(Relaxed) as f64
    }),
    ("tidegate_broker_publishes_total", "Publishes that the broker took.", |broker| {
        broker.publish_ok.load(Relaxed) as f64
    }),
    ("tidegate_broker_publish_errors_total", "Publishes that failed.", |broker| {
        broker.publish_errors.load(Relaxed) as f64
    }),
];

/// All of them.
pub(super) fn write(text: &mut Text, broker: &dyn Broker) {
    let label = [("broker", broker.name())];
    let (up, away) = match broker.health() {
        BrokerHealth::Healthy => (1, 0.0),
        BrokerHealth::Degraded { since, .. } => (0, since.as_secs_f64()),
    };
    text.family("tidegate_broker_up", "gauge", "Whether the broker is connected.");
    text.sample("tidegate_broker_up", &label, up);
    text.family("tidegate_broker_away_seconds", "gauge", "For how long the broker has not been connected; else 0.");
    text.sample("tidegate_broker_away_seconds", &label, away);
    let stats = broker.stats();
    let name = "tidegate_broker_subscribed_channels";
    text.family(name, "gauge", "Channels whose subscription the broker has confirmed.");
    text.sample(name, &label, stats.subscribed_channels.load(Relaxed));
    let name = "tidegate_present_clients";
    text.family(name, "gauge", "Clients of this node that are noted as present, one for each channel.");
    text.sample(name, &label, stats.present.load(Relaxed));
    let name = "tidegate_broker_subscriber_connections";
    let (wanted, up) = (stats.connections.load(Relaxed), stats.connections_up.load(Relaxed));
    text.family(name, "gauge", "Subscriber connections: complete, or on the way to it.");
    for (state, number) in [("up", up), ("down", wanted.saturating_sub(up))] {
        text.sample(name, &[label[0], ("state", state)], number);
    }
    let name = "tidegate_broker_gaps_total";
    text.family(name, "counter", "Times in which messages from the broker may have been missed.");
    for (reason, gaps) in GapReason::ALL.into_iter().zip(&stats.gaps) {
        text.sample(name, &[label[0], ("reason", reason.label())], gaps.load(Relaxed));
    }
    for (name, help, read) in BROKER_TOTALS {
        text.family(name, "counter", help);
        text.sample(name, &label, read(stats));
    }
    let name = "tidegate_broker_publish_duration_seconds";
    text.family(name, "histogram", "From a publish to the broker's answer, for those that succeeded.");
    latency(text, name, &label, &stats.publish_latency);
}

/// The samples of a histogram of durations.
pub(super) fn latency(text: &mut Text, name: &str, labels: &[(&str, &str)], latency: &Latency) {
    let Latency { buckets, sum_us } = latency;
    let buckets = buckets.iter().enumerate().map(|(i, count)| {
        // The last bucket has no bound: it counts everything longer as well.
        let bound = (i + 1 < LATENCY_BUCKETS).then(|| Latency::bound_us(i));
        (bound, count.load(Relaxed))
    });
    text.histogram(name, labels, buckets, sum_us.load(Relaxed), MICROS);
}
