//! Memory and CPU of sessions that only exist.

use std::sync::Arc;
use std::time::Duration;

use super::stage::Stage;
use crate::client::count::Schedule;
use crate::client::layout::Layout;
use crate::client::tally;
use crate::error::{Error, Result};
use crate::report::figures::{self, Figures};
use crate::report::format::grouped;
use crate::report::{Checks, Findings};
use crate::sockstat::{Slabs, Sockstat};
use crate::stats::Latency;

/// Holds the sessions: `(RSS(n) - RSS(base)) / (n - base)`, each after a pause.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = &stage.settings.sessions;
    let (sessions, base) = (settings.sessions, settings.base);
    let Some(probe) = stage.probe else {
        return Err(Error::Usage("--server-pid: memory is read from the server's process, name it".to_owned()));
    };
    let layout = Layout::of_idle(settings);
    let channels = layout.channels();
    let target = stage.target(layout, sessions)?;
    let pause = Duration::from_secs(settings.pause.into());
    let more = sessions - base;

    let mut fleet = stage.fleet(&target, sessions)?;
    fleet.open(stage.opening(base), stage.monitor)?;
    stage.monitor.wait("pause", pause);
    let (first, own_first) = (probe.sample()?, fleet.probe().sample()?);
    let (buffers, slabs) = (Sockstat::read()?, Slabs::read()?);
    let took = fleet.open(stage.opening(more), stage.monitor)?.took;
    let connected = probe.sample()?;
    stage.monitor.wait("pause", pause);
    let (second, own_second) = (probe.sample()?, fleet.probe().sample()?);
    let (buffers_after, slabs_after) = (Sockstat::read()?, Slabs::read()?);
    let tally = fleet.collect(&Arc::from([]), Schedule::default())?;

    let per_session = |first: u64, second: u64| (second as f64 - first as f64) / f64::from(more);
    let idle = second.since(&connected);
    let idle_cpu = idle.cpu_ns as f64 / 1e9 / idle.elapsed.as_secs_f64();
    let connect = Latency::of(&tally.setup);
    let mut figures = Figures::default();
    figures.set(&figures::SESSIONS, f64::from(sessions));
    figures.set(&figures::CHANNELS, f64::from(channels));
    figures.set(&figures::SUBSCRIPTIONS, f64::from(settings.subscriptions));
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
    figures.set(&figures::IDLE_CPU_PERCENT_PER_10000, idle_cpu * 100.0 * 10_000.0 / f64::from(sessions));

    let mut checks = Checks::default();
    let ended = tally::words(&tally.ended);
    let held = if ended.is_empty() { format!("{} held", grouped(f64::from(sessions), 0)) } else { ended };
    checks.push("sessions", "all held".to_owned(), tally.ended.is_empty(), held);
    let bounds = &stage.settings.bounds;
    checks.at_most(&figures, &figures::BYTES_PER_SESSION, bounds.max_bytes_per_session);
    checks.at_most(&figures, &figures::CONNECT_CPU_US, bounds.max_connect_cpu_us);
    checks.at_most(&figures, &figures::IDLE_CPU_PERCENT_PER_10000, bounds.max_idle_cpu_percent);
    let mut notes = vec![if slabs_after.of_sockets {
        "kernel slabs: those that sockets are made of (/proc/slabinfo), of the whole machine".to_owned()
    } else {
        "kernel slabs: all of the machine's (/proc/meminfo); run as root to have those of sockets only".to_owned()
    }];
    if stage.settings.server.server_pid.len() > 1 {
        let each: Vec<_> = second.rss_of_each().map(|bytes| grouped(bytes as f64 / f64::from(1 << 20), 1)).collect();
        notes.push(format!("memory of each server process, MiB: {}", each.join(", ")));
    }
    Ok(Findings { figures, notes, checks, ..Findings::default() })
}
