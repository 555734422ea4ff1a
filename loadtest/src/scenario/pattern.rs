//! Broadcast (one channel for all) and unicast (a channel per session).

use crate::cli::{self, Bounds, BroadcastArgs, PublishArgs, ServerArgs, UnicastArgs};
use crate::client::Fleet;
use crate::error::{Error, Result};
use crate::probe::Probe;
use crate::report::{Checks, Findings, figures};
use crate::scenario::measure::{Load, measure};
use crate::stats::curve;
use crate::terminal::Progress;

/// Messages before the measurement at a rate, so that caches and connections are warm.
const WARM_UP_SECONDS: f64 = 1.0;

/// Everybody gets everything.
pub(crate) fn broadcast(args: &BroadcastArgs, progress: &Progress) -> Result<Findings> {
    let (messages, rate) = match args.burst {
        Some(0) => return Err(Error::Usage("--burst 0: at least one message".to_owned())),
        Some(messages) => (u64::from(messages), None),
        None => (cli::messages(args.rate, args.seconds)?, Some(args.rate)),
    };
    let load = Load {
        label: "publishing",
        channels: vec![args.server.channel.clone()],
        readers: args.sessions,
        payload: args.payload,
        messages,
        rate,
        grace: args.publish.grace(),
    };
    run(&args.server, &args.publish, args.probe.probe()?.as_ref(), load, &args.bounds, progress)
}

/// Everybody has a channel.
pub(crate) fn unicast(args: &UnicastArgs, progress: &Progress) -> Result<Findings> {
    cli::check_channels(args.sessions)?;
    let channel = &args.server.channel;
    let load = Load {
        label: "publishing",
        channels: (0..args.sessions).map(|number| format!("{channel}-{number}")).collect(),
        readers: args.sessions,
        payload: args.payload,
        messages: cli::messages(args.rate, args.seconds)?,
        rate: Some(args.rate),
        grace: args.publish.grace(),
    };
    run(&args.server, &args.publish, args.probe.probe()?.as_ref(), load, &args.bounds, progress)
}

fn run(
    server: &ServerArgs,
    publish: &PublishArgs,
    probe: Option<&Probe>,
    load: Load,
    bounds: &Bounds,
    progress: &Progress,
) -> Result<Findings> {
    if load.readers == 0 {
        return Err(Error::Usage("--sessions 0: at least one".to_owned()));
    }
    cli::check_payload(load.payload)?;
    let mut target = server.target(load.readers)?;
    target.numbered = load.channels.len() > 1 || load.channels.first() != Some(&server.channel);
    let dialect = publish.dialect()?;
    let mut fleet = Fleet::start(target, server.crew(load.readers))?;
    fleet.open(server.opening(load.readers, load.channels.len() as u32), progress)?;
    let mut accounting = warm_up(&fleet, &*dialect, &load, progress)?;
    let measured = measure(&fleet, &*dialect, &load, probe, progress, &mut |_| Ok(()))?;
    drop(fleet);
    accounting.add(&measured.accounting);

    let figures = measured.figures(load.readers);
    let mut checks = Checks::default();
    checks.accounting(&accounting);
    checks.at_most(&figures, &figures::P50_US, bounds.max_p50_us);
    checks.at_most(&figures, &figures::P99_US, bounds.max_p99_us);
    checks.at_most(&figures, &figures::CPU_US_PER_DELIVERY, bounds.max_cpu_us_per_delivery);
    checks.at_least(&figures, &figures::DELIVERIES_PER_SECOND, bounds.min_deliveries_per_second);
    Ok(Findings { figures, percentiles: curve(&measured.tally.latency), checks, ..Findings::default() })
}

/// Publishes for a moment before a measurement at a rate; says what came of it, because a loss is a loss.
pub(crate) fn warm_up(
    fleet: &Fleet,
    dialect: &dyn crate::publisher::Dialect,
    load: &Load,
    progress: &Progress,
) -> Result<crate::client::tally::Accounting> {
    let messages = (load.rate.unwrap_or(1.0) * WARM_UP_SECONDS).ceil() as u64;
    let load = Load { label: "warming up", messages, ..load.clone() };
    Ok(measure(fleet, dialect, &load, None, progress, &mut |_| Ok(()))?.accounting)
}
