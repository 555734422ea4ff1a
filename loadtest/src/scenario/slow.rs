//! Readers that stop reading, or read slowly: what the server does with them, what they cost, and whether the others
//! notice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::measure::{Load, Measured, measure, warm_up};
use super::stage::Stage;
use crate::client::count::Schedule;
use crate::client::layout::Layout;
use crate::client::tally::{self, Accounting, Reasons};
use crate::client::{Opening, TICK};
use crate::clock;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::probe::Probe;
use crate::report::figures::{self, Figures};
use crate::report::{Checks, Findings};
use crate::settings::Settings;
use crate::stats::curve;

/// How long stalled sessions have to read how they were closed, once they read again.
const RESUME: Duration = Duration::from_secs(15);
/// The same for sessions that read slowly, which a server need not close.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How often the server's memory and descriptors are looked at.
const LOOK: Duration = Duration::from_millis(200);

struct Stall {
    calm: Measured,
    stalled: Measured,
    p99_shift_ms: f64,
    stalled_sessions: u32,
    /// How stalled sessions ended, as they saw it once they read again.
    stalled_ended: Reasons,
    /// Messages that they still found, and faults among those.
    stalled_delivered: u64,
    stalled_faults: u64,
    /// Sessions that the server says it closed with the required code, where it was asked.
    closed_by_metrics: Option<u64>,
    /// When the server had let go of the first and of all of them, in s from their subscription: by its metrics where
    /// they were given, else by its descriptors.
    first_closed_seconds: Option<f64>,
    all_closed_seconds: Option<f64>,
    /// The most that the server's memory grew by, per stalled session.
    bytes_per_stalled: Option<f64>,
}

/// Broadcasts twice: without the stalled sessions, and with them.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = stage.settings;
    let (readers, stalled) = (settings.sessions.sessions, settings.sessions.stalled);
    let all = readers.saturating_add(stalled);
    let mut target = stage.target(Layout::even(1, 1), all)?;
    target.stalled_receive_buffer = settings.sessions.receive_buffer;
    target.stalled_read_rate = settings.sessions.read_rate;
    let dialect = stage.dialect()?;
    let load = stage.load("publishing, all read", &target, readers);
    let mut fleet = stage.fleet(&target, all)?;
    fleet.open(stage.opening(readers), stage.monitor)?;
    let mut accounting = warm_up(&fleet, &*dialect, &load, stage)?;
    let calm = measure(&fleet, &*dialect, &load, None, stage.monitor, &mut |_| Ok(()))?;

    fleet.open(Opening { stalled: true, ..stage.opening(stalled) }, stage.monitor)?;
    let load = Load { label: "publishing, some stalled", ..load };
    let metrics =
        settings.server.metrics.zip(settings.bounds.require_code).map(|(address, code)| Metrics::new(address, code));
    let mut watch = Watch::start(stage.probe, metrics, stalled)?;
    let mut resumed = false;
    let measured = measure(&fleet, &*dialect, &load, stage.probe, stage.monitor, &mut |_| {
        watch.look()?;
        // The server waits only a moment for a client to take its close frame.
        if metrics.is_some() && watch.all_closed.is_some() && !resumed {
            resumed = true;
            fleet.resume_stalled()?;
        }
        Ok(())
    })?;
    if !resumed {
        fleet.resume_stalled()?;
    }
    let closed = settings.sessions.read_rate == 0 || settings.bounds.require_code.is_some();
    let deadline = Instant::now() + if closed { RESUME } else { CATCH_UP };
    let ended = || fleet.counters().stalled_ended.load(Ordering::Acquire);
    while ended() < u64::from(stalled) && Instant::now() < deadline {
        clock::pause(TICK);
    }
    let rest = fleet.collect(&Arc::from([]), Schedule::default())?;
    drop(fleet);

    accounting.add(&calm.accounting);
    accounting.add(&measured.accounting);
    let mut stalled_ended = measured.tally.stalled_ended.clone();
    tally::add(&mut stalled_ended, &rest.stalled_ended);
    let result = Stall {
        p99_shift_ms: (measured.latency.p99_us - calm.latency.p99_us) / 1e3,
        stalled_sessions: stalled,
        stalled_delivered: measured.tally.stalled_delivered + rest.stalled_delivered,
        stalled_faults: measured.tally.stalled_faults + rest.stalled_faults,
        stalled_ended,
        closed_by_metrics: watch.closed,
        first_closed_seconds: watch.first_closed,
        all_closed_seconds: watch.all_closed,
        bytes_per_stalled: watch.growth.map(|bytes| bytes as f64 / f64::from(stalled)),
        calm,
        stalled: measured,
    };
    let figures = figures(settings, &result);
    let checks = checks(settings, &result, &figures, &accounting);
    let percentiles = curve(&result.stalled.tally.latency);
    let notes = result.stalled_ended.iter().map(|(reason, count)| format!("{count} stalled: {reason}")).collect();
    Ok(Findings { figures, percentiles, notes, checks, ..Findings::default() })
}

fn figures(settings: &Settings, result: &Stall) -> Figures {
    let mut out = result.stalled.figures(settings.sessions.sessions);
    out.set(&figures::CALM_P50_US, result.calm.latency.p50_us);
    out.set(&figures::CALM_P99_US, result.calm.latency.p99_us);
    out.set(&figures::P99_SHIFT_MS, result.p99_shift_ms);
    out.set(&figures::STALLED_SESSIONS, f64::from(result.stalled_sessions));
    out.set(&figures::FIRST_CLOSED_SECONDS, result.first_closed_seconds);
    out.set(&figures::ALL_CLOSED_SECONDS, result.all_closed_seconds);
    out.set(&figures::BYTES_PER_STALLED, result.bytes_per_stalled);
    out
}

fn checks(settings: &Settings, result: &Stall, figures: &Figures, accounting: &Accounting) -> Checks {
    let mut checks = Checks::default();
    checks.accounting(accounting);
    checks.push(
        "messages of stalled sessions",
        "in order up to their end".to_owned(),
        result.stalled_faults == 0,
        format!("{} delivered, {} faults", result.stalled_delivered, result.stalled_faults),
    );
    checks.at_most(figures, &figures::P99_SHIFT_MS, settings.bounds.max_p99_shift_ms);
    checks.at_most(figures, &figures::BYTES_PER_STALLED, settings.bounds.max_bytes_per_stalled);
    if let Some(code) = settings.bounds.require_code {
        let start = format!("closed with {code}");
        let closed: u64 =
            result.stalled_ended.iter().filter(|(reason, _)| reason.starts_with(&start)).map(|(_, count)| count).sum();
        let mut measured: Vec<_> =
            result.stalled_ended.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        if let Some(count) = result.closed_by_metrics {
            measured.push(format!("{count} by the server's metrics"));
        }
        let measured = measured.join(", ");
        checks.push(
            "stalled sessions",
            format!("all {start}"),
            closed.max(result.closed_by_metrics.unwrap_or(0)) == u64::from(result.stalled_sessions),
            if measured.is_empty() { "none ended".to_owned() } else { measured },
        );
    }
    checks
}

/// Looks at the server while some sessions are stalled: a client that does not read cannot see when it is closed, but
/// the server's metrics or descriptors tell.
struct Watch<'a> {
    probe: Option<&'a Probe>,
    metrics: Option<Metrics>,
    started: Instant,
    looked: Instant,
    rss: u64,
    descriptors: u64,
    closed_before: u64,
    stalled: u64,
    growth: Option<u64>,
    closed: Option<u64>,
    first_closed: Option<f64>,
    all_closed: Option<f64>,
}

impl<'a> Watch<'a> {
    fn start(probe: Option<&'a Probe>, metrics: Option<Metrics>, stalled: u32) -> Result<Self> {
        let sample = probe.map(Probe::sample).transpose()?;
        let now = Instant::now();
        let (rss, descriptors) = sample.map_or((0, 0), |sample| (sample.rss, sample.descriptors));
        Ok(Self {
            probe,
            metrics,
            started: now,
            looked: now,
            rss,
            descriptors,
            closed_before: metrics.map_or(Ok(0), |metrics| metrics.closed())?,
            stalled: stalled.into(),
            growth: None,
            closed: None,
            first_closed: None,
            all_closed: None,
        })
    }

    fn look(&mut self) -> Result<()> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        let mut gone = 0;
        if let Some(probe) = self.probe {
            let sample = probe.sample()?;
            let growth = sample.rss.saturating_sub(self.rss);
            self.growth = Some(self.growth.unwrap_or(0).max(growth));
            gone = self.descriptors.saturating_sub(sample.descriptors);
        }
        if let Some(metrics) = self.metrics {
            gone = metrics.closed()?.saturating_sub(self.closed_before);
            self.closed = Some(gone);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        if gone > 0 {
            self.first_closed.get_or_insert(seconds);
        }
        if gone >= self.stalled {
            self.all_closed.get_or_insert(seconds);
        }
        Ok(())
    }
}
