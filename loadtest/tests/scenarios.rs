//! Every kind of scenario end to end: against a real node and a real Redis, every count exact.

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};

use common::{PROGRAM, Running, floor, node, redis, run, text, url};
use serde_json::Value;

/// A node with its Redis.
struct Place {
    name: &'static str,
    node: Running,
    _redis: Running,
    redis: String,
    address: String,
}

impl Place {
    fn new(name: &'static str, environment: &[(&str, &str)]) -> Self {
        let (redis, port) = redis();
        let (node, address) = node(name, port, environment);
        Self { name, node, _redis: redis, redis: url(port), address }
    }

    /// Runs a scenario that publishes.
    fn publish(&self, arguments: &[&str]) -> (Output, Value) {
        self.run(&[arguments, &["--redis", &self.redis]].concat())
    }

    /// Runs a scenario, with the node's process watched.
    fn run(&self, arguments: &[&str]) -> (Output, Value) {
        let pid = self.node.0.id().to_string();
        let place = ["--server", &self.address, "--server-pid", &pid];
        run(self.name, &[&["run"], arguments, &place].concat())
    }
}

/// The run has passed, and nothing was lost; its figures.
fn passed((output, json): (Output, Value)) -> Value {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(json["passed"], true);
    for fault in ["lost", "out_of_order", "doubled", "misrouted"] {
        let count = &json["figures"][fault];
        assert!(count.is_null() || *count == 0.0, "{fault}: {count}");
    }
    json["figures"].clone()
}

fn number(figures: &Value, name: &str) -> f64 {
    let value = figures[name].as_f64();
    assert!(value.is_some(), "{name} is missing: {figures}");
    value.unwrap_or_default()
}

#[test]
fn a_session_with_several_channels_gets_every_message_of_each() {
    let place = Place::new("several", &[]);
    let flags = ["--sessions", "40", "--subscriptions", "5", "--rate", "1000", "--seconds", "0.8", "--threads", "2"];
    let figures = passed(place.publish(&[&["unicast"], &flags[..]].concat()));
    assert_eq!((number(&figures, "channels"), number(&figures, "delivered")), (200.0, 800.0));
    // Shared by all: 6 channels, of which each session has 3.
    let flags = ["--sessions", "40", "--channels", "6", "--subscriptions", "3", "--burst", "60"];
    let figures = passed(place.publish(&[&["burst"], &flags[..]].concat()));
    assert_eq!(number(&figures, "delivered"), 40.0 * 3.0 * 10.0);
}

#[test]
fn popular_channels_have_more_sessions_and_more_messages() {
    let place = Place::new("mixed", &[]);
    let flags = ["--sessions", "300", "--channels", "50", "--zipf", "1.1", "--rate", "400", "--seconds", "1"];
    let figures = passed(place.publish(&[&["mixed", "--processes", "2"], &flags[..]].concat()));
    assert_eq!((number(&figures, "channels"), number(&figures, "published")), (50.0, 400.0));
    // Alike, a message would reach 6 sessions; here most of them go where most sessions are.
    assert!(number(&figures, "delivered") > 400.0 * 12.0, "{figures}");
}

#[test]
fn payloads_of_every_format_arrive_on_every_wire() {
    let place = Place::new("formats", &[]);
    for format in ["object", "string", "text"] {
        for wire in ["ws-json", "ws-protobuf"] {
            let flags = ["burst", "--payload-format", format, "--wire", wire, "--sessions", "20", "--burst", "30"];
            assert_eq!(number(&passed(place.publish(&flags)), "delivered"), 600.0, "{format} {wire}");
        }
    }
}

#[test]
fn payloads_of_every_format_arrive_from_the_floor() {
    let (_redis, port) = redis();
    let (_floor, address) = floor(port, "loadtest");
    for format in ["object", "string", "text"] {
        let flags =
            ["run", "burst", "--payload-format", format, "--sessions", "10", "--burst", "5", "--redis", &url(port)];
        let figures = passed(run("floor-formats", &[&flags[..], &["--server", &address]].concat()));
        assert_eq!(number(&figures, "delivered"), 50.0, "{format}");
    }
}

#[test]
fn who_comes_and_goes_loses_nothing_that_was_due_while_it_was_there() {
    let place = Place::new("churn", &[]);
    let flags = ["--sessions", "200", "--churn", "0.5", "--rate", "50", "--seconds", "2", "--grace", "1"];
    let (output, json) = place.publish(&[&["churn"], &flags[..]].concat());
    let figures = passed((output, json));
    // A hundred a second.
    assert!((150.0..=220.0).contains(&number(&figures, "reopened")), "{figures}");
    assert_eq!(number(&figures, "refused"), 0.0);
    // Whoever is away misses what is published meanwhile; on a busy machine that takes its time.
    let all = 200.0 * 100.0;
    let away = number(&figures, "reopened") * (number(&figures, "connect_p99_us") / 1e6 * 50.0 + 50.0);
    assert!(((all - away).max(1.0)..=all).contains(&number(&figures, "delivered")), "{figures}");
}

#[test]
fn a_storm_is_served_and_its_refusals_are_counted() {
    let place = Place::new("storm", &[]);
    let figures = passed(place.run(&["storm", "--sessions", "500", "--max-connect-seconds", "10"]));
    assert_eq!((number(&figures, "sessions"), number(&figures, "refused")), (500.0, 0.0));
    drop(place);

    let place = Place::new("capped", &[("TIDEGATE_CLIENT_CONNECTION_LIMIT", "100")]);
    let (output, json) = place.run(&["storm", "--sessions", "150"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!((number(&json["figures"], "sessions"), number(&json["figures"], "refused")), (100.0, 50.0));
    let figures = passed(place.run(&["storm", "--sessions", "150", "--max-refused", "50"]));
    assert_eq!(number(&figures, "refused"), 50.0);
}

#[test]
fn slow_readers_get_what_their_rate_allows_and_stalled_ones_nothing() {
    let place = Place::new("slow", &[]);
    let common = ["slow", "--sessions", "20", "--stalled", "5", "--payload", "2048", "--rate", "50", "--seconds", "1"];
    // Fast enough for everything: nobody is closed, and every message is read in order.
    let (output, json) =
        place.publish(&[&common[..], &["--read-rate", "1000000", "--max-p99-shift-ms", "500"]].concat());
    let figures = passed((output, json.clone()));
    assert_eq!(number(&figures, "delivered"), 20.0 * 50.0);
    let stalled =
        json["checks"].as_array().unwrap().iter().find(|check| check["what"] == "messages of stalled sessions");
    assert_eq!(stalled.unwrap()["measured"], "250 delivered, 0 faults");
}

#[test]
fn small_channels_are_measured_without_and_beside_a_flood() {
    let place = Place::new("hot", &[]);
    let flags =
        ["--sessions", "200", "--small-channels", "20", "--flood-rate", "200", "--rate", "100", "--seconds", "1"];
    let (output, json) = place.publish(&[&["hot", "--max-p99-shift-ms", "1000"], &flags[..]].concat());
    let figures = passed((output, json));
    assert_eq!(number(&figures, "delivered"), 100.0);
    assert!(number(&figures, "flood_published") >= 150.0, "{figures}");
    assert!(number(&figures, "calm_p99_us") > 0.0 && number(&figures, "p99_us") > 0.0);
}

#[test]
fn the_highest_rate_that_is_held_is_found_within_the_range() {
    let place = Place::new("search", &[]);
    let flags =
        ["unicast", "--sessions", "20", "--rate", "100", "--seconds", "0.3", "--warm-up", "0", "--find-max-rate"];
    let (output, json) = place.publish(&[&flags[..], &["--max-rate", "400", "--min-rate-held", "400"]].concat());
    let figures = passed((output, json.clone()));
    assert_eq!(number(&figures, "max_rate_held"), 400.0);
    assert!(json["notes"].as_array().unwrap().len() >= 3, "{json}");
    // A bound that nobody can keep.
    let (output, json) = place.publish(&[&flags[..], &["--max-rate", "200", "--max-p99-us", "0.001"]].concat());
    assert_eq!((output.status.code(), json["figures"]["max_rate_held"].is_null()), (Some(1), true), "{json}");
}

#[test]
fn idle_sessions_tell_their_memory_and_the_timeline_has_it_over_connections() {
    let place = Place::new("idle", &[]);
    let flags =
        ["idle", "--sessions", "600", "--base", "100", "--pause", "1", "--subscriptions", "4", "--own-channels"];
    let (output, json) = place.run(&flags);
    let figures = passed((output, json.clone()));
    assert_eq!((number(&figures, "channels"), number(&figures, "subscriptions")), (2400.0, 4.0));
    assert!(number(&figures, "bytes_per_session") > 0.0, "{figures}");
    let points = json["timeline"].as_array().unwrap();
    let sessions: Vec<_> = points.iter().map(|point| point["sessions"].as_u64().unwrap()).collect();
    assert!(sessions.iter().filter(|count| (1..600).contains(*count)).count() >= 3, "{sessions:?}");
    assert!(sessions.contains(&600) && points.iter().all(|point| point["server_rss_bytes"].as_u64() > Some(1 << 20)));
    assert!(points.windows(2).all(|pair| pair[0]["t"].as_f64() <= pair[1]["t"].as_f64()));
}

#[test]
fn a_scenario_of_ones_own_is_run_with_its_settings_and_a_wrong_one_says_where() {
    let place = Place::new("own", &[]);
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("front-page.toml");
    let name = file.display().to_string();
    std::fs::write(&file, "kind = \"broadcast\"\n[sessions]\nsessions = 30\n[messages]\nburst = 20\npayload = 99\n")
        .unwrap();
    let (output, json) = place.publish(&[&name, "--sessions", "10"]);
    assert_eq!(number(&passed((output, json.clone())), "delivered"), 200.0);
    assert_eq!((&json["scenario"], &json["kind"]), (&"front-page".into(), &"broadcast".into()));
    assert_eq!(
        (&json["settings"]["sessions"]["sessions"], &json["settings"]["messages"]["payload"]),
        (&10.into(), &99.into())
    );

    std::fs::write(&file, "kind = \"broadcast\"\n[messages]\nbursts = 20\n").unwrap();
    let (output, _) = place.publish(&[&name]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("line 3, messages.bursts: unknown field"), "{}", text(&output.stderr));
}

#[test]
fn the_built_in_scenarios_are_listed_and_shown() {
    let print = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let list = print(&["scenarios"]);
    for line in list.lines() {
        let name = line.split_whitespace().next().unwrap();
        assert!(print(&["show", name]).contains("kind = "), "{name}");
    }
    assert!(list.lines().count() >= 10, "{list}");
}
