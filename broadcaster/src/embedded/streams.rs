//! The histories of all channels, in memory. Pure: time comes in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{Published, Version};
use crate::history::{History, HistoryQuery, Position, Retention};
use crate::publication::{Channel, Publication};

/// How long the outcome of a publish with an idempotency key is remembered.
const IDEMPOTENCY_TTL: Duration = Duration::from_secs(300);

/// One channel's history.
#[derive(Debug)]
struct Stream {
    epoch: Arc<str>,
    top: u64,
    publications: VecDeque<Arc<Publication>>,
    /// When the publications go.
    publications_until: Instant,
    /// When the position goes as well.
    until: Instant,
    version: Version,
    /// Outcomes of publishes with keys, the oldest first. Most channels have none.
    answered: VecDeque<(Instant, String, u64)>,
}

/// What became of a publication that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Appended {
    /// It is kept, with this place.
    Kept(Published),
    /// It is not: one with this key has been published already, or a newer version. This is what that one came to.
    Suppressed(Published),
}

/// The histories by channel.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<Channel, Stream, foldhash::fast::RandomState>,
    /// For each stream one time at which something of it may go; looked at when it comes, and entered anew.
    due: BinaryHeap<Reverse<(Instant, Channel)>>,
    /// How many epochs have been given out.
    epochs: u64,
    /// What the epochs of this process begin with.
    seed: u64,
}

impl Stream {
    /// Drops what is too old.
    fn expire(&mut self, now: Instant) {
        if now >= self.publications_until {
            self.publications = VecDeque::new();
        }
        while self.answered.front().is_some_and(|(until, ..)| *until <= now) {
            self.answered.pop_front();
        }
    }

    fn published(&self, offset: u64) -> Published {
        Published { offset, epoch: self.epoch.to_string() }
    }

    fn position(&self) -> Position {
        Position { offset: self.top, epoch: Arc::clone(&self.epoch) }
    }

    /// When the next thing of it goes.
    fn next(&self) -> Instant {
        let answered = self.answered.front().map(|(until, ..)| *until);
        let publications = (!self.publications.is_empty()).then_some(self.publications_until);
        [answered, publications].into_iter().flatten().fold(self.until, Instant::min)
    }
}

impl Streams {
    /// Without any stream. The seed tells this process' epochs from those of others.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Gives a publication its place and keeps it. `publication` makes it from offset and epoch.
    pub(super) fn append(
        &mut self,
        channel: &Channel,
        retention: Retention,
        condition: (Option<String>, Option<Version>),
        now: Instant,
        publication: impl FnOnce(u64, Arc<str>) -> Arc<Publication>,
    ) -> Appended {
        let (key, version) = condition;
        let stream = self.stream(channel, retention.meta_ttl, now);
        if let Some(key) = &key
            && let Some((.., offset)) = stream.answered.iter().find(|(_, answered, _)| answered == key)
        {
            return Appended::Suppressed(stream.published(*offset));
        }
        if let Some(version) = version {
            if version.epoch == stream.version.epoch && version.number <= stream.version.number {
                return Appended::Suppressed(stream.published(stream.top));
            }
            stream.version = version;
        }
        stream.top += 1;
        stream.publications.push_back(publication(stream.top, Arc::clone(&stream.epoch)));
        while stream.publications.len() > retention.size.max(1) as usize {
            stream.publications.pop_front();
        }
        stream.publications_until = now + retention.ttl;
        if let Some(key) = key {
            stream.answered.push_back((now + IDEMPOTENCY_TTL, key, stream.top));
        }
        Appended::Kept(stream.published(stream.top))
    }

    /// Reads.
    pub(super) fn read(&mut self, channel: &Channel, query: HistoryQuery, now: Instant) -> History {
        let stream = self.stream(channel, query.meta_ttl, now);
        let limit = query.limit as usize;
        let offset_of = |publication: &Arc<Publication>| publication.offset;
        // Offsets rise by one: the place of an offset is a matter of counting.
        let publications = if query.reverse {
            let before = query.since.map_or(stream.publications.len(), |since| {
                stream.publications.partition_point(|publication| offset_of(publication) < since)
            });
            stream.publications.range(..before).rev().take(limit).map(Arc::clone).collect()
        } else {
            let behind = query
                .since
                .map_or(0, |since| stream.publications.partition_point(|publication| offset_of(publication) <= since));
            stream.publications.range(behind..).take(limit).map(Arc::clone).collect()
        };
        History { publications, top: stream.position() }
    }

    /// Forgets a channel's publications, and keeps its position.
    pub(super) fn remove(&mut self, channel: &str) {
        if let Some(stream) = self.streams.get_mut(channel) {
            stream.publications = VecDeque::new();
        }
    }

    /// Drops what is too old, of at most `most` streams.
    pub(super) fn expire(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            let Some(Reverse((due, _))) = self.due.peek() else { return };
            if *due > now {
                return;
            }
            let Some(Reverse((_, channel))) = self.due.pop() else { return };
            let Some(stream) = self.streams.get_mut(&channel) else { continue };
            if now >= stream.until {
                self.streams.remove(&channel);
                continue;
            }
            stream.expire(now);
            let next = stream.next();
            self.due.push(Reverse((next, channel)));
        }
    }

    /// Channels with a position, and the publications that are kept.
    #[cfg(test)]
    fn len(&self) -> (usize, usize) {
        (self.streams.len(), self.streams.values().map(|stream| stream.publications.len()).sum())
    }

    /// The channel's stream, without what is too old, remembered for `meta_ttl` from now on.
    fn stream(&mut self, channel: &Channel, meta_ttl: Duration, now: Instant) -> &mut Stream {
        if self.streams.get(channel).is_some_and(|stream| now >= stream.until) {
            self.streams.remove(channel);
        }
        let (epochs, seed, due) = (&mut self.epochs, self.seed, &mut self.due);
        let stream = self.streams.entry(Channel::clone(channel)).or_insert_with(|| {
            *epochs += 1;
            due.push(Reverse((now + meta_ttl, Channel::clone(channel))));
            Stream {
                epoch: format!("{seed:x}-{epochs:x}").into(),
                top: 0,
                publications: VecDeque::new(),
                publications_until: now,
                until: now + meta_ttl,
                version: Version::default(),
                answered: VecDeque::new(),
            }
        });
        stream.expire(now);
        stream.until = stream.until.max(now + meta_ttl);
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publication::{Payload, PushKind};

    const HOUR: Duration = Duration::from_secs(3600);
    const KEEP: Retention = Retention { size: 3, ttl: Duration::from_secs(10), meta_ttl: HOUR };

    struct Fixture {
        streams: Streams,
        channel: Channel,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self { streams: Streams::new(7), channel: "c".into(), now: Instant::now() }
        }

        fn append_if(&mut self, key: Option<&str>, version: Option<(u64, &str)>) -> Appended {
            let version = version.map(|(number, epoch)| Version { number, epoch: epoch.to_owned() });
            let (channel, now) = (Channel::clone(&self.channel), self.now);
            let condition = (key.map(str::to_owned), version);
            self.streams.append(&channel, KEEP, condition, now, |offset, epoch| {
                let payload = Payload::new(format!("{offset}").into());
                let (info, tags, delta) = (None, Default::default(), false);
                let (channel, kind) = ("c".into(), PushKind::Publication);
                Arc::new(Publication { channel, kind, payload, offset, epoch, info, tags, delta, received: now })
            })
        }

        fn append(&mut self) -> u64 {
            match self.append_if(None, None) {
                Appended::Kept(published) => published.offset,
                Appended::Suppressed(_) => panic!("nothing suppresses it"),
            }
        }

        fn read(&mut self, since: Option<u64>, limit: u32, reverse: bool) -> (Vec<u64>, u64) {
            let query = HistoryQuery { since, limit, reverse, meta_ttl: HOUR };
            let history = self.streams.read(&self.channel, query, self.now);
            (history.publications.iter().map(|publication| publication.offset).collect(), history.top.offset)
        }

        fn epoch(&mut self) -> Arc<str> {
            self.streams.read(&self.channel, HistoryQuery::top(HOUR), self.now).top.epoch
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.streams.expire(self.now, 10);
        }
    }

    #[test]
    fn the_newest_are_kept_and_numbered_from_one() {
        let mut f = Fixture::new();
        assert_eq!((1..=5).map(|_| f.append()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(f.read(None, 100, false), (vec![3, 4, 5], 5));
        assert_eq!(f.read(Some(3), 100, false), (vec![4, 5], 5));
        assert_eq!(f.read(Some(3), 1, false), (vec![4], 5));
        assert_eq!(f.read(Some(9), 100, false), (vec![], 5));
        assert_eq!(f.read(None, 2, true), (vec![5, 4], 5));
        assert_eq!(f.read(Some(5), 100, true), (vec![4, 3], 5));
        assert_eq!(f.read(None, 0, false), (vec![], 5));
    }

    #[test]
    fn publications_go_before_their_numbers() {
        let mut f = Fixture::new();
        f.append();
        let epoch = f.epoch();
        f.pass(KEEP.ttl);
        assert_eq!((f.read(None, 9, false), f.streams.len()), ((vec![], 1), (1, 0)));
        assert_eq!((f.append(), f.epoch()), (2, Arc::clone(&epoch)));
        f.pass(HOUR);
        assert_eq!(f.streams.len(), (0, 0), "nothing is left of a channel that nobody asks for");
        assert_eq!(f.append(), 1);
        assert_ne!(f.epoch(), epoch, "another numbering");
    }

    #[test]
    fn a_reader_keeps_the_position_alive() {
        let mut f = Fixture::new();
        f.append();
        let epoch = f.epoch();
        for _ in 0..3 {
            f.pass(HOUR - Duration::from_secs(1));
            assert_eq!(f.epoch(), epoch);
        }
    }

    #[test]
    fn a_removed_history_leaves_a_gap_that_can_be_seen() {
        let mut f = Fixture::new();
        f.append();
        f.streams.remove("c");
        f.append();
        let history = f.streams.read(&f.channel, HistoryQuery::missed(0, 9, HOUR), f.now);
        let epoch = Arc::clone(&history.top.epoch);
        assert!(!history.completes(&Position { offset: 0, epoch: Arc::clone(&epoch) }));
        assert!(
            f.streams
                .read(&f.channel, HistoryQuery::missed(1, 9, HOUR), f.now)
                .completes(&Position { offset: 1, epoch })
        );
    }

    #[test]
    fn a_key_is_published_once_and_answered_with_the_first_outcome() {
        let mut f = Fixture::new();
        let Appended::Kept(first) = f.append_if(Some("k"), None) else { panic!("the first is kept") };
        f.append();
        assert_eq!(f.append_if(Some("k"), None), Appended::Suppressed(first));
        assert!(matches!(f.append_if(Some("other"), None), Appended::Kept(_)));
        f.pass(IDEMPOTENCY_TTL);
        assert!(matches!(f.append_if(Some("k"), None), Appended::Kept(_)));
    }

    #[test]
    fn an_older_version_is_not_published() {
        let mut f = Fixture::new();
        assert!(matches!(f.append_if(None, Some((2, "a"))), Appended::Kept(_)));
        for old in [1, 2] {
            assert!(matches!(f.append_if(None, Some((old, "a"))), Appended::Suppressed(Published { offset: 1, .. })));
        }
        assert!(matches!(f.append_if(None, Some((3, "a"))), Appended::Kept(_)));
        assert!(matches!(f.append_if(None, Some((1, "b"))), Appended::Kept(_)), "another epoch begins anew");
    }

    #[test]
    fn epochs_differ_between_channels_and_processes() {
        let mut f = Fixture::new();
        let one = f.epoch();
        f.channel = "d".into();
        let two = f.epoch();
        f.streams = Streams::new(8);
        let three = f.epoch();
        assert!(one != two && two != three && one != three);
    }
}
