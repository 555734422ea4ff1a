//! On a Redis Cluster of three masters, subscriptions that can recover get every publication that was acknowledged, once and
//! in order, while slots are moved from master to master.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#[path = "../../broadcaster/tests/common/deployment/mod.rs"]
mod deployment;
mod support_process;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deployment::cluster::Cluster;
use support_process::node::{Node, Setup};
use support_process::reader::{Reader, Received};
use support_process::within;

const MASTERS: usize = 3;
const CHANNELS: u64 = 30;
const SESSIONS: u64 = 120;

/// One channel of so many is published to over the API of the node, the others by a backend on the cluster.
const API_EVERY: u64 = 5;

/// How long everything may take to come.
const LIMIT: Duration = Duration::from_secs(60);

const NAMESPACE: &str = "[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 100000\nhistory_ttl = \"300s\"\n\
                         force_recovery = true\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
                         [client]\nrecovery_max_publication_limit = 100000\n";

/// A backend with a client of clusters: it goes where it is sent, and repeats with the same key what was not acknowledged.
#[derive(Default)]
struct Backend {
    /// Where a channel was last answered.
    routes: HashMap<u64, String>,
    connections: HashMap<String, BufReader<TcpStream>>,
    /// How often each kind of refusal came.
    refused: BTreeMap<String, usize>,
}

impl Backend {
    /// Publishes until it is acknowledged.
    fn publish(&mut self, number: u64, cluster: &[String]) {
        let channel = number % CHANNELS;
        let (started, mut asking) = (Instant::now(), None);
        loop {
            assert!(started.elapsed() < LIMIT, "{number} is not taken: {:?}", self.refused);
            let route = self.routes.entry(channel).or_insert_with(|| cluster[0].clone()).clone();
            let (address, ask) = asking.take().map_or((route, false), |address| (address, true));
            match self.try_publish(&address, ask, channel, number) {
                Ok(None) => return,
                Ok(Some(error)) => {
                    let words: Vec<&str> = error.split(' ').collect();
                    *self.refused.entry(words[0].to_owned()).or_default() += 1;
                    match words[..] {
                        ["MOVED", _, address] => drop(self.routes.insert(channel, address.to_owned())),
                        ["ASK", _, address] => asking = Some(address.to_owned()),
                        ["TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "READONLY", ..] => pause(Duration::from_millis(2)),
                        _ => panic!("{error}"),
                    }
                }
                Err(_) => {
                    // Any other node knows where to go.
                    self.connections.remove(&address);
                    let other = cluster.iter().position(|known| *known == address).unwrap_or_default() + 1;
                    self.routes.insert(channel, cluster[other % cluster.len()].clone());
                    pause(Duration::from_millis(2));
                }
            }
        }
    }

    /// The inner answer is an error of Redis.
    fn try_publish(&mut self, address: &str, ask: bool, channel: u64, number: u64) -> std::io::Result<Option<String>> {
        if !self.connections.contains_key(address) {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            self.connections.insert(address.to_owned(), BufReader::new(stream));
        }
        let stream = self.connections.get_mut(address).unwrap();
        let (key, id) = (format!("push:kept:{channel}"), number.to_string());
        let payload = format!("{number} {}", "x".repeat(100));
        let words = [
            "FCALL",
            "push_publish",
            "1",
            &key,
            &payload,
            "size",
            "100000",
            "ttl",
            "300",
            "idempotency_key",
            &id,
            "sharded",
            "1",
        ];
        let mut out = if ask { b"*1\r\n$6\r\nASKING\r\n".to_vec() } else { Vec::new() };
        out.extend(format!("*{}\r\n", words.len()).bytes());
        words.iter().for_each(|word| out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        stream.get_mut().write_all(&out)?;
        if ask {
            assert_eq!(line(stream)?, "+OK");
        }
        let first = line(stream)?;
        if let Some(error) = first.strip_prefix('-') {
            return Ok(Some(error.to_owned()));
        }
        assert_eq!(first, "*3", "offset, epoch, whether it is new");
        line(stream)?;
        for _ in 0..2 {
            let length: usize = line(stream)?[1..].parse().unwrap();
            stream.read_exact(&mut vec![0; length + 2])?;
        }
        Ok(None)
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// Keeps a rate, or waits before another attempt as clients do.
#[allow(clippy::disallowed_methods, reason = "it is a load, and not a condition that is waited for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

struct World {
    cluster: Cluster,
    node: Node,
    runtime: tokio::runtime::Runtime,
    received: Vec<(u64, Arc<Mutex<Received>>)>,
}

impl World {
    fn new(cluster: Cluster) -> Self {
        let settings = format!(
            "[engine]\ntype = \"redis\"\n[engine.redis]\ncluster_address = {:?}\n{NAMESPACE}",
            &cluster.seeds()[..2]
        );
        let node = Setup::new().settings(&settings).start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let received = (0..SESSIONS).map(|number| {
            let (channel, received) = (number % CHANNELS, Arc::<Mutex<Received>>::default());
            runtime.spawn(Reader::new(format!("kept:{channel}"), Arc::clone(&received)).run(node.tcp));
            (channel, received)
        });
        let received = received.collect();
        let world = Self { cluster, node, runtime, received };
        world.until("everybody has subscribed", |received, _| received.subscribed > 0);
        world
    }

    fn until(&self, what: &str, holds: impl Fn(&Received, u64) -> bool) {
        within(LIMIT, what, || {
            let all = self.received.iter().all(|(channel, received)| {
                let received = received.lock().unwrap();
                assert_eq!(received.wrong, None, "{what}");
                holds(&received, *channel)
            });
            all.then_some(())
        });
    }

    /// Publishes so many a second while something else happens, at least until that has ended, and holds everybody to what
    /// was acknowledged.
    fn publish(&self, rate: u64, happens: impl FnOnce(&Self) + Send) -> Backend {
        let (mut backend, nodes, started) = (Backend::default(), self.cluster.seeds(), Instant::now());
        let (over, mut count) = (AtomicBool::new(false), 0_u64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Publishing goes on until here whether it panics or not.
                let _over = Over(&over);
                happens(self);
            });
            while !over.load(Ordering::SeqCst) || !count.is_multiple_of(CHANNELS) {
                if (count % CHANNELS).is_multiple_of(API_EVERY) {
                    let call = format!(r#"{{"channel":"kept:{}","data":{count}}}"#, count % CHANNELS);
                    let answer = self.node.api("publish", &call);
                    assert!(answer["result"]["offset"].is_u64(), "{answer}");
                } else {
                    backend.publish(count, &nodes);
                }
                count += 1;
                pause(Duration::from_secs_f64(count as f64 / rate as f64).saturating_sub(started.elapsed()));
            }
        });
        let expected: BTreeMap<u64, Vec<u64>> =
            (0..CHANNELS).map(|channel| (channel, (0..count).filter(|n| n % CHANNELS == channel).collect())).collect();
        self.until("everything has come", |received, channel| received.numbers.len() >= expected[&channel].len());
        for (channel, received) in &self.received {
            assert_eq!(
                received.lock().unwrap().numbers,
                expected[channel],
                "channel {channel}: once each, and in order"
            );
        }
        assert_eq!(self.node.metrics().sum("tidegate_recoveries_total", &["outcome=\"missed\""]), 0);
        backend
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn slots_are_moved_with_their_keys_while_backends_publish_and_clients_listen() {
    let world = World::new(Cluster::start(MASTERS, false));
    let moves = 12;
    let backend = world.publish(800, |world| {
        for channel in 0..moves {
            let slot = world.cluster.slot(&format!("push:kept:{channel}"));
            let from = world.cluster.first_master(slot, MASTERS);
            let to = (from + 1 + channel % (MASTERS - 1)) % MASTERS;
            world.cluster.open(slot, from, to);
            // A few at a time: a channel's stream and its position are on different masters for a while.
            while world.cluster.move_keys(slot, from, to, 2) > 0 {}
            pause(Duration::from_millis(20));
            world.cluster.close(slot, from, to, MASTERS);
        }
    });
    assert!(
        ["MOVED", "ASK", "TRYAGAIN"].iter().all(|kind| backend.refused.contains_key(*kind)),
        "{:?}",
        backend.refused
    );
    let metrics = world.node.metrics();
    assert!(metrics.sum("tidegate_broker_channels_moved_total", &[]) >= moves as u64);
    assert_eq!(metrics.sum("tidegate_broker_slots_moved_total", &[]), moves as u64);
    assert!(metrics.sum("tidegate_recoveries_total", &["outcome=\"recovered\""]) > 0, "somebody had to recover");
    assert_eq!(metrics.sum("tidegate_broker_gaps_total", &[]), 0, "no connection was lost");
    world.runtime.shutdown_background();
}
