//! What a socket has not taken yet.
//!
//! Exists only while a socket is behind. Chunks that many sessions wait for share their bytes, so
//! a thousand stalled readers of one channel hold its messages once.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::config::QueuePolicy;
use crate::hub::ChannelId;

/// Slices handed to one `writev`.
pub const MAX_SLICES: usize = 64;

/// What becomes of a channel's publications where they have to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queueing {
    /// The channel.
    pub channel: ChannelId,
    /// What its namespace says. Replies wait, whatever happens.
    pub policy: QueuePolicy,
}

/// A run of whole messages.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// What is left of the bytes.
    pub bytes: Bytes,
    /// Messages in it.
    pub messages: u32,
    /// Publications among the messages: what delivery accounting counts.
    pub publications: u32,
    /// What becomes of it.
    pub queueing: Queueing,
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

    /// Takes out the chunk that a newer one of its channel replaces, unless it has been written in part. Answers its bytes and
    /// publications.
    pub fn replace(&mut self, channel: ChannelId) -> (usize, u64) {
        let is_older = |chunk: &Chunk| chunk.queueing == Queueing { channel, policy: QueuePolicy::Latest };
        let first = usize::from(self.torn);
        match self.chunks.iter().skip(first).position(is_older) {
            Some(at) => self.take_out(first + at),
            None => (0, 0),
        }
    }

    /// Drops the oldest chunks that may be dropped, until no more than `most` bytes wait or none is left. Answers their bytes
    /// and publications.
    pub fn drop_oldest(&mut self, most: usize) -> (usize, u64) {
        let (mut bytes, mut publications) = (0, 0);
        let mut at = usize::from(self.torn);
        while self.bytes > most {
            match self.chunks.get(at) {
                Some(chunk) if chunk.queueing.policy == QueuePolicy::DropOldest => {
                    let taken = self.take_out(at);
                    (bytes, publications) = (bytes + taken.0, publications + taken.1);
                }
                Some(_) => at += 1,
                None => break,
            }
        }
        (bytes, publications)
    }

    fn take_out(&mut self, at: usize) -> (usize, u64) {
        let Some(chunk) = self.chunks.remove(at) else { return (0, 0) };
        let (bytes, publications) = (chunk.bytes.len(), u64::from(chunk.publications));
        self.bytes -= bytes;
        self.publications -= publications;
        (bytes, publications)
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
        let queueing = Queueing::default();
        Chunk { bytes: Bytes::from_static(bytes), messages: publications.max(1), publications, queueing }
    }

    fn queued(bytes: &'static [u8], channel: ChannelId, policy: QueuePolicy) -> Chunk {
        Chunk { queueing: Queueing { channel, policy }, ..chunk(bytes, 1) }
    }

    fn joined(outbox: &Outbox) -> Vec<u8> {
        outbox.chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect()
    }

    #[test]
    fn a_newer_one_takes_the_place_of_its_own_channel_only() {
        let mut outbox = Outbox::default();
        for (bytes, channel) in [(b"aa", 1), (b"bb", 2), (b"cc", 3)] {
            outbox.push(queued(bytes, channel, QueuePolicy::Latest), false);
        }
        outbox.push(queued(b"dd", 2, QueuePolicy::Disconnect), false);
        assert_eq!(outbox.replace(2), (2, 1));
        assert_eq!(outbox.replace(2), (0, 0), "what has another policy stays");
        assert_eq!((joined(&outbox).as_slice(), outbox.bytes(), outbox.publications()), (&b"aaccdd"[..], 6, 3));
        outbox.advance(1);
        assert_eq!(outbox.replace(1), (0, 0), "what is half written has to be completed");
    }

    #[test]
    fn the_oldest_go_first_and_replies_never() {
        let mut outbox = Outbox::default();
        outbox.push(queued(b"aa", 1, QueuePolicy::DropOldest), false);
        outbox.push(chunk(b"reply", 0), false);
        outbox.push(queued(b"bb", 2, QueuePolicy::DropOldest), false);
        outbox.push(queued(b"cc", 1, QueuePolicy::DropOldest), false);
        outbox.advance(1);
        assert_eq!(outbox.drop_oldest(8), (2, 1));
        assert_eq!(joined(&outbox), b"areplycc");
        assert_eq!(outbox.drop_oldest(0), (2, 1));
        assert_eq!(joined(&outbox), b"areply");
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
