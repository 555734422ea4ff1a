//! What a socket has not taken yet.
//!
//! Exists only while a socket is behind. Chunks that many sessions wait for share their bytes, so
//! a thousand stalled readers of one channel hold its messages once.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Slices handed to one `writev`.
pub const MAX_SLICES: usize = 64;

/// A run of whole messages.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// What is left of the bytes.
    pub bytes: Bytes,
    /// Messages in it.
    pub messages: u32,
    /// Publications among the messages: what delivery accounting counts.
    pub publications: u32,
}

/// Chunks in the order in which they have to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    publications: u64,
    /// Whether the first chunk has been written in part, so that it cannot be given up without
    /// breaking the stream.
    torn: bool,
}

/// What writing completed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes.
    pub bytes: usize,
    /// Whole messages.
    pub messages: u64,
    /// Publications among them.
    pub publications: u64,
}

impl Outbox {
    /// Appends a chunk; `torn` says that its beginning has been written already.
    pub fn push(&mut self, chunk: Chunk, torn: bool) {
        debug_assert!(!torn || self.chunks.is_empty(), "only the first chunk can be torn");
        self.torn |= torn;
        self.bytes += chunk.bytes.len();
        self.publications += u64::from(chunk.publications);
        self.chunks.push_back(chunk);
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Publications that wait.
    pub fn publications(&self) -> u64 {
        self.publications
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The first chunks, as many as one `writev` takes.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(&chunk.bytes);
            used += 1;
        }
        used
    }

    /// Notes that the socket took `n` bytes. A message counts once its chunk is written whole.
    pub fn advance(&mut self, n: usize) -> Taken {
        let mut taken = Taken { bytes: n, ..Taken::default() };
        let mut left = n;
        while let Some(first) = self.chunks.front_mut() {
            if left < first.bytes.len() {
                if left > 0 {
                    bytes::Buf::advance(&mut first.bytes, left);
                    self.torn = true;
                }
                break;
            }
            left -= first.bytes.len();
            taken.messages += u64::from(first.messages);
            taken.publications += u64::from(first.publications);
            self.torn = false;
            self.chunks.pop_front();
        }
        self.bytes -= n;
        self.publications -= taken.publications;
        taken
    }

    /// Gives up everything but a torn first chunk, which has to be completed before another
    /// message can follow. Answers the number of publications given up.
    pub fn discard(&mut self) -> u64 {
        self.chunks.truncate(usize::from(self.torn));
        let kept = self.chunks.front();
        self.bytes = kept.map_or(0, |chunk| chunk.bytes.len());
        let kept = kept.map_or(0, |chunk| u64::from(chunk.publications));
        std::mem::replace(&mut self.publications, kept) - kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &'static [u8], publications: u32) -> Chunk {
        Chunk { bytes: Bytes::from_static(bytes), messages: publications.max(1), publications }
    }

    fn outbox() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.push(chunk(b"aaaa", 2), false);
        outbox.push(chunk(b"bb", 0), false);
        outbox.push(chunk(b"cccc", 1), false);
        outbox
    }

    #[test]
    fn a_message_counts_when_its_chunk_is_written_whole() {
        let mut outbox = outbox();
        assert_eq!(outbox.advance(3), Taken { bytes: 3, messages: 0, publications: 0 });
        assert_eq!(outbox.advance(3), Taken { bytes: 3, messages: 3, publications: 2 });
        assert_eq!((outbox.bytes(), outbox.publications()), (4, 1));
        assert_eq!(outbox.advance(4), Taken { bytes: 4, messages: 1, publications: 1 });
        assert!(outbox.is_empty());
    }

    #[test]
    fn giving_up_keeps_a_chunk_that_is_half_written() {
        let mut torn = outbox();
        torn.advance(1);
        assert_eq!(torn.discard(), 1);
        assert_eq!((torn.bytes(), torn.publications()), (3, 2));
        assert_eq!(torn.advance(3).publications, 2);

        let mut whole = outbox();
        whole.advance(4);
        assert_eq!(whole.discard(), 1);
        assert!(whole.is_empty());
        assert_eq!(whole.bytes(), 0);
    }

    #[test]
    fn slices_come_in_order() {
        let outbox = outbox();
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let used = outbox.slices(&mut slices);
        let joined: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(joined, b"aaaabbcccc");
    }
}
