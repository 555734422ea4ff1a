//! The thread that writes: batches into segments, and what makes them safe.
//!
//! - A write that fails is tried again at the same place until it succeeds; publishes are refused meanwhile.
//! - A sync that fails says nothing about what a later one would say: the kernel may have dropped what it could not
//!   write, and counts it as clean (<https://lwn.net/Articles/752063/>). So what was not confirmed is written again
//!   into a new segment: under `always` that is the batch, otherwise everything that is in memory, as a snapshot.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::block::{self, Boot};
use super::clock::Clock;
use super::directory::Directory;
use super::queue::{Batch, Next, Queue};
use super::record::Record;
use super::recover::Recovered;
use super::segment::Segment;
use super::settings::{Fsync, LogSettings};
use super::sync::{Syncer, sync};
use super::{Histories, LogStats, snapshot};
use crate::dispatch::Dispatcher;

/// How long it waits before it tries again what has failed.
const RETRY: Duration = Duration::from_millis(500);

/// How often it looks whether the log is worth being rewritten, though no segment has become full.
const LOOK: Duration = Duration::from_secs(60);

/// How often it looks whether a snapshot has been written.
const SNAPSHOT_LOOK: Duration = Duration::from_millis(50);

/// More segments than this are rewritten, however small they are: each start adds one.
const MAX_SEGMENTS: usize = 64;

/// Where the log is.
pub(super) struct Place {
    pub(super) directory: Arc<Directory>,
    pub(super) settings: LogSettings,
    pub(super) boot: Boot,
    pub(super) clock: Clock,
}

/// What the writer has to do with.
pub(super) struct Outside {
    pub(super) queue: Arc<Queue>,
    pub(super) dispatcher: Dispatcher,
    pub(super) histories: Arc<dyn Histories>,
    pub(super) abandon: Arc<AtomicBool>,
    pub(super) stats: Arc<LogStats>,
}

/// The thread's state.
pub(super) struct Writer {
    place: Place,
    outside: Outside,
    /// The number of the segment that is written.
    number: u64,
    segment: Segment,
    /// A sync of the segment has failed: nothing more is written into it.
    is_lost: bool,
    /// Full segments that no snapshot covers, with their bytes.
    full: Vec<(u64, u64)>,
    snapshot_bytes: u64,
    /// Full segments that may not be durable yet, by number.
    unsynced: Vec<(u64, Arc<File>)>,
    /// Something was written since the last sync was ordered.
    is_dirty: bool,
    last_sync: Instant,
    syncer: Option<Syncer>,
    snapshot: Option<(u64, JoinHandle<io::Result<u64>>)>,
    last_look: Instant,
}

impl Writer {
    /// Begins a segment behind those that were read.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(place: Place, outside: Outside, recovered: Recovered) -> io::Result<Self> {
        let syncer = match place.settings.fsync {
            Fsync::Interval(_) => Some(Syncer::start(Arc::clone(&outside.stats))?),
            Fsync::Always | Fsync::Never => None,
        };
        let number = recovered.last + 1;
        let now = Instant::now();
        let mut writer = Self {
            segment: create(&place, number)?,
            place,
            outside,
            number,
            is_lost: false,
            full: recovered.segments,
            snapshot_bytes: recovered.snapshot_bytes,
            unsynced: Vec::new(),
            is_dirty: false,
            last_sync: now,
            syncer,
            snapshot: None,
            last_look: now,
        };
        writer.tell();
        writer.compact_if_due();
        Ok(writer)
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self) {
        loop {
            match self.outside.queue.next(self.next_look()) {
                Next::Batch(batch) => {
                    if self.write(batch).is_break() {
                        break;
                    }
                }
                Next::Idle => {}
                Next::Closed => break,
            }
            if self.sync_if_due().is_break() {
                break;
            }
            // A snapshot that failed is told already, and tried again.
            let _ = self.end_snapshot(false);
            if self.last_look.elapsed() >= LOOK {
                self.compact_if_due();
            }
        }
        self.close();
    }

    /// When there is something to do without a batch.
    fn next_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let sync = match self.place.settings.fsync {
            Fsync::Interval(interval) if self.is_dirty || self.syncer.as_ref().is_some_and(Syncer::is_under_way) => {
                Some((self.last_sync + interval).max(now + Duration::from_millis(1)))
            }
            _ => None,
        };
        let snapshot = self.snapshot.as_ref().map(|_| now + SNAPSHOT_LOOK);
        [sync, snapshot, Some(self.last_look + LOOK)].into_iter().flatten().min()
    }

    /// Writes a batch until that has succeeded, and delivers it. Breaks where the queue was closed before.
    fn write(&mut self, mut batch: Batch) -> ControlFlow<()> {
        while let Err(error) = self.append(&mut batch) {
            if self.has_failed(Some(&batch), &error) {
                return ControlFlow::Break(());
            }
        }
        self.works();
        let stats = &self.outside.stats;
        stats.writes.fetch_add(1, Relaxed);
        stats.pending_bytes.store(self.outside.queue.pending() as u64, Relaxed);
        let mut burst = self.outside.dispatcher.burst();
        for publication in &batch.publications {
            burst.route_shared(publication);
        }
        // Publishers wait for room, and their number is bounded by what may wait for the log.
        let _ = burst.flush();
        self.outside.queue.confirm(batch);
        if self.segment.length() >= self.place.settings.segment_size {
            self.roll_and_compact();
        }
        self.tell();
        ControlFlow::Continue(())
    }

    fn append(&mut self, batch: &mut Batch) -> io::Result<()> {
        if block::is_empty(&batch.block) {
            return Ok(());
        }
        if self.is_lost {
            self.roll()?;
        }
        let synced_length = self.segment.length();
        self.segment.append(&mut batch.block)?;
        self.outside.stats.written_bytes.fetch_add(batch.block.len() as u64, Relaxed);
        match self.place.settings.fsync {
            Fsync::Always => {
                let synced = sync(self.segment.file(), &self.outside.stats);
                if synced.is_err() {
                    self.is_lost = true;
                    self.segment.take_back(synced_length);
                }
                synced
            }
            Fsync::Interval(_) | Fsync::Never => {
                self.is_dirty = true;
                Ok(())
            }
        }
    }

    /// Tells what has failed, and waits a little. Answers whether the queue was closed.
    fn has_failed(&self, batch: Option<&Batch>, error: &io::Error) -> bool {
        self.outside.stats.errors.fetch_add(1, Relaxed);
        let path = self.place.settings.path.display();
        let reason = Arc::from(format!("the history's log in {path} cannot be written: {error}"));
        if self.outside.queue.fails(batch, &reason) {
            tracing::error!(%error, %path, "the history's log cannot be written: publishes with history are refused");
        }
        self.outside.queue.pause(RETRY)
    }

    /// Lets publishers in again.
    fn works(&self) {
        if let Some(time) = self.outside.queue.works() {
            tracing::info!(after_ms = time.as_millis() as u64, "the history's log is written again");
        }
    }

    /// Has what was written made durable beside this thread. Breaks where that failed, and the queue was closed before
    /// everything was written again.
    fn sync_if_due(&mut self) -> ControlFlow<()> {
        let (Fsync::Interval(interval), Some(syncer)) = (self.place.settings.fsync, &mut self.syncer) else {
            return ControlFlow::Continue(());
        };
        if let Some(Err(error)) = syncer.result() {
            return self.write_again(&error);
        }
        if self.is_dirty && !syncer.is_under_way() && self.last_sync.elapsed() >= interval {
            let full = self.unsynced.drain(..).map(|(_, file)| file);
            syncer.order(full.chain([Arc::clone(self.segment.file())]).collect());
            (self.is_dirty, self.last_sync) = (false, Instant::now());
        }
        ControlFlow::Continue(())
    }

    /// Writes everything that is in memory, because a sync has failed.
    fn write_again(&mut self, error: &io::Error) -> ControlFlow<()> {
        self.is_lost = true;
        // One that is being written may cover too little. What became of it is told already.
        let _ = self.end_snapshot(true);
        if self.has_failed(None, error) {
            return ControlFlow::Break(());
        }
        loop {
            let rolled = if self.is_lost { self.roll() } else { Ok(()) };
            let written = rolled.and_then(|()| self.begin_snapshot()).and_then(|()| self.end_snapshot(true));
            let Err(error) = written else { break };
            if self.has_failed(None, &error) {
                return ControlFlow::Break(());
            }
        }
        self.works();
        ControlFlow::Continue(())
    }

    /// Goes on in a new segment.
    fn roll(&mut self) -> io::Result<()> {
        let next = create(&self.place, self.number + 1)?;
        let segment = std::mem::replace(&mut self.segment, next);
        self.full.push((self.number, segment.length()));
        if self.place.settings.fsync != Fsync::Always && !self.is_lost {
            self.unsynced.push((self.number, Arc::clone(segment.file())));
        }
        self.number += 1;
        self.is_lost = false;
        Ok(())
    }

    /// Goes on in a new segment, because this one is full. Where that fails, the next batch makes it longer.
    fn roll_and_compact(&mut self) {
        if let Err(error) = self.roll() {
            self.outside.stats.errors.fetch_add(1, Relaxed);
            tracing::warn!(%error, "no new segment of the history's log can be made: the last one grows");
            return;
        }
        self.compact_if_due();
    }

    /// Bytes of all files.
    fn bytes(&self) -> u64 {
        self.snapshot_bytes + self.segment.length() + self.full.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Begins a snapshot where the log is much longer than what it keeps.
    fn compact_if_due(&mut self) {
        self.last_look = Instant::now();
        let LogSettings { segment_size, compaction_ratio, .. } = self.place.settings;
        let worth = || {
            let kept = self.outside.histories.encoded_bytes() as u64;
            self.bytes() > (kept * u64::from(compaction_ratio)).max(segment_size)
        };
        if self.snapshot.is_some() || !(self.full.len() > MAX_SEGMENTS || worth()) {
            return;
        }
        let begun = match self.segment.length() > block::FILE_HEADER as u64 {
            true => self.roll(),
            false => Ok(()),
        };
        if let Err(error) = begun.and_then(|()| self.begin_snapshot()) {
            self.snapshot_failed(&error);
        }
    }

    /// Begins to write a snapshot that covers all full segments.
    fn begin_snapshot(&mut self) -> io::Result<()> {
        let Some((covered, _)) = self.full.last().copied() else { return Ok(()) };
        let (directory, histories) = (Arc::clone(&self.place.directory), Arc::clone(&self.outside.histories));
        let (abandon, stats) = (Arc::clone(&self.outside.abandon), Arc::clone(&self.outside.stats));
        let Place { boot, clock, .. } = self.place;
        let thread = std::thread::Builder::new()
            .name("history-snap".to_owned())
            .spawn(move || snapshot::write(&directory, covered, &*histories, (&clock, boot), &abandon, &stats))?;
        self.snapshot = Some((covered, thread));
        Ok(())
    }

    /// Takes note of a snapshot that has been written, and waits for one that is being written where that is asked for.
    ///
    /// # Errors
    /// Those of the snapshot, which are told and counted already.
    fn end_snapshot(&mut self, wait: bool) -> io::Result<()> {
        let Some((covered, thread)) = self.snapshot.take_if(|(_, thread)| wait || thread.is_finished()) else {
            return Ok(());
        };
        let written = thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes it has panicked")));
        match written {
            Ok(bytes) => {
                let before = self.bytes();
                self.full.retain(|(number, _)| *number > covered);
                self.unsynced.retain(|(number, _)| *number > covered);
                self.snapshot_bytes = bytes;
                self.outside.stats.compactions.fetch_add(1, Relaxed);
                tracing::debug!(before, after = self.bytes(), "the history's log was compacted");
                self.tell();
                Ok(())
            }
            Err(error) => {
                self.snapshot_failed(&error);
                Err(error)
            }
        }
    }

    fn snapshot_failed(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::Interrupted {
            self.outside.stats.errors.fetch_add(1, Relaxed);
            tracing::warn!(%error, "the history's log cannot be compacted; it is tried again later");
        }
    }

    /// Brings the gauges up to date.
    fn tell(&self) {
        let stats = &self.outside.stats;
        stats.bytes.store(self.bytes(), Relaxed);
        stats.snapshot_bytes.store(self.snapshot_bytes, Relaxed);
        stats.segments.store(self.full.len() as u64 + 1, Relaxed);
    }

    /// Makes everything durable, and says that nothing is missing.
    fn close(mut self) {
        let _ = self.end_snapshot(true);
        let mut ended = match &mut self.syncer {
            Some(syncer) => syncer.wait(),
            None => Ok(()),
        };
        ended = ended.and_then(|()| self.unsynced.iter().try_for_each(|(_, file)| sync(file, &self.outside.stats)));
        if self.outside.queue.failing().is_some() || self.is_lost {
            ended = ended.and(Err(io::Error::other("what waited could not be written")));
        }
        ended = ended.and_then(|()| {
            let mut end = Vec::new();
            block::begin(&mut end);
            Record::Clean.encode(&mut end);
            self.segment.append(&mut end)?;
            sync(self.segment.file(), &self.outside.stats)
        });
        match ended {
            Ok(()) => tracing::debug!("the history's log was closed"),
            Err(error) => {
                self.outside.stats.errors.fetch_add(1, Relaxed);
                tracing::error!(%error, "the history's log was not closed in good order");
            }
        }
    }
}

/// Makes the segment with this number.
fn create(place: &Place, number: u64) -> io::Result<Segment> {
    let always = place.settings.fsync == Fsync::Always;
    let segment = Segment::create(&place.directory.segment(number), always, place.boot)?;
    place.directory.sync()?;
    Ok(segment)
}
