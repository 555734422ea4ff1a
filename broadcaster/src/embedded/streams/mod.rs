//! The histories of all channels, in memory. Pure: time comes in.
//!
//! - here: what is kept of a channel, and for how long;
//! - [`copy`]: a channel's history as a whole, for the log's snapshots, and how it comes back after a restart.

pub(super) mod copy;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{Published, Version};
use crate::history::{History, HistoryQuery, Position, Retention};
use crate::publication::{Channel, Publication};

/// How long the outcome of a publish with an idempotency key is remembered.
pub(super) const IDEMPOTENCY_TTL: Duration = Duration::from_secs(300);

/// A position that is read is logged again when this part of its time has passed.
const POSITION_LOGGED_EVERY: u32 = 8;

/// What a stream takes beside its publications, in bytes: the entries in the tables, its names, room to grow.
const STREAM_COST: usize = size_of::<Stream>() + 2 * size_of::<(Channel, Instant)>() + 64;

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
    /// When it is looked at, as [`Streams::due`] has it: no later than anything of it may go.
    entered: Instant,
    /// What the log has heard of `until`.
    logged_until: Instant,
    /// The log's batch that has the last publication.
    batch: u64,
    version: Version,
    /// Outcomes of publishes with keys, the oldest first. Most channels have none.
    answered: VecDeque<(Instant, String, u64)>,
}

/// When something happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// The log's batch that it becomes part of; 0 without a log.
    pub(super) batch: u64,
}

/// What became of a publication that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Appended {
    /// It is kept, with this place.
    Kept(Published),
    /// It is not: one with this key has been published already, or a newer version. This is what that one came to, and
    /// the log's batch that has it.
    Suppressed(Published, u64),
}

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) history: History,
    /// The log's batch that has the newest of it.
    pub(super) batch: u64,
    /// The position now lives until then, and the log should hear of it.
    pub(super) prolonged: Option<Instant>,
}

/// What the histories take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Publications that are kept.
    pub(super) publications: usize,
    /// Bytes that came from outside: payloads, tags, publishers.
    pub(super) content: usize,
}

/// The histories by channel.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<Channel, Stream, foldhash::fast::RandomState>,
    /// For each stream one time at which something of it may go; looked at when it comes, and entered anew.
    due: BTreeSet<(Instant, Channel)>,
    usage: Usage,
    /// How many epochs have been given out.
    epochs: u64,
    /// What the epochs of this process begin with.
    seed: u64,
}

impl Usage {
    fn add(&mut self, publication: &Publication) {
        self.publications += 1;
        self.content += content(publication);
    }

    fn remove<'a>(&mut self, publications: impl IntoIterator<Item = &'a Arc<Publication>>) {
        for publication in publications {
            self.publications -= 1;
            self.content -= content(publication);
        }
    }
}

/// Bytes of a publication that came from outside.
fn content(publication: &Publication) -> usize {
    let tags = publication.tags.iter().map(|(key, value)| key.len() + value.len() + 2 * size_of::<String>());
    let info = publication.info.as_ref().map_or(0, |info| {
        size_of_val(&**info) + info.user.len() + info.client.len() + info.conn_info.len() + info.chan_info.len()
    });
    publication.payload.data.len() + tags.sum::<usize>() + info
}

impl Stream {
    /// Drops what is too old.
    fn expire(&mut self, now: Instant, usage: &mut Usage) {
        if now >= self.publications_until {
            self.clear(usage);
        }
        while self.answered.front().is_some_and(|(until, ..)| *until <= now) {
            self.answered.pop_front();
        }
    }

    fn clear(&mut self, usage: &mut Usage) {
        usage.remove(&self.publications);
        self.publications = VecDeque::new();
    }

    fn published(&self, offset: u64) -> Published {
        Published { offset, epoch: self.epoch.to_string() }
    }

    fn position(&self) -> Position {
        Position { offset: self.top, epoch: Arc::clone(&self.epoch) }
    }

    /// Until when the position lives, if that is much longer than the log has heard.
    fn prolonged(&mut self, meta_ttl: Duration) -> Option<Instant> {
        let unheard = self.until.saturating_duration_since(self.logged_until);
        let prolonged = (unheard > meta_ttl / POSITION_LOGGED_EVERY).then_some(self.until);
        self.logged_until = prolonged.unwrap_or(self.logged_until);
        prolonged
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
        condition: (Option<&str>, Option<&Version>),
        moment: Moment,
        publication: impl FnOnce(u64, Arc<str>) -> Arc<Publication>,
    ) -> Appended {
        let (key, version) = condition;
        let now = moment.now;
        let (stream, usage) = self.stream(channel, retention.meta_ttl, now);
        if let Some(key) = key
            && let Some((.., offset)) = stream.answered.iter().find(|(_, answered, _)| answered == key)
        {
            return Appended::Suppressed(stream.published(*offset), stream.batch);
        }
        if let Some(version) = version {
            if version.epoch == stream.version.epoch && version.number <= stream.version.number {
                return Appended::Suppressed(stream.published(stream.top), stream.batch);
            }
            stream.version = Version::clone(version);
        }
        stream.top += 1;
        stream.batch = moment.batch;
        let publication = publication(stream.top, Arc::clone(&stream.epoch));
        usage.add(&publication);
        stream.publications.push_back(publication);
        while stream.publications.len() > retention.size.max(1) as usize {
            usage.remove(&stream.publications.pop_front());
        }
        stream.publications_until = now + retention.ttl;
        stream.logged_until = stream.until;
        if let Some(key) = key {
            stream.answered.push_back((now + IDEMPOTENCY_TTL, key.to_owned(), stream.top));
        }
        let published = stream.published(stream.top);
        self.enter(channel);
        Appended::Kept(published)
    }

    /// Reads.
    pub(super) fn read(&mut self, channel: &Channel, query: HistoryQuery, now: Instant) -> Read {
        let (stream, _) = self.stream(channel, query.meta_ttl, now);
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
        let prolonged = stream.prolonged(query.meta_ttl);
        Read { history: History { publications, top: stream.position() }, batch: stream.batch, prolonged }
    }

    /// Where the channel is and how long that is remembered now, if the log should hear of it.
    pub(super) fn prolonged(&mut self, channel: &str, meta_ttl: Duration) -> Option<(Position, Instant)> {
        let stream = self.streams.get_mut(channel)?;
        let until = stream.prolonged(meta_ttl)?;
        Some((stream.position(), until))
    }

    /// Forgets a channel's publications, and keeps its position, which it answers with.
    pub(super) fn remove(&mut self, channel: &str, batch: u64) -> Option<Position> {
        let stream = self.streams.get_mut(channel)?;
        stream.clear(&mut self.usage);
        stream.batch = batch;
        Some(stream.position())
    }

    /// The log's batch that has the channel's newest publication; 0 where there is none.
    pub(super) fn batch(&self, channel: &str) -> u64 {
        self.streams.get(channel).map_or(0, |stream| stream.batch)
    }

    /// Has readers of the channel wait for this batch.
    pub(super) fn wait_for(&mut self, channel: &str, batch: u64) {
        if let Some(stream) = self.streams.get_mut(channel) {
            stream.batch = batch;
        }
    }

    /// Names a numbering that no other process and no other channel has.
    pub(super) fn new_epoch(&mut self) -> Arc<str> {
        self.epochs += 1;
        format!("{:x}-{:x}", self.seed, self.epochs).into()
    }

    /// Drops what is too old, of at most `most` streams.
    pub(super) fn expire(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            if self.due.first().is_none_or(|(due, _)| *due > now) {
                return;
            }
            let Some((_, channel)) = self.due.pop_first() else { return };
            let Some(stream) = self.streams.get_mut(&channel) else { continue };
            stream.expire(now, &mut self.usage);
            if now >= stream.until {
                stream.clear(&mut self.usage);
                self.streams.remove(&channel);
                continue;
            }
            stream.entered = stream.next();
            self.due.insert((stream.entered, channel));
        }
    }

    /// Has a channel looked at earlier, where something of it may go before it would be.
    fn enter(&mut self, channel: &Channel) {
        let Some(stream) = self.streams.get_mut(channel) else { return };
        let next = stream.next();
        if next < stream.entered {
            let entered = std::mem::replace(&mut stream.entered, next);
            self.due.remove(&(entered, Channel::clone(channel)));
            self.due.insert((next, Channel::clone(channel)));
        }
    }

    /// Drops what would go next until everything takes at most `most` bytes: of each channel first its publications,
    /// then its position. Readers learn that something is missing. Answers how many publications went.
    pub(super) fn evict(&mut self, most: usize) -> usize {
        let before = self.usage.publications;
        while self.bytes() > most {
            let Some((due, channel)) = self.due.pop_first() else { break };
            let Some(stream) = self.streams.get_mut(&channel) else { continue };
            // Where it has been published to, or read, since the time was entered, its time comes later.
            if stream.next() <= due {
                if stream.publications.is_empty() {
                    self.streams.remove(&channel);
                    continue;
                }
                stream.clear(&mut self.usage);
            }
            stream.entered = stream.next();
            self.due.insert((stream.entered, channel));
        }
        before.saturating_sub(self.usage.publications)
    }

    /// Bytes of memory that everything takes, by and large.
    pub(super) fn bytes(&self) -> usize {
        let Usage { publications, content } = self.usage;
        content + publications * (size_of::<Publication>() + 3 * size_of::<usize>()) + self.streams.len() * STREAM_COST
    }

    /// Bytes that a snapshot of everything would have, by and large.
    pub(super) fn encoded_bytes(&self) -> usize {
        /// Names and numbers, without the channel's name.
        const EACH: usize = 64;
        self.usage.content + self.usage.publications * EACH + self.streams.len() * 2 * EACH
    }

    /// Channels with a position, and the publications that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.streams.len(), self.usage.publications)
    }

    /// The channel's stream, without what is too old, remembered for `meta_ttl` from now on.
    fn stream(&mut self, channel: &Channel, meta_ttl: Duration, now: Instant) -> (&mut Stream, &mut Usage) {
        if let Some(stream) = self.streams.get_mut(channel)
            && now >= stream.until
        {
            stream.clear(&mut self.usage);
            self.due.remove(&(stream.entered, Channel::clone(channel)));
            self.streams.remove(channel);
        }
        let (epochs, seed, due) = (&mut self.epochs, self.seed, &mut self.due);
        let stream = self.streams.entry(Channel::clone(channel)).or_insert_with(|| {
            *epochs += 1;
            due.insert((now + meta_ttl, Channel::clone(channel)));
            Stream {
                epoch: format!("{seed:x}-{epochs:x}").into(),
                top: 0,
                publications: VecDeque::new(),
                publications_until: now,
                until: now + meta_ttl,
                entered: now + meta_ttl,
                logged_until: now,
                batch: 0,
                version: Version::default(),
                answered: VecDeque::new(),
            }
        });
        stream.expire(now, &mut self.usage);
        stream.until = stream.until.max(now + meta_ttl);
        (stream, &mut self.usage)
    }
}

#[cfg(test)]
mod tests;
