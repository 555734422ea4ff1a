//! Every metric there is.
//!
//! Names and labels are fixed here, at start, with a zero for each series, so that a rate is right
//! from the first event on. No label holds anything from outside: no channel, no user, no address.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tidegate_broadcaster::Broker;
use tidegate_protocol::code::DisconnectCode;

use super::process::Process;
use super::series::Registry;
use super::text::{NANOS, Text};
use super::{broker, histories};
use crate::admission::{AdmissionStats, RefusalReason};
use crate::api::ApiStats;
use crate::api::method::Method;
use crate::api::stats::{Outcome, Rejection};
use crate::config::reload::ReloadStats;
use crate::hub::stream::Reason;
use crate::pressure::PressureStats;
use crate::shard::stats::{Dropped, ShardStats, Wire};

/// Where the values come from.
pub struct Sources {
    /// One for each shard, in the shards' order.
    pub shards: Arc<[Arc<ShardStats>]>,
    /// Refusals.
    pub admission: Arc<AdmissionStats>,
    /// Memory.
    pub pressure: Arc<PressureStats>,
    /// The API.
    pub api: Arc<ApiStats>,
    /// The broker's name, health and counters.
    pub broker: Arc<dyn Broker>,
    /// Settings that were read again.
    pub reloads: Arc<ReloadStats>,
}

/// Name, help, and where a shard keeps it.
type OfShard = (&'static str, &'static str, fn(&ShardStats) -> u64);

/// Sums over all shards that only grow.
const TOTALS: &[OfShard] = &[
    ("tidegate_client_received_bytes_total", "Bytes read from clients.", |shard| shard.bytes_in.get()),
    ("tidegate_client_sent_bytes_total", "Bytes written to clients.", |shard| shard.bytes_out.get()),
    ("tidegate_client_commands_total", "Commands read from clients.", |shard| shard.commands.get()),
    ("tidegate_client_error_replies_total", "Error replies to clients.", |shard| shard.error_replies.get()),
    ("tidegate_client_messages_sent_total", "Replies, pushes and pings that the kernel took completely.", |shard| {
        shard.messages_out.get()
    }),
    ("tidegate_writes_total", "Write calls on client sockets.", |shard| shard.writes.get()),
    ("tidegate_short_writes_total", "Write calls that the kernel did not take completely.", |shard| {
        shard.short_writes.get()
    }),
    (
        "tidegate_deliveries_offered_total",
        "Publication and subscriber pairs: offered = delivered + conflated + dropped + pending.",
        |shard| shard.offered.get(),
    ),
    (
        "tidegate_deliveries_conflated_total",
        "Deliveries whose place a newer publication of the channel took, because the session was behind (queue_policy latest).",
        |shard| shard.conflated.get(),
    ),
    ("tidegate_deliveries_delivered_total", "Deliveries whose bytes the kernel took.", |shard| shard.delivered.get()),
    (
        "tidegate_subscriptions_insufficient_total",
        "Subscriptions that were told (code 2500) that they have missed something.",
        |shard| shard.insufficient.get(),
    ),
    ("tidegate_publications_repeated_total", "Publications that came again, and were passed over.", |shard| {
        shard.repeated.get()
    }),
    (
        "tidegate_subscriptions_renewed_total",
        "Subscriptions ended because they would be others under new settings.",
        |shard| shard.renewed.get(),
    ),
    (
        "tidegate_presence_refused_total",
        "Presence commands refused because too many clients are in the channel.",
        |shard| shard.presence_refused.get(),
    ),
    ("tidegate_position_checks_total", "Comparisons of a channel's position with the broker's.", |shard| {
        shard.position_checks.get()
    }),
    ("tidegate_connections_closed_by_peer_total", "Connections that the client or the network ended.", |shard| {
        shard.closed_by_peer.get()
    }),
    (
        "tidegate_requests_refused_total",
        "Requests refused before they were WebSockets: bad, slow, a foreign origin.",
        |shard| shard.refused_requests.get(),
    ),
    ("tidegate_broken_frames_total", "Connections ended because a frame broke the rules of WebSocket.", |shard| {
        shard.broken_frames.get()
    }),
    ("tidegate_evicted_sessions_total", "Sessions closed to free memory.", |shard| shard.evicted.get()),
    ("tidegate_pings_sent_total", "Pings sent.", |shard| shard.pings.get()),
    ("tidegate_lagging_pongs_total", "Pongs that came later than the lag threshold.", |shard| shard.lagging.get()),
];

/// Levels of each shard.
const SHARD_LEVELS: &[OfShard] = &[
    ("tidegate_handshaking_connections", "Connections whose first request or bytes are awaited.", |shard| {
        shard.handshaking.get()
    }),
    ("tidegate_sessions", "Sessions that have connected with the client protocol.", |shard| shard.sessions.get()),
    ("tidegate_subscriptions", "Subscriptions.", |shard| shard.subscriptions.get()),
    ("tidegate_shard_channels", "Channels with a subscriber on the shard.", |shard| shard.channels.get()),
    ("tidegate_deliveries_pending", "Deliveries that wait in a session's queue.", |shard| shard.pending.get()),
    ("tidegate_queue_bytes", "Bytes that wait in sessions' queues.", |shard| shard.queue_bytes.get()),
    ("tidegate_inbox_bytes", "Bytes that wait in the shard's inbox.", |shard| shard.inbox_bytes.get()),
];

/// Totals of each shard.
const SHARD_TOTALS: &[OfShard] = &[
    ("tidegate_shard_publications_total", "Publications taken from the shard's inbox.", |shard| {
        shard.publications.get()
    }),
    ("tidegate_shard_turns_total", "Turns of the shard's loop that had something to do.", |shard| shard.turns.get()),
];

/// The registered tree.
pub struct Metrics {
    registry: Registry,
    sources: Arc<Sources>,
}

impl Metrics {
    /// Registers every series.
    pub fn new(sources: Sources) -> Self {
        let sources = Arc::new(sources);
        let mut registry = Registry::default();
        shards(&mut registry, &sources);
        node(&mut registry, &sources);
        reloads(&mut registry, &sources);
        api(&mut registry, &sources);
        Self { registry, sources }
    }

    /// The page. Reads `/proc`, so it belongs on a thread that may block.
    pub fn render(&self) -> String {
        let mut text = Text::after(self.registry.render());
        busy(&mut text, &self.sources);
        histograms(&mut text, &self.sources);
        broker::write(&mut text, &*self.sources.broker);
        histories::write(&mut text, &self.sources.broker.stats().log);
        Process::read().write(&mut text);
        text.into_string()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.registry.fmt(f)
    }
}

fn sum(sources: &Sources, read: impl Fn(&ShardStats) -> u64) -> u64 {
    sources.shards.iter().map(|shard| read(shard)).sum()
}

fn shards(registry: &mut Registry, sources: &Arc<Sources>) {
    for (name, help, read) in TOTALS {
        let from = sources.clone();
        registry.counter(name, help, &[], move || sum(&from, read));
    }
    for shard in 0..sources.shards.len() {
        let label = [("shard", shard.to_string())];
        for (name, help, read) in SHARD_LEVELS {
            let from = sources.shards[shard].clone();
            registry.gauge(name, help, &label, move || read(&from) as f64);
        }
        for (name, help, read) in SHARD_TOTALS {
            let from = sources.shards[shard].clone();
            registry.counter(name, help, &label, move || read(&from));
        }
    }
    for (at, wire) in Wire::ALL.into_iter().enumerate() {
        let (transport, format) = wire.labels();
        let labels = [("transport", transport.to_owned()), ("format", format.to_owned())];
        let from = sources.clone();
        registry.gauge("tidegate_connections", "Open client connections.", &labels, move || {
            sum(&from, |shard| shard.connections[at].get()) as f64
        });
        let from = sources.clone();
        let help = "Client connections since the start.";
        registry.counter("tidegate_connections_opened_total", help, &labels, move || {
            sum(&from, |shard| shard.opened[at].get())
        });
    }
    for (at, reason) in Dropped::ALL.into_iter().enumerate() {
        let from = sources.clone();
        let labels = [("reason", reason.label().to_owned())];
        let help = "Deliveries that were given up.";
        registry.counter("tidegate_deliveries_dropped_total", help, &labels, move || {
            sum(&from, |shard| shard.dropped[at].get())
        });
    }
    for (at, reason) in Reason::ALL.into_iter().enumerate() {
        let from = sources.clone();
        let labels = [("reason", reason.label().to_owned())];
        let help = "Times at which publications of a channel whose position is watched were missing on a shard.";
        registry
            .counter("tidegate_channel_gaps_total", help, &labels, move || sum(&from, |shard| shard.gaps[at].get()));
    }
    for (at, outcome) in ["recovered", "missed"].into_iter().enumerate() {
        let from = sources.clone();
        let labels = [("outcome", outcome.to_owned())];
        let help = "Subscriptions that came back for what they had missed: all of it was there, or not.";
        registry.counter("tidegate_recoveries_total", help, &labels, move || {
            sum(&from, |shard| shard.recoveries[at].get())
        });
    }
    for (at, code) in DisconnectCode::ALL.iter().enumerate() {
        let from = sources.clone();
        let labels = [("code", code.code().to_string())];
        let help = "Connections that the server ended, by the code that the client saw.";
        registry.counter("tidegate_disconnects_total", help, &labels, move || {
            sum(&from, |shard| shard.disconnects[at].get())
        });
    }
}

fn node(registry: &mut Registry, sources: &Arc<Sources>) {
    let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
    registry.gauge("tidegate_build_info", "Always 1; the version is a label.", &version, || 1.0);
    for reason in RefusalReason::ALL {
        let admission = sources.admission.clone();
        let labels = [("reason", reason.label().to_owned())];
        let help = "Connections refused before they became sessions.";
        registry.counter("tidegate_connections_refused_total", help, &labels, move || admission.refused(reason));
    }
    let from = sources.clone();
    registry.gauge("tidegate_channels", "Channels that the node holds with the broker.", &[], move || {
        from.broker.interest().len() as f64
    });
    let pressure = sources.pressure.clone();
    registry.gauge("tidegate_memory_used_bytes", "Memory as the monitor last saw it.", &[], move || {
        pressure.used.load(Relaxed) as f64
    });
    let pressure = sources.pressure.clone();
    registry.gauge("tidegate_memory_limit_bytes", "The limit that memory is compared with.", &[], move || {
        pressure.limit.load(Relaxed) as f64
    });
    let pressure = sources.pressure.clone();
    let help = "Memory pressure: 0 normal, 1 new connections are refused, 2 sessions are evicted.";
    registry.gauge("tidegate_memory_pressure_level", help, &[], move || f64::from(pressure.level() as u8));
}

fn reloads(registry: &mut Registry, sources: &Arc<Sources>) {
    for (outcome, applied) in [("applied", true), ("refused", false)] {
        let reloads = sources.reloads.clone();
        let help = "Times at which the settings were read again.";
        registry.counter("tidegate_config_reloads_total", help, &[("outcome", outcome.to_owned())], move || {
            if applied { reloads.applied.load(Relaxed) } else { reloads.refused.load(Relaxed) }
        });
    }
    let reloads = sources.reloads.clone();
    let help = "Whether the settings were in order when they were last read.";
    registry.gauge("tidegate_config_last_reload_successful", help, &[], move || {
        f64::from(u8::from(reloads.is_well.load(Relaxed)))
    });
}

fn api(registry: &mut Registry, sources: &Arc<Sources>) {
    for method in Method::ALL {
        for outcome in Outcome::ALL {
            let api = sources.api.clone();
            let labels = [("method", method.name().to_owned()), ("outcome", outcome.label().to_owned())];
            let help = "Calls of API methods, commands of batches among them.";
            registry.counter("tidegate_api_calls_total", help, &labels, move || api.calls(method, outcome));
        }
    }
    for rejection in Rejection::ALL {
        let api = sources.api.clone();
        let labels = [("reason", rejection.label().to_owned())];
        let help = "API requests, or commands of batches, that reached no method.";
        registry.counter("tidegate_api_rejected_total", help, &labels, move || api.rejected(rejection));
    }
    let api = sources.api.clone();
    let help = "Publishes answered from an earlier one with the same idempotency key.";
    registry.counter("tidegate_api_idempotent_replays_total", help, &[], move || api.replayed.load(Relaxed));
    let api = sources.api.clone();
    let help = "Idempotency keys forgotten before their time for want of room.";
    registry.counter("tidegate_api_idempotency_evictions_total", help, &[], move || api.keys_evicted.load(Relaxed));
    let api = sources.api.clone();
    registry
        .gauge("tidegate_api_idempotency_keys", "Idempotency keys held.", &[], move || api.keys.load(Relaxed) as f64);
}

fn busy(text: &mut Text, sources: &Sources) {
    let name = "tidegate_shard_busy_seconds_total";
    text.family(name, "counter", "Time that the shard spent in turns; its rate is the shard's load.");
    for (shard, stats) in sources.shards.iter().enumerate() {
        text.sample(name, &[("shard", &shard.to_string())], stats.busy.get() as f64 * NANOS);
    }
}

fn histograms(text: &mut Text, sources: &Sources) {
    let name = "tidegate_delivery_latency_seconds";
    text.family(name, "histogram", "From a publication's arrival at the node to the write, for each delivery.");
    let (buckets, total) = merged(sources.shards.iter().map(|shard| (shard.latency.buckets(), shard.latency.sum())));
    text.histogram(name, &[], buckets.into_iter(), total, NANOS);
    let name = "tidegate_write_messages";
    text.family(name, "histogram", "Messages that one write carries.");
    let (buckets, total) = merged(sources.shards.iter().map(|shard| (shard.batch.buckets(), shard.batch.sum())));
    text.histogram(name, &[], buckets.into_iter(), total, 1.0);
    let name = "tidegate_api_call_duration_seconds";
    text.family(name, "histogram", "How long calls of API methods took.");
    for method in Method::ALL {
        let durations = sources.api.durations(method);
        text.histogram(name, &[("method", method.name())], durations.buckets(), durations.sum(), NANOS);
    }
}

/// Adds histograms with the same bounds, bucket by bucket.
fn merged(
    histograms: impl Iterator<Item = (impl Iterator<Item = (Option<u64>, u64)>, u64)>,
) -> (Vec<(Option<u64>, u64)>, u64) {
    let (mut all, mut total) = (Vec::new(), 0_u64);
    for (buckets, sum) in histograms {
        total = total.wrapping_add(sum);
        for (at, (bound, count)) in buckets.enumerate() {
            match all.get_mut(at) {
                Some((_, sum)) => *sum += count,
                None => all.push((bound, count)),
            }
        }
    }
    (all, total)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::api::tests::Notebook;

    fn sources() -> Sources {
        let broker: Arc<dyn Broker> = Arc::new(Notebook::default());
        let stats = broker.stats();
        stats.messages.fetch_add(7, Relaxed);
        stats.gap_ms.fetch_add(1500, Relaxed);
        stats.connections.fetch_add(3, Relaxed);
        stats.connections_up.fetch_add(2, Relaxed);
        for milliseconds in [1, 1, 1 << 40] {
            stats.publish_latency.record(Duration::from_millis(milliseconds));
        }
        Sources {
            shards: Arc::from(vec![Arc::new(ShardStats::default()), Arc::new(ShardStats::default())]),
            admission: Arc::default(),
            pressure: Arc::default(),
            api: Arc::default(),
            broker,
            reloads: Arc::default(),
        }
    }

    /// Every family with its type, from the page's `# TYPE` lines.
    fn families(page: &str) -> BTreeMap<String, String> {
        let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        lines.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
    }

    #[test]
    fn what_the_shards_count_is_on_the_page() {
        let sources = sources();
        let shards = sources.shards.clone();
        let admission = sources.admission.clone();
        let api = sources.api.clone();
        let metrics = Metrics::new(sources);
        for (shard, n) in shards.iter().zip([1, 10]) {
            shard.bytes_in.add(n);
            shard.sessions.add(n);
            shard.connections[1].add(n);
            shard.dropped[2].add(n);
            shard.disconnects[DisconnectCode::Slow.index()].add(n);
            shard.busy.add(n * 500_000_000);
            shard.latency.record(60_000, n);
            shard.batch.record(2000, n);
        }
        admission.refuse(RefusalReason::Memory);
        api.count(Method::Publish, Outcome::Ok, Duration::from_millis(2));
        let page = metrics.render();
        for line in [
            "tidegate_client_received_bytes_total 11",
            "tidegate_sessions{shard=\"0\"} 1",
            "tidegate_sessions{shard=\"1\"} 10",
            "tidegate_connections{transport=\"websocket\",format=\"protobuf\"} 11",
            "tidegate_connections{transport=\"tcp\",format=\"protobuf\"} 0",
            "tidegate_deliveries_dropped_total{reason=\"queue_full\"} 11",
            "tidegate_disconnects_total{code=\"3008\"} 11",
            "tidegate_disconnects_total{code=\"3509\"} 0",
            "tidegate_shard_busy_seconds_total{shard=\"1\"} 5",
            "tidegate_delivery_latency_seconds_bucket{le=\"0.00005\"} 0",
            "tidegate_delivery_latency_seconds_bucket{le=\"0.0001\"} 11",
            "tidegate_delivery_latency_seconds_count 11",
            "tidegate_write_messages_bucket{le=\"1024\"} 0",
            "tidegate_write_messages_bucket{le=\"+Inf\"} 11",
            "tidegate_write_messages_sum 22000",
            "tidegate_connections_refused_total{reason=\"memory\"} 1",
            "tidegate_api_calls_total{method=\"publish\",outcome=\"ok\"} 1",
            "tidegate_api_call_duration_seconds_count{method=\"publish\"} 1",
            "tidegate_broker_up{broker=\"redis\"} 1",
            "tidegate_broker_messages_total{broker=\"redis\"} 7",
            "tidegate_broker_gap_seconds_total{broker=\"redis\"} 1.5",
            "tidegate_broker_subscriber_connections{broker=\"redis\",state=\"up\"} 2",
            "tidegate_broker_subscriber_connections{broker=\"redis\",state=\"down\"} 1",
            "tidegate_broker_publish_duration_seconds_bucket{broker=\"redis\",le=\"0.001024\"} 2",
            "tidegate_broker_publish_duration_seconds_count{broker=\"redis\"} 3",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        // The next scrape sees what happened since.
        shards[0].bytes_in.add(100);
        assert!(metrics.render().contains("tidegate_client_received_bytes_total 111\n"));
    }

    #[test]
    fn a_broker_that_is_away_shows_for_how_long() {
        let broker = Arc::new(Notebook::default());
        broker.away.store(true, Relaxed);
        let page = Metrics::new(Sources { broker, ..sources() }).render();
        assert!(page.contains("tidegate_broker_up{broker=\"redis\"} 0\n"));
        assert!(page.contains("tidegate_broker_away_seconds{broker=\"redis\"} 12\n"));
    }

    #[test]
    fn every_metric_has_help_and_a_name_of_ours_or_of_processes() {
        let page = Metrics::new(sources()).render();
        for (name, kind) in families(&page) {
            assert!(page.contains(&format!("# HELP {name} ")), "{name}");
            assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            assert_eq!(page.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
        }
    }

    #[test]
    fn the_documentation_lists_exactly_the_metrics_that_exist() {
        let page = Metrics::new(sources()).render();
        let exported: BTreeSet<_> = families(&page).into_iter().collect();
        let document = include_str!("../../../docs/metrics.md");
        // Rows of the tables: | `name` | type | labels | ...
        let rows = document.lines().filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), cells.next()?.to_owned()))
        });
        let documented: BTreeSet<_> = rows.collect();
        let missing: Vec<_> = exported.difference(&documented).collect();
        let invented: Vec<_> = documented.difference(&exported).collect();
        assert!(
            missing.is_empty() && invented.is_empty(),
            "not in docs/metrics.md: {missing:?}\nonly there: {invented:?}"
        );
    }

    #[test]
    fn the_number_of_series_depends_on_the_number_of_shards_alone() {
        let series = |shards: usize| {
            let shards = (0..shards).map(|_| Arc::new(ShardStats::default())).collect();
            let page = Metrics::new(Sources { shards, ..sources() }).render();
            page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count()
        };
        // The figures that docs/metrics.md names.
        assert_eq!((series(2) - series(1), series(3) - series(2)), (10, 10));
        assert!((360..390).contains(&(series(1) - 10)), "{}", series(1));
    }

    #[test]
    fn promtool_finds_nothing_wrong_with_the_page() {
        let page = Metrics::new(sources()).render();
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed for this test: install the package prometheus, or let ./test do it");
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}\n{page}", String::from_utf8_lossy(&said));
    }
}
