//! The codecs and the framing: what each command, reply and publication costs on its way between bytes and messages.
//! `cargo bench -p tidegate-protocol`.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark fails by panicking")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_protocol::codec::{Commands, Format, PublicationParts, encode_command, encode_publication, encode_reply};
use tidegate_protocol::limits::Limits;
use tidegate_protocol::message::{Command, ConnectRequest, ConnectResult, Reply, SubscribeRequest, SubscribeResult};
use tidegate_protocol::websocket::assemble::Assembler;
use tidegate_protocol::websocket::frame::{TEXT, write_header};

const FORMATS: [(&str, Format); 2] = [("json", Format::Json), ("protobuf", Format::Protobuf)];

const CHANNEL: &str = "chat:room-000123";

fn commands() -> [(&'static str, Command); 2] {
    let connect = ConnectRequest { name: "js".into(), version: "5.5.3".into(), ..ConnectRequest::default() };
    let subscribe = SubscribeRequest { channel: CHANNEL.into(), ..SubscribeRequest::default() };
    [
        ("connect", Command { id: 1, connect: Some(connect), ..Command::default() }),
        ("subscribe", Command { id: 2, subscribe: Some(subscribe), ..Command::default() }),
    ]
}

fn replies() -> [(&'static str, Reply); 2] {
    let connect = ConnectResult {
        client: "8f2f1b0c-9d0e-4c8e-8d53-3e5a9c1a7b11".into(),
        version: "Tidegate 0.1.0".into(),
        ping: 25,
        pong: true,
        ..ConnectResult::default()
    };
    [
        ("connect", Reply { id: 1, connect: Some(connect), ..Reply::default() }),
        ("subscribe", Reply { id: 2, subscribe: Some(SubscribeResult::default()), ..Reply::default() }),
    ]
}

/// A JSON object of exactly `size` bytes.
fn payload(size: usize) -> Vec<u8> {
    let frame = br#"{"text":""}"#.len();
    format!(r#"{{"text":"{}"}}"#, "x".repeat(size.saturating_sub(frame))).into_bytes()
}

/// A frame as a client sends it (RFC 6455, 5.2).
fn masked(payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = Vec::new();
    write_header(TEXT, payload.len(), &mut out);
    out[1] |= 0x80;
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn decode(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("decode");
    for (format_name, format) in FORMATS {
        for (name, command) in commands() {
            let mut bytes = Vec::new();
            encode_command(format, &command, &mut bytes);
            group.bench_function(BenchmarkId::new(name, format_name), |bencher| {
                bencher.iter(|| Commands::new(format, black_box(&bytes), &limits).next().expect("a command"));
            });
        }
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let mut out = Vec::with_capacity(4096);
    for (format_name, format) in FORMATS {
        for (name, reply) in replies() {
            group.bench_function(BenchmarkId::new(name, format_name), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encode_reply(format, black_box(&reply), &mut out);
                });
            });
        }
        for size in [128, 1024] {
            let data = payload(size);
            let parts = PublicationParts {
                channel: CHANNEL,
                data: &data,
                info: None,
                offset: 0,
                epoch: "",
                tags: &BTreeMap::new(),
                delta: false,
            };
            group.bench_function(BenchmarkId::new(format!("publication {size} B"), format_name), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encode_publication(format, black_box(&parts), &mut out);
                });
            });
        }
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket");
    for size in [20, 128, 4096] {
        let frame = masked(&payload(size));
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(BenchmarkId::new("parse and unmask", size), |bencher| {
            // Unmasking happens in place, so each round needs the masked bytes again.
            bencher.iter_batched_ref(
                || frame.clone(),
                |frame| {
                    let mut assembler = Assembler::default();
                    let step = assembler.step(frame, 65536, true).expect("a frame");
                    black_box(&step);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, decode, encode, frames);
criterion_main!(benches);
