//! Many sessions in few threads.
//!
//! - [`session`]: one session's state and what its bytes mean, without a socket
//! - [`worker`]: a thread with an epoll set that owns a share of the sessions
//! - [`target`]: where sessions connect to, and from which addresses
//! - [`tally`]: what is counted
//!
//! This page has the [`Fleet`], which hands the workers their orders and gathers their tallies. An idle session costs
//! its slot in a worker's slab and its descriptor: no task, no timer, no buffer.

#[cfg(test)]
mod peers;
pub(crate) mod session;
pub(crate) mod tally;
pub(crate) mod target;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;

use self::session::Expectation;
use self::tally::Tally;
use self::target::Target;
use self::worker::{Order, Worker};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::terminal::Progress;

/// How often the main thread looks at the counters.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// A worker that does not answer an order in this time has died.
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Messages delivered to reading sessions.
    pub(crate) delivered: AtomicU64,
}

/// A group of sessions to open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// How many.
    pub(crate) sessions: u32,
    /// Session i subscribes to channel i modulo this.
    pub(crate) channels: u32,
    /// Sessions that stop reading once they are subscribed.
    pub(crate) stalled: bool,
    /// New connections per second; 0 for as fast as possible.
    pub(crate) rate: u32,
    /// At most so many sessions between `connect` and the subscribe's reply.
    pub(crate) in_flight: u32,
    /// Gives up when nothing has moved for so long.
    pub(crate) patience: Duration,
}

/// Threads that hold sessions against one target. Dropping it closes them all.
#[derive(Debug)]
pub(crate) struct Fleet {
    workers: Vec<Handle>,
    counters: Arc<Counters>,
    opened: u32,
}

#[derive(Debug)]
struct Handle {
    orders: Option<SyncSender<Order>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts the threads; no session yet.
    pub(crate) fn start(target: Target, threads: u32) -> Result<Self> {
        let target = Arc::new(target);
        let counters = Arc::new(Counters::default());
        let workers =
            (0..threads.max(1)).map(|number| Handle::start(number, &target, &counters)).collect::<Result<Vec<_>>>()?;
        Ok(Self { workers, counters, opened: 0 })
    }

    /// The running counts.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Opens sessions and waits until all of them are subscribed; says how long that took.
    ///
    /// # Errors
    /// Any session that does not come up, with the reasons and what would help.
    pub(crate) fn open(&mut self, opening: Opening, progress: &Progress) -> Result<Duration> {
        let (ready, failed) = (self.ready(), self.failed());
        let started = Instant::now();
        let workers = self.workers.len() as u32;
        for number in 0..workers {
            let share = |total: u32| total / workers + u32::from(number < total % workers);
            // Every worker takes each so-manieth session.
            let order = Order::Open {
                first: self.opened + number,
                step: workers,
                opening: Opening {
                    sessions: share(opening.sessions),
                    rate: if opening.rate == 0 { 0 } else { share(opening.rate).max(1) },
                    in_flight: share(opening.in_flight).max(1),
                    ..opening
                },
            };
            self.workers[number as usize].send(order)?;
        }
        self.opened += opening.sessions;
        let wanted = u64::from(opening.sessions);
        progress.begin("connecting", wanted);
        let mut last = (0, Instant::now());
        loop {
            let (up, down) = (self.ready() - ready, self.failed() - failed);
            progress.at(up);
            if up == wanted {
                progress.end();
                return Ok(started.elapsed());
            }
            if up + down != last.0 {
                last = (up + down, Instant::now());
            }
            let hopeless = up == 0 && down >= 100;
            if up + down >= wanted || hopeless || last.1.elapsed() > opening.patience {
                progress.end();
                return Err(self.not_up(up, wanted));
            }
            clock::pause(TICK);
        }
    }

    fn not_up(&self, up: u64, wanted: u64) -> Error {
        let reasons = self.collect(&Arc::from([])).map(|tally| tally.ended).unwrap_or_default();
        let hint = reasons.keys().find_map(|reason| hint(reason)).unwrap_or(
            "the rest did not finish within --connect-timeout: look at the server's log and health, or lower --connect-rate",
        );
        let reasons: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} x {reason}")).collect();
        Error::Run(format!("only {up} of {wanted} sessions came up ({}); {hint}", reasons.join("; ")))
    }

    /// Begins a measurement: every session counts from sequence number 0.
    pub(crate) fn start_round(&self, expectation: Expectation) -> Result<()> {
        self.ask(|done| Order::Round { expectation, done }).map(drop)
    }

    /// Stalled sessions read again, so that they can see how they were closed.
    pub(crate) fn resume_stalled(&self) -> Result<()> {
        self.ask(|done| Order::Resume { done }).map(drop)
    }

    /// Takes what was counted since the last call; `published` has the number of messages of each channel.
    pub(crate) fn collect(&self, published: &Arc<[u32]>) -> Result<Tally> {
        let mut sum = Tally::new();
        for tally in self.ask(|reply| Order::Collect { published: Arc::clone(published), reply })? {
            sum.merge(&tally);
        }
        Ok(sum)
    }

    /// Sends an order to every worker and waits for every answer.
    fn ask<T>(&self, order: impl Fn(SyncSender<T>) -> Order) -> Result<Vec<T>> {
        let (sender, answers): (SyncSender<T>, Receiver<T>) = sync_channel(self.workers.len());
        for worker in &self.workers {
            worker.send(order(sender.clone()))?;
        }
        (0..self.workers.len())
            .map(|_| {
                answers
                    .recv_timeout(ORDER_TIMEOUT)
                    .map_err(|_| Error::Run("a client thread does not answer; run with fewer sessions".to_owned()))
            })
            .collect()
    }

    fn ready(&self) -> u64 {
        self.counters.ready.load(Ordering::Relaxed)
    }

    fn failed(&self) -> u64 {
        self.counters.failed.load(Ordering::Relaxed)
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

impl Handle {
    fn start(number: u32, target: &Arc<Target>, counters: &Arc<Counters>) -> Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context(|| "cannot create an eventfd".to_owned())?;
        let wake = Arc::new(wake);
        let (orders, receiver) = sync_channel(16);
        let worker = Worker::new(Arc::clone(target), Arc::clone(counters), Arc::clone(&wake), receiver)?;
        let thread = std::thread::Builder::new()
            .name(format!("client-{number}"))
            .spawn(move || worker.run())
            .context(|| "cannot start a client thread".to_owned())?;
        Ok(Self { orders: Some(orders), wake, thread: Some(thread) })
    }

    fn send(&self, order: Order) -> Result<()> {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if !sent {
            return Err(Error::Run("a client thread has died; its message is above".to_owned()));
        }
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // The counter cannot overflow with 16 orders, and a worker that is gone needs no waking.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.orders = None;
            worker.wake();
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // A worker's panic has been printed by its thread.
                let _ = thread.join();
            }
        }
    }
}
