//! Replays with all processors: each worker takes the records of its part of the channels, and passes the others over.

use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::record::{Malformed, Raw};
use super::replay::{Replay, Spot};

/// Bytes that are handed over at once.
const CHUNK: usize = 256 * 1024;

/// Chunks that may wait for a worker.
const AHEAD: usize = 16;

/// More workers wait for the one that reads.
const MOST: usize = 4;

/// Contents of blocks of one file.
#[derive(Debug)]
struct Chunk {
    file: u32,
    bytes: Vec<u8>,
    /// For each block where its content begins in the file, and where it ends in `bytes`.
    blocks: Vec<(u64, usize)>,
}

/// The workers.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<(SyncSender<Arc<Chunk>>, JoinHandle<Worker>)>,
    chunk: Chunk,
}

/// What a worker has made of its part.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) replay: Replay,
    /// Files with records that cannot be read, though the checksum is right.
    pub(super) malformed: Vec<u32>,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let workers = (0..count).map(|part| {
            let (chunks, handed) = sync_channel(AHEAD);
            let thread = std::thread::Builder::new().name(format!("history-read-{part}"));
            Ok((chunks, thread.spawn(move || work(&handed, part, count))?))
        });
        Ok(Self { workers: workers.collect::<io::Result<_>>()?, chunk: Chunk::new(0) })
    }

    /// Takes a block's content, which begins at this place of the file.
    pub(super) fn take(&mut self, file: u32, at: u64, content: &[u8]) {
        if file != self.chunk.file || self.chunk.bytes.len() + content.len() > CHUNK {
            self.hand_over(file);
        }
        self.chunk.bytes.extend_from_slice(content);
        self.chunk.blocks.push((at, self.chunk.bytes.len()));
    }

    fn hand_over(&mut self, next_file: u32) {
        let chunk = Arc::new(std::mem::replace(&mut self.chunk, Chunk::new(next_file)));
        if chunk.blocks.is_empty() {
            return;
        }
        for (chunks, _) in &self.workers {
            // A worker that has panicked is told of at the end.
            let _ = chunks.send(Arc::clone(&chunk));
        }
    }

    /// Waits until everything is replayed.
    ///
    /// # Errors
    /// A worker has panicked.
    pub(super) fn finish(mut self) -> io::Result<Vec<Worker>> {
        self.hand_over(0);
        let ended = self.workers.into_iter().map(|(chunks, thread)| {
            drop(chunks);
            thread.join().map_err(|_| io::Error::other("a thread that reads has panicked"))
        });
        ended.collect()
    }
}

impl Chunk {
    fn new(file: u32) -> Self {
        Self { file, bytes: Vec::with_capacity(CHUNK), blocks: Vec::new() }
    }
}

fn work(chunks: &Receiver<Arc<Chunk>>, part: usize, parts: usize) -> Worker {
    let mut worker = Worker::default();
    // The same one for every worker.
    let hasher = foldhash::fast::FixedState::default();
    while let Ok(chunk) = chunks.recv() {
        let mut start = 0;
        for (at, end) in &chunk.blocks {
            let content = chunk.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            let is_own = |channel: &[u8]| hasher.hash_one(channel) as usize % parts == part;
            if records(content, (chunk.file, *at), &mut worker.replay, is_own).is_err() {
                worker.malformed.push(chunk.file);
            }
        }
    }
    worker
}

/// Takes the records of a block.
fn records(
    content: &[u8],
    (file, at): (u32, u64),
    replay: &mut Replay,
    is_own: impl Fn(&[u8]) -> bool,
) -> Result<(), Malformed> {
    let mut rest = content;
    while !rest.is_empty() {
        let start = content.len() - rest.len();
        let raw = Raw::next(&mut rest)?;
        if is_own(raw.channel()?) {
            replay.apply(raw.read()?, Spot { file, at: at + start as u64, length: raw.length as u32 });
        }
    }
    Ok(())
}
