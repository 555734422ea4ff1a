//! SIGHUP: channels follow the settings while sessions stay; what is wrong changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use rustix::process::Signal;
use support_process::client::{Client, Received, Wire};
use support_process::eventually;
use support_process::node::{Node, Setup};
use tidegate_protocol::message::{Command, SubscribeRequest, SubscribeResult};

const OPEN: &str = "allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n";

fn namespaces(news: &str) -> String {
    format!("[[channel.namespaces]]\nname = \"news\"\n{OPEN}{news}\n[[channel.namespaces]]\nname = \"chat\"\n{OPEN}")
}

/// Has the node read this, and waits until it has.
fn reload(node: &Node, settings: &str, outcome: &str) {
    let label = format!("outcome=\"{outcome}\"");
    let reloads = || node.metrics().sum("tidegate_config_reloads_total", &[&label]);
    let before = reloads();
    node.directory.write("settings.toml", settings);
    node.signal(Signal::HUP);
    eventually("the settings have been read", || (reloads() == before + 1).then_some(()));
}

fn subscribe(client: &mut Client, channel: &str) -> SubscribeResult {
    let subscribe = SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() };
    client.call(Command { subscribe: Some(subscribe), ..Command::default() }).subscribe.unwrap()
}

/// The next push is the end of this subscription, with this code.
fn is_ended(client: &mut Client, channel: &str) -> u32 {
    match client.receive() {
        Received::Reply(reply) => {
            let push = reply.push.unwrap();
            assert_eq!(push.channel, channel);
            push.unsubscribe.unwrap().code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn namespaces_follow_the_file_and_sessions_stay() {
    let node = Setup::new().settings(&namespaces("")).start();
    let mut clients: Vec<Client> = Wire::ALL.into_iter().map(|wire| Client::connect(&node, wire)).collect();
    for client in &mut clients {
        assert!(!subscribe(client, "news:1").recoverable);
        client.subscribe("chat:1");
    }
    reload(&node, &namespaces("history_size = 10\nhistory_ttl = \"60s\"\nforce_recovery = true\n"), "applied");
    let published = node.api("publish", r#"{"channel": "news:2", "data": 1}"#);
    assert_eq!(published["result"]["offset"], 1, "the API goes by the new settings as well: {published}");
    for client in &mut clients {
        assert_eq!(is_ended(client, "news:1"), 2500);
        assert!(subscribe(client, "news:1").recoverable);
    }
    node.api("publish", r#"{"channel": "news:1", "data": 2}"#);
    node.api("publish", r#"{"channel": "chat:1", "data": 3}"#);
    for client in &mut clients {
        // Nothing but these: the subscription to the other namespace has not been touched.
        client.expect_each(&[("news:1", b"2"), ("chat:1", b"3")]);
    }
    assert_eq!(node.metrics().sum("tidegate_subscriptions_renewed_total", &[]), 3);
    let logged = node.logged("reloaded").unwrap();
    assert_eq!(logged["changed"], r#"["news"]"#);
}

#[test]
fn what_is_wrong_changes_nothing_and_is_told() {
    let node = Setup::new().settings(&namespaces("")).start();
    let mut client = Client::connect(&node, Wire::Json);
    client.subscribe("news:1");
    reload(&node, &namespaces("history_size = -1\n"), "refused");
    assert_eq!(node.metrics().sum("tidegate_config_last_reload_successful", &[]), 0);
    let told = node.logged("channel.namespaces[0].history_size = -1").unwrap();
    assert_eq!(told["level"], "ERROR", "{told}");
    node.logged("the settings were not reloaded").unwrap();
    node.api("publish", r#"{"channel": "news:1", "data": 1}"#);
    client.expect("news:1", b"1");
    reload(&node, &namespaces(""), "applied");
    assert_eq!(node.metrics().sum("tidegate_config_last_reload_successful", &[]), 1);
}

#[test]
fn what_takes_a_restart_is_named() {
    let node = Setup::new().settings(&namespaces("")).start();
    reload(&node, &format!("{}\n[client]\nchannel_limit = 7\n", namespaces("")), "applied");
    let told = node.logged("client.channel_limit").unwrap();
    assert!(told["message"].as_str().unwrap().contains("next start"), "{told}");
    assert_eq!(node.logged("reloaded").unwrap()["changed"], "[]");
}
