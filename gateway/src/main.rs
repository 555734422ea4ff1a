//! The command `tidegate`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tidegate::cli::{Cli, Command};
use tidegate::config::{Loaded, Sources, load, print};
use tidegate::node::{Node, NodeError, banner};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    if let Err(error) = tidegate::logging::start(&loaded.config.log) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    for notice in loaded.notices() {
        tracing::warn!("{notice}");
    }
    match run(&loaded, &cli.options.sources()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the node until a signal ends it. SIGHUP has it read its settings again.
#[tokio::main(worker_threads = 2)]
async fn run(loaded: &Loaded, sources: &Sources) -> Result<(), NodeError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let node = Node::start(&loaded.config).await?;
    tracing::info!(
        http = %node.http_address(),
        tcp = node.tcp_address().map(tracing::field::display),
        operators = %node.operator_address(),
        broker = node.broker().name(),
        shards = node.shards().len(),
        connection_limit = node.admission().connection_limit(),
        version = env!("CARGO_PKG_VERSION"),
        "started"
    );
    if loaded.config.demo.enabled {
        say(&banner::text(&loaded.config, &node));
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = node.failed() => return Err(NodeError::ShardFailed),
            _ = hang_up.recv() => {
                let sources = sources.clone();
                match tokio::task::spawn_blocking(move || load(&sources)).await {
                    Ok(read) => node.reload(read),
                    Err(error) => tracing::error!(%error, "the settings could not be read"),
                }
            }
        }
    }
    tokio::select! {
        () = node.stop() => {}
        _ = terminate.recv() => tracing::warn!("told to stop a second time: not waiting for the drain"),
        _ = interrupt.recv() => tracing::warn!("told to stop a second time: not waiting for the drain"),
    }
    Ok(())
}

/// Prints; a reader that has seen enough (`| head`) is no failure.
fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
