//! Memory and CPU of sessions that only exist.

use std::time::Duration;

use crate::cli::{IdleArgs, check_channels};
use crate::client::Fleet;
use crate::error::{Error, Result};
use crate::probe::Probe;
use crate::report::figures::{self, Figures};
use crate::report::format::grouped;
use crate::report::{Checks, Findings};
use crate::sockstat::{Slabs, Sockstat};
use crate::stats::Latency;
use crate::terminal::Progress;

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
    let (buffers, slabs) = (Sockstat::read()?, Slabs::read()?);
    let took = fleet.open(args.server.opening(more, channels), progress)?;
    let connected = probe.sample()?;
    progress.wait("pause", pause);
    let (second, own_second) = (probe.sample()?, fleet.probe().sample()?);
    let (buffers_after, slabs_after) = (Sockstat::read()?, Slabs::read()?);
    let tally = fleet.collect(&std::sync::Arc::from([]))?;

    let per_session = |first: u64, second: u64| (second as f64 - first as f64) / f64::from(more);
    let idle_seconds = f64::from(args.pause.max(1));
    let idle_cpu = second.since(&connected).cpu_ns as f64 / 1e9 / idle_seconds;
    let connect = Latency::of(&tally.setup);
    let mut figures = Figures::default();
    figures.set(&figures::SESSIONS, f64::from(args.sessions));
    figures.set(&figures::CHANNELS, f64::from(channels));
    figures.set(&figures::SERVER_RSS_BYTES, second.rss as f64);
    figures.set(&figures::BYTES_PER_SESSION, per_session(first.rss, second.rss));
    let buffers = per_session(buffers.tcp_memory_bytes, buffers_after.tcp_memory_bytes);
    figures.set(&figures::SOCKET_BYTES_PER_SESSION, buffers);
    figures.set(&figures::KERNEL_BYTES_PER_SESSION, per_session(slabs.bytes, slabs_after.bytes));
    figures.set(&figures::CLIENT_BYTES_PER_SESSION, per_session(own_first.rss, own_second.rss));
    figures.set(&figures::CONNECTS_PER_SECOND, f64::from(more) / took.as_secs_f64());
    figures.set(&figures::CONNECT_SECONDS, took.as_secs_f64());
    figures.set(&figures::CONNECT_CPU_US, connected.since(&first).cpu_us_per(f64::from(more)));
    figures.set(&figures::CONNECT_P50_US, connect.p50_us);
    figures.set(&figures::CONNECT_P99_US, connect.p99_us);
    figures.set(&figures::IDLE_CPU_PERCENT_PER_10000, idle_cpu * 100.0 * 10_000.0 / f64::from(args.sessions));

    let mut checks = Checks::default();
    let ended: Vec<_> = tally.ended.iter().map(|(reason, count)| format!("{count} ended: {reason}")).collect();
    let held =
        if ended.is_empty() { format!("{} held", grouped(f64::from(args.sessions), 0)) } else { ended.join(", ") };
    checks.push("sessions", "all held".to_owned(), ended.is_empty(), held);
    checks.at_most(&figures, &figures::BYTES_PER_SESSION, args.max_bytes_per_session);
    checks.at_most(&figures, &figures::CONNECT_CPU_US, args.max_connect_cpu_us);
    let mut notes = vec![if slabs_after.of_sockets {
        "kernel slabs: those that sockets are made of (/proc/slabinfo), of the whole machine".to_owned()
    } else {
        "kernel slabs: all of the machine's (/proc/meminfo); run as root to have those of sockets only".to_owned()
    }];
    if args.server_pid.len() > 1 {
        let each: Vec<_> = second.rss_of_each().map(|bytes| grouped(bytes as f64 / f64::from(1 << 20), 1)).collect();
        notes.push(format!("memory of each server process, MiB: {}", each.join(", ")));
    }
    Ok(Findings { figures, notes, checks, ..Findings::default() })
}
