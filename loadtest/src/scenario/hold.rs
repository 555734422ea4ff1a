//! Sessions held over many servers: what they cost, how long a broadcast takes to reach all of them, and what the rest
//! notices when a server is killed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::measure::{Load, measure};
use super::stage::Stage;
use crate::client::layout::Layout;
use crate::client::session::Schedule;
use crate::client::tally::{Accounting, Reasons};
use crate::client::target::Target;
use crate::client::{Fleet, TICK};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::monitor::Monitor;
use crate::probe::{Probe, Sample};
use crate::publisher::Dialect;
use crate::report::Findings;
use crate::report::figures::{self, Figures};
use crate::report::format::{bytes, grouped};
use crate::sockstat::{self, Slabs, Sockstat};
use crate::stats::{self, Latency, median};

/// The sessions of a killed server have to notice within this time: the kernel tells them at once.
const NOTICE: Duration = Duration::from_secs(30);

/// Everybody's costs at one moment.
struct Costs {
    servers: Sample,
    client: Sample,
    sockets: Sockstat,
    slabs: Slabs,
    available: u64,
}

impl Costs {
    fn read(servers: &Probe, client: &Probe) -> Result<Self> {
        Ok(Self {
            servers: servers.sample()?,
            client: client.sample()?,
            sockets: Sockstat::read()?,
            slabs: Slabs::read()?,
            available: sockstat::memory_available()?,
        })
    }

    /// What `sessions` have added since an earlier moment.
    fn figures(&self, earlier: &Self, sessions: u32, out: &mut Figures) {
        let growth = |first: u64, second: u64| second as f64 - first as f64;
        let servers = growth(earlier.servers.rss, self.servers.rss);
        let client = growth(earlier.client.rss, self.client.rss);
        let sockets = growth(earlier.sockets.tcp_memory_bytes, self.sockets.tcp_memory_bytes);
        let sessions = f64::from(sessions);
        out.set(&figures::SERVER_RSS_BYTES, self.servers.rss as f64);
        out.set(&figures::BYTES_PER_SESSION, servers / sessions);
        out.set(&figures::CLIENT_BYTES_PER_SESSION, client / sessions);
        out.set(&figures::USER_BYTES, servers + client);
        out.set(&figures::SOCKET_BYTES_PER_SESSION, sockets / sessions);
        out.set(&figures::KERNEL_BYTES_PER_SESSION, growth(earlier.slabs.bytes, self.slabs.bytes) / sessions);
        out.set(&figures::MACHINE_BYTES_PER_SESSION, growth(self.available, earlier.available) / sessions);
    }
}

/// Connects, holds, broadcasts, kills, broadcasts again.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = stage.settings;
    let sessions = settings.sessions.sessions;
    let target = stage.target(Layout::even(1, 1), sessions)?;
    let Some(probe) = stage.probe else {
        return Err(Error::Usage("--server-pid: name the servers' processes".to_owned()));
    };
    let victim = if settings.sessions.kill { Some(victim(&settings.server.server_pid, &target)?) } else { None };
    let survivors = sessions - victim.map_or(0, |(server, _)| target.sessions_of(server, sessions));
    let dialect = stage.dialect()?;
    let mut findings = Findings::default();

    let mut fleet = stage.fleet(&target, sessions)?;
    let client = fleet.probe();
    let empty = Costs::read(probe, &client)?;
    connect(stage, &mut fleet, (probe, &empty), &mut findings)?;
    let pause = Duration::from_secs(settings.sessions.pause.into());
    watch(&fleet, "settling", pause, stage.monitor)?;
    Costs::read(probe, &client)?.figures(&empty, sessions, &mut findings.figures);
    findings.notes.push(memory_of_each(&empty, probe)?);

    hold(stage, &fleet, probe, &mut findings)?;
    let load = Load { messages: 1, rate: Some(1.0), ..stage.load("broadcasting", &target, sessions) };
    broadcast(stage, &fleet, &*dialect, &load, probe, &mut findings)?;
    if let Some((_, pid)) = victim {
        let load = Load { label: "broadcasting to the others", subscribers: [survivors].into(), ..load };
        kill(pid, sessions - survivors, &fleet, pause, stage.monitor, &mut findings)?;
        let measured = measure(&fleet, &*dialect, &load, None, stage.monitor, &mut |_| fleet.check())?;
        findings.figures.set(&figures::SURVIVORS_SECONDS, measured.seconds);
        findings.checks.accounting(&measured.accounting);
        reached("the broadcast after it", measured.accounting.delivered, survivors.into(), &mut findings);
    }
    drop(fleet);
    let Findings { figures, checks, .. } = &mut findings;
    checks.at_most(figures, &figures::USER_BYTES, settings.bounds.max_user_bytes);
    checks.at_most(figures, &figures::BYTES_PER_SESSION, settings.bounds.max_bytes_per_session);
    Ok(findings)
}

/// The server to be killed, the last one, and its process.
fn victim(pids: &[u32], target: &Target) -> Result<(u16, Pid)> {
    let pid = pids.last().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let servers = target.servers();
    match pid {
        Some(pid) if servers >= 2 && pids.len() == servers as usize => Ok(((servers - 1) as u16, pid)),
        _ => Err(Error::Usage(
            "--kill: kills the last server: give at least two by --server, and the process of each by --server-pid in \
             the same order"
                .to_owned(),
        )),
    }
}

fn connect(
    stage: &Stage<'_>,
    fleet: &mut Fleet,
    (probe, empty): (&Probe, &Costs),
    findings: &mut Findings,
) -> Result<()> {
    let sessions = stage.settings.sessions.sessions;
    let took = fleet.open(stage.opening(sessions), stage.monitor)?.took;
    let usage = probe.sample()?.since(&empty.servers);
    let tally = fleet.collect(&Arc::from([]), Schedule::default())?;
    let connect = Latency::of(&tally.setup);
    let out = &mut findings.figures;
    out.set(&figures::SESSIONS, f64::from(sessions));
    out.set(&figures::CONNECT_SECONDS, took.as_secs_f64());
    out.set(&figures::CONNECTS_PER_SECOND, f64::from(sessions) / took.as_secs_f64());
    out.set(&figures::CONNECT_CPU_US, usage.cpu_us_per(f64::from(sessions)));
    out.set(&figures::CONNECT_P50_US, connect.p50_us);
    out.set(&figures::CONNECT_P99_US, connect.p99_us);
    held(&tally.ended, sessions, "sessions while connecting", findings);
    Ok(())
}

/// Nothing but heartbeats.
fn hold(stage: &Stage<'_>, fleet: &Fleet, probe: &Probe, findings: &mut Findings) -> Result<()> {
    let sessions = stage.settings.sessions.sessions;
    let before = probe.sample()?;
    watch(fleet, "holding", Duration::from_secs(stage.settings.sessions.hold.into()), stage.monitor)?;
    let usage = probe.sample()?.since(&before);
    let cpu = usage.cpu_ns as f64 / 1e9 / usage.elapsed.as_secs_f64().max(1e-3) * 100.0;
    findings.figures.set(&figures::HOLD_SECONDS, usage.elapsed.as_secs_f64());
    findings.figures.set(&figures::IDLE_CPU_PERCENT, cpu);
    findings.figures.set(&figures::IDLE_CPU_PERCENT_PER_10000, cpu * 10_000.0 / f64::from(sessions));
    let tally = fleet.collect(&Arc::from([]), Schedule::default())?;
    held(&tally.ended, sessions, "sessions with heartbeats alone", findings);
    Ok(())
}

/// One message at a time, to everybody.
fn broadcast(
    stage: &Stage<'_>,
    fleet: &Fleet,
    dialect: &dyn Dialect,
    load: &Load,
    probe: &Probe,
    findings: &mut Findings,
) -> Result<()> {
    let (sessions, broadcasts) = (stage.settings.sessions.sessions, stage.settings.messages.broadcasts);
    let (mut seconds, mut cpu_ns, mut all) = (Vec::new(), 0, Accounting::default());
    let mut latency = stats::histogram();
    for _ in 0..broadcasts {
        let measured = measure(fleet, dialect, load, Some(probe), stage.monitor, &mut |_| fleet.check())?;
        seconds.push(measured.seconds);
        cpu_ns += measured.server.map_or(0, |usage| usage.cpu_ns);
        stats::merge(&mut latency, &measured.tally.latency);
        all.add(&measured.accounting);
        watch(fleet, "settling", Duration::from_secs(stage.settings.sessions.pause.into()), stage.monitor)?;
    }
    let out = &mut findings.figures;
    out.set(&figures::PUBLISHED, f64::from(broadcasts));
    out.set(&figures::DELIVERED, all.delivered as f64);
    out.set(&figures::LOST, all.lost as f64);
    out.set(&figures::DOUBLED, all.duplicates as f64);
    out.set(&figures::OUT_OF_ORDER, all.out_of_order as f64);
    out.set(&figures::BROADCAST_SECONDS, median(seconds.iter().copied()));
    out.set(&figures::BROADCAST_MAX_SECONDS, seconds.iter().copied().reduce(f64::max));
    let percentiles = Latency::of(&latency);
    out.set(&figures::P50_US, percentiles.p50_us);
    out.set(&figures::P99_US, percentiles.p99_us);
    out.set(&figures::MAX_US, percentiles.max_us);
    let delivered = all.delivered as f64;
    out.set(&figures::CPU_US_PER_DELIVERY, (delivered > 0.0).then(|| cpu_ns as f64 / 1e3 / delivered));
    findings.percentiles = stats::curve(&latency);
    findings.checks.accounting(&all);
    let wanted = u64::from(sessions) * u64::from(broadcasts);
    reached("broadcasts", all.delivered, wanted, findings);
    Ok(())
}

/// Kills a server without warning: its sessions end, and nobody else notices, for as long as the pause takes.
fn kill(
    pid: Pid,
    victims: u32,
    fleet: &Fleet,
    pause: Duration,
    monitor: &Monitor,
    findings: &mut Findings,
) -> Result<()> {
    let ended = || fleet.counters().ended.load(Ordering::Acquire);
    let before = ended();
    let started = Instant::now();
    kill_process(pid, Signal::KILL).context(|| format!("cannot kill the server's process {}", pid.as_raw_pid()))?;
    monitor.begin("killed a server: its sessions end", victims.into());
    while ended() - before < u64::from(victims) && started.elapsed() < NOTICE {
        fleet.check().inspect_err(|_| monitor.end())?;
        monitor.at(ended() - before);
        clock::pause(TICK);
    }
    let seconds = started.elapsed().as_secs_f64();
    monitor.at(ended() - before);
    monitor.end();
    watch(fleet, "watching the others", pause, monitor)?;
    let tally = fleet.collect(&Arc::from([]), Schedule::default())?;
    let gone: u64 = tally.ended.values().sum();
    findings.figures.set(&figures::KILLED_SESSIONS, gone as f64);
    findings.figures.set(&figures::KILLED_SECONDS, seconds);
    findings.checks.push(
        "a killed server",
        format!("its {} sessions end, and no other", grouped(f64::from(victims), 0)),
        gone == u64::from(victims),
        words(&tally.ended),
    );
    Ok(())
}

/// Waits, and ends at once when a client process has died.
fn watch(fleet: &Fleet, what: &str, duration: Duration, monitor: &Monitor) -> Result<()> {
    let started = Instant::now();
    monitor.begin(what, duration.as_secs());
    let mut alive = Ok(());
    while alive.is_ok() && started.elapsed() < duration {
        let left = duration.saturating_sub(started.elapsed());
        clock::pause(left.min(Duration::from_millis(250)));
        monitor.at(started.elapsed().as_secs().min(duration.as_secs()));
        alive = fleet.check();
    }
    monitor.end();
    alive
}

fn held(ended: &Reasons, sessions: u32, what: &str, findings: &mut Findings) {
    let measured = if ended.is_empty() { format!("{} held", grouped(f64::from(sessions), 0)) } else { words(ended) };
    findings.checks.push(what, "all held".to_owned(), ended.is_empty(), measured);
}

fn reached(what: &str, delivered: u64, wanted: u64, findings: &mut Findings) {
    findings.checks.push(
        what,
        format!("{} deliveries", grouped(wanted as f64, 0)),
        delivered == wanted,
        grouped(delivered as f64, 0),
    );
}

fn words(ended: &Reasons) -> String {
    let reasons: Vec<_> = ended.iter().map(|(reason, count)| format!("{count} ended: {reason}")).collect();
    if reasons.is_empty() { "none ended".to_owned() } else { reasons.join(", ") }
}

/// What servers took before any session came, and what each takes now.
fn memory_of_each(empty: &Costs, probe: &Probe) -> Result<String> {
    let sample = probe.sample()?;
    let (least, most) = sample.rss_of_each().fold((u64::MAX, 0), |(least, most), rss| (least.min(rss), most.max(rss)));
    Ok(format!(
        "memory of {} server processes: {} when empty; with their sessions each between {} and {}",
        probe.pids().len(),
        bytes(empty.servers.rss as f64),
        bytes(least as f64),
        bytes(most as f64),
    ))
}
