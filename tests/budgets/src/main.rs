//! What the budgets count: fixed scenarios over a whole shard, and sizes.
//!
//! `tidegate-budgets sizes` prints the sizes of what there are many of, and the bytes that a session, a subscription and
//! a channel take by formula. `tidegate-budgets run SCENARIO N` goes through N rounds of a scenario, under callgrind:
//! the difference between N and 2 N rounds is the cost of N, whatever the start took. `tidegate-budgets scenarios` lists
//! them. `tests/budgets/run.py` calls all three and holds the figures to `budgets.toml`.
//!
//! | file | what is in it |
//! |---|---|
//! | [`world`] | a shard with virtual sockets and a clock of its own |
//! | [`client`] | what its clients send |
//! | [`scenarios`] | what is counted |
//! | [`sizes`] | what is measured without running |

#![forbid(unsafe_code)]

mod client;
mod scenarios;
mod sizes;
mod world;

use std::process::ExitCode;

use scenarios::Scenario;

/// The node's allocator, so that its instructions are counted and its calls are those of the node.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "usage: tidegate-budgets sizes | scenarios | run SCENARIO ROUNDS";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program talks to its caller")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["sizes"] => {
            for (name, bytes) in sizes::all() {
                println!("{name} {bytes}");
            }
        }
        ["scenarios"] => {
            for scenario in Scenario::ALL {
                println!("{} {} {}", scenario.name, scenario.rounds, scenario.units);
            }
        }
        ["run", name, rounds] => {
            let Some(scenario) = Scenario::ALL.iter().find(|scenario| scenario.name == *name) else {
                eprintln!("unknown scenario {name:?}; tidegate-budgets scenarios lists them");
                return ExitCode::from(2);
            };
            let Ok(rounds) = rounds.parse() else {
                eprintln!("ROUNDS is a number, not {rounds:?}");
                return ExitCode::from(2);
            };
            if let Err(error) = (scenario.run)(rounds) {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
