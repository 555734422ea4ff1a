//! What the embedded broker keeps is there after a restart, whatever ended the process and whatever became of the
//! files; and where something is missing, readers can see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use common::inbox::shards;
use tidegate_broadcaster::{
    Broker, Channel, EmbeddedBroker, Fsync, History, HistoryQuery, LogError, LogSettings, PublishRequest, Published,
    Retention, Version,
};
use tidegate_protocol::message::ClientInfo;

const HOUR: Duration = Duration::from_secs(3600);
const KEEP: Retention = Retention { size: 1000, ttl: HOUR, meta_ttl: HOUR };
const POLICIES: [Fsync; 3] = [Fsync::Always, Fsync::Interval(Duration::from_millis(20)), Fsync::Never];

/// A directory of a test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-history-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A copy of another one: what a process that is killed now leaves behind.
    fn of(other: &Path) -> Self {
        let copy = Self::new();
        for file in files(other) {
            fs::copy(&file, copy.0.join(file.file_name().unwrap())).unwrap();
        }
        copy
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn with_extension(path: &Path, extension: &str) -> Vec<PathBuf> {
    files(path).into_iter().filter(|file| file.extension().is_some_and(|found| found == extension)).collect()
}

fn settings(path: &Path, fsync: Fsync) -> LogSettings {
    LogSettings { fsync, ..LogSettings::new(path) }
}

fn open(settings: LogSettings) -> EmbeddedBroker {
    EmbeddedBroker::new(shards(1).1).with_log(settings).unwrap()
}

fn request(channel: &str, data: impl Into<bytes::Bytes>) -> PublishRequest {
    PublishRequest { channel: channel.into(), data: data.into(), retention: Some(KEEP), ..PublishRequest::default() }
}

async fn publish(broker: &EmbeddedBroker, channel: &str, data: String) -> Published {
    broker.publish(request(channel, data)).await.unwrap()
}

async fn history(broker: &EmbeddedBroker, channel: &str) -> History {
    let query = HistoryQuery { since: None, limit: u32::MAX, reverse: false, meta_ttl: HOUR };
    broker.history(&channel.into(), query).await.unwrap()
}

/// A history without what is no part of it: when the node received it.
fn content(history: &History) -> Vec<String> {
    let each = history.publications.iter().map(|publication| {
        let tidegate_broadcaster::Publication { offset, epoch, payload, info, tags, delta, channel, .. } =
            &**publication;
        format!("{channel} {offset} {epoch} {payload:?} {info:?} {tags:?} {delta}")
    });
    [format!("{:?}", history.top)].into_iter().chain(each).collect()
}

fn offsets(history: &History) -> Vec<u64> {
    history.publications.iter().map(|publication| publication.offset).collect()
}

#[tokio::test]
async fn everything_that_is_kept_of_a_channel_is_there_after_a_stop_and_after_a_kill() {
    for fsync in POLICIES {
        let folder = Folder::new();
        let broker = open(settings(&folder.0, fsync));
        let rich = PublishRequest {
            info: Some(ClientInfo { user: "u".to_owned(), client: "c".to_owned(), ..ClientInfo::default() }),
            tags: [("a".to_owned(), "b".to_owned())].into(),
            delta: true,
            idempotency_key: Some("key".to_owned()),
            version: Some(Version { number: 4, epoch: "v".to_owned() }),
            ..request("rich", &b"\0\xff"[..])
        };
        broker.publish(rich.clone()).await.unwrap();
        for number in 0..10 {
            let retention = Some(Retention { size: 3, ..KEEP });
            let short = PublishRequest { retention, ..request("short", format!("{number}")) };
            broker.publish(short).await.unwrap();
        }
        publish(&broker, "removed", "1".to_owned()).await;
        broker.remove_history(&"removed".into()).await.unwrap();
        publish(&broker, "removed", "2".to_owned()).await;
        publish(&broker, "emptied", "1".to_owned()).await;
        broker.remove_history(&"emptied".into()).await.unwrap();
        let brief = Retention { ttl: Duration::from_millis(1), ..KEEP };
        broker.publish(PublishRequest { retention: Some(brief), ..request("brief", "gone") }).await.unwrap();
        broker.publish(PublishRequest { retention: None, ..request("short", "not kept") }).await.unwrap();
        // Only read: it has an epoch and no publication. Waits for the log with the next publish.
        history(&broker, "read").await;
        publish(&broker, "last", "1".to_owned()).await;

        let over = async {
            while !history(&broker, "brief").await.publications.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(common::inbox::DEADLINE, over).await.expect("its time has to be over");

        let channels = ["rich", "short", "removed", "emptied", "brief", "read", "last"];
        let mut before = Vec::new();
        for channel in channels {
            before.push(content(&history(&broker, channel).await));
        }
        let killed = Folder::of(&folder.0);
        drop(broker);
        for folder in [folder, killed] {
            let broker = open(settings(&folder.0, fsync));
            for (channel, before) in channels.iter().zip(&before) {
                assert_eq!(content(&history(&broker, channel).await), *before, "{fsync:?} {channel}");
            }
            assert_eq!(offsets(&history(&broker, "short").await), [8, 9, 10]);
            let top = history(&broker, "brief").await;
            assert_eq!((top.publications.len(), top.top.offset), (0, 1), "its time is over, its number is remembered");
            assert_eq!(broker.publish(rich.clone()).await.unwrap().offset, 1, "the key is known");
            let other_key = PublishRequest { idempotency_key: None, ..rich.clone() };
            assert_eq!(broker.publish(other_key).await.unwrap().offset, 1, "and so is the version");
            assert_eq!(publish(&broker, "emptied", "2".to_owned()).await.offset, 2);
            let stats = &broker.stats().log;
            assert_eq!((stats.corrupt.load(Relaxed), stats.renewed.load(Relaxed)), (0, 0));
        }
    }
}

/// What a node has kept of four publications, and the one segment that it leaves when it is killed then: its name and its bytes.
async fn four_publications() -> (History, OsString, Vec<u8>) {
    let folder = Folder::new();
    let broker = open(settings(&folder.0, Fsync::Always));
    for number in 1..=4 {
        publish(&broker, "news", format!("{number}")).await;
    }
    let all = history(&broker, "news").await;
    let killed = Folder::of(&folder.0);
    let [segment] = &with_extension(&killed.0, "log")[..] else { panic!("one segment") };
    (all, segment.file_name().unwrap().to_owned(), fs::read(segment).unwrap())
}

#[tokio::test]
async fn a_log_that_ends_anywhere_gives_everything_before_and_takes_more() {
    let (all, segment, bytes) = four_publications().await;
    let mut longest = 0;
    for end in 0..=bytes.len() {
        let cut = Folder::new();
        fs::write(cut.0.join(&segment), &bytes[..end]).unwrap();
        let broker = open(settings(&cut.0, Fsync::Always));
        let found = history(&broker, "news").await;
        let count = found.publications.len();
        assert_eq!(content(&found)[1..], content(&all)[1..=count], "cut at {end}");
        assert!(count == longest || count == longest + 1, "cut at {end}: {count} after {longest}");
        longest = count;
        assert_eq!(found.top.epoch == all.top.epoch, count > 0, "cut at {end}: nobody had been told of the rest");
        let next = publish(&broker, "news", "next".to_owned()).await;
        assert_eq!(next.offset, count as u64 + 1);
        drop(broker);
        let broker = open(settings(&cut.0, Fsync::Always));
        assert_eq!(history(&broker, "news").await.publications.len(), count + 1, "cut at {end}");
        assert_eq!(broker.stats().log.cut_bytes.load(Relaxed), 0, "it was cut once");
    }
    assert_eq!(longest, 4);
}

#[tokio::test]
async fn a_damaged_byte_anywhere_is_told_and_costs_nobody_a_silent_gap() {
    let (all, segment, bytes) = four_publications().await;
    for at in 0..bytes.len() {
        let damaged = Folder::new();
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        let file = damaged.0.join(&segment);
        fs::write(&file, &bytes).unwrap();
        let broker = open(settings(&damaged.0, Fsync::Always));
        let found = history(&broker, "news").await;
        assert_ne!(found.top.epoch, all.top.epoch, "damaged at {at}: something may be missing");
        let offsets = offsets(&found);
        assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "damaged at {at}: {offsets:?}");
        let stats = &broker.stats().log;
        assert!(stats.corrupt.load(Relaxed) + stats.cut_bytes.load(Relaxed) > 0, "damaged at {at}");
        if stats.corrupt.load(Relaxed) > 0 {
            let [aside] = &with_extension(&damaged.0, "corrupt")[..] else { panic!("it is kept for a person") };
            assert_eq!(fs::read(aside).unwrap(), bytes);
        }
        assert!(!file.exists() || stats.corrupt.load(Relaxed) == 0);
        let next = publish(&broker, "news", "next".to_owned()).await;
        drop(broker);
        let broker = open(settings(&damaged.0, Fsync::Always));
        let again = history(&broker, "news").await;
        assert_eq!((again.top.offset, &*again.top.epoch), (next.offset, &*next.epoch), "the next start is a good one");
        assert_eq!(broker.stats().log.corrupt.load(Relaxed), 0);
    }
}

#[tokio::test]
async fn a_missing_segment_is_noticed() {
    let folder = Folder::new();
    for number in 1..=3 {
        publish(&open(settings(&folder.0, Fsync::Never)), "news", format!("{number}")).await;
    }
    let epoch = history(&open(settings(&folder.0, Fsync::Never)), "news").await.top.epoch;
    let segments = with_extension(&folder.0, "log");
    fs::remove_file(&segments[1]).unwrap();
    let found = history(&open(settings(&folder.0, Fsync::Never)), "news").await;
    assert_ne!(found.top.epoch, epoch);
    assert_eq!(offsets(&found), [3], "what is before the gap is no part of the history any more");
}

#[tokio::test]
async fn an_operator_who_puts_back_an_old_copy_can_have_everything_numbered_anew() {
    let folder = Folder::new();
    let before = publish(&open(settings(&folder.0, Fsync::Always)), "news", "1".to_owned()).await;
    fs::write(folder.0.join("new-epochs"), "").unwrap();
    let after = history(&open(settings(&folder.0, Fsync::Always)), "news").await;
    assert_ne!(*after.top.epoch, *before.epoch);
    assert_eq!(offsets(&after), [1]);
    let again = history(&open(settings(&folder.0, Fsync::Always)), "news").await;
    assert_eq!(again.top, after.top, "once");
}

#[tokio::test]
async fn two_nodes_cannot_share_a_directory() {
    let folder = Folder::new();
    let _first = open(settings(&folder.0, Fsync::Never));
    let second = EmbeddedBroker::new(shards(1).1).with_log(settings(&folder.0, Fsync::Never)).unwrap_err();
    assert!(matches!(second, LogError::Taken(_)), "{second}");
    assert!(second.to_string().contains("another process uses this directory"), "{second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_compacted_under_load_and_keeps_everything() {
    for fsync in POLICIES {
        let folder = Folder::new();
        let small = LogSettings { segment_size: 64 * 1024, ..settings(&folder.0, fsync) };
        let broker = Arc::new(open(small.clone()));
        let publishers: Vec<_> = (0..4)
            .map(|publisher| {
                let broker = Arc::clone(&broker);
                tokio::spawn(async move {
                    let mut last = Published::default();
                    for number in 0..5_000 {
                        let retention = Some(Retention { size: 20, ..KEEP });
                        let channel = format!("{publisher}-{}", number % 5);
                        let request = PublishRequest { retention, ..request(&channel, format!("{number:0100}")) };
                        let answer = broker.publish(request);
                        if number % 50 == 0 {
                            last = answer.await.unwrap();
                        }
                    }
                    last
                })
            })
            .collect();
        for publisher in publishers {
            publisher.await.unwrap();
        }
        let names: Vec<Channel> = (0..20).map(|n| format!("{}-{}", n / 5, n % 5).into()).collect();
        let mut before = Vec::new();
        for name in &names {
            before.push(content(&history(&broker, name).await));
        }
        assert!(before.iter().all(|history| history.len() == 21));
        let broker = Arc::into_inner(broker).unwrap();
        assert!(broker.stats().log.compactions.load(Relaxed) > 0, "{fsync:?}");
        drop(broker);
        let bytes: u64 = files(&folder.0).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes < 2_000_000, "{fsync:?}: {bytes} bytes of 3 million are left");
        let broker = open(small);
        for (name, before) in names.iter().zip(&before) {
            assert_eq!(content(&history(&broker, name).await), *before, "{fsync:?} {name}");
        }
    }
}

#[tokio::test]
async fn histories_take_no_more_memory_than_they_may() {
    let folder = Folder::new();
    let limit = 256 * 1024;
    let settings = settings(&folder.0, Fsync::Never);
    let broker = EmbeddedBroker::new(shards(1).1).with_history_memory(limit).with_log(settings.clone()).unwrap();
    for number in 0..1000 {
        publish(&broker, &format!("{}", number % 100), "x".repeat(1000)).await;
    }
    let stats = &broker.stats().log;
    assert!(stats.history_bytes.load(Relaxed) <= limit as u64);
    assert!(stats.evicted.load(Relaxed) > 0);
    let newest = history(&broker, "99").await;
    assert!(newest.publications.last().is_some_and(|last| last.offset == newest.top.offset), "the newest is here");
    drop(broker);
    let broker = EmbeddedBroker::new(shards(1).1).with_history_memory(limit).with_log(settings).unwrap();
    assert!(broker.stats().log.history_bytes.load(Relaxed) <= limit as u64, "also after a start");
}

#[tokio::test]
async fn publications_of_a_channel_keep_their_order_whether_they_are_kept_or_not() {
    let folder = Folder::new();
    let (collectors, inboxes) = shards(1);
    let broker = EmbeddedBroker::new(inboxes).with_log(settings(&folder.0, Fsync::Always)).unwrap();
    broker.subscribe(&"news".into(), 0);
    let mut answers = Vec::new();
    for number in 0..300 {
        let retention = (number % 3 == 0).then_some(KEEP);
        answers.push(broker.publish(PublishRequest { retention, ..request("news", format!("{number}")) }));
    }
    let got = collectors[0].publications(300).await;
    let expected: Vec<_> = (0..300).map(|number| format!("{number}")).collect();
    assert_eq!(got.iter().map(|p| String::from_utf8(p.payload.data.to_vec()).unwrap()).collect::<Vec<_>>(), expected);
    for answer in answers {
        answer.await.unwrap();
    }
}
