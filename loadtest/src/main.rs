//! `tidegate-loadtest`: many sessions from one small process, every message accounted for, and the physical floor of
//! the same machine to compare with.
//!
//! - [`cli`]: the arguments of every subcommand
//! - [`scenario`]: one file per subcommand, and the measurement that they share
//! - [`client`]: thousands of sessions on an epoll loop
//! - [`publisher`]: numbered messages on an open-loop schedule, through Redis, the HTTP API or another server
//! - [`floor`]: a server that only writes
//! - [`wire`], [`resp`], [`url`], [`stamp`]: what goes over connections, where those lead, and what payloads say
//! - [`probe`], [`sockstat`], [`metrics`]: a process's costs, the kernel's for sockets, what a server says
//! - [`stats`], [`clock`]: percentiles, time
//! - [`terminal`], [`report`], [`error`]: what a person and a program get to see

mod cli;
mod client;
mod clock;
mod error;
mod floor;
mod metrics;
mod probe;
mod publisher;
mod report;
mod resp;
mod scenario;
mod sockstat;
mod stamp;
mod stats;
mod terminal;
mod url;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::{Error, Result};
use crate::terminal::Progress;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "tidegate-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if everything arrived and every bound was held.
fn run(cli: &Cli) -> Result<bool> {
    let progress = Progress::new(cli.quiet);
    let started = std::time::SystemTime::now();
    let (name, settings, findings) = match &cli.command {
        Command::Floor(args) => {
            let redis = resp::url(&args.redis).map_err(Error::Usage)?;
            floor::run(&floor::Settings {
                listen: args.listen,
                redis,
                channel: args.channel.clone(),
                prefix: args.redis_prefix.clone(),
                until_stdin_closes: args.until_stdin_closes,
            })?;
            return Ok(true);
        }
        Command::Compare(args) => return report::compare::run(args, &cli.outputs),
        Command::Worker => return client::process::serve::run().map(|()| true),
        Command::Idle(args) => ("idle", report::to_json(args), scenario::idle::run(args, &progress)?),
        Command::Broadcast(args) => {
            ("broadcast", report::to_json(args), scenario::pattern::broadcast(args, &progress)?)
        }
        Command::Unicast(args) => ("unicast", report::to_json(args), scenario::pattern::unicast(args, &progress)?),
        Command::Stall(args) => ("stall", report::to_json(args), scenario::stall::run(args, &progress)?),
        Command::Hold(args) => ("hold", report::to_json(args), scenario::hold::run(args, &progress)?),
        Command::CompareFloor(args) => {
            ("compare-floor", report::to_json(args), scenario::compare::run(args, &progress)?)
        }
    };
    let about =
        report::About { scenario: name.to_owned(), kind: name, label: cli.outputs.label.clone(), settings, started };
    let report = report::Report::new(about, findings);
    report::publish(&report, &cli.outputs)?;
    Ok(report.passed)
}
