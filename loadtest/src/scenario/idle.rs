//! Memory and CPU of sessions that only exist.

use std::time::Duration;

use serde::Serialize;

use crate::cli::{IdleArgs, check_channels};
use crate::client::Fleet;
use crate::client::tally::Reasons;
use crate::error::{Error, Result};
use crate::probe::Probe;
use crate::report::{Checks, Findings, duration_us, grouped, row, to_json};
use crate::stats::Latency;
use crate::terminal::Progress;

#[derive(Serialize)]
struct Idle {
    sessions: u32,
    base: u32,
    rss_bytes_base: u64,
    rss_bytes: u64,
    /// Of each server process.
    rss_bytes_of_each: Vec<u64>,
    bytes_per_session: f64,
    client_bytes_per_session: f64,
    connects_per_second: f64,
    connect_cpu_us: f64,
    connect: Latency,
    idle_seconds: u32,
    idle_cpu_percent_per_10000: f64,
    ended: Reasons,
}

/// Holds the sessions: `(RSS(n) - RSS(base)) / (n - base)`, each after a pause.
pub(crate) fn run(args: &IdleArgs, progress: &Progress) -> Result<Findings> {
    if args.base == 0 || args.sessions <= args.base {
        return Err(Error::Usage(format!(
            "--sessions {} must be above --base {}, and that above 0",
            args.sessions, args.base
        )));
    }
    check_channels(args.sessions)?;
    let mut target = args.server.target(args.sessions)?;
    target.numbered = args.own_channels;
    let channels = if args.own_channels { args.sessions } else { 1 };
    let probe = Probe::new(&args.server_pid)?;
    let pause = Duration::from_secs(args.pause.into());
    let more = args.sessions - args.base;

    let mut fleet = Fleet::start(target, args.server.crew(args.sessions))?;
    fleet.open(args.server.opening(args.base, channels), progress)?;
    progress.wait("pause", pause);
    let (first, own_first) = (probe.sample()?, fleet.probe().sample()?);
    let took = fleet.open(args.server.opening(more, channels), progress)?;
    let connected = probe.sample()?;
    progress.wait("pause", pause);
    let (second, own_second) = (probe.sample()?, fleet.probe().sample()?);
    let tally = fleet.collect(&std::sync::Arc::from([]))?;

    let per_session = |first: u64, second: u64| (second as f64 - first as f64) / f64::from(more);
    let idle_seconds = f64::from(args.pause.max(1));
    let idle_cpu = second.since(&connected).cpu_ns as f64 / 1e9 / idle_seconds;
    let idle = Idle {
        sessions: args.sessions,
        base: args.base,
        rss_bytes_base: first.rss,
        rss_bytes: second.rss,
        rss_bytes_of_each: second.rss_of_each().collect(),
        bytes_per_session: per_session(first.rss, second.rss),
        client_bytes_per_session: per_session(own_first.rss, own_second.rss),
        connects_per_second: f64::from(more) / took.as_secs_f64(),
        connect_cpu_us: connected.since(&first).cpu_ns as f64 / 1e3 / f64::from(more),
        connect: Latency::of(&tally.setup),
        idle_seconds: args.pause,
        idle_cpu_percent_per_10000: idle_cpu * 100.0 * 10_000.0 / f64::from(args.sessions),
        ended: tally.ended.clone(),
    };

    let mut checks = Checks::default();
    let ended: Vec<_> = idle.ended.iter().map(|(reason, count)| format!("{count} ended: {reason}")).collect();
    let held =
        if ended.is_empty() { format!("{} held", grouped(f64::from(args.sessions), 0)) } else { ended.join(", ") };
    checks.push("sessions", "all held".to_owned(), idle.ended.is_empty(), held);
    checks.at_most("server memory per session", args.max_bytes_per_session, Some(idle.bytes_per_session), "B");
    checks.at_most("server CPU per connect", args.max_connect_cpu_us, Some(idle.connect_cpu_us), "us");

    let mib = |bytes: u64| format!("{} MiB", grouped(bytes as f64 / f64::from(1 << 20), 1));
    let rows = vec![
        row(["figure", "value"]),
        row(["sessions".to_owned(), grouped(f64::from(args.sessions), 0)]),
        row([format!("server memory with {}", grouped(f64::from(args.base), 0)), mib(first.rss)]),
        row([format!("server memory with {}", grouped(f64::from(args.sessions), 0)), mib(second.rss)]),
        row(["server memory per session".to_owned(), format!("{} B", grouped(idle.bytes_per_session, 0))]),
        row(["client memory per session".to_owned(), format!("{} B", grouped(idle.client_bytes_per_session, 0))]),
        row(["connects per second".to_owned(), grouped(idle.connects_per_second, 0)]),
        row(["server CPU per connect".to_owned(), format!("{} us", grouped(idle.connect_cpu_us, 1))]),
        row(["connect and subscribe, p50".to_owned(), duration_us(idle.connect.p50_us)]),
        row(["connect and subscribe, p99".to_owned(), duration_us(idle.connect.p99_us)]),
        row(["idle CPU per 10,000 sessions".to_owned(), format!("{:.2} % of a core", idle.idle_cpu_percent_per_10000)]),
    ];
    Ok(Findings { rows, result: to_json(&idle), checks })
}
