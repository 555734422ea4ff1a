//! Many sessions in few threads, and where one process may not hold them all, in several processes.
//!
//! - [`session`]: one session's state and what its bytes mean, without a socket
//! - [`count`]: which messages have come to it, and which are missing
//! - [`worker`]: a thread with an epoll set that owns a share of the sessions
//! - [`threads`], [`process`]: those that carry a command out, here or in processes of their own
//! - [`command`]: what they are told
//! - [`layout`]: which session subscribes to which channels
//! - [`target`]: where sessions connect to, and from which addresses
//! - [`room`]: whether descriptors, ports and memory are enough
//! - [`tally`]: what is counted
//!
//! This page has the [`Fleet`], which hands out commands and gathers tallies. An idle session costs its slot in a
//! worker's slab and its descriptor: no task, no timer, no buffer.

mod command;
pub(crate) mod count;
pub(crate) mod layout;
#[cfg(test)]
mod peers;
pub(crate) mod process;
pub(crate) mod room;
pub(crate) mod session;
pub(crate) mod tally;
pub(crate) mod target;
mod threads;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::command::Command;
pub(crate) use self::command::Opening;
use self::count::Schedule;
use self::process::Processes;
use self::session::Expectation;
use self::tally::Tally;
use self::target::Target;
use self::threads::Threads;
use crate::clock;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::probe::Probe;

/// How often the main thread looks at the counters.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Whoever does not answer a command in this time has died.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the workers have counted so far, for progress and for waiting; every value only grows.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Sessions that became ready.
    pub(crate) ready: AtomicU64,
    /// Sessions that ended before they were ready.
    pub(crate) failed: AtomicU64,
    /// Reading sessions that ended after they were ready.
    pub(crate) ended: AtomicU64,
    /// Stalled sessions that ended.
    pub(crate) stalled_ended: AtomicU64,
    /// Ready sessions that were closed on purpose.
    pub(crate) closed: AtomicU64,
    /// Messages delivered to reading sessions.
    pub(crate) delivered: AtomicU64,
}

/// The [`Counters`] of one moment, or what was added between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    ready: u64,
    failed: u64,
    ended: u64,
    stalled_ended: u64,
    closed: u64,
    delivered: u64,
}

/// What became of a group of sessions that were to be opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    /// Sessions that came up.
    pub(crate) up: u32,
    /// Sessions that did not.
    pub(crate) refused: u32,
    /// From the first connect until the last of them was subscribed, or refused.
    pub(crate) took: Duration,
}

impl Counters {
    /// Sessions that are subscribed now.
    pub(crate) fn sessions(&self) -> u64 {
        let counts = self.read();
        counts.ready.saturating_sub(counts.ended + counts.stalled_ended + counts.closed)
    }

    fn read(&self) -> Counts {
        Counts {
            ready: self.ready.load(Ordering::Acquire),
            failed: self.failed.load(Ordering::Acquire),
            ended: self.ended.load(Ordering::Acquire),
            stalled_ended: self.stalled_ended.load(Ordering::Acquire),
            closed: self.closed.load(Ordering::Acquire),
            delivered: self.delivered.load(Ordering::Acquire),
        }
    }

    fn add(&self, counts: &Counts) {
        self.ready.fetch_add(counts.ready, Ordering::Release);
        self.failed.fetch_add(counts.failed, Ordering::Release);
        self.ended.fetch_add(counts.ended, Ordering::Release);
        self.stalled_ended.fetch_add(counts.stalled_ended, Ordering::Release);
        self.closed.fetch_add(counts.closed, Ordering::Release);
        self.delivered.fetch_add(counts.delivered, Ordering::Release);
    }
}

impl Counts {
    /// What was added since an earlier reading.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            ready: self.ready.saturating_sub(earlier.ready),
            failed: self.failed.saturating_sub(earlier.failed),
            ended: self.ended.saturating_sub(earlier.ended),
            stalled_ended: self.stalled_ended.saturating_sub(earlier.stalled_ended),
            closed: self.closed.saturating_sub(earlier.closed),
            delivered: self.delivered.saturating_sub(earlier.delivered),
        }
    }
}

/// Who holds the sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crew {
    /// Processes; with one, its threads are this process's.
    pub(crate) processes: u32,
    /// Threads of each.
    pub(crate) threads: u32,
}

/// Threads or processes that hold sessions against one target. Dropping it closes them all.
#[derive(Debug)]
pub(crate) struct Fleet {
    hands: Hands,
    counters: Arc<Counters>,
    opened: u32,
}

#[derive(Debug)]
enum Hands {
    Here(Threads),
    Elsewhere(Processes),
}

impl Fleet {
    /// Starts threads or processes; no session yet.
    ///
    /// # Errors
    /// What the system refuses.
    pub(crate) fn start(target: Target, crew: Crew) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let hands = if crew.processes > 1 {
            Hands::Elsewhere(Processes::start(&target, crew, &counters)?)
        } else {
            Hands::Here(Threads::start(target, crew.threads, &counters)?)
        };
        Ok(Self { hands, counters, opened: 0 })
    }

    /// The running counts; those of other processes are up to 0.2 s old, and complete after every call that waits.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The process of this program, or all of them.
    pub(crate) fn probe(&self) -> Probe {
        let own = std::iter::once(std::process::id());
        match &self.hands {
            Hands::Here(_) => Probe::trusted(own.collect()),
            Hands::Elsewhere(processes) => Probe::trusted(own.chain(processes.pids()).collect()),
        }
    }

    /// For those who wait: nobody answers for a process that has died.
    ///
    /// # Errors
    /// Names the process.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.hands {
            // A thread that has died shows in the next command.
            Hands::Here(_) => Ok(()),
            Hands::Elsewhere(processes) => processes.check(),
        }
    }

    /// Opens sessions and waits until all of them are subscribed, or refused.
    ///
    /// # Errors
    /// More sessions than are tolerated that do not come up, or all of them, with the reasons and what would help.
    pub(crate) fn open(&mut self, opening: Opening, monitor: &Monitor) -> Result<Opened> {
        let (ready, failed) = (self.ready(), self.failed());
        let started = Instant::now();
        self.run(&Command::Open { first: self.opened, step: 1, opening })?;
        self.opened += opening.sessions;
        let wanted = u64::from(opening.sessions);
        monitor.begin("connecting", wanted);
        let mut last = (0, Instant::now());
        loop {
            let (up, down) = (self.ready() - ready, self.failed() - failed);
            monitor.at(up);
            let tolerable = down <= u64::from(opening.tolerated) && up > 0;
            if up + down >= wanted && tolerable {
                monitor.end();
                return Ok(Opened { up: up as u32, refused: down as u32, took: started.elapsed() });
            }
            if up + down != last.0 {
                last = (up + down, Instant::now());
            }
            let hopeless = up == 0 && down >= 100;
            if up + down >= wanted || hopeless || last.1.elapsed() > opening.patience {
                monitor.end();
                return Err(self.not_up(up, wanted));
            }
            self.check().inspect_err(|_| monitor.end())?;
            clock::pause(TICK);
        }
    }

    fn not_up(&self, up: u64, wanted: u64) -> Error {
        let tally = self.collect(&Arc::from([]), Schedule::default());
        let reasons = tally.map(|tally| tally.refused).unwrap_or_default();
        let hint = reasons.keys().find_map(|reason| hint(reason)).unwrap_or(
            "the rest did not finish within --connect-timeout: look at the server's log and health, or lower --connect-rate",
        );
        Error::Run(format!("only {up} of {wanted} sessions came up ({}); {hint}", tally::words(&reasons)))
    }

    /// Begins a measurement: every session counts from sequence number 0. Those that have ended before are owed
    /// nothing from here on.
    pub(crate) fn start_round(&self, expectation: Expectation) -> Result<()> {
        self.run(&Command::Round(expectation)).map(drop)
    }

    /// Stalled sessions read again, so that they can see how they were closed.
    pub(crate) fn resume_stalled(&self) -> Result<()> {
        self.run(&Command::Resume).map(drop)
    }

    /// Closes and reopens sessions in turn, so many per second; stops that if it is 0.
    pub(crate) fn churn(&self, per_second: f64) -> Result<()> {
        self.run(&Command::Churn { per_second }).map(drop)
    }

    /// Takes what was counted since the last call; `published` has the number of messages of each channel, `schedule`
    /// when they were due.
    pub(crate) fn collect(&self, published: &Arc<[u32]>, schedule: Schedule) -> Result<Tally> {
        let tally = self.run(&Command::Collect { published: Arc::clone(published), schedule })?;
        Ok(tally.unwrap_or_else(Tally::new))
    }

    fn run(&self, command: &Command) -> Result<Option<Tally>> {
        match &self.hands {
            Hands::Here(threads) => threads.run(command),
            Hands::Elsewhere(processes) => processes.run(command),
        }
    }

    fn ready(&self) -> u64 {
        self.counters.ready.load(Ordering::Relaxed)
    }

    fn failed(&self) -> u64 {
        self.counters.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // For whoever counts sessions: these are being closed.
        self.counters.closed.fetch_add(self.counters.sessions(), Ordering::Release);
    }
}

/// What would help against a reason for which a session did not come up.
fn hint(reason: &str) -> Option<&'static str> {
    let hints = [
        ("refused with HTTP 503", "the server refuses connections: raise its limits, or lower --connect-rate"),
        ("refused with HTTP 404", "--path is not the server's WebSocket path"),
        ("refused with HTTP", "the server does not take this upgrade: check --server, --path and its allowed origins"),
        ("(not authorized)", "the server lets nobody in without a login: allow anonymous clients"),
        ("(bad user name or password)", "the server lets nobody in without a login: allow anonymous clients"),
        ("(identifier rejected)", "the server names no clients itself: let it accept empty identifiers"),
        ("complains: Authorization Violation", "the server lets nobody in without a login: allow anonymous clients"),
        ("complains: Permissions Violation", "allow clients to subscribe, or choose another --channel"),
        ("complains: maximum", "the server refuses connections: raise its limits (max_connections)"),
        ("subscribe refused with 128", "the server's access rules: allow clients to subscribe to --channel"),
        ("Connection refused", "nothing listens there: start the server or correct --server"),
        ("Cannot assign requested address", "the source ports are used up: raise --sources or wait a minute"),
        ("closed with 3501", "the server wants a token: allow anonymous connections (as --dev does)"),
        ("connect refused with", "the server wants a token: allow anonymous connections (as --dev does)"),
        ("subscribe refused with 102", "the channel's namespace does not exist there: choose another --channel"),
        ("subscribe refused with", "allow clients to subscribe (as --dev does) or choose another --channel"),
        ("malformed", "the server speaks another protocol there: check --server, --wire and --path"),
    ];
    hints.iter().find(|(start, _)| reason.contains(start)).map(|(_, hint)| *hint)
}
