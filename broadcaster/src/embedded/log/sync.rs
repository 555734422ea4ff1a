//! Makes writes durable beside the writer, so that publications do not wait for it under `fsync = interval`.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::stats::LogStats;

/// A thread that syncs files, one order at a time.
#[derive(Debug)]
pub(super) struct Syncer {
    /// `None` only while it ends.
    orders: Option<SyncSender<Vec<Arc<File>>>>,
    results: Receiver<io::Result<()>>,
    under_way: bool,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives none.
    pub(super) fn start(stats: Arc<LogStats>) -> io::Result<Self> {
        let (orders, ordered) = sync_channel::<Vec<Arc<File>>>(1);
        let (done, results) = sync_channel(1);
        let thread = std::thread::Builder::new().name("history-sync".to_owned()).spawn(move || {
            for files in ordered {
                let synced = files.iter().try_for_each(|file| sync(file, &stats));
                if done.send(synced).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders: Some(orders), results, under_way: false, thread: Some(thread) })
    }

    /// Whether it works on an order.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Has files synced. There must be no other order under way.
    pub(super) fn order(&mut self, files: Vec<Arc<File>>) {
        debug_assert!(!self.under_way, "one order at a time");
        self.under_way = self.orders.as_ref().is_some_and(|orders| orders.send(files).is_ok());
    }

    /// What became of the order, if it has just ended.
    pub(super) fn result(&mut self) -> Option<io::Result<()>> {
        if !self.under_way {
            return None;
        }
        let result = match self.results.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the thread that syncs has ended")),
        };
        self.under_way = false;
        Some(result)
    }

    /// Waits for the order that is under way.
    ///
    /// # Errors
    /// The sync's.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.under_way) {
            return Ok(());
        }
        self.results.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has ended")))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked, or it has ended: it is gone either way.
            let _ = thread.join();
        }
    }
}

/// Makes what was written into a file durable.
///
/// # Errors
/// The system's. What was written since the last success may be lost then, whatever a later sync says.
pub(super) fn sync(file: &File, stats: &LogStats) -> io::Result<()> {
    let began = Instant::now();
    file.sync_data()?;
    stats.syncs.record(began.elapsed());
    Ok(())
}
