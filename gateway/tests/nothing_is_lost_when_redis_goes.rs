//! Subscriptions that can recover get every publication that Redis has acknowledged, once and in order, whatever happens to
//! Redis and to the node's connections to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use support_process::node::{Node, Setup};
use support_process::reader::Readers;
use support_process::redis::Redis;

/// How long everything may take to come.
const LIMIT: Duration = Duration::from_secs(60);

/// Publishes that go to Redis together.
const BATCH: u64 = 10;

const SETTINGS: &str = "[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 100000\nhistory_ttl = \"300s\"\n\
                        force_recovery = true\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
                        [client]\nrecovery_max_publication_limit = 100000\nqueue_max_size = \"64MiB\"\n";

/// A backend: publishes by FCALL, and repeats with the same key what was not acknowledged.
struct Backend {
    address: String,
    stream: Option<BufReader<TcpStream>>,
    payload: usize,
}

impl Backend {
    /// Publishes these until each is acknowledged.
    fn publish(&mut self, numbers: std::ops::Range<u64>, channels: u64) {
        let started = Instant::now();
        while self.try_publish(numbers.clone(), channels).is_err() {
            self.stream = None;
            assert!(started.elapsed() < LIMIT, "Redis does not come back");
        }
    }

    fn try_publish(&mut self, numbers: std::ops::Range<u64>, channels: u64) -> std::io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().unwrap();
        let mut out = Vec::new();
        for number in numbers.clone() {
            let payload = format!("{number} {}", "x".repeat(self.payload));
            let (key, id) = (format!("push:kept:{}", number % channels), number.to_string());
            let words =
                ["FCALL", "push_publish", "1", &key, &payload, "size", "100000", "ttl", "300", "idempotency_key", &id];
            out.extend(format!("*{}\r\n", words.len()).bytes());
            words.iter().for_each(|word| out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        }
        stream.get_mut().write_all(&out)?;
        for _ in numbers {
            // Three parts: the offset, the epoch with its length, whether it is new with its length.
            for _ in 0..6 {
                let mut line = String::new();
                if stream.read_line(&mut line)? == 0 || line.starts_with('-') {
                    return Err(std::io::Error::other(line));
                }
            }
        }
        Ok(())
    }
}

struct World {
    redis: Redis,
    node: Node,
    runtime: tokio::runtime::Runtime,
    readers: Readers,
    channels: u64,
}

impl World {
    fn new(options: &[&str], sessions: u64, channels: u64) -> Self {
        Self::with(options, "", sessions, channels)
    }

    /// With further settings of clients.
    fn with(options: &[&str], client: &str, sessions: u64, channels: u64) -> Self {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
        let redis = Redis::start_with(options);
        let node = Setup::new().redis(&redis.url()).settings(&format!("{SETTINGS}{client}")).start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let readers = Readers::start(&runtime, node.tcp, sessions, channels);
        Self { redis, node, runtime, readers, channels }
    }

    /// Publishes so many a second, does something every so many of them, and holds everybody to what it got.
    fn publish(&mut self, count: u64, rate: u64, payload: usize, every: u64, mut happens: impl FnMut(&mut Self)) {
        let address = self.redis.url().replace("redis://", "");
        let mut backend = Backend { address, stream: None, payload };
        let started = Instant::now();
        for batch in 0..count / BATCH {
            let first = batch * BATCH;
            if first > 0 && first.is_multiple_of(every) {
                happens(self);
            }
            backend.publish(first..first + BATCH, self.channels);
            let due = Duration::from_secs_f64((first + BATCH) as f64 / rate as f64);
            pause(due.saturating_sub(started.elapsed()));
        }
        self.readers.have_got_all(count, self.channels);
    }
}

/// Keeps the rate.
#[allow(clippy::disallowed_methods, reason = "it is a load, and not a condition that is waited for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn redis_is_killed_and_comes_back_with_its_log() {
    let directory = support_process::Directory::new();
    let path = directory.0.to_str().unwrap();
    let mut world = World::new(&["--appendonly", "yes", "--dir", path], 2_000, 200);
    world.publish(8_000, 1_000, 100, 3_000, |world| {
        world.redis.kill();
        world.redis.restart();
    });
    let metrics = world.node.metrics();
    assert!(metrics.sum("tidegate_recoveries_total", &["outcome=\"recovered\""]) > 0, "somebody had to recover");
    assert_eq!(metrics.sum("tidegate_recoveries_total", &["outcome=\"missed\""]), 0);
    world.runtime.shutdown_background();
}

#[test]
fn the_subscriber_connections_are_killed_again_and_again() {
    let mut world = World::new(&[], 500, 50);
    let mut backend = world.redis.client();
    world.publish(6_000, 1_000, 100, 1_000, |_| {
        assert!(backend.words("CLIENT KILL TYPE pubsub") > 0);
    });
    let metrics = world.node.metrics();
    assert_eq!(metrics.sum("tidegate_recoveries_total", &["outcome=\"missed\""]), 0);
    world.runtime.shutdown_background();
}

#[test]
fn redis_cuts_a_node_that_reads_too_slowly() {
    const CHANNELS: u64 = 10;
    const PUBLICATIONS: u64 = 8_000;
    const EVERY: u64 = 400;
    let options = ["--client-output-buffer-limit", "pubsub", "256kb", "128kb", "1"];
    let mut world = World::new(&options, 50, CHANNELS);
    let mut redis = world.redis.client();
    let (mut frozen, mut cuts, mut steps_left) = (false, 0, PUBLICATIONS / EVERY - 1);
    world.publish(PUBLICATIONS, 1_000, 16 * 1024, EVERY, |world| {
        steps_left -= 1;
        let live: i64 = (0..CHANNELS).map(|channel| redis.subscribers(&format!("kept:{channel}"))).sum();
        let is_cut = live < CHANNELS as i64;
        if frozen && (is_cut || steps_left == 0) {
            world.node.signal(Signal::CONT);
            (frozen, cuts) = (false, cuts + u64::from(is_cut));
        } else if !frozen && cuts < 2 && steps_left > 0 {
            // Redis goes on, and the node's sockets fill: how much they hold is the kernel's affair.
            world.node.signal(Signal::STOP);
            frozen = true;
        }
    });
    assert!(cuts > 0, "Redis has cut it");
    let metrics = world.node.metrics();
    assert!(metrics.sum("tidegate_broker_gaps_total", &[]) > 0, "Redis has cut it");
    assert_eq!(metrics.sum("tidegate_recoveries_total", &["outcome=\"missed\""]), 0);
    world.runtime.shutdown_background();
}

#[test]
fn a_node_that_lags_behind_redis_has_its_clients_recover() {
    let mut world = World::with(&[], "channel_position_max_time_lag = \"400ms\"\n", 200, 20);
    let mut steps = 0;
    // For a second it stands still, while Redis takes a thousand publishes and the sockets hold them.
    world.publish(3_000, 1_000, 100, 500, |world| {
        steps += 1;
        match steps {
            1 => world.node.signal(Signal::STOP),
            3 => world.node.signal(Signal::CONT),
            _ => {}
        }
    });
    let metrics = world.node.metrics();
    assert!(metrics.sum("tidegate_channel_gaps_total", &["reason=\"time_lag\""]) > 0, "what came was old");
    assert_eq!(metrics.sum("tidegate_channel_gaps_total", &["reason=\"offset\""]), 0, "and complete");
    assert!(metrics.sum("tidegate_recoveries_total", &["outcome=\"recovered\""]) > 0);
    assert_eq!(metrics.sum("tidegate_recoveries_total", &["outcome=\"missed\""]), 0);
    world.runtime.shutdown_background();
}
