//! Whole shards and an embedded broker with virtual clients under a seeded clock: lost publications, late answers, torn writes,
//! stalls, disconnects. Checked at every step: accounting; with every publication: order, no copies, nothing missing that was
//! promised; in the end: who came back has exactly what who stayed has; those are present who are subscribed.
//!
//! Most seeds have few clients, so that there can be many seeds; every fiftieth has two thousand.
//!
//! A failure names its seed: `SIMULATION_SEED=17 cargo test -p tidegate --test simulation`. `SIMULATION_SEEDS=10000` runs so many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the figures of a long run")]

mod client;
mod random;
#[path = "../../src/shard/tests/socket.rs"]
mod socket;
mod world;

use std::time::{Instant, SystemTime};

use tidegate::shard::socket::Socket;
use world::{Summary, World};

/// Seeds that every run has.
const FIXED: u64 = 40;
/// Seeds that no run before had.
const NEW: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn nothing_is_lost_silently_under_any_seed() {
    let seeds: Vec<u64> = match (number("SIMULATION_SEED"), number("SIMULATION_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).collect(),
        (None, None) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            (0..FIXED).chain((0..NEW).map(|n| now * 1000 + n)).collect()
        }
    };
    let started = Instant::now();
    let mut all = Summary::default();
    for seed in &seeds {
        match World::new(*seed).run() {
            Ok(summary) => all = all.plus(summary),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    eprintln!("{} seeds in {:.1} s: {all:?}", seeds.len(), started.elapsed().as_secs_f64());
    // A simulation in which nothing goes wrong shows nothing.
    if seeds.len() > 10 {
        let Summary { published, received, recovered, lost, insufficient, conflated, dropped, told } = all;
        let counts = [published, received, recovered, lost, insufficient, conflated, dropped, told];
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }
}
