//! Client, publisher and floor against a real Redis: every count is exact.

mod common;

use std::net::TcpListener;

use common::{floor, redis, run, text, url};

#[test]
fn a_broadcast_reaches_every_session_once_and_in_order() {
    let (_redis, port) = redis();
    let (floor, address) = floor(port, "loadtest");
    let pid = floor.0.id().to_string();
    let (output, json) = run(
        "broadcast",
        &[
            "run",
            "broadcast",
            "--server",
            &address,
            "--redis",
            &url(port),
            "--server-pid",
            &pid,
            "--sessions",
            "300",
            "--threads",
            "2",
            "--burst",
            "100",
            "--label",
            "floor",
        ],
    );
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let figures = &json["figures"];
    assert_eq!(figures["delivered"], 300.0 * 100.0);
    for fault in ["lost", "out_of_order", "doubled", "misrouted", "strays"] {
        assert_eq!(figures[fault], 0.0, "{fault}");
    }
    assert!(figures["cpu_us_per_delivery"].as_f64().is_some_and(|cpu| cpu > 0.0), "{json}");
    let curve: Vec<(f64, f64)> = serde_json::from_value(json["percentiles"].clone()).unwrap();
    assert!((curve[curve.len() - 1].0 - 1.0).abs() < 1e-9 && figures["max_us"].as_f64().is_some_and(|us| us > 0.0));
    assert_eq!((&json["version"], &json["label"]), (&1.into(), &"floor".into()));
    assert_eq!(json["passed"], true);
}

#[test]
fn what_reaches_the_wrong_sessions_and_what_is_lost_fails_the_run_with_exact_counts() {
    // The floor gives its only channel, here the first session's, to everybody; nobody gets the others'.
    let (_redis, port) = redis();
    let (_floor, address) = floor(port, "loadtest-0");
    let (output, json) = run(
        "unicast",
        &[
            "run",
            "unicast",
            "--server",
            &address,
            "--redis",
            &url(port),
            "--sessions",
            "5",
            "--rate",
            "50",
            "--seconds",
            "0.5",
            "--grace",
            "1",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let figures = &json["figures"];
    assert_eq!(
        (&figures["delivered"], &figures["misrouted"], &figures["lost"]),
        (&5.0.into(), &20.0.into(), &20.0.into())
    );
}

#[test]
fn messages_that_no_server_listens_to_end_the_run_with_what_to_do() {
    let (_redis, port) = redis();
    let (_floor, address) = floor(port, "another");
    let (output, _) = run(
        "unheard",
        &[
            "run",
            "broadcast",
            "--server",
            &address,
            "--redis",
            &url(port),
            "--sessions",
            "5",
            "--burst",
            "2",
            "--grace",
            "1",
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("has no subscriber"), "{}", text(&output.stderr));
}

#[test]
fn a_missed_bound_is_exit_status_1_and_says_so() {
    let (_redis, port) = redis();
    let (_floor, address) = floor(port, "loadtest");
    let (output, json) = run(
        "bound",
        &[
            "run",
            "broadcast",
            "--server",
            &address,
            "--redis",
            &url(port),
            "--sessions",
            "10",
            "--burst",
            "10",
            "--min-deliveries-per-second",
            "1e15",
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("FAILED  deliveries per second"), "{}", text(&output.stdout));
    assert_eq!(json["passed"], false);
}

#[test]
fn the_floor_compared_with_itself_runs_every_round_of_both_sides() {
    let (_redis, port) = redis();
    let (floor, address) = floor(port, "loadtest");
    let pid = floor.0.id().to_string();
    let (output, json) = run(
        "compare",
        &[
            "run",
            "compare-floor",
            "--server",
            &address,
            "--redis",
            &url(port),
            "--server-pid",
            &pid,
            "--sessions",
            "200",
            "--rate",
            "50",
            "--seconds",
            "0.4",
            "--burst",
            "20",
            "--rounds",
            "2",
        ],
    );
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    // Two rounds of two sides, each with its warm-up of a second, its messages at a rate, and its burst.
    assert_eq!(json["figures"]["delivered"], f64::from(2 * 2 * 200 * (50 + 20 + 20)));
    for ratio in ["cpu_over_floor", "burst_cpu_over_floor"] {
        assert!(json["figures"][ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio}");
    }
}

#[test]
fn nothing_listening_is_exit_status_2_with_what_to_do() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let (output, _) = run("refused", &["run", "broadcast", "--server", &address, "--sessions", "3"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("start the server or correct --server"), "{}", text(&output.stderr));
}
