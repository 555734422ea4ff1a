//! The server beside the floor: the same client, the same publisher, the same Redis, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::cli::{self, Backend, CompareArgs};
use crate::client::Fleet;
use crate::client::tally::Accounting;
use crate::error::{Error, Result};
use crate::floor::child::FloorProcess;
use crate::probe::Probe;
use crate::report::{Checks, Findings, duration_us, optional, row, to_json};
use crate::scenario::measure::{Load, Measured, measure};
use crate::scenario::pattern::warm_up;
use crate::stats::median;
use crate::terminal::Progress;
use crate::wire::Wire;

/// After connecting and after disconnecting, so that neither is charged to the messages.
const SETTLE: Duration = Duration::from_secs(1);

/// The measurements of one side.
#[derive(Debug, Default, Serialize)]
struct Side {
    steady: Vec<Measured>,
    burst: Vec<Measured>,
}

#[derive(Serialize)]
struct Comparison {
    server: Side,
    floor: Side,
    medians: Medians,
}

#[derive(Debug, Serialize)]
struct Medians {
    server: Figures,
    floor: Figures,
    ratio: Option<f64>,
    burst_ratio: Option<f64>,
}

/// Medians over the rounds of one side.
#[derive(Debug, Serialize)]
struct Figures {
    cpu_us_per_delivery: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    burst_cpu_us_per_delivery: Option<f64>,
    burst_deliveries_per_second: Option<f64>,
}

impl Side {
    fn figures(&self) -> Figures {
        let cpu = |of: &[Measured]| median(of.iter().filter_map(|measured| measured.cpu_us_per_delivery));
        Figures {
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
    let mut checks = Checks::default();
    checks.accounting(&accounting);
    checks.at_most("CPU per delivery over the floor's", args.max_ratio, medians.ratio, "x");
    checks.at_most("CPU per delivery of a burst over the floor's", args.max_burst_ratio, medians.burst_ratio, "x");
    checks.at_least(
        "deliveries per second of a burst",
        args.min_deliveries_per_second,
        medians.server.burst_deliveries_per_second,
        "/s",
    );
    let rows = rows(&medians);
    Ok(Findings { rows, result: to_json(&Comparison { server, floor, medians }), checks })
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

fn rows(medians: &Medians) -> Vec<Vec<String>> {
    let (server, floor) = (&medians.server, &medians.floor);
    let line = |name: &str, ours: Option<f64>, theirs: Option<f64>, decimals: usize, ratio: Option<f64>| {
        row([name.to_owned(), optional(ours, decimals), optional(theirs, decimals), optional(ratio, 2)])
    };
    let time = |us: Option<f64>| us.map_or("-".to_owned(), duration_us);
    vec![
        row(["median", "server", "floor", "ratio"]),
        line("CPU per delivery, us", server.cpu_us_per_delivery, floor.cpu_us_per_delivery, 3, medians.ratio),
        row(["latency p50".to_owned(), time(server.p50_us), time(floor.p50_us)]),
        row(["latency p99".to_owned(), time(server.p99_us), time(floor.p99_us)]),
        line(
            "burst: CPU per delivery, us",
            server.burst_cpu_us_per_delivery,
            floor.burst_cpu_us_per_delivery,
            3,
            medians.burst_ratio,
        ),
        line(
            "burst: deliveries per second",
            server.burst_deliveries_per_second,
            floor.burst_deliveries_per_second,
            0,
            None,
        ),
    ]
}
