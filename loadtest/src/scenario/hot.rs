//! A flooded channel beside small ones: do the small ones notice?
//!
//! The sessions of the flooded channel have client threads of their own, so that the client does not read the small
//! channels' messages behind the flood's. On a machine with few processors it still takes part of their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::measure::{Measured, expectation, expected, measure, next_round, warm_up};
use super::stage::Stage;
use crate::client::count::Schedule;
use crate::client::layout::Layout;
use crate::client::tally::{Accounting, Tally};
use crate::client::{Fleet, TICK};
use crate::clock;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::publisher::{Dialect, Draw, Plan, Published, publish};
use crate::report::figures;
use crate::report::{Checks, Findings};
use crate::stats::curve;

/// How long the flood may take to begin.
const START: Duration = Duration::from_secs(10);

/// Measures the small channels twice: without the flood, and with it.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = stage.settings;
    let (readers, small) = (settings.sessions.sessions, settings.sessions.small_channels);
    let all = readers.saturating_add(small);
    let small_target = stage.target(Layout::own(small, 1), all)?;
    let mut hot_target = stage.target(Layout::even(1, 1), all)?;
    hot_target.channel = format!("{}-hot", hot_target.channel);
    let dialect = stage.dialect()?;
    let mut small_fleet = stage.fleet(&small_target, small)?;
    small_fleet.open(stage.opening(small), stage.monitor)?;
    let mut hot_fleet = stage.fleet(&hot_target, readers)?;
    hot_fleet.open(stage.opening(readers), stage.monitor)?;

    let mut load = stage.load("publishing, no flood", &small_target, small);
    let mut accounting = warm_up(&small_fleet, &*dialect, &load, stage)?;
    let calm = measure(&small_fleet, &*dialect, &load, None, stage.monitor, &mut |_| Ok(()))?;
    load.label = "publishing beside a flood";
    let rate = settings.messages.flood_rate;
    let plan = Plan {
        channels: hot_target.channel_names(),
        draw: Draw::InTurn,
        payload: load.payload,
        format: load.format,
        // It is stopped with the measurement.
        messages: u32::MAX.into(),
        rate: (rate > 0.0).then_some(rate),
        round: next_round(),
    };
    hot_fleet.start_round(expectation(&plan))?;
    let started = Instant::now();
    let (flooded, published) = beside(&plan, &*dialect, stage.monitor, || {
        measure(&small_fleet, &*dialect, &load, stage.probe, stage.monitor, &mut |_| Ok(()))
    })?;
    let flood = finish(&hot_fleet, &published, &[readers], load.grace, stage.monitor)?;
    let seconds =
        (flood.last_delivery.saturating_sub(published.first) as f64 / 1e9).min(started.elapsed().as_secs_f64());
    drop((small_fleet, hot_fleet));
    accounting.add(&calm.accounting);
    accounting.add(&flooded.accounting);
    Ok(findings(stage, &calm, &flooded, &accounting, &Flood { tally: flood, published, seconds }))
}

/// What became of the flood.
struct Flood {
    tally: Tally,
    published: Published,
    seconds: f64,
}

fn findings(
    stage: &Stage<'_>,
    calm: &Measured,
    flooded: &Measured,
    accounting: &Accounting,
    flood: &Flood,
) -> Findings {
    let settings = stage.settings;
    let mut figures = flooded.figures(settings.sessions.small_channels + settings.sessions.sessions);
    figures.set(&figures::CHANNELS, f64::from(settings.sessions.small_channels) + 1.0);
    figures.set(&figures::CALM_P50_US, calm.latency.p50_us);
    figures.set(&figures::CALM_P99_US, calm.latency.p99_us);
    figures.set(&figures::P99_SHIFT_MS, (flooded.latency.p99_us - calm.latency.p99_us) / 1e3);
    figures.set(&figures::FLOOD_PUBLISHED, flood.published.messages as f64);
    figures.set(&figures::FLOOD_DELIVERIES_PER_SECOND, flood.tally.delivered as f64 / flood.seconds);
    figures.set(&figures::FLOOD_P99_US, flood.tally.latency().p99_us);
    // The server's costs are those of both, which no figure per delivery of the small channels can say.
    let all = flooded.accounting.delivered + flood.tally.delivered;
    let cpu = flooded.server.and_then(|usage| usage.cpu_us_per(all as f64));
    figures.set(&figures::CPU_US_PER_DELIVERY, cpu);
    figures.set(&figures::CPU_USER_US_PER_DELIVERY, None);
    figures.set(&figures::CPU_SYSTEM_US_PER_DELIVERY, None);

    let mut checks = Checks::default();
    checks.accounting(accounting);
    let fault = flood.tally.accounting().fault();
    checks.push(
        "messages of the flooded channel",
        "none lost, doubled or out of order".to_owned(),
        fault.is_none(),
        fault.unwrap_or_else(|| format!("{} delivered", flood.tally.delivered)),
    );
    checks.at_most(&figures, &figures::P99_US, settings.bounds.max_p99_us);
    checks.at_most(&figures, &figures::P99_SHIFT_MS, settings.bounds.max_p99_shift_ms);
    Findings { figures, percentiles: curve(&flooded.tally.latency), checks, ..Findings::default() }
}

/// Does something while a plan is published on a thread of its own; stops that afterwards.
fn beside<T>(
    plan: &Plan,
    dialect: &dyn Dialect,
    monitor: &Monitor,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Published)> {
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| publish(dialect, plan, &count, &stop));
        let deadline = Instant::now() + START;
        while count.load(Ordering::Relaxed) == 0 && !flood.is_finished() && Instant::now() < deadline {
            clock::pause(TICK);
        }
        monitor.line("the flood has begun");
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let published = flood.join().map_err(|_| Error::Run("the flood's thread has died".to_owned()))?;
        Ok((done?, published?))
    })
}

/// Waits for what is under way, and takes what was counted.
fn finish(
    fleet: &Fleet,
    published: &Published,
    subscribers: &[u32],
    grace: Duration,
    monitor: &Monitor,
) -> Result<Tally> {
    let wanted = expected(published, subscribers);
    monitor.begin("waiting for the flood's rest", wanted);
    let delivered = || fleet.counters().delivered.load(Ordering::Acquire);
    let mut last = (delivered(), Instant::now());
    while last.0 < wanted && last.1.elapsed() < grace {
        clock::pause(TICK);
        fleet.check()?;
        let now = delivered();
        monitor.at(now);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    monitor.end();
    fleet.collect(&Arc::clone(&published.per_channel), Schedule::default())
}
