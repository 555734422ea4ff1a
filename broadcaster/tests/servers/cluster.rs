//! A cluster of three masters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::join_all;
use tidegate_broadcaster::{Broker, BrokerHealth, Channel, Interest, RedisSettings, Servers};

use crate::common::deployment::cluster::Cluster;
use crate::common::eventually;
use crate::{Seen, count, healthy, history, kept, plain, quick, start, subscribe};

const MASTERS: usize = 3;

fn settings(cluster: &Cluster) -> RedisSettings {
    // One seed tells of all the others.
    quick(Servers::Cluster { seeds: cluster.seeds()[..1].to_vec() })
}

fn three() -> Cluster {
    Cluster::start(MASTERS, false)
}

#[tokio::test]
async fn channels_of_every_master_are_subscribed_published_to_and_kept() {
    let cluster = three();
    let (broker, shards) = start(settings(&cluster), 2).await;
    let channels: Vec<Channel> = (0..300).map(|n| format!("c{n}").into()).collect();
    for (n, channel) in channels.iter().enumerate() {
        assert_eq!(broker.subscribe(channel, (n % 2) as u8), Interest::Pending);
    }
    for (n, shard) in shards.iter().enumerate() {
        for _ in 0..150 {
            let (channel, result) = shard.answer().await;
            assert_eq!((channel[1..].parse::<usize>().unwrap() % 2, result), (n, Ok(())));
        }
    }
    let answers = channels.iter().flat_map(|channel| {
        [broker.publish(kept(channel, "1")), broker.publish(plain(channel, "2")), broker.publish(kept(channel, "3"))]
    });
    for answer in join_all(answers).await {
        answer.unwrap();
    }
    for (n, shard) in shards.iter().enumerate() {
        let mut seen = Seen::default();
        eventually("everything comes", || {
            seen.take(shard);
            seen.publications.len() >= 450
        })
        .await;
        for channel in channels.iter().skip(n).step_by(2) {
            assert_eq!(seen.of(channel), ["1", "2", "3"], "{channel}");
        }
    }
    for channel in channels.iter().take(30) {
        assert_eq!(history(&broker, channel).await, ["1", "3"]);
    }
    let stats = broker.stats();
    assert_eq!((count(&stats.connections), count(&stats.connections_up)), (6, 6), "two shards and three masters");
    assert_eq!((count(&stats.subscribed_channels), count(&stats.redirections)), (300, 0));
    // As a backend does it, with a client that knows of slots.
    let channel = "c7";
    let owner = cluster.first_master(cluster.slot("push:c7"), MASTERS);
    assert_eq!(cluster.nodes[owner].ask(&["SPUBLISH", "push:c7", "from a backend"]), "1", "one connection has it");
    let got = shards[1].publications(1).await;
    assert_eq!((&*got[0].channel, &got[0].payload.data[..]), (channel, &b"from a backend"[..]));
    for channel in &channels {
        broker.unsubscribe(channel, (channel[1..].parse::<usize>().unwrap() % 2) as u8);
    }
    eventually("they are let go", || count(&stats.subscribed_channels) == 0 && broker.interest().is_empty()).await;
}
