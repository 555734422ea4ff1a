//! The embedded broker's log: how many publishes it takes in a second, and how long a start with 1 GiB of it takes.
//! `cargo bench -p tidegate-broadcaster --bench histories [-- publish|start]`; `TMPDIR` says on which disk.
//!
//! Plain seconds and no criterion: what is measured is a disk over seconds, and not a function over and over.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::future::{Future, ready};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_broadcaster::{
    Broker, Channel, EmbeddedBroker, Event, Fsync, Inboxes, LogSettings, PublishRequest, Retention, ShardInbox,
};

/// Publishes whose answers a publisher waits for together.
const WINDOW: u64 = 256;

const HOUR: Duration = Duration::from_secs(3600);

/// A shard that counts what it is given and drops it.
#[derive(Default)]
struct Counter(AtomicU64);

impl ShardInbox for Counter {
    fn push(&self, event: Event) {
        if let Event::Publications(publications) = &event {
            self.0.fetch_add(publications.len() as u64, Relaxed);
        }
    }

    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}

/// Processor seconds that this process has used so far (`proc_pid_stat(5)`, in hundredths of a second on Linux).
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit(')').next().expect("the name's end").split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// A directory that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn broker(settings: LogSettings) -> (Arc<Counter>, EmbeddedBroker) {
    let counter = Arc::<Counter>::default();
    let inboxes: Inboxes = Arc::new([Arc::clone(&counter) as Arc<dyn ShardInbox>]);
    let broker = EmbeddedBroker::new(inboxes).with_history_memory(usize::MAX);
    (counter, broker.with_log(settings).expect("the log"))
}

/// Publishes payloads of so many bytes to these channels in turn, and waits for every answer. Gives the seconds.
fn publish(broker: &Arc<EmbeddedBroker>, threads: u64, each: u64, channels: &Arc<[Channel]>, payload: usize) -> f64 {
    let retention = Some(Retention { size: 100, ttl: HOUR, meta_ttl: HOUR });
    let data = Bytes::from(format!(r#"{{"text":"{}"}}"#, "x".repeat(payload - 11)));
    let began = Instant::now();
    let threads: Vec<_> = (0..threads)
        .map(|thread| {
            let (broker, channels, data) = (Arc::clone(broker), Arc::clone(channels), data.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let mut answers = Vec::new();
                    for n in 0..each {
                        let channel = Channel::clone(&channels[((n + thread * 7) % channels.len() as u64) as usize]);
                        let request = PublishRequest { channel, data: data.clone(), retention, ..Default::default() };
                        answers.push(broker.publish(request));
                        if n % WINDOW == WINDOW - 1 || n == each - 1 {
                            for answer in answers.drain(..) {
                                answer.await.expect("it is published");
                            }
                        }
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a publisher"));
    began.elapsed().as_secs_f64()
}

fn names(count: u64) -> Arc<[Channel]> {
    (0..count).map(|n| format!("news:user-{n:06}").into()).collect()
}

fn publishes(path: &Path) {
    let channels = names(1000);
    let second = Duration::from_secs(1);
    let policies = [("interval 1s", Fsync::Interval(second)), ("never", Fsync::Never), ("always", Fsync::Always)];
    for (name, fsync) in policies {
        for threads in [1, 2, 4] {
            let each = if fsync == Fsync::Always { 100_000 } else { 2_000_000 } / threads;
            let (counter, broker) = broker(LogSettings { fsync, ..LogSettings::new(path) });
            let broker = Arc::new(broker);
            channels.iter().for_each(|channel| _ = broker.subscribe(channel, 0));
            let seconds = publish(&broker, threads, each, &channels, 128);
            let count = threads * each;
            assert_eq!(counter.0.load(Relaxed), count, "everything is delivered");
            let log = &broker.stats().log;
            let syncs: u64 = log.syncs.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum();
            println!(
                "{name:<11} {threads} publishers: {count} publishes in {seconds:.2} s, {:.0} a second; {} writes, \
                 {syncs} syncs, {} compactions",
                count as f64 / seconds,
                log.writes.load(Relaxed),
                log.compactions.load(Relaxed),
            );
            drop(broker);
            std::fs::remove_dir_all(path).expect("an empty directory");
        }
    }
}

fn starts(path: &Path) {
    for (count, payload) in [(10_000, 128), (1_000, 1024)] {
        let settings = LogSettings { fsync: Fsync::Never, compaction_ratio: 1000, ..LogSettings::new(path) };
        let (_, first) = broker(settings.clone());
        let (first, channels) = (Arc::new(first), names(count));
        while first.stats().log.bytes.load(Relaxed) < 1 << 30 {
            publish(&first, 1, 100_000, &channels, payload);
        }
        drop(first);
        for _ in 0..3 {
            let (began, used) = (Instant::now(), processor());
            let (_, second) = broker(settings.clone());
            let (took, used) = (began.elapsed().as_secs_f64(), processor() - used);
            let log = &second.stats().log;
            let (bytes, records) = (log.bytes.load(Relaxed), log.replayed.load(Relaxed));
            println!(
                "start: {took:.2} s ({used:.2} s of processors) for {bytes} bytes with {records} records of \
                 {payload} B; 100 are kept of each of {count} channels"
            );
        }
        std::fs::remove_dir_all(path).expect("an empty directory");
    }
}

fn main() {
    let folder = Folder::new();
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if is_wanted("publish") {
        publishes(&folder.0);
    }
    if is_wanted("start") {
        starts(&folder.0);
    }
}
