//! Reads a file of the log, block by block, and finds out where it is damaged.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memchr::memmem;

use super::block::{BLOCK_HEADER, BlockHeader, FILE_HEADER, FileHeader};

/// Bytes read at once.
const WINDOW: usize = 1024 * 1024;

/// A file of which a part is in memory.
#[derive(Debug)]
pub(super) struct Window {
    file: File,
    length: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
    /// Bytes of the buffer that were read.
    filled: usize,
}

/// How reading a file went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where the good part ends, if what follows is no block and has none behind it.
    pub(super) torn: Option<u64>,
    /// What follows there is the beginning of a block, as a write leaves it that was cut short.
    pub(super) short: bool,
    /// Parts that are no blocks, with blocks behind them.
    pub(super) corrupt: Vec<Range<u64>>,
}

impl Window {
    /// Opens a file.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, buffer: Vec::new(), start: 0, filled: 0 })
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// These bytes of the file; fewer where it ends. No range takes more memory than the file has bytes.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn get(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        let end = range.end.min(self.length);
        let wanted = usize::try_from(end.saturating_sub(range.start)).map_err(io::Error::other)?;
        let inside = range.start >= self.start && end <= self.start + self.filled as u64;
        if !inside {
            let left = usize::try_from(self.length.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let size = wanted.max(WINDOW.min(left));
            if self.buffer.len() < size {
                self.buffer.resize(size, 0);
            }
            self.start = range.start;
            self.filled = 0;
            while self.filled < wanted.min(size) {
                match self.file.read_at(&mut self.buffer[self.filled..size], self.start + self.filled as u64) {
                    // Somebody has made the file shorter.
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => self.filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        // It is inside now, or the file ends before the range begins.
        let from = usize::try_from(range.start - self.start).map_err(io::Error::other)?;
        Ok(self.buffer[..self.filled].get(from..from + wanted).unwrap_or_default())
    }

    /// The file's header, if it has one.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn header(&mut self) -> io::Result<Option<FileHeader>> {
        Ok(FileHeader::decode(self.get(0..FILE_HEADER as u64)?))
    }

    /// The content of the block at this place, if there is one.
    fn block(&mut self, at: u64, salt: u32) -> io::Result<Option<&[u8]>> {
        let Some(header) = BlockHeader::decode(self.get(at..at + BLOCK_HEADER as u64)?, salt) else {
            return Ok(None);
        };
        let content = at + BLOCK_HEADER as u64;
        let content = self.get(content..content + u64::from(header.length))?;
        Ok(header.is_of(content).then_some(content))
    }

    /// The place of the first block at or behind this place, if there is one.
    fn next_block(&mut self, mut at: u64, salt: u32) -> io::Result<Option<u64>> {
        let mark = salt.to_le_bytes();
        while at < self.length {
            let part = self.get(at..at + WINDOW as u64)?;
            let read = part.len() as u64;
            let Some(found) = memmem::find(part, &mark) else {
                // The mark may begin at the end of this part.
                at += read.saturating_sub(mark.len() as u64 - 1).max(1);
                continue;
            };
            at += found as u64;
            if self.block(at, salt)?.is_some() {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Gives every block's content to `take`, in order, with its place in the file. Goes on behind what is damaged.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn blocks(&mut self, salt: u32, mut take: impl FnMut(u64, &[u8])) -> io::Result<Damage> {
        let mut damage = Damage::default();
        let mut at = FILE_HEADER as u64;
        while at < self.length {
            if let Some(content) = self.block(at, salt)? {
                let end = at + (BLOCK_HEADER + content.len()) as u64;
                take(at + BLOCK_HEADER as u64, content);
                at = end;
                continue;
            }
            match self.next_block(at + 1, salt)? {
                Some(next) => {
                    damage.corrupt.push(at..next);
                    at = next;
                }
                None => {
                    let header = BlockHeader::decode(self.get(at..at + BLOCK_HEADER as u64)?, salt);
                    let content = at + BLOCK_HEADER as u64;
                    damage.short = match header {
                        Some(header) => content + u64::from(header.length) > self.length,
                        None => content > self.length,
                    };
                    damage.torn = Some(at);
                    break;
                }
            }
        }
        Ok(damage)
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{Boot, begin, seal};
    use super::super::tests::Folder;
    use super::*;

    const SALT: u32 = 0x5eed_1234;

    /// A file with blocks of these contents.
    fn file(contents: &[&[u8]]) -> Vec<u8> {
        let mut bytes = FileHeader { salt: SALT, always: true, boot: Boot::from_text("") }.encode();
        for content in contents {
            let mut block = Vec::new();
            begin(&mut block);
            block.extend_from_slice(content);
            seal(&mut block, SALT).unwrap();
            bytes.extend(block);
        }
        bytes
    }

    fn read(folder: &Folder, bytes: &[u8]) -> (Vec<Vec<u8>>, Damage) {
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let mut contents = Vec::new();
        let damage = Window::open(&path).unwrap().blocks(SALT, |_, content| {
            contents.push(content.to_vec());
        });
        (contents, damage.unwrap())
    }

    #[test]
    fn a_file_that_ends_anywhere_has_its_whole_blocks_and_a_torn_rest() {
        let folder = Folder::new();
        let contents: [&[u8]; 3] = [b"one", b"the second", b"3"];
        let ends: Vec<_> = (0..=3).map(|n| file(&contents[..n]).len()).collect();
        let bytes = file(&contents);
        for end in FILE_HEADER..=bytes.len() {
            let whole = ends.iter().filter(|whole| **whole <= end).count() - 1;
            let (found, damage) = read(&folder, &bytes[..end]);
            assert_eq!(found, contents[..whole], "cut at {end}");
            let torn = (end > ends[whole]).then_some(ends[whole] as u64);
            assert_eq!(damage, Damage { torn, short: torn.is_some(), corrupt: vec![] }, "cut at {end}");
        }
    }

    #[test]
    fn a_damaged_byte_costs_its_block_alone() {
        let folder = Folder::new();
        let contents: [&[u8]; 3] = [b"one", b"the second", b"3"];
        let (start, end) = (file(&contents[..1]).len(), file(&contents[..2]).len());
        let bytes = file(&contents);
        for at in FILE_HEADER..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let (found, damage) = read(&folder, &damaged);
            assert_eq!(found.len(), 2, "damaged at {at}");
            if (start..end).contains(&at) {
                assert_eq!(found, [contents[0], contents[2]]);
                let whole = start as u64..end as u64;
                assert_eq!(damage, Damage { torn: None, short: false, corrupt: vec![whole] });
            }
            assert_eq!(damage.torn.is_some(), at >= end, "only the last block can have been torn");
            assert!(!damage.short, "nothing is missing at the end: it was damaged, and not cut short");
        }
    }

    #[test]
    fn a_file_that_is_longer_than_what_is_read_at_once_is_read_to_its_end() {
        let folder = Folder::new();
        let large = vec![7; WINDOW + 1000];
        let small = vec![8; 100_000];
        let mut contents: Vec<&[u8]> = vec![&small; 100];
        contents.insert(50, &large);
        let (found, damage) = read(&folder, &file(&contents));
        assert_eq!((found.len(), damage), (101, Damage::default()));
        assert_eq!(found[50], large);
        // The next block is far behind a damaged one.
        let mut bytes = file(&[&large, b"last"]);
        bytes[FILE_HEADER + 100] ^= 1;
        let (found, damage) = read(&folder, &bytes);
        assert_eq!(found, [b"last"]);
        assert_eq!(damage.corrupt.len(), 1);
    }
}
