//! A file of the log that is being written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::block::{self, Boot, FILE_HEADER, FileHeader};

/// A file with its header, that blocks are appended to.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<File>,
    /// Where the next block goes.
    length: u64,
    salt: u32,
}

impl Segment {
    /// Makes a file that does not exist yet, and its header durable. Where that fails, nothing is left of it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn create(path: &Path, always: bool, boot: Boot) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        let salt = random();
        let header = FileHeader { salt, always, boot }.encode();
        let made = file.write_all_at(&header, 0).and_then(|()| file.sync_all());
        if let Err(error) = made {
            // What is left behind would be told as damage at the next start, and does no other harm.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(Self { file: Arc::new(file), length: FILE_HEADER as u64, salt })
    }

    /// Appends a block that was begun, and has no header yet. After an error the same place is written again by the
    /// next one.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn append(&mut self, block: &mut [u8]) -> io::Result<()> {
        block::seal(block, self.salt).map_err(io::Error::other)?;
        self.file.write_all_at(block, self.length)?;
        self.length += block.len() as u64;
        Ok(())
    }

    /// Takes back what was appended beyond `length`, because a sync has failed: the kernel may have dropped it, and what
    /// stands there in its place would be told as damage at the next start. Where this fails too, it is.
    pub(super) fn take_back(&mut self, length: u64) {
        if self.file.set_len(length).is_ok() {
            self.length = length;
        }
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The file, for those who sync it.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }
}

/// The standard hasher is seeded at random; nothing more is needed.
fn random() -> u32 {
    use std::hash::BuildHasher;
    (std::hash::RandomState::new().hash_one(std::process::id()) >> 32) as u32
}
