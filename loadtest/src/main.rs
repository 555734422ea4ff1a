//! `tidegate-loadtest`: many sessions from one small process, every message accounted for, and the physical floor of
//! the same machine to compare with.
//!
//! - [`cli`]: the subcommands
//! - [`settings`]: what a run goes by: defaults, a scenario's file, flags
//! - [`scenario`]: what can be measured, and the measurement that all of it is made of
//! - [`client`]: thousands of sessions on an epoll loop
//! - [`publisher`]: numbered messages on an open-loop schedule, through Redis, an HTTP API, NATS, Nchan or MQTT
//! - [`floor`]: a server that only writes
//! - [`wire`], [`resp`], [`url`], [`stamp`]: what goes over connections, and what payloads say
//! - [`probe`], [`sockstat`], [`metrics`]: a process's costs, the kernel's for sockets, what a server says
//! - [`stats`], [`zipf`], [`clock`]: percentiles, popularity, time
//! - [`monitor`], [`terminal`], [`report`], [`error`]: what a person and a program get to see

mod cli;
mod client;
mod clock;
mod error;
mod floor;
mod metrics;
mod monitor;
mod probe;
mod publisher;
mod report;
mod resp;
mod scenario;
mod settings;
mod sockstat;
mod stamp;
mod stats;
mod terminal;
mod url;
mod wire;
mod zipf;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, RunArgs};
use crate::error::{Context, Error, Result};
use crate::settings::{Scenario, Settings, file};
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
    match &cli.command {
        Command::Run(args) => run_scenario(cli, args),
        Command::Scenarios => {
            let rows = file::BUILT_IN.iter().map(|(name, text)| {
                let scenario = Scenario::parse(name, text)?;
                Ok(vec![scenario.name, format!("{}: {}", scenario.kind.name(), scenario.about)])
            });
            let rows = rows.collect::<Result<Vec<_>>>()?;
            print(&rows.iter().map(|row| format!("{:<15} {}\n", row[0], row[1])).collect::<String>())
        }
        Command::Show { scenario } => print(&file::text(scenario)?.1),
        Command::Floor(args) => {
            let redis = resp::url(&args.redis).map_err(Error::Usage)?;
            floor::run(&floor::Settings {
                listen: args.listen,
                redis,
                channel: args.channel.clone(),
                prefix: args.redis_prefix.clone(),
                until_stdin_closes: args.until_stdin_closes,
            })
            .map(|()| true)
        }
        Command::Compare(args) => report::compare::run(args, &cli.outputs),
        Command::Report(args) => report::html::run(args, cli.outputs.html.as_deref()).map(|()| true),
        Command::Worker => client::process::serve::run().map(|()| true),
    }
}

fn run_scenario(cli: &Cli, args: &RunArgs) -> Result<bool> {
    let started = std::time::SystemTime::now();
    let scenario = Scenario::load(&args.scenario)?;
    let settings = Settings::resolve(&scenario, args.settings.clone())?;
    let findings = scenario::run(scenario.kind, &settings, Progress::new(cli.quiet))?;
    let about = report::About {
        scenario: scenario.name,
        kind: scenario.kind.name(),
        label: cli.outputs.label.clone(),
        settings: report::to_json(&settings),
        started,
    };
    let report = report::Report::new(about, findings);
    let passed = report.passed;
    report::publish(report, &cli.outputs)?;
    Ok(passed)
}

fn print(text: &str) -> Result<bool> {
    std::io::stdout().write_all(text.as_bytes()).context(|| "cannot print".to_owned())?;
    Ok(true)
}
