//! Sessions over several processes and servers, against real floors and a real Redis: every count is exact.

mod common;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{PROGRAM, floor, redis, run, text, url};

#[test]
fn two_processes_spread_their_sessions_over_two_servers_and_count_every_message() {
    let (_redis, port) = redis();
    let (first, first_address) = floor(port, "loadtest");
    let (second, second_address) = floor(port, "loadtest");
    let pids = [first.0.id().to_string(), second.0.id().to_string()];
    let redis = url(port);
    let (output, json) = run(
        "processes",
        &[
            "run",
            "broadcast",
            "--processes",
            "2",
            "--threads",
            "2",
            "--sessions",
            "301",
            "--burst",
            "100",
            "--redis",
            &redis,
            "--server",
            &first_address,
            "--server",
            &second_address,
            "--server-pid",
            &pids[0],
            "--server-pid",
            &pids[1],
        ],
    );
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let figures = &json["figures"];
    assert_eq!(figures["delivered"], 301.0 * 100.0);
    for fault in ["lost", "out_of_order", "doubled", "misrouted", "strays"] {
        assert_eq!(figures[fault], 0.0, "{fault}");
    }
    // Stamps are times of the machine's clock: had each process its own, latencies would be nonsense.
    let longest = figures["max_us"].as_f64().unwrap();
    assert!((1.0..30e6).contains(&longest), "{longest}");
}

#[test]
fn with_too_few_descriptors_one_process_is_refused_and_as_many_as_it_takes_are_not() {
    let (_redis, port) = redis();
    let (_floor, address) = floor(port, "loadtest");
    let run = |processes: &str| {
        Command::new("sh")
            .args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\"", PROGRAM, "run", "broadcast", "--quiet"])
            .args(["--sessions", "300", "--burst", "10", "--server", &address, "--redis", &url(port)])
            .args(["--processes", processes])
            .output()
            .unwrap()
    };
    let one = run("1");
    assert_eq!(one.status.code(), Some(2));
    assert!(text(&one.stderr).contains("--processes 3"), "{}", text(&one.stderr));
    let several = run("0");
    assert!(several.status.success(), "{}{}", text(&several.stdout), text(&several.stderr));
    assert!(text(&several.stdout).contains("3,000"), "{}", text(&several.stdout));
}

#[test]
fn sessions_are_shared_equally_among_the_servers() {
    let (_redis, port) = redis();
    let (first, first_address) = floor(port, "loadtest");
    let (second, second_address) = floor(port, "loadtest");
    let mut client = Command::new(PROGRAM)
        .args([
            "run",
            "broadcast",
            "--quiet",
            "--processes",
            "2",
            "--sessions",
            "100",
            "--rate",
            "1",
            "--seconds",
            "60",
        ])
        .args(["--redis", &url(port), "--server", &first_address, "--server", &second_address])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // A floor has a descriptor for each session, and a few others.
    let sockets = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(20);
    while sockets(first.0.id()) + sockets(second.0.id()) < 100 {
        assert!(Instant::now() < deadline, "the sessions do not come up");
        std::thread::yield_now();
    }
    let counts = [sockets(first.0.id()), sockets(second.0.id())];
    assert!(counts.iter().all(|count| (50..60).contains(count)), "{counts:?}");

    // When the coordinator dies, its processes end, and their sessions with them.
    client.kill().unwrap();
    client.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while sockets(first.0.id()) + sockets(second.0.id()) > 50 {
        assert!(Instant::now() < deadline, "the client processes outlive their coordinator");
        std::thread::yield_now();
    }
}

#[test]
fn a_client_process_that_dies_ends_the_run_with_its_name() {
    let (_redis, port) = redis();
    let (_floor, address) = floor(port, "loadtest");
    let mut client = Command::new(PROGRAM)
        .args(["run", "broadcast", "--quiet", "--processes", "2", "--sessions", "20", "--rate", "10", "--seconds", "3"])
        .args(["--redis", &url(port), "--server", &address])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", client.id());
    let deadline = Instant::now() + Duration::from_secs(20);
    let victim = loop {
        let pids = std::fs::read_to_string(&children).unwrap();
        let pids: Vec<_> = pids.split_ascii_whitespace().collect();
        if let [_, second] = pids[..] {
            break second.to_owned();
        }
        assert!(Instant::now() < deadline, "no two client processes");
        std::thread::yield_now();
    };
    assert!(Command::new("kill").args(["-9", &victim]).status().unwrap().success());
    let mut words = String::new();
    client.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(2), "{words}");
    for part in ["client process 2", &format!("pid {victim}"), "SIGKILL"] {
        assert!(words.contains(part), "{words}");
    }
}

#[test]
fn a_worker_that_nobody_steers_ends_with_its_input() {
    let output = Command::new(PROGRAM).arg("worker").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn sessions_of_a_killed_server_end_and_the_next_broadcast_reaches_all_others() {
    let (_redis, port) = redis();
    let floors = [floor(port, "loadtest"), floor(port, "loadtest"), floor(port, "loadtest")];
    let redis = url(port);
    let mut arguments = vec!["run", "hold", "--processes", "2", "--sessions", "301", "--redis", &redis];
    arguments.extend(["--hold", "1", "--pause", "1", "--broadcasts", "2", "--kill"]);
    let pids: Vec<_> = floors.iter().map(|(floor, _)| floor.0.id().to_string()).collect();
    for ((_, address), pid) in floors.iter().zip(&pids) {
        arguments.extend(["--server", address, "--server-pid", pid]);
    }
    let (output, json) = run("hold", &arguments);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let figures = &json["figures"];
    assert_eq!(figures["delivered"], 2.0 * 301.0);
    assert_eq!(figures["killed_sessions"], 100.0);
    assert!(figures["survivors_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{json}");
    assert!(text(&output.stdout).contains("the broadcast after it: 201"), "{}", text(&output.stdout));
}
