//! The server beside the floor: the same client, the same publisher, the same Redis, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use super::measure::{Load, Measured, measure, warm_up};
use super::stage::Stage;
use crate::client::layout::Layout;
use crate::client::tally::Accounting;
use crate::error::Result;
use crate::floor::child::FloorProcess;
use crate::probe::Probe;
use crate::report::figures::{self, Figures};
use crate::report::{Checks, Findings};
use crate::settings::Settings;
use crate::stats::median;

/// After connecting and after disconnecting, so that neither is charged to the messages.
const SETTLE: Duration = Duration::from_secs(1);

/// The measurements of one side.
#[derive(Debug, Default)]
struct Side {
    steady: Vec<Measured>,
    burst: Vec<Measured>,
}

#[derive(Debug)]
struct Medians {
    server: SideFigures,
    floor: SideFigures,
    ratio: Option<f64>,
    burst_ratio: Option<f64>,
}

/// Medians over the rounds of one side.
#[derive(Debug)]
struct SideFigures {
    cpu_us_per_delivery: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    burst_cpu_us_per_delivery: Option<f64>,
    burst_deliveries_per_second: Option<f64>,
}

impl Side {
    fn figures(&self) -> SideFigures {
        let cpu = |of: &[Measured]| median(of.iter().filter_map(|measured| measured.cpu_us_per_delivery));
        SideFigures {
            cpu_us_per_delivery: cpu(&self.steady),
            p50_us: median(self.steady.iter().map(|measured| measured.latency.p50_us)),
            p99_us: median(self.steady.iter().map(|measured| measured.latency.p99_us)),
            burst_cpu_us_per_delivery: cpu(&self.burst),
            burst_deliveries_per_second: median(self.burst.iter().map(|measured| measured.deliveries_per_second)),
        }
    }
}

/// Who is measured.
struct Contender {
    /// None for the server of the settings.
    address: Option<SocketAddr>,
    probe: Probe,
    side: Side,
}

/// Measures both, round by round, and takes the medians.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = stage.settings;
    let messages = &settings.messages;
    let channel = &settings.sessions.channel;
    let floor = FloorProcess::start(messages.redis.reveal(), &messages.redis_prefix, channel)?;
    let mut contenders = [
        Contender { address: None, probe: Probe::new(&settings.server.server_pid)?, side: Side::default() },
        Contender { address: Some(floor.address()), probe: Probe::new(&[floor.pid()])?, side: Side::default() },
    ];
    let mut accounting = Accounting::default();
    for round in 0..messages.rounds {
        // Each goes first every other time.
        for turn in 0..2 {
            let number = ((round + turn) % 2) as usize;
            let name = ["server", "floor"][number];
            stage.monitor.line(&format!("round {} of {}: {name}", round + 1, messages.rounds));
            contenders[number].measure(stage, &mut accounting)?;
        }
    }
    drop(floor);
    let [server, floor] = contenders.map(|contender| contender.side);
    let (ours, theirs) = (server.figures(), floor.figures());
    let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs.filter(|value| *value > 0.0)?);
    let medians = Medians {
        ratio: ratio(ours.cpu_us_per_delivery, theirs.cpu_us_per_delivery),
        burst_ratio: ratio(ours.burst_cpu_us_per_delivery, theirs.burst_cpu_us_per_delivery),
        server: ours,
        floor: theirs,
    };
    let mut figures = figures(&medians);
    figures.set(&figures::SESSIONS, f64::from(settings.sessions.sessions));
    figures.set(&figures::DELIVERED, accounting.delivered as f64);
    let mut checks = Checks::default();
    checks.accounting(&accounting);
    checks.at_most(&figures, &figures::CPU_OVER_FLOOR, settings.bounds.max_ratio);
    checks.at_most(&figures, &figures::BURST_CPU_OVER_FLOOR, settings.bounds.max_burst_ratio);
    checks.at_least(&figures, &figures::BURST_DELIVERIES_PER_SECOND, settings.bounds.min_deliveries_per_second);
    Ok(Findings { figures, checks, ..Findings::default() })
}

impl Contender {
    fn measure(&mut self, stage: &Stage<'_>, accounting: &mut Accounting) -> Result<()> {
        let settings = self.address.map(|address| {
            let mut settings: Settings = stage.settings.clone();
            settings.server.server = vec![address];
            settings
        });
        let stage = Stage { settings: settings.as_ref().unwrap_or(stage.settings), ..*stage };
        let sessions = stage.settings.sessions.sessions;
        let target = stage.target(Layout::even(1, 1), sessions)?;
        let steady = stage.load("publishing at a rate", &target, sessions);
        let burst = stage.settings.messages.burst.unwrap_or(0);
        let burst = Load { label: "publishing a burst", messages: burst.into(), rate: None, ..steady.clone() };
        let dialect = stage.dialect()?;
        let mut fleet = stage.fleet(&target, sessions)?;
        fleet.open(stage.opening(sessions), stage.monitor)?;
        stage.monitor.wait("settling", SETTLE);
        accounting.add(&warm_up(&fleet, &*dialect, &steady, &stage)?);
        for (load, results) in [(&steady, &mut self.side.steady), (&burst, &mut self.side.burst)] {
            if load.messages > 0 {
                let probe = Some(&self.probe);
                let measured = measure(&fleet, &*dialect, load, probe, stage.monitor, &mut |_| Ok(()))?;
                accounting.add(&measured.accounting);
                results.push(measured);
            }
        }
        drop(fleet);
        stage.monitor.wait("settling", SETTLE);
        Ok(())
    }
}

fn figures(medians: &Medians) -> Figures {
    let (server, floor) = (&medians.server, &medians.floor);
    let mut out = Figures::default();
    out.set(&figures::CPU_US_PER_DELIVERY, server.cpu_us_per_delivery);
    out.set(&figures::FLOOR_CPU_US_PER_DELIVERY, floor.cpu_us_per_delivery);
    out.set(&figures::CPU_OVER_FLOOR, medians.ratio);
    out.set(&figures::P50_US, server.p50_us);
    out.set(&figures::P99_US, server.p99_us);
    out.set(&figures::BURST_CPU_US_PER_DELIVERY, server.burst_cpu_us_per_delivery);
    out.set(&figures::FLOOR_BURST_CPU_US_PER_DELIVERY, floor.burst_cpu_us_per_delivery);
    out.set(&figures::BURST_CPU_OVER_FLOOR, medians.burst_ratio);
    out.set(&figures::BURST_DELIVERIES_PER_SECOND, server.burst_deliveries_per_second);
    out
}
