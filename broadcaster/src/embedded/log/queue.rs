//! What waits for the writer, and who waits for it.
//!
//! Publishers put records into the batch that is being filled; the writer takes it as a whole and writes it with one
//! system call. Whoever wants to know when a batch is safe holds a [`Ticket`] of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::block;
use super::record::Record;
use crate::broker::BrokerError;
use crate::publication::Publication;

/// How long an answer waits for the disk before it is an error, though the publication may still be written.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Bytes of a batch's buffer that are kept for the next batch.
const SPARE: usize = 4 * 1024 * 1024;

/// The end of the log in memory.
#[derive(Debug)]
pub(in crate::embedded) struct Queue {
    tail: Mutex<Tail>,
    wake: Condvar,
    /// Bytes that a batch may have before publishes are refused.
    max_pending: usize,
}

/// What has been published and is not safe yet.
#[derive(Debug)]
struct Tail {
    filling: Batch,
    /// The batch that is being written: its outcome.
    writing: Option<watch::Receiver<Outcome>>,
    /// Batches up to this one are safe.
    confirmed: u64,
    failing: Option<Failing>,
    writer_waits: bool,
    closed: bool,
    spare: Vec<u8>,
}

/// Records that are written at once.
#[derive(Debug)]
pub(super) struct Batch {
    /// From 1.
    pub(super) number: u64,
    /// A block that is not sealed yet; empty but for its header where there is nothing to write.
    pub(super) block: Vec<u8>,
    /// What is delivered when the block is safe, in order.
    pub(super) publications: Vec<Arc<Publication>>,
    /// Payload bytes of publications that are in no record.
    passing: usize,
    outcome: watch::Sender<Outcome>,
}

/// Why and since when nothing can be written.
#[derive(Debug, Clone)]
pub(in crate::embedded) struct Failing {
    pub(in crate::embedded) since: Instant,
    pub(in crate::embedded) reason: Arc<str>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Pending,
    Safe,
    Failed(Arc<str>),
}

/// Whoever holds it can wait until a batch is safe.
#[derive(Debug)]
pub(in crate::embedded) struct Ticket(watch::Receiver<Outcome>);

/// The batch that is being filled, held for one publish or question.
#[derive(Debug)]
pub(in crate::embedded) struct Filling<'a> {
    tail: MutexGuard<'a, Tail>,
    queue: &'a Queue,
}

/// What the writer has to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Write this.
    Batch(Batch),
    /// Nothing, until the time that it has asked for.
    Idle,
    /// Everything has been taken, and nothing more will come.
    Closed,
}

impl Batch {
    fn new(number: u64, mut block: Vec<u8>) -> Self {
        block::begin(&mut block);
        let outcome = watch::channel(Outcome::Pending).0;
        Self { number, block, publications: Vec::new(), passing: 0, outcome }
    }

    fn is_empty(&self) -> bool {
        block::is_empty(&self.block) && self.publications.is_empty()
    }
}

impl Ticket {
    /// Waits until the batch is safe.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] where the disk does not take it, [`BrokerError::Timeout`] where it takes too long. It
    /// is written and delivered in both cases when the disk takes it again.
    pub(in crate::embedded) async fn wait(mut self) -> Result<(), BrokerError> {
        let over = self.0.wait_for(|outcome| *outcome != Outcome::Pending);
        match tokio::time::timeout(MAX_WAIT, over).await {
            Err(_) => Err(BrokerError::Timeout(MAX_WAIT)),
            Ok(Err(_)) => Err(BrokerError::Refused("the node stopped before the history's log was written".into())),
            Ok(Ok(outcome)) => match &*outcome {
                Outcome::Failed(reason) => Err(BrokerError::Refused(Arc::clone(reason))),
                Outcome::Safe | Outcome::Pending => Ok(()),
            },
        }
    }
}

impl Filling<'_> {
    /// Whether something can be put into it.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] while the disk takes nothing, [`BrokerError::Overloaded`] where as much as may wait
    /// does.
    pub(in crate::embedded) fn admit(&self) -> Result<(), BrokerError> {
        if let Some(failing) = &self.tail.failing {
            return Err(BrokerError::Refused(Arc::clone(&failing.reason)));
        }
        let filling = &self.tail.filling;
        if self.tail.closed || filling.block.len() + filling.passing >= self.queue.max_pending {
            return Err(BrokerError::Overloaded(filling.publications.len()));
        }
        Ok(())
    }

    /// The batch's number.
    pub(in crate::embedded) fn number(&self) -> u64 {
        self.tail.filling.number
    }

    /// Appends a record.
    pub(in crate::embedded) fn put(&mut self, record: &Record<'_>) {
        record.encode(&mut self.tail.filling.block);
    }

    /// Has a publication delivered when the batch is safe.
    pub(in crate::embedded) fn deliver(&mut self, publication: Arc<Publication>) {
        self.tail.filling.publications.push(publication);
    }

    /// Has a publication delivered behind those of the batch, which is in no record of it.
    pub(in crate::embedded) fn pass(&mut self, publication: Arc<Publication>) {
        self.tail.filling.passing += publication.payload.data.len();
        self.deliver(publication);
    }

    /// Whether the disk takes nothing now.
    pub(in crate::embedded) fn is_failing(&self) -> bool {
        self.tail.failing.is_some()
    }

    /// Whether this batch is safe.
    pub(in crate::embedded) fn is_safe(&self, batch: u64) -> bool {
        batch <= self.tail.confirmed
    }

    /// Something to wait for, unless the batch is safe already.
    pub(in crate::embedded) fn ticket(&self, batch: u64) -> Option<Ticket> {
        let Tail { confirmed, filling, writing, .. } = &*self.tail;
        if batch <= *confirmed {
            return None;
        }
        let written = || writing.clone().unwrap_or_else(|| filling.outcome.subscribe());
        Some(Ticket(if batch == filling.number { filling.outcome.subscribe() } else { written() }))
    }
}

impl Drop for Filling<'_> {
    /// Wakes the writer where it sleeps and there is something for it.
    fn drop(&mut self) {
        if self.tail.writer_waits && !self.tail.filling.is_empty() {
            self.tail.writer_waits = false;
            self.queue.wake.notify_one();
        }
    }
}

impl Queue {
    /// With nothing in it.
    pub(super) fn new(max_pending: usize) -> Self {
        let tail = Tail {
            filling: Batch::new(1, Vec::new()),
            writing: None,
            confirmed: 0,
            failing: None,
            writer_waits: false,
            closed: false,
            spare: Vec::new(),
        };
        Self { tail: Mutex::new(tail), wake: Condvar::new(), max_pending }
    }

    /// Holds the batch that is being filled.
    pub(in crate::embedded) fn filling(&self) -> Filling<'_> {
        Filling { tail: self.tail(), queue: self }
    }

    /// Why nothing can be written, where that is so.
    pub(in crate::embedded) fn failing(&self) -> Option<Failing> {
        self.tail().failing.clone()
    }

    /// Bytes that wait.
    pub(in crate::embedded) fn pending(&self) -> usize {
        self.tail().filling.block.len().saturating_sub(block::BLOCK_HEADER)
    }

    /// Lets nothing more in. What is there is still written.
    pub(super) fn close(&self) {
        self.tail().closed = true;
        self.wake.notify_all();
    }

    /// Waits for something to write, until then at most.
    pub(super) fn next(&self, until: Option<Instant>) -> Next {
        let mut tail = self.tail();
        loop {
            if !tail.filling.is_empty() {
                let (number, spare) = (tail.filling.number + 1, std::mem::take(&mut tail.spare));
                let batch = std::mem::replace(&mut tail.filling, Batch::new(number, spare));
                tail.writing = Some(batch.outcome.subscribe());
                return Next::Batch(batch);
            }
            if tail.closed {
                return Next::Closed;
            }
            tail.writer_waits = true;
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            tail = match left {
                Some(Duration::ZERO) => {
                    tail.writer_waits = false;
                    return Next::Idle;
                }
                Some(left) => self.wake.wait_timeout(tail, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(tail).unwrap_or_else(PoisonError::into_inner),
            };
            tail.writer_waits = false;
        }
    }

    /// Tells that a batch is safe.
    pub(super) fn confirm(&self, batch: Batch) {
        let mut tail = self.tail();
        tail.confirmed = batch.number;
        tail.writing = None;
        if batch.block.capacity() <= SPARE {
            tail.spare = batch.block;
        }
        drop(tail);
        batch.outcome.send_replace(Outcome::Safe);
    }

    /// Tells everybody who waits that nothing can be written, and refuses whoever comes, until [`Queue::works`].
    /// Answers whether that is news.
    pub(super) fn fails(&self, batch: Option<&Batch>, reason: &Arc<str>) -> bool {
        let mut tail = self.tail();
        let failed = || Outcome::Failed(Arc::clone(reason));
        if let Some(batch) = batch {
            batch.outcome.send_replace(failed());
        }
        tail.filling.outcome.send_replace(failed());
        let since = tail.failing.as_ref().map(|failing| failing.since);
        tail.failing = Some(Failing { since: since.unwrap_or_else(Instant::now), reason: Arc::clone(reason) });
        since.is_none()
    }

    /// The disk takes writes. Answers for how long it did not.
    pub(super) fn works(&self) -> Option<Duration> {
        let mut tail = self.tail();
        let failing = tail.failing.take()?;
        tail.filling.outcome.send_replace(Outcome::Pending);
        Some(failing.since.elapsed())
    }

    /// Waits for so long; answers whether the queue was closed meanwhile.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let (tail, _) = self
            .wake
            .wait_timeout_while(self.tail(), time, |tail| !tail.closed)
            .unwrap_or_else(PoisonError::into_inner);
        tail.closed
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
