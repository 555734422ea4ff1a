//! Commands: publishes, and calls of the functions.
//!
//! Whoever calls gets a place in the order at once, and the answer later. One server's commands wait in one queue, from
//! which [`super::pipeline`] takes them; a cluster's go through [`super::router`] to the queue of the right server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use tokio::sync::{mpsc, oneshot};

use super::functions::Function;
use super::health::Health;
use super::settings::RedisSettings;
use super::topology::{self, Topology};
use crate::broker::{Answer, BrokerError};
use crate::stats::{BrokerStats, add};

/// The payload bytes that may wait, whatever their number.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// A command. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// PUBLISH or SPUBLISH of a payload, as it is.
    Publish { channel: Bytes, payload: Bytes },
    /// A function with its only key.
    Function { function: Function, key: Bytes, args: Vec<Bytes> },
}

impl Call {
    /// What the command counts for while it waits.
    fn weight(&self) -> usize {
        match self {
            Self::Publish { payload, .. } => payload.len(),
            Self::Function { args, .. } => args.iter().map(Bytes::len).sum(),
        }
    }

    pub(super) fn is_publish(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Function { function: Function::Publish, .. })
    }

    /// The slot of a cluster that it is about.
    pub(super) fn slot(&self) -> u16 {
        match self {
            Self::Publish { channel, .. } => topology::slot(channel),
            Self::Function { key, .. } => topology::slot(key),
        }
    }
}

/// One command on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) call: Call,
    pub(super) called: Instant,
    /// Its number in the order, and its slot. Only a cluster has them.
    pub(super) number: u64,
    pub(super) slot: u16,
    /// The server that has it is not the slot's yet, and has to be told that another one has sent the command on.
    pub(super) asking: bool,
    answer: oneshot::Sender<Result<Value, BrokerError>>,
    _place: Place,
}

impl Job {
    /// Answers it, and counts what came of a publish.
    pub(super) fn answer(self, answer: Result<Value, BrokerError>, stats: &BrokerStats) {
        if self.call.is_publish() {
            match &answer {
                Ok(_) => {
                    add(&stats.publish_ok, 1);
                    stats.publish_latency.record(self.called.elapsed());
                }
                Err(_) => add(&stats.publish_errors, 1),
            }
        }
        // Whoever asked need not wait for the answer.
        let _ = self.answer.send(answer);
    }
}

/// What is said of a server's error.
pub(super) fn broker_error(error: &Error, settings: &RedisSettings) -> BrokerError {
    match error.kind() {
        ErrorKind::Timeout => BrokerError::Timeout(settings.io_timeout),
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Protocol | ErrorKind::Backpressure => {
            BrokerError::Disconnected(error.to_string().into())
        }
        // It was the master, and is none any more.
        _ if error.details().starts_with("READONLY") => BrokerError::Disconnected(error.details().into()),
        _ => BrokerError::Refused(error.details().into()),
    }
}

/// How many commands wait for an answer, and their bytes.
#[derive(Debug)]
struct Waiting {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    max: usize,
}

/// A command's share of [`Waiting`], until it is answered.
#[derive(Debug)]
struct Place {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Waiting {
    fn enter(waiting: &Arc<Self>, bytes: usize) -> Result<Place, BrokerError> {
        let place = Place { waiting: Arc::clone(waiting), bytes };
        let commands = waiting.commands.fetch_add(1, Ordering::Relaxed);
        let bytes = waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        // On an error the place is dropped, and gives back what it has taken.
        if commands >= waiting.max || bytes > MAX_QUEUED_BYTES {
            return Err(BrokerError::Overloaded(commands.min(waiting.max)));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.commands.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The end that takes commands. Never blocks.
#[derive(Debug)]
pub(crate) struct Publisher {
    queue: mpsc::Sender<Job>,
    waiting: Arc<Waiting>,
    topology: Arc<Topology>,
    /// Of each lane's connection.
    lanes: Arc<[Arc<Health>]>,
    stats: Arc<BrokerStats>,
}

impl Publisher {
    /// The end of a queue, and the other end. `lanes`: whether there is a connection to each server.
    pub(crate) fn new(
        settings: &RedisSettings,
        topology: Arc<Topology>,
        lanes: Arc<[Arc<Health>]>,
        stats: Arc<BrokerStats>,
    ) -> (Self, mpsc::Receiver<Job>) {
        let max = settings.max_queued_publishes;
        let waiting = Arc::new(Waiting { commands: AtomicUsize::default(), bytes: AtomicUsize::default(), max });
        // As many as may wait, so that there is room for each.
        let (queue, receiver) = mpsc::channel(max);
        (Self { queue, waiting, topology, lanes, stats }, receiver)
    }

    /// Queues a command; what Redis answers.
    pub(crate) fn call(&self, call: Call) -> Answer<Value> {
        let publishes = call.is_publish();
        match self.enqueue(call) {
            Ok(answer) => Box::pin(async move { answer.await.unwrap_or_else(|_| Err(shut_down())) }),
            Err(error) => {
                add(&self.stats.publish_errors, u64::from(publishes));
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }

    /// Whether a command about this channel of Redis would reach a server now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn reaches(&self, channel: &[u8]) -> Result<(), BrokerError> {
        self.slot(topology::slot(channel)).map(|_| ())
    }

    /// The slot, which is 0 where there is no cluster.
    fn slot(&self, slot: u16) -> Result<u16, BrokerError> {
        let (slot, lane) = if self.topology.is_cluster() {
            let layout = self.topology.layout();
            if layout.any().is_none() {
                return Err(BrokerError::Disconnected("no server of the cluster is known yet".into()));
            }
            // A slot without a master may get one while the command waits.
            (slot, layout.lane(slot))
        } else {
            (0, Some(0))
        };
        match lane.and_then(|lane| self.lanes.get(usize::from(lane))?.down()) {
            Some(reason) => Err(BrokerError::Disconnected(reason)),
            None => Ok(slot),
        }
    }

    fn enqueue(&self, call: Call) -> Result<oneshot::Receiver<Result<Value, BrokerError>>, BrokerError> {
        let slot = self.slot(call.slot())?;
        let place = Waiting::enter(&self.waiting, call.weight())?;
        let (answer, answered) = oneshot::channel();
        let job = Job { call, called: Instant::now(), number: 0, slot, asking: false, answer, _place: place };
        self.queue.try_send(job).map_err(|_| shut_down())?;
        Ok(answered)
    }
}

fn shut_down() -> BrokerError {
    BrokerError::Disconnected("shut down".into())
}
