//! What goes out next: channels with publications, taken in turn and in slices.
//!
//! A channel that is busy does not delay the others. Publications wait with their channel; ready
//! channels stand in one queue; each turn every ready channel is served once, at most
//! [`QUANTUM`] subscribers of it. While a large channel is being served, what arrives for it
//! collects, and goes out joined in its next round: the more a channel is flooded, the cheaper
//! each of its messages becomes.
//!
//! One round of a channel (a [`Round`]) is over before its next one begins: that keeps the
//! channel's order for every subscriber.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tidegate_broadcaster::{Publication, PushKind};

use super::ChannelId;

/// Subscribers of one channel served in one turn: a third of a millisecond of writing. A small channel waits for a few of
/// these behind a large one; a turn of its own costs no more than a twentieth of such a slice.
pub const QUANTUM: usize = 32;

/// Subscribers of all channels served in one turn: a turn's writing takes 2 or 3 ms at most.
pub const BUDGET: usize = 256;

/// Payload bytes joined in one round of a channel. More would hold back other channels for longer
/// and save nothing: a write of this size is dominated by copying.
pub const ROUND_BYTES: usize = 64 * 1024;

/// The publications that go to a channel's subscribers together, with `W`, what has been encoded
/// for them. Who comes and goes is told in rounds of their own: other subscribers get those.
#[derive(Debug)]
pub struct Round<W> {
    /// In the order in which the broker delivered them; never empty.
    pub publications: Vec<Arc<Publication>>,
    /// Encodings, made when the first subscriber needs them.
    pub wires: W,
}

#[derive(Debug)]
struct Waiting<W> {
    publications: VecDeque<Arc<Publication>>,
    round: Option<Round<W>>,
}

/// The channels that have something to send.
#[derive(Debug)]
pub struct Fanout<W> {
    ready: VecDeque<ChannelId>,
    waiting: HashMap<ChannelId, Waiting<W>, rustc_hash::FxBuildHasher>,
}

impl<W> Default for Fanout<W> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), waiting: HashMap::default() }
    }
}

/// What a publication counts for while it waits: its payload and about what its struct takes.
pub fn weight(publication: &Publication) -> usize {
    publication.payload.data.len() + 128
}

impl<W> Round<W> {
    /// Whether the round tells who comes and goes.
    pub fn is_attendance(&self) -> bool {
        self.publications.first().is_some_and(|first| first.kind != PushKind::Publication)
    }
}

impl<W: Default> Fanout<W> {
    /// Adds a publication behind those that wait for the channel already.
    pub fn push(&mut self, channel: ChannelId, publication: Arc<Publication>) {
        let waiting = self.waiting.entry(channel).or_insert_with(|| {
            self.ready.push_back(channel);
            Waiting { publications: VecDeque::new(), round: None }
        });
        waiting.publications.push_back(publication);
    }

    /// The number of ready channels.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the channel whose turn it is, with its round in progress (`true`: it has just begun).
    /// It has to be given back with [`Fanout::put_back`], or ended with [`Fanout::finish`].
    pub fn take(&mut self) -> Option<(ChannelId, Round<W>, bool)> {
        let channel = self.ready.pop_front()?;
        let waiting = self.waiting.get_mut(&channel)?;
        if let Some(round) = waiting.round.take() {
            return Some((channel, round, false));
        }
        let mut bytes = 0;
        let mut publications = Vec::with_capacity(waiting.publications.len().min(256));
        let mut attendance = None;
        while let Some(next) = waiting.publications.front() {
            bytes += weight(next);
            let is_attendance = next.kind != PushKind::Publication;
            let differs = *attendance.get_or_insert(is_attendance) != is_attendance;
            if (bytes > ROUND_BYTES || differs) && !publications.is_empty() {
                break;
            }
            publications.extend(waiting.publications.pop_front());
        }
        Some((channel, Round { publications, wires: W::default() }, true))
    }

    /// The round has subscribers left: it goes on when the channel's turn comes again.
    pub fn put_back(&mut self, channel: ChannelId, round: Round<W>) {
        if let Some(waiting) = self.waiting.get_mut(&channel) {
            waiting.round = Some(round);
            self.ready.push_back(channel);
        }
    }

    /// The round is over. If more publications have come, the channel gets into line again.
    pub fn finish(&mut self, channel: ChannelId) {
        let Some(waiting) = self.waiting.get(&channel) else { return };
        if waiting.publications.is_empty() {
            self.waiting.remove(&channel);
        } else {
            self.ready.push_back(channel);
        }
    }

    /// The channel is gone from the shard: what waits for it has nobody to go to. Answers the
    /// publications that no round had taken yet.
    pub fn forget(&mut self, channel: ChannelId) -> Vec<Arc<Publication>> {
        let Some(waiting) = self.waiting.remove(&channel) else { return Vec::new() };
        self.ready.retain(|ready| *ready != channel);
        waiting.publications.into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use tidegate_broadcaster::{Content, Payload};

    use super::*;

    fn publication(offset: u64, size: usize) -> Arc<Publication> {
        Arc::new(Publication {
            channel: "c".into(),
            kind: PushKind::Publication,
            payload: Payload { data: Bytes::from(vec![b'x'; size]), kind: Content::Text },
            offset,
            epoch: "".into(),
            info: None,
            tags: Default::default(),
            delta: false,
            is_late: false,
            received: Instant::now(),
        })
    }

    fn offsets(round: &Round<()>) -> Vec<u64> {
        round.publications.iter().map(|publication| publication.offset).collect()
    }

    #[test]
    fn what_arrives_during_a_round_waits_for_the_next_one() {
        let mut fanout = Fanout::<()>::default();
        fanout.push(1, publication(1, 10));
        let (channel, round, begun) = fanout.take().unwrap();
        assert!(begun);
        fanout.push(1, publication(2, 10));
        fanout.push(1, publication(3, 10));
        fanout.put_back(channel, round);
        let (_, round, begun) = fanout.take().unwrap();
        assert!(!begun);
        assert_eq!(offsets(&round), [1]);
        fanout.finish(channel);
        let (_, round, begun) = fanout.take().unwrap();
        assert!(begun);
        assert_eq!(offsets(&round), [2, 3]);
        fanout.finish(channel);
        assert!(fanout.take().is_none());
    }

    #[test]
    fn a_large_channel_stands_behind_the_small_ones_again() {
        let mut fanout = Fanout::<()>::default();
        fanout.push(1, publication(1, 10));
        fanout.push(2, publication(1, 10));
        let (large, round, _) = fanout.take().unwrap();
        fanout.put_back(large, round);
        assert_eq!(fanout.take().map(|(channel, ..)| channel), Some(2));
        fanout.finish(2);
        assert_eq!(fanout.take().map(|(channel, ..)| channel), Some(1));
    }

    #[test]
    fn a_round_is_bounded_but_takes_at_least_one() {
        let mut fanout = Fanout::<()>::default();
        for (offset, size) in [(1, 2 * ROUND_BYTES), (2, ROUND_BYTES / 2), (3, ROUND_BYTES / 2)] {
            fanout.push(1, publication(offset, size));
        }
        for expected in [[1], [2], [3]] {
            let (channel, round, _) = fanout.take().unwrap();
            assert_eq!(offsets(&round), expected);
            fanout.finish(channel);
        }
    }

    #[test]
    fn a_forgotten_channel_gives_back_what_it_had() {
        let mut fanout = Fanout::<()>::default();
        fanout.push(1, publication(1, 10));
        fanout.push(2, publication(1, 10));
        assert_eq!(fanout.forget(1).len(), 1);
        assert_eq!(fanout.ready(), 1);
        assert_eq!(fanout.take().map(|(channel, ..)| channel), Some(2));
    }
}
