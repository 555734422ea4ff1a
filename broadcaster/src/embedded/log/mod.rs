//! The log on disk: a node without Redis keeps its histories over a restart.
//!
//! Memory has everything, and answers everything (`streams`). The log is how it comes back. A publish changes the
//! memory and appends a record to the batch that is being filled, under one lock, so that both have the same order. A
//! thread takes the batch, writes it with one call, makes it durable where `fsync = always`, delivers its publications
//! to the shards and tells those who wait. While it does that, the next batch fills: the slower the disk, the more
//! publishes share a write.
//!
//! **Nobody hears of a publication before it is safe**: not the publisher, not a subscriber, and no reader of the
//! history, who waits for the batch of the newest publication that it is given. Safe is durable with `always`, and
//! otherwise with the kernel, which keeps it when the process is killed. So a restart cannot take back what somebody
//! has seen, and offsets are not given out twice. What is left are the ends of the machine without `always`, and
//! damage; then every channel is numbered anew, and clients are told that they may have missed something (`recover`).
//!
//! - [`settings`]: where it is, what it promises, why it may not start;
//! - `record`, `block`: the bytes (pure); `copies`: publications and channels as records, `clock`: their times;
//! - `queue`: batches, and who waits for them;
//! - `writer`: the thread; `segment`: the file that it writes; `sync`: syncs beside it;
//! - `snapshot`: compaction, the memory as a file in place of old segments;
//! - `directory`: names of files, and whose they are;
//! - `recover`: the start; `reader`: blocks and damage of a file, `replay`: records to channels (pure), `workers`: on
//!   all processors;
//! - [`stats`]: what is counted.

mod block;
pub(super) mod clock;
pub(super) mod copies;
mod directory;
pub(super) mod queue;
mod reader;
pub(super) mod record;
mod recover;
mod replay;
mod segment;
pub mod settings;
mod snapshot;
pub mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod workers;
mod writer;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use self::block::Boot;
use self::clock::Clock;
use self::directory::Directory;
use self::queue::Queue;
pub use self::settings::{Fsync, LogError, LogSettings};
pub use self::stats::LogStats;
use self::writer::{Outside, Place, Writer};
use super::streams::copy::StreamCopy;
use crate::dispatch::Dispatcher;
use crate::publication::Channel;

/// What is in memory, as the log sees it. Asked from the log's threads, while publishes go on.
pub(super) trait Histories: Send + Sync {
    /// Every channel that something is kept of.
    fn channels(&self) -> Vec<Channel>;
    /// What is kept of a channel now.
    fn copy(&self, channel: &Channel) -> Option<StreamCopy>;
    /// Bytes that a snapshot of everything would have, by and large.
    fn encoded_bytes(&self) -> usize;
}

/// A log that was read, and is not written yet.
#[derive(Debug)]
pub(super) struct Opened {
    directory: Directory,
    recovered: recover::Recovered,
    settings: LogSettings,
    boot: Boot,
    pub(super) clock: Clock,
    stats: Arc<LogStats>,
    began: Instant,
}

/// The running log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) queue: Arc<Queue>,
    pub(super) clock: Clock,
    /// Tells a snapshot that is being written to end.
    abandon: Arc<AtomicBool>,
    /// `None` once it was waited for.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Opened {
    /// Reads the log.
    ///
    /// # Errors
    /// The directory cannot be used, or another process has it. Damage is no error.
    pub(super) fn read(settings: LogSettings, stats: Arc<LogStats>) -> Result<Self, LogError> {
        let (began, clock) = (Instant::now(), Clock::new());
        let directory = Directory::take(&settings.path)?;
        let boot = Boot::from_text(&std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default());
        let recovered = recover::read(&directory, &clock, boot, &stats)?;
        Ok(Self { directory, recovered, settings, boot, clock, stats, began })
    }

    /// What was kept, to be put back. `new_epoch` names a numbering.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn copies(&mut self, new_epoch: impl FnMut() -> Arc<str>) -> Result<Vec<StreamCopy>, LogError> {
        let copies = self.recovered.copies(&self.clock, new_epoch)?;
        let took = self.began.elapsed();
        self.stats.replay_ms.store(took.as_millis() as u64, Relaxed);
        let publications: usize = copies.iter().map(|copy| copy.publications.len()).sum();
        let bytes = self.recovered.bytes();
        tracing::info!(
            path = %self.settings.path.display(),
            bytes,
            records = self.stats.replayed.load(Relaxed),
            channels = copies.len(),
            publications,
            took_ms = took.as_millis() as u64,
            "the history's log was read"
        );
        if let Some(reason) = self.recovered.renew.as_ref().filter(|_| !copies.is_empty()) {
            self.stats.renewed.fetch_add(copies.len() as u64, Relaxed);
            tracing::warn!(
                reason,
                channels = copies.len(),
                "publications may be missing: every channel is numbered anew"
            );
        }
        Ok(copies)
    }

    /// Starts writing. `histories` has what was put back.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn start(self, dispatcher: Dispatcher, histories: Arc<dyn Histories>) -> Result<Log, LogError> {
        let Self { directory, mut recovered, settings, boot, clock, stats, .. } = self;
        let path = settings.path.clone();
        let wrong = |error| LogError::new(&path, error);
        let abandon = Arc::new(AtomicBool::new(false));
        if recovered.renew.is_some() || !recovered.corrupt.is_empty() {
            let (covered, at) = (recovered.last, (&clock, boot));
            for file in &recovered.corrupt {
                directory.keep_damaged(&file.path).map_err(wrong)?;
            }
            let bytes = snapshot::write(&directory, covered, &*histories, at, &abandon, &stats).map_err(wrong)?;
            (recovered.segments, recovered.snapshot_bytes) = (Vec::new(), bytes);
            directory.has_new_epochs().map_err(wrong)?;
        }
        let queue = Arc::new(Queue::new(settings.max_pending));
        let outside =
            Outside { queue: Arc::clone(&queue), dispatcher, histories, abandon: Arc::clone(&abandon), stats };
        let place = Place { directory: Arc::new(directory), settings, boot, clock };
        let writer = Writer::new(place, outside, recovered).map_err(wrong)?;
        let thread = std::thread::Builder::new().name("history-log".to_owned()).spawn(move || writer.run());
        let writer = Mutex::new(Some(thread.map_err(wrong)?));
        Ok(Log { queue, clock, abandon, writer })
    }
}

impl Log {
    /// Writes what waits, and the mark of a clean end. Waits for that, so it does not belong on a thread that has other
    /// things to do. Publishes that come later are refused.
    pub(super) fn close(&self) {
        self.abandon.store(true, Relaxed);
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes the history's log has panicked");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}
