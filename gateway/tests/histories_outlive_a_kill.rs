//! A node without Redis keeps its histories over a `kill -9`: every publication that was acknowledged is there once, in
//! order, in the same numbering, and a subscriber that comes back gets all that it missed. Twenty kills at random
//! moments unless `HISTORY_KILLS=200` says otherwise; a failure names its seed (`HISTORY_SEED=17` repeats it, as far as
//! the moments go).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the seed, and what was measured")]

mod support_process;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::process::Signal;
use serde_json::Value;
use support_process::kept::{history, settings, start};
use support_process::node::{API_KEY, Setup};
use support_process::{DEADLINE, Directory, eventually};
use tidegate_protocol::codec::delimited::{Delimited, split_delimited};
use tidegate_protocol::message::{Command, ConnectRequest, Publication, Reply, SubscribeRequest};

/// Each has one publisher and one subscriber.
const CHANNELS: [&str; 3] = ["kept:a", "kept:b", "kept:c"];

/// A backend on a connection of its own. Publishes numbers, each once.
struct Backend(BufReader<TcpStream>);

impl Backend {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Gives the answer of the API, if there is one.
    fn publish(&mut self, channel: &str, number: u64) -> Result<Value> {
        let body = format!(r#"{{"channel":"{channel}","data":{number}}}"#);
        let head = format!("POST /api/publish HTTP/1.1\r\nHost: node\r\nX-API-Key: {API_KEY}\r\nContent-Length: ");
        self.0.get_mut().write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        serde_json::from_slice(&body).map_err(Error::other)
    }
}

/// Publishes what follows `next` until the node is gone; gives what was acknowledged, with offset and epoch, and the
/// next number.
fn publish_until_the_end(address: SocketAddr, channel: &str, mut next: u64) -> (Vec<(u64, u64, String)>, u64) {
    let mut acknowledged = Vec::new();
    let Ok(mut backend) = Backend::connect(address) else { return (acknowledged, next) };
    loop {
        let number = next;
        // Whether it was published or not: this number is not used again.
        next += 1;
        let Ok(answer) = backend.publish(channel, number) else { return (acknowledged, next) };
        assert!(answer["error"].is_null(), "{answer}");
        let (offset, epoch) = (&answer["result"]["offset"], &answer["result"]["epoch"]);
        acknowledged.push((number, offset.as_u64().unwrap(), epoch.as_str().unwrap().to_owned()));
    }
}

/// What a subscriber has, over all its connections.
#[derive(Debug, Default)]
struct Received {
    position: Option<(u64, String)>,
    publications: Vec<(u64, u64)>,
    wrong: Option<String>,
}

/// Subscribes from where it is, and reads until the node is gone.
fn subscribe(address: SocketAddr, channel: &'static str, received: &Arc<Mutex<Received>>) -> JoinHandle<Result<()>> {
    let received = Arc::clone(received);
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address)?;
        let position = received.lock().unwrap().position.clone();
        let (offset, epoch) = position.clone().unwrap_or_default();
        let recover = position.is_some();
        let request = SubscribeRequest {
            channel: channel.into(),
            recoverable: true,
            recover,
            offset,
            epoch,
            ..Default::default()
        };
        let connect = Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() };
        let subscribe = Command { id: 2, subscribe: Some(request), ..Command::default() };
        stream.write_all(
            &[connect.encode_length_delimited_to_vec(), subscribe.encode_length_delimited_to_vec()].concat(),
        )?;
        let (mut input, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            input.extend_from_slice(&buffer[..n]);
            let mut done = 0;
            while let Ok(Delimited::Message { body, consumed }) = split_delimited(&input[done..], usize::MAX >> 1) {
                done += consumed;
                take(&mut received.lock().unwrap(), Reply::decode(body).map_err(Error::other)?);
            }
            input.drain(..done);
        }
    })
}

fn take(received: &mut Received, reply: Reply) {
    if let Some(error) = reply.error {
        received.wrong.get_or_insert(format!("{error:?}"));
    }
    if let Some(result) = reply.subscribe {
        if received.position.is_some() && !result.recovered {
            received.wrong.get_or_insert(format!("not recovered from {:?}: {result:?}", received.position));
        }
        received.position = Some((result.offset, result.epoch));
        result.publications.iter().for_each(|publication| note(received, publication));
    }
    if let Some(publication) = reply.push.and_then(|push| push.r#pub) {
        note(received, &publication);
    }
}

fn note(received: &mut Received, publication: &Publication) {
    let number = std::str::from_utf8(&publication.data).unwrap().parse().unwrap();
    received.publications.push((publication.offset, number));
    if let Some((offset, _)) = &mut received.position {
        *offset = (*offset).max(publication.offset);
    }
}

/// Numbers from a seed (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Waits for the moment of the kill.
#[allow(clippy::disallowed_methods, reason = "the moment is what is tried, and no condition that is waited for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Kills a node again and again while it is published to, and holds it to all that it has ever acknowledged.
fn kill_again_and_again(kills: u64, more: &str) {
    let seed = number("HISTORY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("HISTORY_SEED={seed} HISTORY_KILLS={kills}");
    let (mut random, log) = (Random(seed), Directory::new());
    let mut acknowledged: BTreeMap<&str, Vec<(u64, u64, String)>> = BTreeMap::new();
    let mut next = [0; CHANNELS.len()];
    // From the very beginning, so that what is published before the first subscription counts as well.
    let beginning = || Received { position: Some((0, String::new())), ..Received::default() };
    let received = CHANNELS.map(|_| Arc::new(Mutex::new(beginning())));
    let mut longest = Duration::ZERO;
    for kill in 0..=kills {
        let began = Instant::now();
        let mut node = start(&log, more);
        longest = longest.max(began.elapsed());
        for (channel, received) in CHANNELS.iter().zip(&received) {
            let known = acknowledged.entry(channel).or_default();
            let (epoch, publications) = history(&node, channel);
            let offsets: Vec<_> = publications.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>(), "kill {kill}, {channel}: no gaps");
            for (number, offset, of) in known.iter() {
                let found = publications.get(*offset as usize - 1);
                assert_eq!(found, Some(&(*offset, *number)), "kill {kill}, {channel}: acknowledged, and lost");
                assert_eq!(*of, epoch, "kill {kill}, {channel}: another numbering");
            }
            assert!(
                publications.is_sorted_by_key(|(_, number)| number),
                "kill {kill}, {channel}: order, and once each"
            );
            assert_eq!(received.lock().unwrap().wrong, None, "kill {kill}, {channel}");
        }
        let subscribers: Vec<_> =
            CHANNELS.iter().zip(&received).map(|(channel, received)| subscribe(node.tcp, channel, received)).collect();
        if kill < kills {
            let address = node.http;
            let publishers: Vec<_> = CHANNELS
                .into_iter()
                .zip(next)
                .map(|(channel, next)| std::thread::spawn(move || publish_until_the_end(address, channel, next)))
                .collect();
            pause(Duration::from_millis(random.below(200)));
            node.signal(Signal::KILL);
            for ((channel, next), publisher) in CHANNELS.iter().zip(&mut next).zip(publishers) {
                let (more, number) = publisher.join().unwrap();
                acknowledged.entry(channel).or_default().extend(more);
                *next = number;
            }
        } else {
            for (channel, received) in CHANNELS.iter().zip(&received) {
                let (_, all) = history(&node, channel);
                eventually("the subscriber has everything", || {
                    let received = received.lock().unwrap();
                    assert_eq!(received.wrong, None, "{channel}");
                    (received.publications.len() >= all.len()).then_some(())
                });
                assert_eq!(received.lock().unwrap().publications, all, "{channel}: once each, and in order");
            }
            node.signal(Signal::KILL);
        }
        node.wait(DEADLINE);
        // The connections have ended, in whatever way a kill ends them.
        subscribers.into_iter().for_each(|subscriber| _ = subscriber.join().unwrap());
    }
    let count: usize = acknowledged.values().map(Vec::len).sum();
    println!("{kills} kills, {count} publications acknowledged, the longest start took {longest:?}");
    assert!(count as u64 > kills, "the test has to publish something");
}

#[test]
fn nothing_that_was_acknowledged_is_lost_under_always() {
    kill_again_and_again(number("HISTORY_KILLS").unwrap_or(20), "fsync = \"always\"\nsegment_size = \"64KiB\"");
}

#[test]
fn a_kill_of_the_process_loses_nothing_under_interval_either() {
    kill_again_and_again(number("HISTORY_KILLS").unwrap_or(20) / 4, "fsync = \"interval\"\nsegment_size = \"64KiB\"");
}

#[test]
fn a_second_node_does_not_start_on_the_same_log_and_says_why() {
    let log = Directory::new();
    let _first = start(&log, "");
    let second = Setup::new().settings(&settings(&log, ""));
    let file = second.directory().write("second.toml", &settings(&log, ""));
    let output = support_process::node::command(second.directory())
        .args(["--dev", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--tcp-listen", "127.0.0.1:0"])
        .args(["--operator-listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("embedded.path") && said.contains("another process uses this directory"), "{said}");
}

#[test]
fn sigterm_leaves_a_log_that_says_it_is_whole() {
    let log = Directory::new();
    let mut node = start(&log, "fsync = \"never\"");
    node.api("publish", r#"{"channel":"kept:a","data":1}"#);
    let before = history(&node, "kept:a");
    node.signal(Signal::TERM);
    assert_eq!(node.wait(DEADLINE).code(), Some(0));
    assert!(node.logged("not closed in good order").is_none());
    let node = start(&log, "fsync = \"never\"");
    assert_eq!(history(&node, "kept:a"), before);
    assert_eq!(node.metrics().sum("tidegate_history_renewed_channels_total", &[]), 0);
}
