//! What the tests of the log share, and what cannot be seen from outside: the machine's end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::block::{Boot, FILE_HEADER, FileHeader};
use super::{Fsync, LogSettings};
use crate::broker::{Broker, PublishRequest};
use crate::history::{HistoryQuery, Position, Retention};
use crate::{EmbeddedBroker, Inboxes};

/// A directory of a test's own, removed at the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-log-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn open(path: &Path, fsync: Fsync) -> EmbeddedBroker {
    let inboxes: Inboxes = Arc::new([]);
    EmbeddedBroker::new(inboxes).with_log(LogSettings { fsync, ..LogSettings::new(path) }).unwrap()
}

async fn publish(broker: &EmbeddedBroker) {
    let retention = Some(Retention { size: 10, ttl: HOUR, meta_ttl: HOUR });
    let request = PublishRequest { channel: "c".into(), data: "1".into(), retention, ..PublishRequest::default() };
    broker.publish(request).await.unwrap();
}

async fn position(broker: &EmbeddedBroker) -> Position {
    broker.history(&"c".into(), HistoryQuery::top(HOUR)).await.unwrap().top
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = files.filter(|file| file.extension().is_some_and(|found| found == "log")).collect();
    segments.sort();
    segments
}

/// What a process that is killed now leaves behind, as the machine finds it after it was started anew.
fn restart_machine(from: &Path, to: &Path) {
    for file in segments(from) {
        let mut bytes = std::fs::read(&file).unwrap();
        let header = FileHeader::decode(&bytes).unwrap();
        let boot = Boot::from_text("00000000-0000-4000-8000-000000000001");
        bytes[..FILE_HEADER].copy_from_slice(&FileHeader { boot, ..header }.encode());
        std::fs::write(to.join(file.file_name().unwrap()), bytes).unwrap();
    }
}

#[tokio::test]
async fn after_the_machines_end_channels_are_numbered_anew_unless_nothing_can_be_missing() {
    for (fsync, stays) in [(Fsync::Always, true), (Fsync::Interval(HOUR), false), (Fsync::Never, false)] {
        let folder = Folder::new();
        let broker = open(folder.path(), fsync);
        publish(&broker).await;
        let before = position(&broker).await;
        let after = Folder::new();
        restart_machine(folder.path(), after.path());
        drop(broker);
        let killed = open(after.path(), fsync);
        let found = position(&killed).await;
        assert_eq!((found.offset, found.epoch == before.epoch), (1, stays), "{fsync:?}");
        assert_eq!(killed.stats().log.renewed.load(Ordering::Relaxed), u64::from(!stays));

        // The same after a clean end: nothing is missing, whatever the policy.
        let clean = Folder::new();
        restart_machine(folder.path(), clean.path());
        assert_eq!(position(&open(clean.path(), fsync)).await, before, "{fsync:?}");
    }
}

#[tokio::test]
async fn a_kill_after_a_clean_end_under_an_earlier_start_of_the_machine_loses_nothing() {
    let (first, second) = (Folder::new(), Folder::new());
    let broker = open(first.path(), Fsync::Never);
    publish(&broker).await;
    let before = position(&broker).await;
    drop(broker);
    restart_machine(first.path(), second.path());
    let broker = open(second.path(), Fsync::Never);
    publish(&broker).await;
    let killed = Folder::new();
    for file in segments(second.path()) {
        std::fs::copy(&file, killed.path().join(file.file_name().unwrap())).unwrap();
    }
    let found = position(&open(killed.path(), Fsync::Never)).await;
    assert_eq!((found.offset, found.epoch), (2, before.epoch));
}
