//! Broadcast (one channel for all) and unicast (a channel per session).

use crate::cli::{self, Bounds, BroadcastArgs, PublishArgs, ServerArgs, UnicastArgs};
use crate::client::Fleet;
use crate::error::{Error, Result};
use crate::probe::Probe;
use crate::report::{Checks, Findings, grouped, optional, percentiles, row, to_json};
use crate::scenario::measure::{Load, Measured, measure};
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

    let mut checks = Checks::default();
    checks.accounting(&accounting);
    checks.at_most("median latency", bounds.max_p50_us, Some(measured.latency.p50_us), "us");
    checks.at_most("99th percentile", bounds.max_p99_us, Some(measured.latency.p99_us), "us");
    checks.at_most("server CPU per delivery", bounds.max_cpu_us_per_delivery, measured.cpu_us_per_delivery, "us");
    checks.at_least(
        "deliveries per second",
        bounds.min_deliveries_per_second,
        Some(measured.deliveries_per_second),
        "/s",
    );
    Ok(Findings { rows: rows(&load, &measured), result: to_json(&measured), checks })
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

fn rows(load: &Load, measured: &Measured) -> Vec<Vec<String>> {
    let [p50, p90, p99, p999, max] = percentiles(&measured.latency);
    let usage = measured.server.unwrap_or_default();
    let seconds = |ns: u64| measured.server.map(|_| ns as f64 / 1e9);
    vec![
        row(["figure", "value"]),
        row(["sessions".to_owned(), grouped(f64::from(load.readers), 0)]),
        row(["messages".to_owned(), grouped(measured.published as f64, 0)]),
        row(["payload, B".to_owned(), grouped(load.payload as f64, 0)]),
        row(["deliveries".to_owned(), grouped(measured.accounting.delivered as f64, 0)]),
        row(["lost".to_owned(), grouped(measured.accounting.lost as f64, 0)]),
        row(["seconds".to_owned(), grouped(measured.seconds, 2)]),
        row(["deliveries per second".to_owned(), grouped(measured.deliveries_per_second, 0)]),
        row(["latency p50".to_owned(), p50]),
        row(["latency p90".to_owned(), p90]),
        row(["latency p99".to_owned(), p99]),
        row(["latency p99.9".to_owned(), p999]),
        row(["latency max".to_owned(), max]),
        row(["server CPU per delivery, us".to_owned(), optional(measured.cpu_us_per_delivery, 3)]),
        row(["server CPU, s".to_owned(), optional(seconds(usage.cpu_ns), 2)]),
        row(["  of it user, s".to_owned(), optional(seconds(usage.user_ns), 2)]),
        row(["  of it system, s".to_owned(), optional(seconds(usage.system_ns), 2)]),
        row([
            "server context switches".to_owned(),
            optional(measured.server.map(|usage| usage.context_switches as f64), 0),
        ]),
        row([
            "server memory, MiB".to_owned(),
            optional(measured.server.map(|usage| usage.rss_bytes as f64 / f64::from(1 << 20)), 1),
        ]),
    ]
}
