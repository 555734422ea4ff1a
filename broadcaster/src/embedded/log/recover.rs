//! What the log says when the node starts, and whether all of it is there.
//!
//! Files are read in order: the newest snapshot, then the segments that it does not cover. What is damaged is passed
//! over, told, and decides about the epochs: a client that has seen a publication which is not here any more must not
//! be told that it has missed nothing, so where one can be missing, every channel is numbered anew. One can be missing
//!
//! - where a part in the middle of a file cannot be read, or a file is not there, or its end was not cut short but
//!   altered;
//! - where the machine has gone down since, and what was written last was not durable (`fsync` other than `always`, and
//!   no clean end). A process that was killed loses nothing that way: what it had written, the kernel has. What an
//!   earlier process had written was made durable when the next one started.
//!
//! A write that was cut short at the very end is none of these: nobody had been told of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::block::{Boot, FILE_HEADER};
use super::clock::Clock;
use super::copies::publication;
use super::directory::{Directory, LogFile};
use super::reader::{Damage, Window};
use super::record::{Malformed, Raw, Record};
use super::replay::{Replayed, Spot};
use super::workers::Workers;
use super::{LogError, LogStats};
use crate::broker::Version;
use crate::embedded::streams::copy::StreamCopy;
use crate::publication::Channel;

/// How often a start that takes long says how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    files: Vec<LogFile>,
    /// What is kept of the channels, in as many parts as there were workers.
    parts: Vec<Vec<(Channel, Replayed)>>,
    /// Why every channel has to be numbered anew.
    pub(super) renew: Option<String>,
    /// Files to be set aside when a snapshot has taken their place.
    pub(super) corrupt: Vec<LogFile>,
    /// The highest number that a file has; 0 where there is none.
    pub(super) last: u64,
    /// Numbers and bytes of the segments.
    pub(super) segments: Vec<(u64, u64)>,
    /// Bytes of the snapshot.
    pub(super) snapshot_bytes: u64,
}

/// Where a file has its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Snapshot,
    /// A segment with another one behind it.
    Inside,
    /// The last segment.
    Last,
}

/// Reads a log.
struct Reading<'a> {
    stats: &'a LogStats,
    boot: Boot,
    workers: Workers,
    /// What a file that ends in good order ends with.
    end: Vec<u8>,
    began: Instant,
    told: Instant,
    bytes: u64,
    /// The files so far.
    files: Vec<LogFile>,
    corrupt: Vec<LogFile>,
    renew: Option<String>,
    /// The last record of the file that was read last says that it ended in good order.
    clean: bool,
    /// The file that was read last is not durable by itself, and was written before the machine last started.
    is_older: bool,
    /// Files whose end may not be durable yet, though nothing of it is lost.
    unsynced: Vec<LogFile>,
}

/// Reads what the directory has.
///
/// # Errors
/// The system's. Damage is none.
pub(super) fn read(directory: &Directory, clock: &Clock, boot: Boot, stats: &LogStats) -> Result<Recovered, LogError> {
    let wrong = |error| LogError::new(directory.path(), error);
    directory.tidy().map_err(wrong)?;
    let mut listing = directory.list().map_err(wrong)?;
    let snapshot = listing.snapshots.pop();
    let covered = snapshot.as_ref().map_or(0, |file| file.number);
    directory.remove_covered(covered).map_err(wrong)?;
    listing.segments.retain(|file| file.number > covered);
    remove_unmade(&mut listing.segments).map_err(wrong)?;
    let last = listing.segments.last().map_or(covered, |file| file.number);

    let (now, mut end) = (Instant::now(), Vec::new());
    Record::Clean.encode(&mut end);
    let mut reading = Reading {
        stats,
        boot,
        workers: Workers::start().map_err(wrong)?,
        end,
        began: now,
        told: now,
        bytes: 0,
        files: Vec::new(),
        corrupt: Vec::new(),
        renew: None,
        clean: true,
        is_older: false,
        unsynced: Vec::new(),
    };
    if directory.wants_new_epochs() {
        reading.renew("the directory has a file `new-epochs`".to_owned());
    }
    let read = |reading: &mut Reading<'_>, file: &LogFile, place| {
        reading.file(file, place).map_err(|error| LogError::new(&file.path, error))
    };
    let snapshot_bytes = snapshot.as_ref().map_or(Ok(0), |file| read(&mut reading, file, Place::Snapshot))?;
    let mut segments = Vec::new();
    for (expected, file) in (covered + 1..).zip(&listing.segments) {
        if file.number != expected {
            reading.renew(format!("there are segments missing before {}", file.path.display()));
        }
        let place = if file.number == last { Place::Last } else { Place::Inside };
        segments.push((file.number, read(&mut reading, file, place)?));
    }
    if reading.is_older && !reading.clean {
        reading.renew("the machine went down before what was written last was durable".to_owned());
    }
    if !reading.clean {
        // So that the next end of the machine finds it on the disk.
        for file in &reading.unsynced {
            File::open(&file.path)
                .and_then(|file| file.sync_all())
                .map_err(|error| LogError::new(&file.path, error))?;
        }
    }
    let workers = reading.workers.finish().map_err(wrong)?;
    let Reading { mut corrupt, files, mut renew, .. } = reading;
    let unix_ms = clock.unix_ms(Instant::now());
    let (mut parts, mut records) = (Vec::new(), 0);
    for worker in workers {
        for file in worker.malformed.iter().filter_map(|file| files.get(*file as usize)) {
            if !corrupt.contains(file) {
                damaged(file, "it has records that cannot be read", stats, &mut corrupt);
                renew.get_or_insert(format!("{} is damaged", file.path.display()));
            }
        }
        records += worker.replay.records;
        let (channels, has_gap) = worker.replay.finish(unix_ms);
        if has_gap {
            renew.get_or_insert("numbers of publications are missing".to_owned());
        }
        parts.push(channels);
    }
    stats.replayed.store(records, Relaxed);
    Ok(Recovered { files, parts, renew, corrupt, last, segments, snapshot_bytes })
}

/// Notes a file that is to be set aside.
fn damaged(file: &LogFile, what: &str, stats: &LogStats, corrupt: &mut Vec<LogFile>) {
    let path = file.path.display();
    tracing::error!(file = %path, "a file of the history's log is damaged: {what}; what can be read of it was taken");
    stats.corrupt.fetch_add(1, Relaxed);
    corrupt.push(file.clone());
}

impl Reading<'_> {
    /// Notes that something may be missing. The first reason is the one that is told.
    fn renew(&mut self, reason: String) {
        self.renew.get_or_insert(reason);
    }

    /// Reads one file, and answers with its bytes.
    fn file(&mut self, file: &LogFile, place: Place) -> io::Result<u64> {
        let mut window = Window::open(&file.path)?;
        let length = window.length();
        let index = self.files.len() as u32;
        self.files.push(file.clone());
        self.clean = false;
        let Some(header) = window.header()? else {
            self.damaged(file, "its beginning cannot be read");
            return Ok(length);
        };
        self.is_older = !header.always && !header.boot.is_same(&self.boot);
        if !header.always {
            self.unsynced.push(file.clone());
        }
        let Self { workers, end, bytes, told, began, clean, .. } = self;
        let Damage { torn, short, corrupt } = window.blocks(header.salt, |at, content| {
            *bytes += content.len() as u64;
            *clean = content == end;
            workers.take(index, at, content);
            if told.elapsed() >= PROGRESS {
                *told = Instant::now();
                let elapsed_ms = began.elapsed().as_millis() as u64;
                tracing::info!(file = %file.path.display(), bytes = *bytes, elapsed_ms, "reading the history's log");
            }
        })?;
        self.clean &= torn.is_none();
        if let Some(first) = corrupt.first() {
            let parts = corrupt.len();
            self.damaged(file, &format!("{parts} of its parts cannot be read, the first of them bytes {first:?}"));
        } else if place == Place::Snapshot && !self.clean {
            self.damaged(file, "its end is missing");
        } else if place == Place::Inside && torn.is_some() && !short {
            self.damaged(file, "its end cannot be read");
        }
        let Some(end) = torn.filter(|_| place == Place::Last || (place == Place::Inside && short)) else {
            return Ok(length);
        };
        if !short {
            self.renew(format!("the end of {} is no write that was cut short", file.path.display()));
        }
        self.cut(&file.path, end, length)?;
        Ok(end)
    }

    /// Notes a file that is to be set aside.
    fn damaged(&mut self, file: &LogFile, what: &str) {
        damaged(file, what, self.stats, &mut self.corrupt);
        self.renew(format!("{} is damaged", file.path.display()));
    }

    /// Cuts off what was never written to its end.
    fn cut(&self, path: &Path, end: u64, length: u64) -> io::Result<()> {
        let (bytes, file) = (length - end, path.display());
        tracing::warn!(%file, bytes, "the end of the history's log was not written to its end, and is cut off");
        self.stats.cut_bytes.fetch_add(bytes, Relaxed);
        let file = File::options().write(true).open(path)?;
        file.set_len(end)?;
        file.sync_all()
    }
}

/// Removes a last segment without a whole header: the process ended while it made the file, and nothing was in it.
fn remove_unmade(segments: &mut Vec<LogFile>) -> io::Result<()> {
    let Some(last) = segments.last() else { return Ok(()) };
    if std::fs::metadata(&last.path)?.len() < FILE_HEADER as u64 {
        std::fs::remove_file(&last.path)?;
        segments.pop();
    }
    Ok(())
}

impl Recovered {
    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.snapshot_bytes + self.segments.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Reads the publications that are still kept. `new_epoch` names a numbering, where every channel is to be numbered
    /// anew.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn copies(
        &mut self,
        clock: &Clock,
        mut new_epoch: impl FnMut() -> Arc<str>,
    ) -> Result<Vec<StreamCopy>, LogError> {
        let mut parts = std::mem::take(&mut self.parts);
        if self.renew.is_some() {
            parts.iter_mut().flatten().for_each(|(_, channel)| channel.epoch = new_epoch().to_string());
        }
        let files = &self.files;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                parts.into_iter().map(|part| scope.spawn(move || copies(part, files, clock))).collect();
            let mut all = Vec::new();
            for thread in threads {
                let panicked = |_| LogError::new(Path::new(""), io::Error::other("a thread that reads has panicked"));
                all.extend(thread.join().map_err(panicked)??);
            }
            Ok(all)
        })
    }
}

/// Reads the publications of some channels.
fn copies(channels: Vec<(Channel, Replayed)>, files: &[LogFile], clock: &Clock) -> Result<Vec<StreamCopy>, LogError> {
    let mut spots: Vec<(Spot, u32)> = Vec::new();
    let mut copies = Vec::with_capacity(channels.len());
    for (index, (channel, replayed)) in (0..).zip(channels) {
        spots.extend(replayed.spots.iter().map(|spot| (*spot, index)));
        let (number, epoch) = replayed.version;
        let answered = replayed.answered.into_iter();
        copies.push(StreamCopy {
            channel,
            epoch: replayed.epoch.into(),
            top: replayed.top,
            publications: VecDeque::with_capacity(replayed.spots.len()),
            publications_until: clock.instant(replayed.publications_until),
            until: clock.instant(replayed.until),
            version: Version { number, epoch },
            answered: answered.map(|(until, key, offset)| (clock.instant(until), key, offset)).collect(),
        });
    }
    // In the order of the files, which is the order of each channel's offsets as well.
    spots.sort_unstable();
    let received = Instant::now();
    for of_file in spots.chunk_by(|(one, _), (other, _)| one.file == other.file) {
        let Some(file) = of_file.first().and_then(|(spot, _)| files.get(spot.file as usize)) else { continue };
        let wrong = |error| LogError::new(&file.path, error);
        let changed = |_: Malformed| wrong(io::Error::other("it was changed while it was read"));
        let mut window = Window::open(&file.path).map_err(wrong)?;
        for (spot, index) in of_file {
            let mut bytes = window.get(spot.at..spot.at + u64::from(spot.length)).map_err(wrong)?;
            let record = Raw::next(&mut bytes).and_then(|raw| raw.read()).map_err(changed)?;
            let (Record::Publish(entry, _) | Record::Kept(entry)) = record else { return Err(changed(Malformed)) };
            let copy = &mut copies[*index as usize];
            copy.publications.push_back(publication(&entry, &copy.channel, &copy.epoch, received));
        }
    }
    Ok(copies)
}
