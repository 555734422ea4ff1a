//! On a Redis Cluster of three masters, and on a master that Sentinels watch, subscriptions that can recover get every
//! publication that was acknowledged, once and in order, while slots are moved and masters are replaced.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#[path = "../../broadcaster/tests/common/deployment/mod.rs"]
mod deployment;
mod support_process;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deployment::cluster::Cluster;
use deployment::sentinel::{NAME, Watched};
use deployment::until;
use support_process::node::{Node, Setup};
use support_process::reader::Readers;
use support_process::within;

const MASTERS: usize = 3;
const CHANNELS: u64 = 30;
const SESSIONS: u64 = 120;

/// How long everything may take to come.
const LIMIT: Duration = Duration::from_secs(60);

const NAMESPACE: &str = "[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 100000\nhistory_ttl = \"300s\"\n\
                         force_recovery = true\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
                         [client]\nrecovery_max_publication_limit = 100000\n";

/// How a backend publishes.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// With `sharded 1`, as in a cluster.
    sharded: bool,
    /// One channel of so many is published to over the node's API instead.
    api_every: Option<u64>,
}

/// A backend with a client of clusters: it goes where it is sent, and repeats with the same key what was not
/// acknowledged.
struct Backend<'a> {
    style: Style,
    /// Whether a publish counts as acknowledged only when a replica has it as well: a master that dies takes the others
    /// with it.
    replicated: &'a AtomicBool,
    /// Where a channel was last answered.
    routes: HashMap<u64, String>,
    connections: HashMap<String, BufReader<TcpStream>>,
    /// How often each kind of refusal came.
    refused: BTreeMap<String, usize>,
}

impl Backend<'_> {
    /// Publishes until it is acknowledged.
    fn publish(&mut self, number: u64, servers: &[String]) {
        let channel = number % CHANNELS;
        let (started, mut asking) = (Instant::now(), None);
        loop {
            assert!(started.elapsed() < LIMIT, "{number} is not taken: {:?}", self.refused);
            let route = self.routes.entry(channel).or_insert_with(|| servers[0].clone()).clone();
            let (address, ask) = asking.take().map_or((route, false), |address| (address, true));
            match self.try_publish(&address, ask, channel, number) {
                Ok(None) => return,
                Ok(Some(error)) => {
                    let words: Vec<&str> = error.split(' ').collect();
                    *self.refused.entry(words[0].to_owned()).or_default() += 1;
                    match words[..] {
                        ["MOVED", _, address] => drop(self.routes.insert(channel, address.to_owned())),
                        ["ASK", _, address] => asking = Some(address.to_owned()),
                        ["TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "NOREPLICA", ..] => pause(Duration::from_millis(2)),
                        ["READONLY", ..] => self.go_elsewhere(channel, &address, servers),
                        _ => panic!("{error}"),
                    }
                }
                Err(_) => self.go_elsewhere(channel, &address, servers),
            }
        }
    }

    /// Any other server knows where to go, or is it.
    fn go_elsewhere(&mut self, channel: u64, address: &str, servers: &[String]) {
        self.connections.remove(address);
        let other = servers.iter().position(|known| known == address).unwrap_or_default() + 1;
        self.routes.insert(channel, servers[other % servers.len()].clone());
        pause(Duration::from_millis(2));
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
        let replicated = self.replicated.load(Ordering::SeqCst);
        let (key, id) = (format!("push:kept:{channel}"), number.to_string());
        let payload = format!("{number} {}", "x".repeat(100));
        let mut words =
            vec!["FCALL", "push_publish", "1", &key, &payload, "size", "100000", "ttl", "300", "idempotency_key", &id];
        if self.style.sharded {
            words.extend(["sharded", "1"]);
        }
        let mut out = if ask { b"*1\r\n$6\r\nASKING\r\n".to_vec() } else { Vec::new() };
        out.extend(format!("*{}\r\n", words.len()).bytes());
        words.iter().for_each(|word| out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        if replicated {
            out.extend(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n500\r\n");
        }
        stream.get_mut().write_all(&out)?;
        if ask {
            assert_eq!(line(stream)?, "+OK");
        }
        let first = line(stream)?;
        if let Some(error) = first.strip_prefix('-') {
            if replicated {
                line(stream)?;
            }
            return Ok(Some(error.to_owned()));
        }
        assert_eq!(first, "*3", "offset, epoch, whether it is new");
        line(stream)?;
        for _ in 0..2 {
            let length: usize = line(stream)?[1..].parse().unwrap();
            stream.read_exact(&mut vec![0; length + 2])?;
        }
        if replicated && line(stream)? == ":0" {
            return Ok(Some("NOREPLICA has it".to_owned()));
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

struct World<D> {
    servers: D,
    addresses: Vec<String>,
    node: Node,
    runtime: tokio::runtime::Runtime,
    readers: Readers,
    /// See [`Backend`].
    replicated: AtomicBool,
}

impl World<Cluster> {
    fn on_cluster(cluster: Cluster) -> Self {
        let (addresses, seeds) = (cluster.seeds(), &cluster.seeds()[..2]);
        Self::new(&format!("cluster_address = {seeds:?}"), addresses, cluster)
    }
}

impl<D: Sync> World<D> {
    fn new(redis: &str, addresses: Vec<String>, servers: D) -> Self {
        let settings = format!("[engine]\ntype = \"redis\"\n[engine.redis]\n{redis}\n{NAMESPACE}");
        let node = Setup::new().settings(&settings).start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let readers = Readers::start(&runtime, node.tcp, SESSIONS, CHANNELS);
        let replicated = AtomicBool::new(false);
        Self { servers, addresses, node, runtime, readers, replicated }
    }

    /// Publishes so many a second while something else happens, at least until that has ended, and holds everybody to
    /// what was acknowledged. Answers how often the backend was refused, by kind.
    fn publish(&self, style: Style, rate: u64, happens: impl FnOnce(&Self) + Send) -> BTreeMap<String, usize> {
        let (replicated, routes, connections) = (&self.replicated, HashMap::new(), HashMap::new());
        let mut backend = Backend { style, replicated, routes, connections, refused: BTreeMap::new() };
        let started = Instant::now();
        let (over, mut count) = (AtomicBool::new(false), 0_u64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Publishing goes on until here whether it panics or not.
                let _over = Over(&over);
                happens(self);
            });
            while !over.load(Ordering::SeqCst) || !count.is_multiple_of(CHANNELS) {
                if style.api_every.is_some_and(|every| (count % CHANNELS).is_multiple_of(every)) {
                    let call = format!(r#"{{"channel":"kept:{}","data":{count}}}"#, count % CHANNELS);
                    let answer = self.node.api("publish", &call);
                    assert!(answer["result"]["offset"].is_u64(), "{answer}");
                } else {
                    backend.publish(count, &self.addresses);
                }
                count += 1;
                pause(Duration::from_secs_f64(count as f64 / rate as f64).saturating_sub(started.elapsed()));
            }
        });
        self.readers.have_got_all(count, CHANNELS);
        assert_eq!(self.node.metrics().sum("tidegate_recoveries_total", &["outcome=\"missed\""]), 0);
        backend.refused
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
    let world = World::on_cluster(Cluster::start(MASTERS, false));
    let moves = 12;
    let style = Style { sharded: true, api_every: Some(5) };
    let refused = world.publish(style, 800, |world| {
        for channel in 0..moves {
            let slot = world.servers.slot(&format!("push:kept:{channel}"));
            let from = world.servers.first_master(slot, MASTERS);
            let to = (from + 1 + channel % (MASTERS - 1)) % MASTERS;
            world.servers.open(slot, from, to);
            // A few at a time: a channel's stream and its position are on different masters for a while.
            while world.servers.move_keys(slot, from, to, 2) > 0 {}
            pause(Duration::from_millis(20));
            world.servers.close(slot, from, to, MASTERS);
        }
    });
    assert!(["MOVED", "ASK", "TRYAGAIN"].iter().all(|kind| refused.contains_key(*kind)), "{refused:?}");
    let metrics = world.node.metrics();
    assert!(metrics.sum("tidegate_broker_channels_moved_total", &[]) >= moves as u64);
    assert_eq!(metrics.sum("tidegate_broker_slots_moved_total", &[]), moves as u64);
    assert!(metrics.sum("tidegate_recoveries_total", &["outcome=\"recovered\""]) > 0, "somebody had to recover");
    assert_eq!(metrics.sum("tidegate_broker_gaps_total", &[]), 0, "no connection was lost");
    world.runtime.shutdown_background();
}

#[test]
fn thousands_of_slots_are_moved_by_the_tool_of_redis() {
    let world = World::on_cluster(Cluster::start(MASTERS, false));
    let style = Style { sharded: true, api_every: Some(3) };
    world.publish(style, 400, |world| world.servers.reshard(0, 1, 3_000));
    // Those without a channel are noticed when the node next looks.
    within(LIMIT, "every slot is noticed", || {
        (world.node.metrics().sum("tidegate_broker_slots_moved_total", &[]) == 3_000).then_some(())
    });
    let metrics = world.node.metrics();
    assert!(metrics.sum("tidegate_broker_channels_moved_total", &[]) > 0, "some of them had channels");
    assert_eq!(metrics.sum("tidegate_broker_gaps_total", &[]), 0, "no connection was lost");
    world.runtime.shutdown_background();
}

#[test]
fn a_master_of_a_cluster_is_killed_and_its_replica_takes_over() {
    let world = World::on_cluster(Cluster::start(MASTERS, true));
    world.replicated.store(true, Ordering::SeqCst);
    let style = Style { sharded: true, api_every: None };
    world.publish(style, 400, |world| {
        pause(Duration::from_secs(1));
        world.servers.nodes[1].signal("-KILL");
        world.node.wait_for_check(LIMIT, "broker", "degraded");
        world.node.wait_for_check(LIMIT, "broker", "ok");
        // The new master has no replica.
        world.replicated.store(false, Ordering::SeqCst);
        pause(Duration::from_secs(1));
    });
    let metrics = world.node.metrics();
    assert!(metrics.sum("tidegate_broker_slots_moved_total", &[]) > 5_000, "a third of them");
    assert!(metrics.sum("tidegate_broker_gaps_total", &[]) > 0, "the connections to it were lost");
    world.runtime.shutdown_background();
}

#[test]
fn sentinels_make_the_replica_the_master() {
    let watched = Watched::start();
    let redis = format!("sentinel_address = {:?}\nsentinel_master_name = {NAME:?}", watched.addresses());
    let addresses = watched.servers.iter().map(deployment::Process::address).collect();
    let world = World::new(&redis, addresses, watched);
    world.replicated.store(true, Ordering::SeqCst);
    let style = Style { sharded: false, api_every: None };
    world.publish(style, 400, |world| {
        pause(Duration::from_secs(1));
        world.servers.sentinels[0].tell(&["SENTINEL", "FAILOVER", NAME]);
        until("the other one is master", || world.servers.master() == Some(1));
        let is_there = || world.servers.servers[1].ask(&["CLIENT", "LIST"]).contains("name=tidegate-subscriber");
        until("the node is there", is_there);
        world.node.wait_for_check(LIMIT, "broker", "ok");
        pause(Duration::from_secs(1));
    });
    assert!(world.node.metrics().sum("tidegate_broker_gaps_total", &[]) > 0, "the connections were lost");
    world.runtime.shutdown_background();
}
