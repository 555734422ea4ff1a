//! What `tidegate` prints can be copied and works; what cannot be done is said, and shows in the exit code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support_process::client::{Client, Wire};
use support_process::http::get;
use support_process::node::{API_KEY, Node, Setup, command};
use support_process::redis::Redis;
use support_process::{Directory, eventually};

/// What stands behind a label of the banner.
fn printed(node: &Node, label: &str) -> String {
    eventually(&format!("{label:?} is printed"), || {
        let lines = node.log();
        let line = lines.iter().find(|line| line.trim_start().starts_with(label) && !line.starts_with('{'))?;
        Some(line.trim_start()[label.len()..].trim().to_owned())
    })
}

/// Runs a command as a person does who has copied it.
fn shell(line: &str) -> Output {
    let output = Command::new("bash").args(["-c", line]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    output
}

#[test]
fn dev_prints_where_it_listens_its_key_and_three_commands() {
    let node = Setup::new().start();
    assert_eq!(printed(&node, "WebSocket"), format!("ws://{}/connection/websocket", node.http));
    assert_eq!(printed(&node, "raw TCP"), node.tcp.to_string());
    assert_eq!(printed(&node, "API "), format!("http://{}/api", node.http));
    assert_eq!(printed(&node, "operators"), format!("http://{}/metrics and /health/ready", node.operator));
    assert_eq!(printed(&node, "API key"), API_KEY);
    assert_eq!(printed(&node, "broker"), "embedded");
    assert_eq!(printed(&node, "see"), format!("http://{}/", node.http));
    let page = get(node.http, "/");
    assert!(page.status == 200 && page.head.contains("text/html"), "{}", page.head);
    let connect = printed(&node, "connect");
    // Without pings of WebSocket's own it would be closed for want of a pong while somebody looks on.
    let address = format!("'ws://{}/connection/websocket?cf_ws_frame_ping_pong=true'", node.http);
    assert!(connect.starts_with("npx --yes wscat ") && connect.contains(&address), "{connect}");
}

#[test]
fn a_key_is_made_up_and_it_is_the_one_that_counts() {
    // Without the key that other tests set: --dev makes one.
    let node = Setup::without_key().start();
    let key = printed(&node, "API key");
    assert!(key.len() >= 32, "{key}");
    assert_eq!(node.api_with("info", "{}", Some(&key)).status, 200);
    assert_eq!(node.api_with("info", "{}", Some(API_KEY)).status, 401);
}

#[test]
fn the_printed_publish_command_works_with_the_embedded_broker() {
    let node = Setup::new().start();
    let mut client = Client::connect(&node, Wire::Json);
    client.subscribe("news");
    let line = printed(&node, "publish");
    assert!(line.starts_with("curl "), "{line}");
    let output = shell(&line);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), r#"{"result":{}}"#);
    client.expect("news", br#"{"hello":"world"}"#);
}

#[test]
fn the_printed_publish_command_works_with_redis() {
    let redis = Redis::start();
    let node = Setup::new().redis(&redis.url()).start();
    assert_eq!(printed(&node, "broker"), "redis");
    let mut client = Client::connect(&node, Wire::Json);
    client.subscribe("news");
    let line = printed(&node, "publish");
    assert!(line.starts_with("redis-cli "), "{line}");
    let output = shell(&line);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1");
    client.expect("news", br#"{"hello":"world"}"#);
}

/// Runs `tidegate` until it ends by itself.
fn run(directory: &Directory, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = command(directory).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = eventually("the program ends by itself", || child.try_wait().unwrap());
    let errors = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    (ended.code(), errors)
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_left_running() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let directory = Directory::new();
    let free = "127.0.0.1:0";
    for listen in [[&taken, free, free], [free, &taken, free], [free, free, &taken]] {
        let flags = ["--dev", "--listen", listen[0], "--tcp-listen", listen[1], "--operator-listen", listen[2]];
        let (code, errors) = run(&directory, &flags);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(&format!("error: cannot listen on {taken}: Address already in use")), "{errors}");
    }
}

#[test]
fn a_bad_setting_ends_with_2_and_says_what_would_do() {
    let directory = Directory::new();
    directory
        .write("tidegate.toml", "[client]\nping_interval = \"fast\"\nchanel_limit = 3\n[shutdown]\ndrain = \"2m\"\n");
    let (code, errors) = run(&directory, &["--dev"]);
    assert_eq!(code, Some(2), "{errors}");
    let errors: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    let places = [
        "tidegate.toml:2: client.ping_interval",
        "tidegate.toml:3: client.chanel_limit",
        "tidegate.toml:5: shutdown.drain",
    ];
    assert_eq!(errors.len(), places.len(), "{errors:#?}");
    for (error, place) in errors.iter().zip(places) {
        assert!(error.contains(place), "{error}");
    }
    assert!(errors[1].contains("did you mean client.channel_limit?"), "{errors:#?}");
    for flags in [&["--redis", "rediss://127.0.0.1:1"][..], &["--config", "none.toml"], &["--listen", "nowhere"]] {
        let (code, errors) = run(&Directory::new(), flags);
        assert!(matches!(code, Some(1 | 2)), "{flags:?}: {code:?} {errors}");
        assert!(errors.contains("error: "), "{flags:?}: {errors}");
    }
}

#[test]
fn operators_find_their_pages_where_the_settings_say() {
    let settings = "[prometheus]\nhandler_prefix = \"/numbers\"\n[health]\nenabled = false\n";
    let directory = Directory::new();
    directory.write("tidegate.toml", settings);
    let free = "127.0.0.1:0";
    let flags = ["--dev", "--listen", free, "--tcp-listen", free, "--operator-listen", free];
    let mut child = command(&directory).args(flags).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let started = lines.find_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
        (entry["message"] == "started").then_some(entry)
    });
    let operators = started.expect("a line about the start")["operators"].as_str().unwrap().parse().unwrap();
    let answers = ["/numbers", "/metrics", "/health/ready"].map(|path| get(operators, path).status);
    let hint = String::from_utf8(get(operators, "/").body).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answers, [200, 404, 404]);
    assert!(hint.contains("see /numbers\""), "{hint}");
}

#[test]
fn prometheus_accepts_the_page_of_metrics_of_a_node_with_traffic() {
    let redis = Redis::start();
    let node = Setup::new().redis(&redis.url()).start();
    let mut clients = Wire::ALL.map(|wire| Client::connect(&node, wire));
    for client in &mut clients {
        client.subscribe("news");
    }
    let mut backend = redis.client();
    for n in 0..100 {
        backend.publish("news", n.to_string().as_bytes());
    }
    clients[0].publish("news", b"\"last\"");
    node.api("publish", r#"{"channel":"none","data":1}"#);
    assert_eq!(node.api_with("publish", "{", None).status, 401);
    for client in &mut clients {
        for n in 0..100 {
            client.expect("news", n.to_string().as_bytes());
        }
        client.expect("news", b"\"last\"");
    }
    let metrics = support_process::within(Duration::from_secs(5), "the deliveries are counted", || {
        let metrics = node.metrics();
        (metrics.sum("tidegate_deliveries_delivered_total", &[]) == 303).then_some(metrics)
    });
    metrics.assert_all_accounted_for();
    assert_eq!(metrics.sum("tidegate_delivery_latency_seconds_count", &[]), 303);

    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap_or_else(|error| {
        panic!("promtool cannot be started ({error}). Install it: `sudo apt-get install prometheus`, or run `./test`")
    });
    promtool.stdin.take().unwrap().write_all(metrics.0.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}
