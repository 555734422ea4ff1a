//! Sessions held over many servers: what they cost, how long a broadcast takes to reach all of them, and what the rest
//! notices when a server is killed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::measure::{Load, measure};
use super::stage::Stage;
use crate::client::count::Schedule;
use crate::client::layout::Layout;
use crate::client::tally::{Accounting, Reasons, Tally};
use crate::client::{Fleet, TICK};
use crate::clock;
use crate::error::{Context, Error, Result};
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

/// A run under way.
struct Hold<'a> {
    stage: &'a Stage<'a>,
    probe: &'a Probe,
    fleet: Fleet,
    sessions: u32,
    pause: Duration,
    findings: Findings,
}

/// Connects, holds, broadcasts, kills, broadcasts again.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = stage.settings;
    let sessions = settings.sessions.sessions;
    let Some(probe) = stage.probe else {
        return Err(Error::Usage("--server-pid: memory is read from the servers' processes, name them".to_owned()));
    };
    let target = stage.target(Layout::even(1, 1), sessions)?;
    let dialect = stage.dialect()?;
    let broadcast = |label, readers| Load { messages: 1, rate: Some(1.0), ..stage.load(label, &target, readers) };
    let fleet = stage.fleet(&target, sessions)?;
    let client = fleet.probe();
    let empty = Costs::read(probe, &client)?;
    let pause = Duration::from_secs(settings.sessions.pause.into());
    let mut hold = Hold { stage, probe, fleet, sessions, pause, findings: Findings::default() };

    hold.connect(&empty)?;
    hold.watch("settling", pause)?;
    Costs::read(probe, &client)?.figures(&empty, sessions, &mut hold.findings.figures);
    hold.findings.notes.push(memory_of_each(&empty, probe)?);
    hold.heartbeats()?;
    hold.broadcast(&*dialect, &broadcast("broadcasting", sessions))?;
    if settings.sessions.kill {
        let victims = target.sessions_of((target.servers() - 1) as u16, sessions);
        hold.kill(victims)?;
        hold.broadcast_to_others(&*dialect, &broadcast("broadcasting to the others", sessions - victims))?;
    }
    let Hold { findings: Findings { figures, checks, .. }, .. } = &mut hold;
    checks.at_most(figures, &figures::USER_BYTES, settings.bounds.max_user_bytes);
    checks.at_most(figures, &figures::BYTES_PER_SESSION, settings.bounds.max_bytes_per_session);
    checks.at_most(figures, &figures::CONNECT_CPU_US, settings.bounds.max_connect_cpu_us);
    checks.at_most(figures, &figures::IDLE_CPU_PERCENT_PER_10000, settings.bounds.max_idle_cpu_percent);
    Ok(hold.findings)
}

impl Hold<'_> {
    fn connect(&mut self, empty: &Costs) -> Result<()> {
        let took = self.fleet.open(self.stage.opening(self.sessions), self.stage.monitor)?.took;
        let usage = self.probe.sample()?.since(&empty.servers);
        let tally = self.collect()?;
        let connect = Latency::of(&tally.setup);
        let sessions = f64::from(self.sessions);
        let out = &mut self.findings.figures;
        out.set(&figures::SESSIONS, sessions);
        out.set(&figures::CONNECT_SECONDS, took.as_secs_f64());
        out.set(&figures::CONNECTS_PER_SECOND, sessions / took.as_secs_f64());
        out.set(&figures::CONNECT_CPU_US, usage.cpu_us_per(sessions));
        out.set(&figures::CONNECT_P50_US, connect.p50_us);
        out.set(&figures::CONNECT_P99_US, connect.p99_us);
        self.all_held("sessions while connecting", &tally.ended);
        Ok(())
    }

    /// Nothing else is sent.
    fn heartbeats(&mut self) -> Result<()> {
        let before = self.probe.sample()?;
        self.watch("holding", Duration::from_secs(self.stage.settings.sessions.hold.into()))?;
        let usage = self.probe.sample()?.since(&before);
        let cpu = usage.cpu_ns as f64 / 1e9 / usage.elapsed.as_secs_f64().max(1e-3) * 100.0;
        let out = &mut self.findings.figures;
        out.set(&figures::HOLD_SECONDS, usage.elapsed.as_secs_f64());
        out.set(&figures::IDLE_CPU_PERCENT, cpu);
        out.set(&figures::IDLE_CPU_PERCENT_PER_10000, cpu * 10_000.0 / f64::from(self.sessions));
        let tally = self.collect()?;
        self.all_held("sessions with heartbeats alone", &tally.ended);
        Ok(())
    }

    /// One message at a time, to everybody.
    fn broadcast(&mut self, dialect: &dyn Dialect, load: &Load) -> Result<()> {
        let broadcasts = self.stage.settings.messages.broadcasts;
        let (mut seconds, mut cpu_ns, mut all) = (Vec::new(), 0, Accounting::default());
        let mut latency = stats::histogram();
        for _ in 0..broadcasts {
            let check = &mut |_: &_| self.fleet.check();
            let measured = measure(&self.fleet, dialect, load, Some(self.probe), self.stage.monitor, check)?;
            seconds.push(measured.seconds);
            cpu_ns += measured.server.map_or(0, |usage| usage.cpu_ns);
            stats::merge(&mut latency, &measured.tally.latency);
            all.add(&measured.accounting);
            self.watch("settling", self.pause)?;
        }
        let percentiles = Latency::of(&latency);
        let delivered = all.delivered as f64;
        let out = &mut self.findings.figures;
        out.set(&figures::PUBLISHED, f64::from(broadcasts));
        out.set(&figures::DELIVERED, delivered);
        out.set(&figures::LOST, all.lost as f64);
        out.set(&figures::DOUBLED, all.duplicates as f64);
        out.set(&figures::OUT_OF_ORDER, all.out_of_order as f64);
        out.set(&figures::BROADCAST_SECONDS, median(seconds.iter().copied()));
        out.set(&figures::BROADCAST_MAX_SECONDS, seconds.iter().copied().reduce(f64::max));
        out.set(&figures::P50_US, percentiles.p50_us);
        out.set(&figures::P99_US, percentiles.p99_us);
        out.set(&figures::MAX_US, percentiles.max_us);
        out.set(&figures::CPU_US_PER_DELIVERY, (delivered > 0.0).then(|| cpu_ns as f64 / 1e3 / delivered));
        self.findings.percentiles = stats::curve(&latency);
        self.findings.checks.accounting(&all);
        self.reached("broadcasts", all.delivered, u64::from(self.sessions) * u64::from(broadcasts));
        Ok(())
    }

    /// Kills the last server without warning: its sessions end, and nobody else notices, for as long as the pause takes.
    fn kill(&mut self, victims: u32) -> Result<()> {
        let (counters, monitor) = (Arc::clone(self.fleet.counters()), self.stage.monitor);
        let ended = || counters.ended.load(Ordering::Acquire);
        let before = ended();
        let pid = self.probe.pids().last().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Error::Usage("--kill needs --server-pid".to_owned()))?;
        let started = Instant::now();
        kill_process(pid, Signal::KILL).context(|| format!("cannot kill the server's process {}", pid.as_raw_pid()))?;
        monitor.begin("killed a server: its sessions end", victims.into());
        while ended() - before < u64::from(victims) && started.elapsed() < NOTICE {
            self.fleet.check().inspect_err(|_| monitor.end())?;
            monitor.at(ended() - before);
            clock::pause(TICK);
        }
        let seconds = started.elapsed().as_secs_f64();
        monitor.at(ended() - before);
        monitor.end();
        self.watch("watching the others", self.pause)?;
        let tally = self.collect()?;
        let gone: u64 = tally.ended.values().sum();
        self.findings.figures.set(&figures::KILLED_SESSIONS, gone as f64);
        self.findings.figures.set(&figures::KILLED_SECONDS, seconds);
        self.findings.checks.push(
            "a killed server",
            format!("its {} sessions end, and no other", grouped(f64::from(victims), 0)),
            gone == u64::from(victims),
            words(&tally.ended),
        );
        Ok(())
    }

    fn broadcast_to_others(&mut self, dialect: &dyn Dialect, load: &Load) -> Result<()> {
        let check = &mut |_: &_| self.fleet.check();
        let measured = measure(&self.fleet, dialect, load, None, self.stage.monitor, check)?;
        self.findings.figures.set(&figures::SURVIVORS_SECONDS, measured.seconds);
        self.findings.checks.accounting(&measured.accounting);
        let others = load.subscribers.iter().copied().map(u64::from).sum();
        self.reached("the broadcast after it", measured.accounting.delivered, others);
        Ok(())
    }

    /// What was counted since the last time, where nothing was published.
    fn collect(&self) -> Result<Tally> {
        self.fleet.collect(&Arc::from([]), Schedule::default())
    }

    /// Waits, and ends at once when a client process has died.
    fn watch(&self, what: &str, duration: Duration) -> Result<()> {
        let (started, monitor) = (Instant::now(), self.stage.monitor);
        monitor.begin(what, duration.as_secs());
        let mut alive = Ok(());
        while alive.is_ok() && started.elapsed() < duration {
            clock::pause(duration.saturating_sub(started.elapsed()).min(Duration::from_millis(250)));
            monitor.at(started.elapsed().as_secs().min(duration.as_secs()));
            alive = self.fleet.check();
        }
        monitor.end();
        alive
    }

    fn all_held(&mut self, what: &str, ended: &Reasons) {
        let all = format!("{} held", grouped(f64::from(self.sessions), 0));
        let measured = if ended.is_empty() { all } else { words(ended) };
        self.findings.checks.push(what, "all held".to_owned(), ended.is_empty(), measured);
    }

    fn reached(&mut self, what: &str, delivered: u64, wanted: u64) {
        let bound = format!("{} deliveries", grouped(wanted as f64, 0));
        self.findings.checks.push(what, bound, delivered == wanted, grouped(delivered as f64, 0));
    }
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
