//! What the log needs to know, with the defaults, and why it may not start.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the log is and what it promises.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The directory, which is made where it does not exist. No other process may use it.
    pub path: PathBuf,
    /// When what was written is made durable.
    pub fsync: Fsync,
    /// Bytes from which on a segment is followed by the next one. Default 64 MiB.
    pub segment_size: u64,
    /// The log is rewritten when it has more than so many times the bytes of what it keeps. Default 2.
    pub compaction_ratio: u32,
    /// Bytes that may wait to be written; publishes beyond are refused. Default 16 MiB.
    pub max_pending: usize,
}

/// When what was written is made durable (`fsync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before a publish is answered and delivered.
    Always,
    /// So often.
    Interval(Duration),
    /// When the system thinks fit.
    Never,
}

impl LogSettings {
    /// The defaults for this directory: made durable every second.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            fsync: Fsync::Interval(Duration::from_secs(1)),
            segment_size: 64 * 1024 * 1024,
            compaction_ratio: 2,
            max_pending: 16 * 1024 * 1024,
        }
    }
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system's answer.
    #[error("{path}: {error}")]
    System {
        /// What was to be read or written.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{0}: another process uses this directory; give each node a directory of its own")]
    Taken(PathBuf),
}

impl LogError {
    /// What the system said about this path.
    pub(super) fn new(path: &Path, error: io::Error) -> Self {
        Self::System { path: path.to_owned(), error }
    }
}
