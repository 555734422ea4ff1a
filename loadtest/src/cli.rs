//! Arguments.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

use crate::report::Outputs;
use crate::report::compare::CompareReportsArgs;
use crate::report::html::ReportArgs;
use crate::settings::Layer;

/// Load generator for push servers: Tidegate and others of the Centrifuge client protocol, Nchan, NATS, MQTT.
///
/// Every message is numbered and time-stamped; a run fails (exit status 1) when a message is lost, comes twice or out
/// of order, when a session ends early, or when a bound is missed. Exit status 2 means that the run could not be made.
#[derive(Debug, Parser)]
#[command(name = "tidegate-loadtest", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// No progress.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a scenario; flags go over its file, and its file over the defaults.
    Run(Box<RunArgs>),
    /// List the built-in scenarios.
    Scenarios,
    /// Print a scenario's file, as a beginning for one's own.
    Show {
        /// A built-in scenario, or the path of a file.
        #[arg(value_name = "SCENARIO")]
        scenario: String,
    },
    /// Compare reports: medians over repeats, spreads, ratios to a base.
    Compare(CompareReportsArgs),
    /// Make a page with tables and charts of reports.
    Report(ReportArgs),
    /// Be the physical limit: accept, answer, frame each message of a Redis channel once, write it to every socket.
    Floor(FloorArgs),
    /// Be one of the processes of --processes.
    #[command(hide = true)]
    Worker,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A built-in scenario (see `scenarios`), or the path of a TOML file.
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: String,
    #[command(flatten)]
    pub(crate) settings: Layer,
}

/// Arguments of `floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Where to listen; port 0 for any. The first line on standard output says which.
    #[arg(long, default_value = "127.0.0.1:8100", value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where messages come from.
    #[arg(long, default_value = "redis://127.0.0.1:6379", value_name = "URL")]
    pub(crate) redis: String,
    /// What stands before a channel's name in Redis.
    #[arg(long, default_value = "push:")]
    pub(crate) redis_prefix: String,
    /// The channel that everybody gets, whatever they subscribe to.
    #[arg(long, default_value = "loadtest")]
    pub(crate) channel: String,
    /// End when standard input is closed.
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
