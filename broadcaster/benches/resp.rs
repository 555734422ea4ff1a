//! The reader of Redis: from the bytes of a burst to the shards' inboxes.
//! `cargo bench -p tidegate-broadcaster --features internals`.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark fails by panicking")]

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_broadcaster::internals::{message, parse_messages, with_reader};
use tidegate_broadcaster::{Event, Inboxes, ShardInbox};

const MESSAGES: usize = 1000;

/// A shard that counts what it is given and drops it.
#[derive(Default)]
struct Counter(AtomicU64);

impl ShardInbox for Counter {
    fn push(&self, event: Event) {
        if let Event::Publications(publications) = &event {
            self.0.fetch_add(publications.len() as u64, Ordering::Relaxed);
        }
        drop(black_box(event));
    }

    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}

/// A burst over these channels in turn, with payloads of 128 bytes.
fn burst(channels: &[String]) -> BytesMut {
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(117));
    let mut bytes = BytesMut::new();
    for channel in channels.iter().cycle().take(MESSAGES) {
        message(&mut bytes, &format!("push:{channel}"), payload.as_bytes());
    }
    bytes
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user-{n:06}")).collect()
}

fn parse(criterion: &mut Criterion) {
    let bytes = burst(&names(100));
    let mut group = criterion.benchmark_group("resp");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            let (messages, _) = parse_messages(black_box(&bytes)).expect("messages");
            assert_eq!(messages, MESSAGES);
        });
    });
    group.finish();
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for channels in [1, 100, 1000] {
        let names = names(channels);
        let bytes = burst(&names);
        let counter = Arc::new(Counter::default());
        let inboxes: Inboxes = Arc::new([Arc::clone(&counter) as Arc<dyn ShardInbox>]);
        with_reader(&names, inboxes, |reader| {
            group.bench_function(BenchmarkId::new("parse and route, channels", channels), |bencher| {
                bencher.iter(|| {
                    let before = counter.0.load(Ordering::Relaxed);
                    reader.receive(black_box(&bytes)).expect("messages");
                    assert_eq!(counter.0.load(Ordering::Relaxed) - before, MESSAGES as u64);
                });
            });
        })
        .expect("a loopback socket");
    }
    group.finish();
}

criterion_group!(benches, parse, route);
criterion_main!(benches);
