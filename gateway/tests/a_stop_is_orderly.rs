//! SIGTERM: not ready at once, nobody new, everybody told to go over the drain, exit 0 in time, and the ports are free.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support_process::client::{Client, Wire, try_upgrade};
use support_process::http::get;
use support_process::node::{API_KEY, Setup};
use support_process::redis::Redis;
use support_process::{eventually, within};
use tidegate_protocol::message::{Command, PublishRequest};

/// What a busy machine may add to a time that is promised.
const MARGIN: Duration = Duration::from_secs(3);

#[test]
fn sigterm_closes_every_session_with_3001_over_the_drain_and_exits_with_0() {
    const SESSIONS: usize = 30;
    let mut node = Setup::new().settings("[shutdown]\ndrain = \"2s\"\n").start();
    let closed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 0..SESSIONS {
            let mut client = Client::connect(&node, Wire::ALL[n % 3]);
            client.subscribe("news");
            let closed = &closed;
            scope.spawn(move || {
                let (code, reason) = client.closed();
                closed.lock().unwrap().push((Instant::now(), code, reason));
            });
        }
        assert_eq!(node.ready().0, 200);
        let told = Instant::now();
        node.signal(Signal::TERM);

        let (status, detail) = node.wait_for_check(Duration::from_secs(1), "draining", "failed");
        assert_eq!(status, 503, "{detail}");
        let (status, head) = try_upgrade(&node);
        assert!(status == 503 && head.contains("\r\nRetry-After: "), "{head}");

        let status = node.wait(Duration::from_secs(2) + MARGIN);
        assert_eq!(status.code(), Some(0));
        assert!(told.elapsed() >= Duration::from_millis(1500), "not spread over the drain: {:?}", told.elapsed());
    });
    let closed = closed.into_inner().unwrap();
    assert_eq!(closed.len(), SESSIONS);
    for (_, code, reason) in &closed {
        assert_eq!((*code, reason.as_str()), (3001, "shutdown"));
    }
    let (first, last) =
        (closed.iter().map(|(at, ..)| at).min().unwrap(), closed.iter().map(|(at, ..)| at).max().unwrap());
    let spread = *last - *first;
    assert!(spread >= Duration::from_secs(1), "closed within {spread:?}: not spread over the drain");
    let draining = node.logged("draining").expect("a line about the drain");
    assert_eq!(draining["connections"], SESSIONS, "{draining}");
    assert!(node.logged("stopped").is_some() && node.logged("connections are dropped").is_none());
}

#[test]
fn a_second_sigterm_does_not_wait_for_the_drain() {
    let mut node = Setup::new().settings("[shutdown]\ndrain = \"25s\"\n").start();
    let _clients = Wire::ALL.map(|wire| Client::connect(&node, wire));
    node.signal(Signal::TERM);
    eventually("the drain has begun", || node.logged("draining"));
    node.signal(Signal::TERM);
    assert_eq!(node.wait(MARGIN).code(), Some(0));
    assert!(node.logged("told to stop a second time").is_some());
}

#[test]
fn a_stop_is_over_within_its_timeout_whoever_does_not_go() {
    // Who is closed has about a second to go, which is longer than all of it takes here.
    let mut node = Setup::new().settings("[shutdown]\ntimeout = \"800ms\"\ndrain = \"400ms\"\n").start();
    // Neither reads nor closes.
    let _deaf = Wire::ALL.map(|wire| Client::connect(&node, wire).into_stream());
    let _half_a_request = {
        let mut stream = TcpStream::connect(node.http).unwrap();
        stream.write_all(b"GET /connection/websocket HTTP/1.1\r\nHo").unwrap();
        stream
    };
    node.signal(Signal::TERM);
    assert_eq!(node.wait(Duration::from_millis(800) + MARGIN).code(), Some(0));
    let stopped = node.logged("stopped").expect("a line about the end");
    let took_ms = stopped["took_ms"].as_u64().unwrap();
    assert!((700..1050).contains(&took_ms), "took {took_ms} ms, and shutdown.timeout is 0.8 s");
    let dropped = node.logged("connections are dropped").expect("none of them has gone");
    // The half request is among them where it was let in before the signal.
    assert!(dropped["connections"].as_u64().unwrap() >= Wire::ALL.len() as u64, "{dropped}");
}

#[test]
fn a_stop_is_over_within_its_timeout_also_while_redis_hangs() {
    let redis = Redis::start();
    let settings = "[shutdown]\ntimeout = \"3s\"\ndrain = \"1s\"\n[engine.redis]\nio_timeout = \"20s\"\n";
    let mut node = Setup::new().redis(&redis.url()).settings(settings).start();
    let mut client = Client::connect(&node, Wire::Json);
    client.subscribe("news");
    redis.freeze();
    // Waits for its answer while the node stops.
    client.send(Command {
        publish: Some(PublishRequest { channel: "a".into(), data: "1".into(), ..PublishRequest::default() }),
        ..Command::default()
    });
    node.signal(Signal::TERM);
    assert_eq!(client.closed().0, 3001);
    assert_eq!(node.wait(Duration::from_secs(3) + MARGIN).code(), Some(0));
    let took_ms = node.logged("stopped").expect("a line about the end")["took_ms"].as_u64().unwrap();
    assert!((1000..3250).contains(&took_ms), "took {took_ms} ms, and shutdown.timeout is 3 s");
    assert!(node.logged("not everything has ended").is_some(), "the publish was waited for until the time was over");
}

#[test]
fn a_stop_waits_for_no_idle_request_connection() {
    let mut node = Setup::new().start();
    let mut kept = TcpStream::connect(node.http).unwrap();
    let body = r#"{"channel":"a","data":1}"#;
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    kept.write_all(request.as_bytes()).unwrap();
    let mut start = [0; 12];
    kept.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    node.signal(Signal::TERM);
    // The drain of --dev is 1 s, shutdown.timeout 30 s.
    assert_eq!(node.wait(Duration::from_millis(800) + MARGIN).code(), Some(0));
    assert!(node.logged("connections are dropped").is_none());
}

#[test]
fn a_new_process_has_the_ports_at_once_and_clients_come_back() {
    let mut node = Setup::new().start();
    let clients = Wire::ALL.map(|wire| Client::connect(&node, wire));
    node.signal(Signal::TERM);
    for mut client in clients {
        assert_eq!(client.closed().0, 3001);
    }
    node.wait(Duration::from_secs(1) + MARGIN);
    let ports = [node.http, node.tcp, node.operator].map(|address| address.to_string());
    let successor = Setup::new().start_at([&ports[0], &ports[1], &ports[2]]);
    assert_eq!((successor.http, successor.tcp, successor.operator), (node.http, node.tcp, node.operator));
    for wire in Wire::ALL {
        let mut client = Client::connect(&successor, wire);
        client.subscribe("news");
        successor.api("publish", r#"{"channel":"news","data":1}"#);
        client.expect("news", b"1");
    }
    let page = get(successor.http, "/");
    assert_eq!(page.status, 200);
    within(Duration::from_secs(1), "the log of the new process", || successor.logged("started"));
}
