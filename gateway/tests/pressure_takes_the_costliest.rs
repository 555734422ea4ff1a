//! Memory pressure through the real program: the memory in use is injected (`memory.usage_file`), the rest is real.

mod support_process;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use support_process::client::{Client, Received, Wire, try_upgrade};
use support_process::node::{Node, Setup};
use support_process::redis::Redis;
use support_process::{DEADLINE, eventually, within};

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

/// Stops the publisher when it goes.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn stalled_readers_are_evicted_before_any_healthy_session_and_the_healthy_lose_nothing() {
    const STALLED: usize = 500;
    const HEALTHY: usize = 100;
    /// The messages of the flood, 2 KB each: less than the megabyte at which a session is closed with 3008.
    const FLOOD: u64 = 300;
    /// Evicting stops once so many are gone; the rest is the time that the test has to say so.
    const ENOUGH: u64 = 300;
    let redis = Redis::start();
    let node = start(Setup::new().redis(&redis.url()), 50);

    let mut stalled: Vec<Client> = (0..STALLED)
        .map(|n| {
            let mut client = Client::connect_with(&node, Wire::ALL[n % 3], Some(SMALL));
            client.subscribe("flood");
            client
        })
        .collect();
    let stop = AtomicBool::new(false);
    let payload = format!("\"{}\"", "x".repeat(2000));
    // Healthy sessions with a channel each; every tenth of them has the flood as well.
    let channels: Vec<String> = (0..HEALTHY).map(|n| format!("own-{n}")).collect();
    let last = std::sync::OnceLock::new();
    std::thread::scope(|scope| {
        // Also where the test fails, so that it ends.
        let ending = Ending(&stop);
        let mut healthy = Vec::new();
        for (n, own) in channels.iter().enumerate() {
            let mut client = Client::connect(&node, Wire::ALL[n % 3]);
            client.subscribe(own);
            if n % 10 == 0 {
                client.subscribe("flood");
            }
            let last = &last;
            healthy.push(scope.spawn(move || {
                let (mut seen, mut flooded) = (0, if n % 10 == 0 { 0 } else { FLOOD });
                loop {
                    let is_last = last.get().is_some_and(|last: &u64| seen > *last);
                    if is_last && flooded == FLOOD {
                        return client;
                    }
                    let (channel, publication) = client.publication();
                    if channel == *own {
                        assert_eq!(publication.data, seen.to_string(), "a gap on {own}");
                        seen += 1;
                    } else {
                        flooded += 1;
                    }
                }
            }));
        }

        let mut backend = redis.client();
        for _ in 0..FLOOD / 10 {
            backend.publish_all((0..10).map(|_| ("flood", payload.as_bytes())));
        }
        // 300 times 2 KB, less what the kernel has taken.
        eventually("the stalled readers are behind", || {
            let waiting = node.metrics().sum("tidegate_queue_bytes", &[]);
            (waiting > STALLED as u64 * 200_000).then_some(())
        });
        let before = node.metrics();
        assert_eq!(before.sum("tidegate_evicted_sessions_total", &[]), 0);

        let publisher = scope.spawn(|| {
            let mut backend = redis.client();
            let mut sent = 0_u64;
            // One more when everything is over, so that the readers see the end.
            loop {
                let ending = stop.load(SeqCst);
                let data = sent.to_string();
                if ending {
                    last.set(sent).unwrap();
                }
                backend.publish_all(channels.iter().map(|channel| (channel.as_str(), data.as_bytes())));
                if ending {
                    return sent;
                }
                sent += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        });

        use_memory(&node, 86);
        let (status, detail) = node.wait_for_check(SOON, "memory", "failed");
        assert!(status == 503 && detail.contains("(86 %): new connections are refused, the costliest sessions closed"));
        assert_eq!(node.metrics().sum("tidegate_memory_pressure_level", &[]), 2);
        let evicted = || node.metrics().sum("tidegate_evicted_sessions_total", &[]);
        within(DEADLINE, "the stalled readers are evicted", || (evicted() >= ENOUGH).then_some(()));
        use_memory(&node, 79);
        node.wait_for_check(SOON, "memory", "ok");
        let gone = evicted();
        assert!(gone <= STALLED as u64, "{gone} evicted: healthy sessions among them");

        drop(ending);
        let sent = publisher.join().unwrap();
        assert!(sent > 10, "the healthy sessions were tried {sent} times");
        // Each of the healthy has had every message, and still has its connection.
        for client in healthy {
            let mut client = client.join().unwrap();
            client.subscribe("afterwards");
        }

        // Those who were evicted are told so, with a code after which SDKs come back. The close frame of some is not
        // read within the time that there is for it.
        let (mut told, mut cut_off, mut left) = (0, 0, 0);
        for client in &mut stalled {
            let mut flooded = 0;
            while flooded < FLOOD {
                match client.receive() {
                    Received::Closed(code, _) => {
                        assert_eq!(code, 3011);
                        told += 1;
                        break;
                    }
                    Received::Ended => {
                        cut_off += 1;
                        break;
                    }
                    Received::Reply(reply) => {
                        assert_eq!(reply.push.expect("a push").channel, "flood");
                        flooded += 1;
                    }
                }
            }
            left += u64::from(flooded == FLOOD);
        }
        assert_eq!((told + cut_off, left), (gone, STALLED as u64 - gone));
        assert!(told > 0, "none of {gone} was told");

        let metrics = eventually("nothing waits any more", || {
            let metrics = node.metrics();
            (metrics.sum("tidegate_deliveries_pending", &[]) == 0).then_some(metrics)
        });
        metrics.assert_all_accounted_for();
        assert_eq!(metrics.sum("tidegate_evicted_sessions_total", &[]), gone);
        assert_eq!(metrics.sum("tidegate_disconnects_total", &["code=\"3011\""]), gone);
        assert_eq!(metrics.sum("tidegate_disconnects_total", &[]), gone, "nobody was closed for another reason");
        assert!(metrics.sum("tidegate_deliveries_dropped_total", &["reason=\"evicted\""]) > gone);
        let line = node.logged("evicting sessions under memory pressure").expect("a line about the step");
        assert!(line["sessions"].as_u64().is_some_and(|sessions| sessions > 0), "{line}");
    });
}
