//! Sessions held over many servers: what they cost, how long a broadcast takes to reach all of them, and what the rest
//! notices when a server is killed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::{self, HoldArgs};
use crate::client::tally::{Accounting, Reasons};
use crate::client::{Fleet, TICK};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::probe::{Probe, Sample};
use crate::publisher::Dialect;
use crate::report::Findings;
use crate::report::figures::{self, Figures};
use crate::report::format::{bytes, grouped};
use crate::scenario::measure::{Load, Measured, measure};
use crate::sockstat::{self, Slabs, Sockstat};
use crate::stats::{self, Latency, median};
use crate::terminal::Progress;

/// Between two steps, so that none is charged for the one before.
const SETTLE: Duration = Duration::from_secs(5);
/// The sessions of a killed server have to notice within this time: the kernel tells them at once.
const NOTICE: Duration = Duration::from_secs(30);
/// How long is watched after a kill whether any other session ends.
const AFTERMATH: Duration = Duration::from_secs(10);

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
pub(crate) fn run(args: &HoldArgs, progress: &Progress) -> Result<Findings> {
    cli::check_payload(args.payload)?;
    let target = args.server.target(args.sessions)?;
    let probe = Probe::new(&args.server_pid)?;
    let victim = if args.kill { Some(victim(args, target.servers())?) } else { None };
    let survivors = args.sessions - victim.map_or(0, |(server, _)| target.sessions_of(server, args.sessions, 1));
    let dialect = args.publish.dialect()?;
    let mut findings = Findings::default();

    let mut fleet = Fleet::start(target, args.server.crew(args.sessions))?;
    let client = fleet.probe();
    let empty = Costs::read(&probe, &client)?;
    connect(args, &mut fleet, (&probe, &empty), progress, &mut findings)?;
    progress.wait("settling", SETTLE);
    Costs::read(&probe, &client)?.figures(&empty, args.sessions, &mut findings.figures);
    findings.notes.push(memory_of_each(&empty, &probe)?);

    hold(args, &fleet, &probe, progress, &mut findings)?;
    let load = Load {
        label: "broadcasting",
        channels: vec![args.server.channel.clone()],
        readers: args.sessions,
        payload: args.payload,
        messages: 1,
        rate: Some(1.0),
        grace: args.publish.grace(),
    };
    broadcast(args, &fleet, &*dialect, &load, &probe, progress, &mut findings)?;
    if let Some((_, pid)) = victim {
        let load = Load { label: "broadcasting to the others", readers: survivors, ..load };
        kill(pid, args.sessions - survivors, &fleet, &*dialect, &load, progress, &mut findings)?;
    }
    drop(fleet);
    let Findings { figures, checks, .. } = &mut findings;
    checks.at_most(figures, &figures::USER_BYTES, args.max_user_bytes);
    checks.at_most(figures, &figures::BYTES_PER_SESSION, args.max_bytes_per_session);
    Ok(findings)
}

/// The server to be killed, the last one, and its process.
fn victim(args: &HoldArgs, servers: u32) -> Result<(u16, Pid)> {
    let pid = args.server_pid.last().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    match pid {
        Some(pid) if servers >= 2 && args.server_pid.len() == servers as usize => Ok(((servers - 1) as u16, pid)),
        _ => Err(Error::Usage(
            "--kill: kills the last server: give at least two by --server, and the process of each by --server-pid in \
             the same order"
                .to_owned(),
        )),
    }
}

fn connect(
    args: &HoldArgs,
    fleet: &mut Fleet,
    (probe, empty): (&Probe, &Costs),
    progress: &Progress,
    findings: &mut Findings,
) -> Result<()> {
    let took = fleet.open(args.server.opening(args.sessions, 1), progress)?;
    let usage = probe.sample()?.since(&empty.servers);
    let tally = fleet.collect(&Arc::from([]))?;
    let connect = Latency::of(&tally.setup);
    let out = &mut findings.figures;
    out.set(&figures::SESSIONS, f64::from(args.sessions));
    out.set(&figures::CONNECT_SECONDS, took.as_secs_f64());
    out.set(&figures::CONNECTS_PER_SECOND, f64::from(args.sessions) / took.as_secs_f64());
    out.set(&figures::CONNECT_CPU_US, usage.cpu_us_per(f64::from(args.sessions)));
    out.set(&figures::CONNECT_P50_US, connect.p50_us);
    out.set(&figures::CONNECT_P99_US, connect.p99_us);
    held(&tally.ended, args.sessions, "sessions while connecting", findings);
    Ok(())
}

/// Nothing but heartbeats.
fn hold(args: &HoldArgs, fleet: &Fleet, probe: &Probe, progress: &Progress, findings: &mut Findings) -> Result<()> {
    let before = probe.sample()?;
    watch(fleet, "holding", Duration::from_secs(args.hold.into()), progress)?;
    let usage = probe.sample()?.since(&before);
    let cpu = usage.cpu_ns as f64 / 1e9 / usage.elapsed.as_secs_f64().max(1e-3) * 100.0;
    findings.figures.set(&figures::HOLD_SECONDS, usage.elapsed.as_secs_f64());
    findings.figures.set(&figures::IDLE_CPU_PERCENT, cpu);
    findings.figures.set(&figures::IDLE_CPU_PERCENT_PER_10000, cpu * 10_000.0 / f64::from(args.sessions));
    let tally = fleet.collect(&Arc::from([]))?;
    held(&tally.ended, args.sessions, "sessions with heartbeats alone", findings);
    Ok(())
}

/// One message at a time, to everybody.
fn broadcast(
    args: &HoldArgs,
    fleet: &Fleet,
    dialect: &dyn Dialect,
    load: &Load,
    probe: &Probe,
    progress: &Progress,
    findings: &mut Findings,
) -> Result<()> {
    let (mut seconds, mut cpu_ns, mut all) = (Vec::new(), 0, Accounting::default());
    let mut latency = stats::histogram();
    for _ in 0..args.broadcasts {
        let measured = measure(fleet, dialect, load, Some(probe), progress, &mut |_| Ok(()))?;
        seconds.push(measured.seconds);
        cpu_ns += measured.server.map_or(0, |usage| usage.cpu_ns);
        stats::merge(&mut latency, &measured.tally.latency);
        all.add(&measured.accounting);
        watch(fleet, "settling", SETTLE, progress)?;
    }
    let out = &mut findings.figures;
    out.set(&figures::PUBLISHED, f64::from(args.broadcasts));
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
    let wanted = u64::from(args.sessions) * u64::from(args.broadcasts);
    reached("broadcasts", all.delivered, wanted, findings);
    Ok(())
}

/// Kills a server without warning: its sessions end, and nobody else notices.
fn kill(
    pid: Pid,
    victims: u32,
    fleet: &Fleet,
    dialect: &dyn Dialect,
    load: &Load,
    progress: &Progress,
    findings: &mut Findings,
) -> Result<()> {
    let ended = || fleet.counters().ended.load(Ordering::Acquire);
    let before = ended();
    let started = Instant::now();
    kill_process(pid, Signal::KILL).context(|| format!("cannot kill the server's process {}", pid.as_raw_pid()))?;
    progress.begin("killed a server: its sessions end", victims.into());
    while ended() - before < u64::from(victims) && started.elapsed() < NOTICE {
        fleet.check().inspect_err(|_| progress.end())?;
        progress.at(ended() - before);
        clock::pause(TICK);
    }
    let seconds = started.elapsed().as_secs_f64();
    progress.at(ended() - before);
    progress.end();
    watch(fleet, "watching the others", AFTERMATH, progress)?;
    let tally = fleet.collect(&Arc::from([]))?;
    let gone: u64 = tally.ended.values().sum();
    findings.figures.set(&figures::KILLED_SESSIONS, gone as f64);
    findings.figures.set(&figures::KILLED_SECONDS, seconds);
    findings.checks.push(
        "a killed server",
        format!("its {} sessions end, and no other", grouped(f64::from(victims), 0)),
        gone == u64::from(victims),
        words(&tally.ended),
    );

    let measured: Measured = measure(fleet, dialect, load, None, progress, &mut |_| Ok(()))?;
    findings.figures.set(&figures::SURVIVORS_SECONDS, measured.seconds);
    findings.checks.accounting(&measured.accounting);
    reached("the broadcast after it", measured.accounting.delivered, load.readers.into(), findings);
    Ok(())
}

/// Waits, and ends at once when a client process has died.
fn watch(fleet: &Fleet, what: &str, duration: Duration, progress: &Progress) -> Result<()> {
    let started = Instant::now();
    progress.begin(what, duration.as_secs());
    let mut alive = Ok(());
    while alive.is_ok() && started.elapsed() < duration {
        let left = duration.saturating_sub(started.elapsed());
        clock::pause(left.min(Duration::from_millis(250)));
        progress.at(started.elapsed().as_secs().min(duration.as_secs()));
        alive = fleet.check();
    }
    progress.end();
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
