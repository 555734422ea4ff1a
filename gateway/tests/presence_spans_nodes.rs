//! Who is in a channel, seen from any node on the same Redis: also when nodes stop, die, or Redis forgets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support_process::client::{Client, Received, Wire};
use support_process::eventually;
use support_process::node::{Node, Setup};
use support_process::redis::Redis;
use tidegate_protocol::message::{Command, PresenceRequest, SubscribeRequest};

/// A node that is not heard of for two seconds is gone.
const SETTINGS: &str = "[client]\npresence_update_interval = \"500ms\"\npresence_max_clients = 50\n\
                        [engine.redis]\npresence_ttl = \"2s\"\n\
                        [[channel.namespaces]]\nname = \"room\"\npresence = true\njoin_leave = true\n\
                        allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
                        allow_presence_for_subscriber = true\nallow_presence_for_anonymous = true\n";

const TTL: Duration = Duration::from_secs(2);

fn node(redis: &Redis) -> Node {
    Setup::new().redis(&redis.url()).settings(SETTINGS).start()
}

fn member(node: &Node, wire: Wire) -> Client {
    let mut client = Client::connect(node, wire);
    client.subscribe("room:1");
    client
}

/// As a client sees it.
fn listed(client: &mut Client) -> BTreeSet<String> {
    let presence = Some(PresenceRequest { channel: "room:1".into() });
    client.call(Command { presence, ..Command::default() }).presence.unwrap().presence.into_keys().collect()
}

/// As a backend sees it.
fn counted(node: &Node) -> u64 {
    node.api("presence_stats", r#"{"channel": "room:1"}"#)["result"]["num_clients"].as_u64().unwrap()
}

fn ids(clients: &[&Client]) -> BTreeSet<String> {
    clients.iter().map(|client| client.id.clone()).collect()
}

#[test]
fn every_node_sees_the_clients_of_all_and_a_node_takes_its_own_with_it() {
    let redis = Redis::start();
    let (stays, stops, dies) = (node(&redis), node(&redis), node(&redis));
    let mut here = member(&stays, Wire::Json);
    let leaving = member(&stops, Wire::Protobuf);
    let dying: Vec<Client> = (0..20).map(|_| member(&dies, Wire::Tcp)).collect();
    let all: Vec<&Client> = [&here, &leaving].into_iter().chain(&dying).collect();
    let all = ids(&all);
    // Each client finds itself at once; what others have told Redis is there when their calls are.
    eventually("everybody is listed", || (listed(&mut here) == all).then_some(()));
    assert_eq!([counted(&stays), counted(&stops), counted(&dies)], [22; 3]);

    let mut stops = stops;
    stops.signal(Signal::TERM);
    assert!(stops.wait(Duration::from_secs(20)).success());
    assert_eq!(counted(&stays), 21, "a node that has stopped has left before it ended");

    dies.signal(Signal::KILL);
    let died = Instant::now();
    eventually("the clients of a node that died are not counted", || (counted(&stays) == 1).then_some(()));
    let after = died.elapsed();
    assert!(after > Duration::from_secs(1) && after < TTL + Duration::from_secs(2), "{after:?}");
    assert_eq!(listed(&mut here), ids(&[&here]));
}

#[test]
fn who_comes_and_goes_on_one_node_is_told_on_another() {
    let redis = Redis::start();
    let (one, other) = (node(&redis), node(&redis));
    let mut told = Client::connect(&one, Wire::Json);
    let subscribe = Some(SubscribeRequest { channel: "room:1".into(), join_leave: true, ..Default::default() });
    told.call(Command { subscribe, ..Command::default() });
    // Two nodes have no order between them: the one that is told is there before the other comes.
    let own = told.id.clone();
    assert_eq!(attendance(&mut told), ("comes", own));
    let comes = member(&other, Wire::Tcp);
    let id = comes.id.clone();
    drop(comes.into_stream());
    assert_eq!(attendance(&mut told), ("comes", id.clone()));
    assert_eq!(attendance(&mut told), ("goes", id));
}

/// The next join or leave that a client is told, and whose it is.
fn attendance(client: &mut Client) -> (&'static str, String) {
    let Received::Reply(reply) = client.receive() else { panic!("it stays connected") };
    let push = reply.push.unwrap();
    match (push.join, push.leave) {
        (Some(join), None) => ("comes", join.info.unwrap().client),
        (None, Some(leave)) => ("goes", leave.info.unwrap().client),
        other => panic!("neither of both: {other:?}"),
    }
}

#[test]
fn what_redis_has_forgotten_is_told_anew() {
    let mut redis = Redis::start();
    let node = node(&redis);
    let members: Vec<Client> = (0..30).map(|_| member(&node, Wire::Tcp)).collect();
    assert_eq!(counted(&node), 30);
    redis.kill();
    node.wait_for_check(Duration::from_secs(10), "broker", "degraded");
    assert_eq!(node.api("presence_stats", r#"{"channel": "room:1"}"#)["error"]["code"], 100);
    redis.restart();
    eventually("all are counted again", || {
        let answer = node.api("presence_stats", r#"{"channel": "room:1"}"#);
        (answer["result"]["num_clients"] == 30).then_some(())
    });
    assert!(node.metrics().sum("tidegate_presence_restored_total", &[]) >= 1);
    drop(members);
}

#[test]
fn a_list_that_is_too_long_is_refused_and_counted() {
    let redis = Redis::start();
    let node = node(&redis);
    let mut members: Vec<Client> = (0..51).map(|_| member(&node, Wire::Tcp)).collect();
    let presence = Some(PresenceRequest { channel: "room:1".into() });
    let reply = members[0].call(Command { presence, ..Command::default() });
    assert_eq!(reply.error.unwrap().code, 106);
    let answer = node.api("presence", r#"{"channel": "room:1"}"#);
    assert_eq!(answer["error"]["code"], 106, "{answer}");
    assert_eq!(counted(&node), 51);
    assert_eq!(node.metrics().sum("tidegate_presence_refused_total", &[]), 1, "those of clients");
}
