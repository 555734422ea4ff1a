//! A master, a replica and three Sentinels.

use std::time::Instant;

use tidegate_broadcaster::{Broker, BrokerHealth, Channel, HistoryQuery, RedisBroker, RedisSettings, Servers};

use crate::common::deployment::sentinel::{NAME, SENTINEL_PASSWORD, SERVER_PASSWORD, Watched};
use crate::common::eventually;
use crate::common::inbox::{Collector, DEADLINE, shards};
use crate::{Seen, healthy, kept, quick, start, subscribe};

fn settings(addresses: Vec<String>, master: &str) -> RedisSettings {
    quick(Servers::Sentinel { sentinels: addresses, master: master.to_owned(), user: None, password: None })
}

/// Publishes until it is taken.
async fn publish(broker: &RedisBroker, channel: &Channel, text: &str) {
    let begun = Instant::now();
    while let Err(error) = broker.publish(kept(channel, text)).await {
        assert!(begun.elapsed() < DEADLINE, "{error}");
        tokio::task::yield_now().await;
    }
}

/// Waits for a fail-over: the gap is told, and publications go on.
async fn goes_on(watched: &Watched, broker: &RedisBroker, shard: &Collector, channel: &Channel, told: usize) {
    eventually("the other one is master", || watched.master() == Some(1)).await;
    eventually("the gap is told", || shard.resumed() > told).await;
    healthy(broker).await;
    publish(broker, channel, "after").await;
    let mut seen = Seen::default();
    eventually("it comes from the new master", || {
        seen.take(shard);
        seen.of(channel).contains(&"after")
    })
    .await;
    // Sentinels end the clients of a server when they tell it what it is, which may be more than once.
    let query = || HistoryQuery { since: None, limit: 10, reverse: false, meta_ttl: DEADLINE };
    let begun = Instant::now();
    let kept = loop {
        match broker.history(channel, query()).await {
            Ok(history) => break history.publications,
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let kept: Vec<_> = kept.iter().map(|publication| &publication.payload.data[..]).collect();
    assert_eq!(kept, [&b"before"[..], b"after"], "the numbering goes on");
    let clients = || watched.servers[1].ask(&["CLIENT", "LIST"]);
    eventually("one connection is there", || clients().matches("name=tidegate-subscriber").count() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_that_somebody_asks_for_is_followed_and_its_gap_is_told() {
    let watched = Watched::start();
    // The first one does not answer: any will do.
    let addresses = [vec!["127.0.0.1:1".to_owned()], watched.addresses()].concat();
    let (broker, shards) = start(settings(addresses, NAME), 1).await;
    let channel = subscribe(&broker, &shards[0], "news").await;
    publish(&broker, &channel, "before").await;
    watched.sentinels[0].tell(&["SENTINEL", "FAILOVER", NAME]);
    goes_on(&watched, &broker, &shards[0], &channel, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_replaced_and_the_gap_is_told() {
    let mut watched = Watched::start_with_passwords();
    let mut settings = settings(watched.addresses(), NAME);
    settings.password = Some(SERVER_PASSWORD.to_owned());
    if let Servers::Sentinel { password, .. } = &mut settings.servers {
        *password = Some(SENTINEL_PASSWORD.to_owned());
    }
    let (broker, shards) = start(settings, 1).await;
    let channel = subscribe(&broker, &shards[0], "news").await;
    publish(&broker, &channel, "before").await;
    let replica = &watched.servers[1];
    eventually("the replica has it", || replica.ask(&["EXISTS", "{push:news}:stream"]) == "1").await;
    watched.servers[0].kill();
    eventually("degraded", || matches!(broker.health(), BrokerHealth::Degraded { .. })).await;
    goes_on(&watched, &broker, &shards[0], &channel, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_stops_answering_is_left_for_the_one_that_the_sentinels_name() {
    let watched = Watched::start();
    let (broker, shards) = start(settings(watched.addresses(), NAME), 1).await;
    let channel = subscribe(&broker, &shards[0], "news").await;
    publish(&broker, &channel, "before").await;
    let replica = &watched.servers[1];
    eventually("the replica has it", || replica.ask(&["EXISTS", "{push:news}:stream"]) == "1").await;
    // Its connections stay open, and nothing is heard on them.
    watched.servers[0].signal("-STOP");
    goes_on(&watched, &broker, &shards[0], &channel, 0).await;
}

#[tokio::test]
async fn why_no_master_is_known_is_said() {
    let watched = Watched::start();
    let says = async |settings: RedisSettings, words: &str| {
        let (_, inboxes) = shards(1);
        let broker = crate::common::start(settings, inboxes);
        eventually(words, || match broker.health() {
            BrokerHealth::Degraded { reason, .. } => reason.contains(words),
            BrokerHealth::Healthy => false,
        })
        .await;
    };
    says(settings(watched.addresses(), "unknown"), "it watches no master unknown").await;
    says(settings(vec!["127.0.0.1:1".to_owned()], NAME), "127.0.0.1:1: ").await;
}
