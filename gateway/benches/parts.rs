//! The parts of a shard's turn: hub, fan-out queue, palette, wheel, slab. `cargo bench -p tidegate`.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use tidegate::hub::{Hub, Status, Subscriber, Traits};
use tidegate::shard::palette::{Cell, Marks, Palette};
use tidegate::shard::slab::{Key, Slab};
use tidegate::shard::wheel::Wheel;

/// Sessions, subscribers or entries of one round.
const COUNT: u32 = 1000;

fn hub(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hub");
    group.throughput(Throughput::Elements(COUNT.into()));
    group.bench_function("subscribe and unsubscribe", |bencher| {
        let mut hub = Hub::default();
        let channel = hub.open("news".into(), Status::Live, Traits::default());
        bencher.iter(|| {
            for session in 0..COUNT {
                hub.subscribe(channel, Subscriber::new(session, 0));
            }
            // From the front: the dearer way, since each time another subscriber moves.
            for _ in 0..COUNT {
                black_box(hub.unsubscribe(channel, 0));
            }
        });
    });
    group.bench_function("visit", |bencher| {
        let mut hub = Hub::default();
        let channel = hub.open("news".into(), Status::Live, Traits::default());
        for session in 0..COUNT {
            hub.subscribe(channel, Subscriber::new(session, 0));
        }
        bencher.iter(|| {
            hub.begin_visit(channel);
            while hub.is_visiting(channel) {
                black_box(hub.visit(channel, 512).subscribers);
            }
        });
    });
    for channels in [1000, 100_000] {
        let names: Vec<String> = (0..channels).map(|n| format!("user-{n:06}")).collect();
        let mut hub = Hub::default();
        for name in &names {
            hub.open(name.as_str().into(), Status::Live, Traits::default());
        }
        // Strides through the table, so that the cache helps no more than it would in service.
        let asked: Vec<&str> = (0..COUNT as usize).map(|n| names[n * 7919 % names.len()].as_str()).collect();
        group.bench_function(BenchmarkId::new("find, channels", channels), |bencher| {
            bencher.iter(|| asked.iter().filter(|name| hub.find(name).is_some()).count());
        });
    }
    group.finish();
}

fn palette(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("palette");
    group.throughput(Throughput::Elements(COUNT.into()));
    let cell = Cell { bytes: Bytes::from(vec![b'x'; 150]), publications: 1, ..Cell::default() };
    group.bench_function("mark and read, one cell for all", |bencher| {
        let mut palette = Palette::default();
        let mut sessions = vec![Marks::default(); COUNT as usize];
        bencher.iter(|| {
            let at = palette.share(cell.clone());
            for marks in &mut sessions {
                palette.mark(marks, at);
            }
            let mut bytes = 0;
            for marks in &mut sessions {
                bytes += palette.pieces(std::mem::take(marks)).map(|piece| piece.bytes().len()).sum::<usize>();
            }
            palette.clear();
            bytes
        });
    });
    group.bench_function("mark and read, a reply each", |bencher| {
        let mut palette = Palette::default();
        let mut sessions = vec![Marks::default(); COUNT as usize];
        bencher.iter(|| {
            for marks in &mut sessions {
                palette.mark_private(marks, 0, |out| out.extend_from_slice(b"{\"id\":2,\"subscribe\":{}}"));
            }
            let mut bytes = 0;
            for marks in &mut sessions {
                bytes += palette.pieces(std::mem::take(marks)).map(|piece| piece.bytes().len()).sum::<usize>();
            }
            palette.clear();
            bytes
        });
    });
    group.finish();
}

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    group.throughput(Throughput::Elements(COUNT.into()));
    let mut slab = Slab::default();
    let keys: Vec<Key> = (0..COUNT).map(|n| slab.insert(n)).collect();
    group.bench_function("arm and expire", |bencher| {
        let mut wheel = Wheel::default();
        let mut now = 0;
        bencher.iter(|| {
            for (at, key) in (0..).zip(&keys) {
                black_box(wheel.arm(*key, now + 1 + at % 250));
            }
            now += 250;
            let mut came = 0;
            while let Some((tick, due)) = wheel.expire(now) {
                came += due.len();
                wheel.recycle(tick, due);
            }
            assert_eq!(came, COUNT as usize);
        });
    });
    group.finish();
}

fn slab(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slab");
    group.throughput(Throughput::Elements(COUNT.into()));
    group.bench_function("insert and remove", |bencher| {
        bencher.iter_batched_ref(
            Slab::default,
            |slab| {
                let keys: Vec<Key> = (0..COUNT).map(|n| slab.insert(u64::from(n))).collect();
                for key in keys {
                    black_box(slab.remove(key));
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, hub, palette, wheel, slab);
criterion_main!(benches);
