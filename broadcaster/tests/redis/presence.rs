//! Presence: every node sees everybody; nodes that go or die take theirs with them; what Redis has lost comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use tidegate_broadcaster::{
    Attendance, Broker, Change, Channel, Presence, PresenceStats, PushKind, RedisBroker, RedisSettings,
};
use tidegate_protocol::message::ClientInfo;

use crate::common::inbox::DEADLINE;
use crate::common::server::Server;
use crate::{count, degraded, healthy, quick, start, subscribe};

const PRESENCE: Attendance = Attendance { presence: true, announce: false };

fn client(id: impl Into<String>, user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { client: id.into(), user: user.into(), ..ClientInfo::default() })
}

/// Nodes that say often that they live, and are given up soon.
fn lively(server: &Server) -> RedisSettings {
    let mut settings = quick(server);
    settings.presence_ttl = Duration::from_secs(2);
    settings.presence_update_interval = Duration::from_millis(300);
    settings
}

async fn stats(broker: &RedisBroker, channel: &Channel) -> (u64, u64) {
    let PresenceStats { clients, users } = broker.presence_stats(channel).await.unwrap();
    (clients, users)
}

/// Waits until so many clients and users are in the channel.
async fn becomes(broker: &RedisBroker, channel: &Channel, expected: (u64, u64)) {
    let mut seen = None;
    let wait = async {
        while seen != Some(expected) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            seen = broker.presence_stats(channel).await.ok().map(|stats| (stats.clients, stats.users));
        }
    };
    let ended = tokio::time::timeout(DEADLINE, wait).await;
    assert!(ended.is_ok(), "expected {expected:?} within the deadline, seen last {seen:?}");
}

fn ids(presence: &Presence) -> BTreeSet<&str> {
    presence.members.iter().map(|info| &*info.client).collect()
}

#[tokio::test]
async fn every_node_sees_everybody_and_users_count_once() {
    let server = Server::start().await;
    let (one, _) = start(quick(&server), 1);
    let (other, _) = start(quick(&server), 1);
    healthy(&one).await;
    healthy(&other).await;
    let channel: Channel = "room".into();
    assert_eq!(stats(&one, &channel).await, (0, 0));
    for (broker, info) in
        [(&one, client("a", "u")), (&one, client("b", "")), (&other, client("c", "u")), (&other, client("d", ""))]
    {
        broker.attend(&channel, &info, Change::Joined, PRESENCE);
    }
    assert!(stats(&one, &channel).await.0 >= 2, "its own are seen at once");
    becomes(&one, &channel, (4, 2)).await;
    let presence = other.presence(&channel, 4).await.unwrap();
    assert_eq!(ids(&presence), BTreeSet::from(["a", "b", "c", "d"]));
    let users: BTreeSet<_> = presence.members.iter().map(|info| &*info.user).collect();
    assert_eq!(users, BTreeSet::from(["", "u"]));
    let too_many = other.presence(&channel, 3).await.unwrap();
    assert!(too_many.is_too_large() && too_many.clients == 4);

    one.attend(&channel, &client("a", "u"), Change::Left, PRESENCE);
    one.attend(&channel, &client("b", ""), Change::Left, PRESENCE);
    assert_eq!(stats(&one, &channel).await, (2, 2));
    other.attend(&channel, &client("c", "u"), Change::Left, PRESENCE);
    other.attend(&channel, &client("d", ""), Change::Left, PRESENCE);
    assert_eq!(stats(&other, &channel).await, (0, 0));
    assert_eq!(count(&one.stats().present) + count(&other.stats().present), 0);
    assert_eq!(count(&one.stats().presence_restored), 0);
    let BytesFrame::Array(keys) = server.client().await.words("KEYS *room*").await else { panic!("a list") };
    assert!(keys.is_empty(), "nothing is left of an empty channel: {keys:?}");
}

#[tokio::test]
async fn who_comes_and_goes_is_told_on_every_node_in_order() {
    let server = Server::start().await;
    let (one, shards) = start(quick(&server), 1);
    let (other, others) = start(quick(&server), 1);
    let channel = subscribe(&one, &shards[0], "room").await;
    subscribe(&other, &others[0], "room").await;
    healthy(&one).await;
    let announce = Attendance { presence: false, announce: true };
    let info = Arc::new(ClientInfo { chan_info: "{}".into(), ..(*client("a", "u")).clone() });
    one.attend(&channel, &info, Change::Joined, announce);
    one.attend(&channel, &info, Change::Left, announce);
    one.attend(&channel, &client("b", ""), Change::Joined, PRESENCE);
    assert_eq!(stats(&one, &channel).await, (1, 1), "only who is to be noted is");
    for shard in [&shards[0], &others[0]] {
        let got = shard.publications(2).await;
        assert_eq!(got.iter().map(|push| push.kind).collect::<Vec<_>>(), [PushKind::Join, PushKind::Leave]);
        assert!(got.iter().all(|push| push.info.as_deref() == Some(&*info) && push.offset == 0));
    }
}

#[tokio::test]
async fn a_node_that_stops_leaves_at_once_and_one_that_dies_is_given_up() {
    let server = Server::start().await;
    let (stays, _) = start(lively(&server), 1);
    let (stops, _) = start(lively(&server), 1);
    healthy(&stays).await;
    healthy(&stops).await;
    let channel: Channel = "room".into();
    stays.attend(&channel, &client("s", "s"), Change::Joined, PRESENCE);
    // More than are taken out at once, and than go into a call.
    for n in 0..2500 {
        stops.attend(&channel, &client(format!("a{n}"), &n.to_string()), Change::Joined, PRESENCE);
    }
    becomes(&stays, &channel, (2501, 2501)).await;
    stops.shutdown().await;
    assert_eq!(stats(&stays, &channel).await.0, 1);
    becomes(&stays, &channel, (1, 1)).await;

    // A node that is heard of once and never again.
    let mut dying = server.client().await;
    dying.words("FCALL push_presence_update 1 push:room dying 1 + x 1:x + y 1:s").await;
    assert_eq!(stats(&stays, &channel).await, (3, 2));
    becomes(&stays, &channel, (1, 1)).await;
    // One that lives is not: this takes longer than it would be believed without saying so.
    let BytesFrame::Integer(expiry) = dying.words("TTL {push:room}:nodes").await else { panic!("a number") };
    assert!(expiry > 2, "the keys outlive what is believed of a node: {expiry}");
    let score = "ZRANGE {push:room}:nodes 0 -1 WITHSCORES";
    let BytesFrame::Array(first) = dying.words(score).await else { panic!("a list") };
    let renewed = async {
        loop {
            let BytesFrame::Array(now) = dying.words(score).await else { panic!("a list") };
            if now.len() == 2 && now[1] != first[1] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, renewed).await.is_ok(), "the node says that it lives");
    assert_eq!(stats(&stays, &channel).await, (1, 1));
}

#[tokio::test]
async fn what_redis_has_lost_is_told_anew() {
    let mut server = Server::start().await;
    let (broker, _) = start(lively(&server), 1);
    healthy(&broker).await;
    let (channel, quiet): (Channel, Channel) = ("room".into(), "quiet".into());
    for n in 0..1200 {
        broker.attend(&channel, &client(format!("a{n}"), "u"), Change::Joined, PRESENCE);
    }
    broker.attend(&quiet, &client("q", "q"), Change::Joined, PRESENCE);
    assert_eq!(stats(&broker, &channel).await, (1200, 1));

    server.client().await.words("FLUSHALL").await;
    // Somebody comes: the size is not what it should be.
    broker.attend(&channel, &client("b", "v"), Change::Joined, PRESENCE);
    becomes(&broker, &channel, (1201, 2)).await;
    // Nobody comes: the node says that it lives, and learns that it is not known.
    becomes(&broker, &quiet, (1, 1)).await;
    assert!(count(&broker.stats().presence_restored) >= 2);

    // Whoever comes and goes while Redis is away is right when it is back.
    server.kill();
    degraded(&broker).await;
    broker.attend(&channel, &client("b", "v"), Change::Left, PRESENCE);
    broker.attend(&channel, &client("c", "w"), Change::Joined, PRESENCE);
    broker.attend(&channel, &client("d", "x"), Change::Joined, PRESENCE);
    server.restart().await;
    healthy(&broker).await;
    becomes(&broker, &channel, (1202, 3)).await;
    becomes(&broker, &quiet, (1, 1)).await;
}

#[tokio::test]
async fn a_server_without_functions_runs_scripts_for_presence_too() {
    let server = Server::start_with(&["--rename-command", "FUNCTION", ""]).await;
    let (broker, _) = start(quick(&server), 1);
    healthy(&broker).await;
    let channel: Channel = "room".into();
    broker.attend(&channel, &client("a", "u"), Change::Joined, PRESENCE);
    assert_eq!(stats(&broker, &channel).await, (1, 1));
    assert_eq!(ids(&broker.presence(&channel, 1).await.unwrap()), BTreeSet::from(["a"]));
}

#[tokio::test]
async fn what_a_backend_asks_wrongly_is_said() {
    let server = Server::start().await;
    let (broker, _) = start(quick(&server), 1);
    healthy(&broker).await;
    let mut client = server.client().await;
    for (command, why) in [
        ("FCALL push_presence 1 push:room", "limit must be a whole number from 0 on"),
        ("FCALL push_presence 1 push:room many", "limit must be a whole number from 0 on"),
        ("FCALL push_presence 2 push:room push:other 10", "one key"),
        ("FCALL push_presence_stats 0", "one key"),
        ("FCALL push_presence_update 1 push:room node", "ttl must be a whole number from 1 on"),
    ] {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let BytesFrame::Error(error) = client.call(&words).await else { panic!("{command} is no error") };
        assert!(error.starts_with("ERR ") && error.contains(why), "{command}: {error}");
    }
}

/// 100,000 clients of 100,000 users on 20 nodes. Redis' own clock says what the questions cost it.
#[tokio::test]
async fn a_large_channel_is_counted_without_being_read_and_its_list_is_refused() {
    let server = Server::start().await;
    let (broker, _) = start(quick(&server), 1);
    healthy(&broker).await;
    let channel: Channel = "room".into();
    let mut nodes = server.client().await;
    for call in 0..200 {
        let node = format!("node{}", call % 20);
        let mut words: Vec<Vec<u8>> = ["FCALL", "push_presence_update", "1", "push:room", &node, "60"]
            .map(|word| word.as_bytes().to_vec())
            .into();
        for n in 0..500 {
            let id = call * 500 + n;
            let user = format!("user{id}");
            words.extend(["+".to_owned(), format!("client{id}"), format!("{}:{user}", user.len())].map(Into::into));
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let answer = nodes.call(&words).await;
        assert!(matches!(answer, BytesFrame::Array(_)), "{answer:?}");
    }
    nodes.words("CONFIG RESETSTAT").await;
    for _ in 0..100 {
        assert_eq!(stats(&broker, &channel).await, (100_000, 100_000));
    }
    let BytesFrame::BulkString(info) = nodes.words("INFO commandstats").await else { panic!("a text") };
    let info = String::from_utf8_lossy(&info).into_owned();
    let line = info.lines().find(|line| line.starts_with("cmdstat_fcall:")).expect("the calls are counted");
    let per_call =
        line.split("usec_per_call=").nth(1).and_then(|rest| rest.split(',').next()).expect("with their cost");
    println!("presence_stats of 100,000 clients on 20 nodes: {per_call} us in Redis");
    assert!(per_call.parse::<f64>().unwrap() < 5000.0, "{line}");

    let refused = broker.presence(&channel, 5000).await.unwrap();
    assert!(refused.is_too_large() && refused.clients == 100_000);
    assert_eq!(broker.presence(&channel, 100_000).await.unwrap().members.len(), 100_000);
}
