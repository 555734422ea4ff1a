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
        let (condition, moment) = ((key, version.as_ref()), Moment { now, batch: 0 });
        self.streams.append(&channel, KEEP, condition, moment, |offset, epoch| {
            let payload = Payload::new(format!("{offset}").into());
            let (info, tags, delta) = (None, Default::default(), false);
            let (channel, kind) = ("c".into(), PushKind::Publication);
            Arc::new(Publication {
                channel,
                kind,
                payload,
                offset,
                epoch,
                info,
                tags,
                delta,
                is_late: false,
                received: now,
            })
        })
    }

    fn append(&mut self) -> u64 {
        match self.append_if(None, None) {
            Appended::Kept(published) => published.offset,
            Appended::Suppressed(..) => panic!("nothing suppresses it"),
        }
    }

    fn read(&mut self, since: Option<u64>, limit: u32, reverse: bool) -> (Vec<u64>, u64) {
        let query = HistoryQuery { since, limit, reverse, meta_ttl: HOUR };
        let history = self.streams.read(&self.channel, query, self.now).history;
        (history.publications.iter().map(|publication| publication.offset).collect(), history.top.offset)
    }

    fn epoch(&mut self) -> Arc<str> {
        self.streams.read(&self.channel, HistoryQuery::top(HOUR), self.now).history.top.epoch
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
    f.streams.remove("c", 0);
    f.append();
    let history = f.streams.read(&f.channel, HistoryQuery::missed(0, 9, HOUR), f.now).history;
    let epoch = Arc::clone(&history.top.epoch);
    assert!(!history.completes(&Position { offset: 0, epoch: Arc::clone(&epoch) }));
    assert!(
        f.streams
            .read(&f.channel, HistoryQuery::missed(1, 9, HOUR), f.now)
            .history
            .completes(&Position { offset: 1, epoch })
    );
}

#[test]
fn a_key_is_published_once_and_answered_with_the_first_outcome() {
    let mut f = Fixture::new();
    let Appended::Kept(first) = f.append_if(Some("k"), None) else { panic!("the first is kept") };
    f.append();
    assert_eq!(f.append_if(Some("k"), None), Appended::Suppressed(first, 0));
    assert!(matches!(f.append_if(Some("other"), None), Appended::Kept(_)));
    f.pass(IDEMPOTENCY_TTL);
    assert!(matches!(f.append_if(Some("k"), None), Appended::Kept(_)));
}

#[test]
fn an_older_version_is_not_published() {
    let mut f = Fixture::new();
    assert!(matches!(f.append_if(None, Some((2, "a"))), Appended::Kept(_)));
    for old in [1, 2] {
        assert!(matches!(f.append_if(None, Some((old, "a"))), Appended::Suppressed(Published { offset: 1, .. }, _)));
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

#[test]
fn what_would_go_next_goes_first_where_there_is_no_room() {
    let mut f = Fixture::new();
    for channel in ["first", "second", "third"] {
        f.channel = channel.into();
        (0..3).for_each(|_| _ = f.append());
        f.now += Duration::from_secs(1);
    }
    // Published to since, the first is now the last to go.
    f.channel = "first".into();
    f.append();
    let (all, each) = (f.streams.bytes(), (f.streams.bytes() - 3 * STREAM_COST) / 9);
    assert_eq!(f.streams.evict(all), 0);
    assert_eq!(f.streams.evict(all - each), 3, "a channel's publications go together");
    let kept = ["first", "second", "third"].map(|channel| {
        f.channel = channel.into();
        f.read(None, 9, false)
    });
    assert_eq!(kept, [(vec![2, 3, 4], 4), (vec![], 3), (vec![1, 2, 3], 3)], "positions stay");
    assert_eq!(f.streams.evict(STREAM_COST), 6);
    assert_eq!(f.streams.len(), (1, 0), "at last positions go as well");
    assert_eq!(f.streams.evict(0), 0);
    assert_eq!((f.streams.len(), f.streams.bytes()), ((0, 0), 0));
}

#[test]
fn a_copy_is_put_back_as_it_was() {
    let mut f = Fixture::new();
    assert!(matches!(f.append_if(Some("k"), Some((4, "v"))), Appended::Kept(_)));
    (0..4).for_each(|_| _ = f.append());
    let (read, bytes, epoch) = (f.read(None, 9, false), f.streams.bytes(), f.epoch());
    let copy = f.streams.copy(&f.channel, f.now).unwrap();
    f.streams = Streams::new(8);
    f.streams.restore(copy);
    assert_eq!((f.read(None, 9, false), f.streams.bytes(), f.epoch()), (read, bytes, epoch));
    assert!(matches!(f.append_if(Some("k"), None), Appended::Suppressed(Published { offset: 1, .. }, _)));
    assert!(matches!(f.append_if(None, Some((4, "v"))), Appended::Suppressed(Published { offset: 5, .. }, _)));
    f.pass(KEEP.ttl);
    assert_eq!(f.streams.len(), (1, 0), "it goes in its time");
}

#[test]
fn the_log_hears_of_a_position_when_it_is_new_and_seldom_after() {
    let mut f = Fixture::new();
    let heard = |f: &mut Fixture| f.streams.read(&f.channel, HistoryQuery::top(HOUR), f.now).prolonged.is_some();
    assert!(heard(&mut f));
    assert!(!heard(&mut f));
    f.now += HOUR / POSITION_LOGGED_EVERY;
    assert!(!heard(&mut f));
    f.now += Duration::from_secs(1);
    assert!(heard(&mut f));
}
