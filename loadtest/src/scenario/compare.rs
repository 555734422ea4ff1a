//! The server beside the floor: the same client, the same publisher, the same Redis, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use crate::cli::{self, Backend, CompareArgs};
use crate::client::Fleet;
use crate::client::tally::Accounting;
use crate::error::{Error, Result};
use crate::floor::child::FloorProcess;
use crate::probe::Probe;
use crate::report::figures::{self, Figures};
use crate::report::{Checks, Findings};
use crate::scenario::measure::{Load, Measured, measure};
use crate::scenario::pattern::warm_up;
use crate::stats::median;
use crate::terminal::Progress;
use crate::wire::Wire;

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
    address: Option<SocketAddr>,
    probe: Probe,
    side: Side,
}

/// Measures both, round by round, and takes the medians.
pub(crate) fn run(args: &CompareArgs, progress: &Progress) -> Result<Findings> {
    if args.server.wire != Wire::WsJson || args.publish.publish != Backend::Redis {
        return Err(Error::Usage(
            "the floor speaks ws-json and listens to Redis: leave --wire and --publish".to_owned(),
        ));
    }
    if args.sessions == 0 || (args.burst == 0 && (args.max_burst_ratio.or(args.min_deliveries_per_second)).is_some()) {
        return Err(Error::Usage("bounds on the burst need --burst, and all of it --sessions".to_owned()));
    }
    cli::check_payload(args.payload)?;
    let steady = Load {
        label: "publishing at a rate",
        channels: vec![args.server.channel.clone()],
        readers: args.sessions,
        payload: args.payload,
        messages: cli::messages(args.rate, args.seconds)?,
        rate: Some(args.rate),
        grace: args.publish.grace(),
    };
    let burst = Load { label: "publishing a burst", messages: args.burst.into(), rate: None, ..steady.clone() };
    let floor = FloorProcess::start(&args.publish.redis, &args.publish.redis_prefix, &args.server.channel)?;
    let mut contenders = [
        Contender { address: None, probe: Probe::new(&args.server_pid)?, side: Side::default() },
        Contender { address: Some(floor.address()), probe: Probe::new(&[floor.pid()])?, side: Side::default() },
    ];
    let mut accounting = Accounting::default();
    for round in 0..args.rounds {
        // Each goes first every other time.
        for turn in 0..2 {
            let number = ((round + turn) % 2) as usize;
            let name = ["server", "floor"][number];
            progress.line(&format!("round {} of {}: {name}", round + 1, args.rounds));
            contenders[number].measure(args, &steady, &burst, &mut accounting, progress)?;
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
    figures.set(&figures::SESSIONS, f64::from(args.sessions));
    figures.set(&figures::DELIVERED, accounting.delivered as f64);
    let mut checks = Checks::default();
    checks.accounting(&accounting);
    checks.at_most(&figures, &figures::CPU_OVER_FLOOR, args.max_ratio);
    checks.at_most(&figures, &figures::BURST_CPU_OVER_FLOOR, args.max_burst_ratio);
    checks.at_least(&figures, &figures::BURST_DELIVERIES_PER_SECOND, args.min_deliveries_per_second);
    Ok(Findings { figures, checks, ..Findings::default() })
}

impl Contender {
    fn measure(
        &mut self,
        args: &CompareArgs,
        steady: &Load,
        burst: &Load,
        accounting: &mut Accounting,
        progress: &Progress,
    ) -> Result<()> {
        let mut server = args.server.clone();
        if let Some(address) = self.address {
            server.server = vec![address];
        }
        let dialect = args.publish.dialect()?;
        let mut fleet = Fleet::start(server.target(args.sessions)?, server.crew(args.sessions))?;
        fleet.open(server.opening(args.sessions, 1), progress)?;
        progress.wait("settling", SETTLE);
        accounting.add(&warm_up(&fleet, &*dialect, steady, progress)?);
        for (load, results) in [(steady, &mut self.side.steady), (burst, &mut self.side.burst)] {
            if load.messages > 0 {
                let measured = measure(&fleet, &*dialect, load, Some(&self.probe), progress, &mut |_| Ok(()))?;
                accounting.add(&measured.accounting);
                results.push(measured);
            }
        }
        drop(fleet);
        progress.wait("settling", SETTLE);
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
