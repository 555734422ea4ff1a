//! Sessions that are being brought up to date. Pure.
//!
//! A subscriber whose position counts needs to know where the channel's history ends, and may ask for what it has missed.
//! Both are read from the broker, and meanwhile live publications come. They go out to everybody else as they come; for
//! those who wait they are kept here, once for the channel. When the answer comes, history and live publications are joined by
//! their offsets.
//!
//! Sessions that ask for the same are answered by the same read ([`Recoveries::begin`]): after a node has restarted a
//! thousand clients come back to a channel at once, all from the same place.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_broadcaster::{History, HistoryQuery, Publication};

use super::ChannelId;
use super::fanout::weight;
use crate::config::RecoveryMode;
use crate::session::Wishes;
use crate::shard::slab::Key;

/// A session that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The session.
    pub session: Key,
    /// The id of its subscribe command.
    pub command: u32,
    /// What it asked for.
    pub wishes: Box<Wishes>,
}

/// A read that is under way, and who waits for it.
#[derive(Debug)]
struct Read {
    id: u64,
    query: HistoryQuery,
    readers: Vec<Reader>,
}

/// What is known of a channel while somebody waits.
#[derive(Debug, Default)]
struct Waiting {
    reads: Vec<Read>,
    /// Live publications since the first of the reads began.
    live: VecDeque<Arc<Publication>>,
    bytes: usize,
    /// The newest of those that the limit has pushed out.
    pushed_out: u64,
}

/// Everybody who waits, by channel.
#[derive(Debug)]
pub struct Recoveries {
    channels: FxHashMap<ChannelId, Waiting>,
    next: u64,
    /// The most bytes of live publications that are kept for a channel.
    limit: usize,
}

/// What has come live while a history was read.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// In the order in which they came.
    pub publications: Vec<Arc<Publication>>,
    /// The newest that came before them and is not kept any more; 0 for none.
    pub pushed_out: u64,
}

/// How a session comes in.
#[derive(Debug, Clone, PartialEq)]
pub struct Joining {
    /// Publications for the reply.
    pub missed: Vec<Arc<Publication>>,
    /// Publications to be sent behind the reply.
    pub live: Vec<Arc<Publication>>,
    /// All that was missed is in the reply.
    pub recovered: bool,
    /// What the reply says.
    pub offset: u64,
    /// Where the session is behind all that.
    pub from: u64,
}

/// Live publications do not join the history: some are missing between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart;

impl Recoveries {
    /// Nobody waits. For each channel at most `limit` bytes of live publications are kept.
    pub fn new(limit: usize) -> Self {
        Self { channels: FxHashMap::default(), next: 0, limit }
    }

    /// A session waits. Answers the number of the read if the broker has to be asked; otherwise it has been already.
    pub fn begin(&mut self, channel: ChannelId, reader: Reader) -> Option<u64> {
        let query = reader.wishes.query();
        let waiting = self.channels.entry(channel).or_default();
        if let Some(read) = waiting.reads.iter_mut().find(|read| read.query == query) {
            read.readers.push(reader);
            return None;
        }
        self.next += 1;
        waiting.reads.push(Read { id: self.next, query, readers: vec![reader] });
        Some(self.next)
    }

    /// A live publication has come. Those beyond the limit push out the oldest, and whoever needs those finds a hole.
    pub fn note(&mut self, channel: ChannelId, publication: &Arc<Publication>) {
        if self.channels.is_empty() {
            return; // nearly always
        }
        let Some(waiting) = self.channels.get_mut(&channel) else { return };
        waiting.bytes += weight(publication);
        waiting.live.push_back(Arc::clone(publication));
        while waiting.bytes > self.limit {
            let Some(oldest) = waiting.live.pop_front() else { break };
            waiting.bytes -= weight(&oldest);
            waiting.pushed_out = oldest.offset;
        }
    }

    /// A read has been answered: who waited for it, and what has come live meanwhile.
    pub fn end(&mut self, channel: ChannelId, read: u64) -> (Vec<Reader>, Live) {
        let Some(waiting) = self.channels.get_mut(&channel) else { return Default::default() };
        let Some(at) = waiting.reads.iter().position(|under_way| under_way.id == read) else {
            return Default::default();
        };
        let readers = waiting.reads.swap_remove(at).readers;
        let live = Live { publications: waiting.live.iter().map(Arc::clone).collect(), pushed_out: waiting.pushed_out };
        if waiting.reads.is_empty() {
            self.channels.remove(&channel);
        }
        (readers, live)
    }

    /// The channel is gone: who waited for it.
    pub fn forget(&mut self, channel: ChannelId) -> Vec<Reader> {
        let reads = self.channels.remove(&channel).map(|waiting| waiting.reads).unwrap_or_default();
        reads.into_iter().flat_map(|read| read.readers).collect()
    }

    /// Whether anybody waits for the channel.
    pub fn has(&self, channel: ChannelId) -> bool {
        self.channels.contains_key(&channel)
    }
}

/// Joins what the broker has answered with what came live, for a session with these wishes.
///
/// # Errors
/// [`Apart`]: publications are missing between the two, or they are of different numberings.
pub fn join(wishes: &Wishes, history: &History, live: &Live) -> Result<Joining, Apart> {
    let top = &history.top;
    if live.pushed_out > top.offset {
        return Err(Apart);
    }
    let mut next = top.offset + 1;
    let mut tail = Vec::new();
    for publication in &live.publications {
        if publication.epoch != top.epoch {
            return Err(Apart);
        }
        // What the history has as well is not sent twice.
        if publication.offset < next {
            continue;
        }
        if publication.offset > next {
            return Err(Apart);
        }
        tail.push(Arc::clone(publication));
        next += 1;
    }
    let from = next - 1;
    let known = Vec::new;
    let missed = match (&wishes.recover, wishes.mode) {
        (None, _) => None,
        (Some(position), RecoveryMode::Stream) => {
            history.completes(position).then(|| history.publications.iter().map(Arc::clone).collect())
        }
        (Some(position), RecoveryMode::Cache) if history.is_known_to(position) => Some(known()),
        (Some(position), RecoveryMode::Cache) => {
            history.has_newest(Some(position)).then(|| history.publications.iter().map(Arc::clone).collect())
        }
    };
    Ok(match (missed, &wishes.recover) {
        (Some(missed), Some(position)) => {
            Joining { missed, live: tail, recovered: true, offset: position.offset, from }
        }
        _ => Joining { missed: Vec::new(), live: tail, recovered: false, offset: top.offset, from },
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tidegate_broadcaster::{Payload, Position, PushKind};

    use super::*;
    use crate::shard::slab::Slab;

    fn publication(offset: u64, epoch: &str) -> Arc<Publication> {
        Arc::new(Publication {
            channel: "c".into(),
            kind: PushKind::Publication,
            payload: Payload::new("{}".into()),
            offset,
            epoch: epoch.into(),
            info: None,
            tags: Default::default(),
            delta: false,
            is_late: false,
            received: Instant::now(),
        })
    }

    fn publications(offsets: impl IntoIterator<Item = u64>) -> Vec<Arc<Publication>> {
        offsets.into_iter().map(|offset| publication(offset, "e")).collect()
    }

    fn history(offsets: impl IntoIterator<Item = u64>, top: u64) -> History {
        History { publications: publications(offsets), top: Position { offset: top, epoch: "e".into() } }
    }

    fn wishes(recover: Option<u64>, mode: RecoveryMode) -> Wishes {
        Wishes {
            positioned: true,
            recoverable: true,
            recover: recover.map(|offset| Position { offset, epoch: "e".into() }),
            mode,
            reject_unrecovered: false,
            limit: 10,
            meta_ttl: Duration::from_secs(60),
            filter: None,
            delta: false,
            attending: false,
        }
    }

    fn live(publications: Vec<Arc<Publication>>) -> Live {
        Live { publications, pushed_out: 0 }
    }

    fn joined(
        wishes: &Wishes,
        history: &History,
        publications: &[Arc<Publication>],
    ) -> (Vec<u64>, Vec<u64>, bool, u64, u64) {
        let joining = join(wishes, history, &live(publications.to_vec())).unwrap();
        let offsets = |list: &[Arc<Publication>]| list.iter().map(|publication| publication.offset).collect();
        (offsets(&joining.missed), offsets(&joining.live), joining.recovered, joining.offset, joining.from)
    }

    #[test]
    fn what_was_missed_comes_first_and_then_what_came_meanwhile_each_once() {
        let wishes = wishes(Some(2), RecoveryMode::Stream);
        let result = joined(&wishes, &history(3..=5, 5), &publications(4..=7));
        assert_eq!(result, (vec![3, 4, 5], vec![6, 7], true, 2, 7));
    }

    #[test]
    fn who_missed_too_much_is_told_where_the_channel_is() {
        let wishes = wishes(Some(2), RecoveryMode::Stream);
        assert_eq!(joined(&wishes, &history(4..=5, 5), &publications([6])), (vec![], vec![6], false, 5, 6));
    }

    #[test]
    fn who_does_not_recover_begins_at_the_end() {
        let wishes = wishes(None, RecoveryMode::Stream);
        assert_eq!(joined(&wishes, &history([], 5), &publications([5, 6])), (vec![], vec![6], false, 5, 6));
    }

    #[test]
    fn a_cache_gives_the_newest_and_nothing_to_who_has_it() {
        let mode = RecoveryMode::Cache;
        assert_eq!(joined(&wishes(Some(2), mode), &history([5], 5), &[]), (vec![5], vec![], true, 2, 5));
        assert_eq!(joined(&wishes(Some(5), mode), &history([5], 5), &[]), (vec![], vec![], true, 5, 5));
        assert_eq!(joined(&wishes(Some(2), mode), &history([], 5), &[]), (vec![], vec![], false, 5, 5));
    }

    #[test]
    fn a_hole_between_history_and_live_is_an_error() {
        let wishes = wishes(Some(2), RecoveryMode::Stream);
        assert_eq!(join(&wishes, &history(3..=5, 5), &live(publications([7]))), Err(Apart));
        assert_eq!(join(&wishes, &history(3..=5, 5), &live(publications([6, 8]))), Err(Apart));
        assert_eq!(join(&wishes, &history(3..=5, 5), &live(vec![publication(6, "f")])), Err(Apart));
    }

    #[test]
    fn the_same_question_is_asked_once_and_what_comes_meanwhile_is_kept_for_all() {
        let mut recoveries = Recoveries::new(10_000);
        let mut slab = Slab::default();
        let mut reader = |recover| Reader {
            session: slab.insert(()),
            command: 1,
            wishes: Box::new(wishes(recover, RecoveryMode::Stream)),
        };
        let one = recoveries.begin(3, reader(Some(2))).unwrap();
        recoveries.note(3, &publication(6, "e"));
        assert_eq!(recoveries.begin(3, reader(Some(2))), None);
        let two = recoveries.begin(3, reader(Some(4))).unwrap();
        recoveries.note(3, &publication(7, "e"));
        recoveries.note(4, &publication(1, "e"));
        let (readers, live) = recoveries.end(3, one);
        assert_eq!((readers.len(), live.publications.len()), (2, 2));
        assert!(recoveries.has(3) && !recoveries.has(4));
        assert_eq!(recoveries.end(3, two).1.publications.len(), 2);
        assert!(!recoveries.has(3));
        assert!(recoveries.end(3, two).0.is_empty(), "an answer comes once");
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_pushed_out_shows_as_a_hole() {
        let mut recoveries = Recoveries::new(3 * weight(&publication(1, "e")));
        let wishes = wishes(Some(5), RecoveryMode::Stream);
        let reader = Reader { session: Slab::default().insert(()), command: 1, wishes: Box::new(wishes.clone()) };
        let read = recoveries.begin(3, reader).unwrap();
        (6..=10).for_each(|offset| recoveries.note(3, &publication(offset, "e")));
        let (_, live) = recoveries.end(3, read);
        assert_eq!((live.publications.len(), live.pushed_out), (3, 7));
        assert_eq!(join(&wishes, &history([], 5), &live), Err(Apart));
        assert!(join(&wishes, &history(6..=8, 8), &live).is_ok(), "a history that was read later has them");
        // One that is longer than the limit alone leaves nothing behind it.
        let mut none = Recoveries::new(1);
        let reader = Reader { session: Slab::default().insert(()), command: 1, wishes: Box::new(wishes.clone()) };
        let read = none.begin(3, reader).unwrap();
        none.note(3, &publication(6, "e"));
        assert_eq!(join(&wishes, &history([], 5), &none.end(3, read).1), Err(Apart));
    }
}
