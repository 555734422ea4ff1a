//! What a publish with history costs beside a plain one, in round trips to the same Redis, in turns; and what Redis keeps:
//! `cargo bench -p tidegate-broadcaster --bench redis`. Starts a `redis-server` of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, missing_docs, reason = "it prints its figures")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::eventually;
use common::inbox::shards;
use common::server::{Client, Server};
use redis_protocol::resp2::types::BytesFrame;
use tidegate_broadcaster::{Broker, BrokerHealth, Channel, PublishRequest, RedisBroker, RedisSettings, Retention};

const ROUNDS: usize = 40;
const CALLS: usize = 250;

const PAYLOAD: [u8; 128] = [b'x'; 128];

const KEPT: Retention = Retention { size: 100, ttl: Duration::from_secs(300), meta_ttl: Duration::from_secs(3600) };

/// What is compared, by name, with the durations of its calls.
struct Course {
    name: &'static str,
    took: Vec<Duration>,
}

impl Course {
    fn percentile(&mut self, percent: usize) -> f64 {
        self.took.sort_unstable();
        self.took[(self.took.len() - 1) * percent / 100].as_secs_f64() * 1e6
    }
}

async fn direct(client: &mut Client, words: &[&[u8]], took: &mut Vec<Duration>) {
    for _ in 0..CALLS {
        let start = Instant::now();
        let answer = client.call(words).await;
        took.push(start.elapsed());
        assert!(!matches!(answer, BytesFrame::Error(_)), "{answer:?}");
    }
}

async fn through(broker: &RedisBroker, retention: Option<Retention>, took: &mut Vec<Duration>) {
    let channel: Channel = "bench".into();
    for _ in 0..CALLS {
        let data = PAYLOAD.to_vec().into();
        let request = PublishRequest { channel: Arc::clone(&channel), data, retention, ..PublishRequest::default() };
        let start = Instant::now();
        broker.publish(request).await.expect("published");
        took.push(start.elapsed());
    }
}

/// Publications, and clients in presence, of which Redis' memory is measured.
const KEPT_BY_REDIS: usize = 100_000;

async fn used(client: &mut Client) -> f64 {
    let BytesFrame::BulkString(info) = client.words("INFO memory").await else { panic!("a text") };
    let text = String::from_utf8_lossy(&info).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("it says so");
    line.parse().expect("a number")
}

/// Publishes so many, one after the other, into so many channels that keep `size` each.
async fn fill(client: &mut Client, name: &str, publications: usize, channels: usize, size: usize) {
    let size = size.to_string();
    for number in 0..publications {
        let key = format!("push:{name}{}", number % channels);
        let words: [&[u8]; 9] =
            [b"FCALL", b"push_publish", b"1", key.as_bytes(), &PAYLOAD, b"size", size.as_bytes(), b"ttl", b"3000"];
        client.call(&words).await;
    }
}

/// Lets clients into a channel, each with a user of its own or all without.
async fn attend(client: &mut Client, channel: &str, users: bool) {
    let ids: Vec<usize> = (0..KEPT_BY_REDIS).collect();
    for some in ids.chunks(500) {
        let mut words: Vec<Vec<u8>> =
            ["FCALL", "push_presence_update", "1", channel, "node", "3000"].map(|word| word.as_bytes().to_vec()).into();
        for id in some {
            let user = if users { format!("9:user{id:05}") } else { "0:".to_owned() };
            // As long as a client's id is.
            words.extend(["+".to_owned(), format!("{id:036}"), user].map(Into::into));
        }
        client.call(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    }
}

/// What Redis keeps for each of them, without the payloads.
async fn memory(client: &mut Client) {
    println!();
    let mut before = used(client).await;
    let mut tell = |what: &str, now: f64, count: usize, payload: usize| {
        println!("{what:48} {:>8.0} bytes", (now - before) / count as f64 - payload as f64);
        before = now;
    };
    for (what, publications, channels) in [
        ("a publication in one history of 100,000", KEPT_BY_REDIS, 1),
        ("a publication in 1,000 histories of 100", KEPT_BY_REDIS, 1000),
        ("a channel with one publication", 20_000, 20_000),
    ] {
        fill(client, &format!("memory-{channels}-"), publications, channels, publications / channels).await;
        tell(what, used(client).await, publications, PAYLOAD.len());
    }
    for (what, channel, users) in
        [("a client in presence with a user of its own", "push:own", true), ("an anonymous one", "push:none", false)]
    {
        attend(client, channel, users).await;
        tell(what, used(client).await, KEPT_BY_REDIS, 0);
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() {
    let server = Server::start().await;
    let broker = common::start(RedisSettings::new(server.url()), shards(1).1);
    eventually("connected", || broker.health() == BrokerHealth::Healthy).await;
    let mut client = server.client().await;
    let mut courses: Vec<Course> = ["PING", "PUBLISH", "FCALL push_publish", "broker, plain", "broker, with history"]
        .map(|name| Course { name, took: Vec::new() })
        .into();
    let words: [&[&[u8]]; 3] = [
        &[b"PING"],
        &[b"PUBLISH", b"push:bench", &PAYLOAD],
        &[b"FCALL", b"push_publish", b"1", b"push:bench", &PAYLOAD, b"size", b"100", b"ttl", b"300"],
    ];
    // The first round warms up, and has the broker load the functions.
    for round in 0..=ROUNDS {
        through(&broker, None, &mut courses[3].took).await;
        through(&broker, Some(KEPT), &mut courses[4].took).await;
        for (words, course) in words.iter().zip(&mut courses) {
            direct(&mut client, words, &mut course.took).await;
        }
        if round == 0 {
            client.words("CONFIG RESETSTAT").await;
            courses.iter_mut().for_each(|course| course.took.clear());
        }
    }
    let two_round_trips = 2.0 * courses[0].percentile(50);
    println!("{:24} {:>8} {:>8} {:>26}", "us", "p50", "p99", "of two round trips (PING)");
    for course in &mut courses {
        let (median, late) = (course.percentile(50), course.percentile(99));
        println!("{:24} {median:>8.1} {late:>8.1} {:>26.2}", course.name, median / two_round_trips);
    }
    let BytesFrame::BulkString(stats) = client.words("INFO commandstats").await else { panic!("a text") };
    println!();
    for line in String::from_utf8_lossy(&stats).lines().filter(|line| line.contains("fcall")) {
        println!("{} publishes with history: {line}", 2 * ROUNDS * CALLS);
    }
    memory(&mut client).await;
}
