//! The log's directory: which files there are, what they are called, and whose they are.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::LogError;

const LOCK: &str = "lock";
const RENEW: &str = "new-epochs";
const SEGMENT: &str = "log";
const SNAPSHOT: &str = "snapshot";
const UNFINISHED: &str = "unfinished";
const CORRUPT: &str = "corrupt";

/// A directory that is this process's own until the value goes.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Held open: the lock goes with it, however the process ends.
    _lock: File,
}

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogFile {
    /// Its number. A snapshot covers the segments up to this number.
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

/// What of the log is in its directory, each by number.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) snapshots: Vec<LogFile>,
    pub(super) segments: Vec<LogFile>,
}

impl Directory {
    /// Takes the directory, which is made where it does not exist.
    ///
    /// # Errors
    /// It cannot be made or used, or another process has it.
    pub(super) fn take(path: &Path) -> Result<Self, LogError> {
        let wrong = |error| LogError::new(path, error);
        fs::create_dir_all(path).map_err(wrong)?;
        let lock = File::create(path.join(LOCK)).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(LogError::Taken(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(wrong(error)),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks what there is.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            match (number, path.extension().and_then(|extension| extension.to_str())) {
                (Some(number), Some(SEGMENT)) => listing.segments.push(LogFile { number, path }),
                (Some(number), Some(SNAPSHOT)) => listing.snapshots.push(LogFile { number, path }),
                _ => {}
            }
        }
        listing.snapshots.sort_by_key(|file| file.number);
        listing.segments.sort_by_key(|file| file.number);
        Ok(listing)
    }

    /// Removes what the last process has not finished.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The segment with this number.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.name(number, SEGMENT)
    }

    /// The snapshot that covers the segments up to this number.
    pub(super) fn snapshot(&self, number: u64) -> PathBuf {
        self.name(number, SNAPSHOT)
    }

    /// What that snapshot is called while it is being written.
    pub(super) fn unfinished(&self, number: u64) -> PathBuf {
        self.name(number, UNFINISHED)
    }

    fn name(&self, number: u64, extension: &str) -> PathBuf {
        self.path.join(format!("{number:020}.{extension}"))
    }

    /// Removes the segments up to number `covered`, and the snapshots before that number.
    ///
    /// # Errors
    /// The system's. What is left is removed another time.
    pub(super) fn remove_covered(&self, covered: u64) -> io::Result<()> {
        let Listing { snapshots, segments } = self.list()?;
        let snapshots = snapshots.iter().filter(|file| file.number < covered);
        let segments = segments.iter().filter(|file| file.number <= covered);
        snapshots.chain(segments).try_for_each(|file| std::fs::remove_file(&file.path))
    }

    /// Makes durable which files there are.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Gives a damaged file a second name, which nobody reads but a person, and keeps the first one until a snapshot
    /// has taken its place: should the node end before that, the next start finds everything as it was.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn keep_damaged(&self, file: &Path) -> io::Result<()> {
        let mut aside = file.as_os_str().to_owned();
        aside.push(".");
        aside.push(CORRUPT);
        match fs::hard_link(file, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // Not every file system has links.
            Err(_) => fs::copy(file, &aside).map(|_| ()),
            Ok(()) => Ok(()),
        }
    }

    /// Whether an operator wants every channel to be numbered anew, which a file of this name says.
    pub(super) fn wants_new_epochs(&self) -> bool {
        self.path.join(RENEW).exists()
    }

    /// Notes that it has been done.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn has_new_epochs(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(RENEW)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
