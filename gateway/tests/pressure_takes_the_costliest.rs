//! Memory pressure through the real program: the memory in use is injected (`memory.usage_file`), the rest is real.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use support_process::client::{Client, Received, Wire, try_upgrade};
use support_process::node::{Node, Setup};
use support_process::redis::Redis;
use support_process::{eventually, within};

/// The limit of the tests, and its hundredth part.
const LIMIT: u64 = 200_000_000;
const PERCENT: u64 = LIMIT / 100;

/// How soon a change of the memory in use has to show.
const SOON: Duration = Duration::from_secs(1);

/// The largest receive buffer of a stalled reader: it is to be the gateway that holds what it does not read.
const SMALL: usize = 4096;

fn start(setup: Setup, percent: u64) -> Node {
    let file = setup.directory().write("usage", &(percent * PERCENT).to_string());
    setup.settings(&format!("[memory]\nlimit = {LIMIT}\nusage_file = {file:?}\n")).start()
}

fn use_memory(node: &Node, percent: u64) {
    node.directory.write("usage", &(percent * PERCENT).to_string());
}

fn refused(node: &Node) -> u64 {
    node.metrics().sum("tidegate_connections_refused_total", &["reason=\"memory\""])
}

#[test]
fn connections_are_refused_from_80_percent_and_let_in_again_below() {
    let node = start(Setup::new(), 79);
    let mut insider = Client::connect(&node, Wire::Json);
    for (round, percent) in [(1, 80), (2, 84)] {
        use_memory(&node, percent);
        let (status, detail) = node.wait_for_check(SOON, "memory", "failed");
        assert_eq!(status, 503);
        assert!(detail.contains(&format!("({percent} %): new connections are refused")), "{detail}");
        assert_eq!(node.metrics().sum("tidegate_memory_pressure_level", &[]), 1);

        let (status, head) = try_upgrade(&node);
        assert!(status == 503 && head.contains("\r\nRetry-After: 5\r\n"), "{head}");
        eventually("the refusal is counted", || (refused(&node) == round).then_some(()));

        use_memory(&node, 79);
        let (status, _) = node.wait_for_check(SOON, "memory", "ok");
        assert_eq!(status, 200);
        Client::connect(&node, Wire::Tcp).subscribe("news");
    }
    // Whoever is inside has noticed nothing.
    insider.subscribe("news");
    let metrics = node.metrics();
    assert_eq!(metrics.sum("tidegate_evicted_sessions_total", &[]), 0);
    assert_eq!(metrics.sum("tidegate_memory_used_bytes", &[]), 79 * PERCENT);
    assert_eq!(metrics.sum("tidegate_memory_limit_bytes", &[]), LIMIT);
    let short = node.logged("memory is short").expect("a line about the step");
    assert_eq!((&short["used"], &short["limit"]), (&(80 * PERCENT).into(), &LIMIT.into()), "{short}");
    assert!(node.logged("memory is in order again").is_some());
}

#[test]
fn a_file_that_holds_no_number_changes_nothing_and_is_named_in_the_log() {
    let node = start(Setup::new(), 50);
    node.directory.write("usage", "much");
    let error = within(SOON, "the file is complained about", || node.logged("the memory in use cannot be read"));
    assert!(error["error"].as_str().unwrap().contains("usage holds \"much\", not a number of bytes"), "{error}");
    Client::connect(&node, Wire::Json);
    use_memory(&node, 81);
    node.wait_for_check(SOON, "memory", "failed");
}

const STALLED: usize = 500;
const HEALTHY: usize = 100;
/// The messages of the flood, 2 KB each: less than the megabyte at which a session is closed with 3008.
const FLOOD: u64 = 300;
/// Evicting stops once so many are gone; the rest is the time that the test has to say so.
const ENOUGH: u64 = 300;

/// Sets its flag when it goes, so that a test which fails ends as well.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Reads everything up to the word "end" on its own channel, which must be without a gap. Answers how many other
/// messages there were, and the client.
fn follow(mut client: Client, own: &str, got: &AtomicU64) -> (u64, Client) {
    let (mut next, mut others) = (0_u64, 0);
    loop {
        let (channel, publication) = client.publication();
        if channel != own {
            others += 1;
        } else if publication.data == "\"end\"" {
            return (others, client);
        } else {
            assert_eq!(publication.data, next.to_string(), "a gap on {own}");
            next += 1;
            got.fetch_add(1, SeqCst);
        }
    }
}

/// How a reader that did not read has fared.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It was told to come back.
    Told,
    /// Its connection was cut off: it had not read its close frame within the time that there is for it.
    CutOff,
    /// It was left alone, and has the whole flood.
    Left,
}

fn fate(client: &mut Client) -> Fate {
    for _ in 0..FLOOD {
        match client.receive() {
            Received::Reply(reply) => assert_eq!(reply.push.expect("a push").channel, "flood"),
            Received::Closed(code, _) => {
                assert_eq!(code, 3011);
                return Fate::Told;
            }
            Received::Ended => return Fate::CutOff,
        }
    }
    Fate::Left
}

#[test]
fn stalled_readers_are_evicted_before_any_healthy_session_and_the_healthy_lose_nothing() {
    let redis = Redis::start();
    let node = start(Setup::new().redis(&redis.url()), 50);
    let evicted = || node.metrics().sum("tidegate_evicted_sessions_total", &[]);
    let mut stalled: Vec<Client> = (0..STALLED)
        .map(|n| {
            let mut client = Client::connect_with(&node, Wire::ALL[n % 3], Some(SMALL));
            client.subscribe("flood");
            client
        })
        .collect();
    // Healthy sessions with a channel each; every tenth of them has the flood as well.
    let channels: Vec<String> = (0..HEALTHY).map(|n| format!("own-{n}")).collect();
    let (over, got) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let ending = Ending(&over);
        let mut healthy = Vec::new();
        for (n, own) in channels.iter().enumerate() {
            let mut client = Client::connect(&node, Wire::ALL[n % 3]);
            client.subscribe(own);
            if n % 10 == 0 {
                client.subscribe("flood");
            }
            let got = &got;
            healthy.push(scope.spawn(move || follow(client, own, got)));
        }

        let mut backend = redis.client();
        let payload = format!("\"{}\"", "x".repeat(2000));
        for _ in 0..FLOOD / 10 {
            backend.publish_all((0..10).map(|_| ("flood", payload.as_bytes())));
        }
        // 300 times 2 KB each, less what the kernel has taken.
        eventually("the stalled readers are behind", || {
            let waiting = node.metrics().sum("tidegate_queue_bytes", &[]);
            (waiting > STALLED as u64 * 200_000).then_some(())
        });
        assert_eq!(evicted(), 0);
        let publisher = scope.spawn(|| {
            let mut backend = redis.client();
            let mut publish = |data: &str| {
                backend.publish_all(channels.iter().map(|channel| (channel.as_str(), data.as_bytes())));
            };
            let mut sent = 0;
            while !over.load(SeqCst) {
                publish(&sent.to_string());
                sent += 1;
                // Each of the healthy has it before the next one goes out.
                eventually("all have it", || (got.load(SeqCst) == sent * HEALTHY as u64).then_some(()));
            }
            publish("\"end\"");
            sent
        });

        use_memory(&node, 86);
        let (status, detail) = node.wait_for_check(SOON, "memory", "failed");
        assert_eq!(status, 503);
        assert!(detail.contains("(86 %): new connections are refused, the costliest sessions closed"), "{detail}");
        assert_eq!(node.metrics().sum("tidegate_memory_pressure_level", &[]), 2);
        eventually("the stalled readers are evicted", || (evicted() >= ENOUGH).then_some(()));
        use_memory(&node, 79);
        node.wait_for_check(SOON, "memory", "ok");
        let gone = evicted();
        assert!(gone <= STALLED as u64, "{gone} evicted: healthy sessions among them");

        drop(ending);
        let sent = publisher.join().unwrap();
        assert!(sent > 10, "the healthy sessions were tried {sent} times");
        for (n, reader) in healthy.into_iter().enumerate() {
            let (others, mut client) = reader.join().unwrap();
            assert_eq!(others, if n % 10 == 0 { FLOOD } else { 0 });
            client.subscribe("afterwards");
        }
        let fates: Vec<Fate> = stalled.iter_mut().map(fate).collect();
        let count = |fate| fates.iter().filter(|one| **one == fate).count() as u64;
        assert_eq!(count(Fate::Left), STALLED as u64 - gone);
        assert!(count(Fate::Told) > 0, "none of {gone} was told");
        everything_is_counted(&node, gone);
    });
}

fn everything_is_counted(node: &Node, gone: u64) {
    let metrics = eventually("nothing waits any more", || {
        let metrics = node.metrics();
        (metrics.sum("tidegate_deliveries_pending", &[]) == 0).then_some(metrics)
    });
    metrics.assert_all_accounted_for();
    assert_eq!(metrics.sum("tidegate_evicted_sessions_total", &[]), gone);
    assert_eq!(metrics.sum("tidegate_disconnects_total", &["code=\"3011\""]), gone);
    assert_eq!(metrics.sum("tidegate_disconnects_total", &[]), gone, "somebody was closed for another reason");
    assert!(metrics.sum("tidegate_deliveries_dropped_total", &["reason=\"evicted\""]) > gone);
    let line = node.logged("evicting sessions under memory pressure").expect("a line about the step");
    assert!(line["sessions"].as_u64().is_some_and(|sessions| sessions > 0), "{line}");
}
