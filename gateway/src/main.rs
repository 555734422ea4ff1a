//! The command `tidegate`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tidegate::cli::{Cli, Command};
use tidegate::config::{load, print};
use tidegate::logging;

#[expect(clippy::print_stderr, reason = "this is where the program talks to a person")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.command == Some(Command::DefaultConfig) {
        return say(&print::default_config());
    }
    let loaded = match load(&cli.options.sources()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for notice in &problems.notices {
                eprintln!("warning: {notice}");
            }
            for problem in &problems.problems {
                eprintln!("error: {problem}");
            }
            return ExitCode::from(2);
        }
    };
    if cli.command == Some(Command::CheckConfig) {
        return say(&print::check_config(&loaded));
    }
    if let Err(error) = logging::start(&loaded.config.log) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    for notice in loaded.notices() {
        tracing::warn!("{notice}");
    }
    eprintln!("error: the node is not built yet; check-config and default-config work");
    ExitCode::FAILURE
}

/// Prints; a reader that has seen enough (`| head`) is no failure.
fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
