//! What is in memory as one file, which takes the place of the segments before it.
//!
//! Channels are copied one by one while publishes go on, so a channel may be further in the snapshot than the last
//! segment that it covers. That does no harm: what the next segments say of it again is passed over
//! ([`super::replay`]).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::block::{self, Boot};
use super::clock::Clock;
use super::copies::{put_kept, put_stream};
use super::directory::Directory;
use super::record::Record;
use super::segment::Segment;
use super::sync::sync;
use super::{Histories, LogStats};

/// Bytes of a block from which on it is written.
const BLOCK: usize = 1024 * 1024;

/// Writes what is in memory, in place of the segments up to number `covered`, and removes them and the older snapshots.
/// Answers with the file's bytes.
///
/// # Errors
/// The system's, or that `abandon` was set. The log is as it was then.
pub(super) fn write(
    directory: &Directory,
    covered: u64,
    histories: &dyn Histories,
    (clock, boot): (&Clock, Boot),
    abandon: &AtomicBool,
    stats: &LogStats,
) -> io::Result<u64> {
    let unfinished = directory.unfinished(covered);
    let written = write_file(&unfinished, histories, (clock, boot), abandon, stats);
    let length = match written {
        Ok(length) => length,
        Err(error) => {
            // Without this the next start removes it.
            let _ = std::fs::remove_file(&unfinished);
            return Err(error);
        }
    };
    std::fs::rename(&unfinished, directory.snapshot(covered))?;
    directory.sync()?;
    directory.remove_covered(covered)?;
    Ok(length)
}

fn write_file(
    path: &std::path::Path,
    histories: &dyn Histories,
    (clock, boot): (&Clock, Boot),
    abandon: &AtomicBool,
    stats: &LogStats,
) -> io::Result<u64> {
    let mut file = Segment::create(path, true, boot)?;
    let mut content = Vec::with_capacity(BLOCK + BLOCK / 4);
    block::begin(&mut content);
    for channel in histories.channels() {
        if abandon.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let Some(copy) = histories.copy(&channel) else { continue };
        put_stream(&copy, clock, &mut content);
        for publication in &copy.publications {
            put_kept(publication, &mut content);
            if content.len() >= BLOCK {
                file.append(&mut content)?;
                block::begin(&mut content);
            }
        }
        if content.len() >= BLOCK {
            file.append(&mut content)?;
            block::begin(&mut content);
        }
    }
    if !block::is_empty(&content) {
        file.append(&mut content)?;
        block::begin(&mut content);
    }
    // In a block of its own, as a reader expects it.
    Record::Clean.encode(&mut content);
    file.append(&mut content)?;
    sync(file.file(), stats)?;
    Ok(file.length())
}
