//! A cluster of three masters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tidegate_broadcaster::{
    Attendance, Broker, BrokerError, BrokerHealth, Change, Channel, Interest, RedisBroker, RedisSettings, Servers,
};
use tidegate_protocol::message::ClientInfo;

use crate::common::deployment::cluster::Cluster;
use crate::common::deployment::{Process, until};
use crate::common::eventually;
use crate::common::inbox::{DEADLINE, shards};
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

/// A channel whose slot that master has at first.
fn channel_of(cluster: &Cluster, master: usize) -> String {
    let mut names = (0..).map(|n| format!("m{n}"));
    names.find(|name| cluster.first_master(cluster.slot(&format!("push:{name}")), MASTERS) == master).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_publishes_while_a_slot_moves_is_kept_and_delivered_once_and_in_order() {
    let cluster = Arc::new(three());
    let (broker, shards) = start(settings(&cluster), 1).await;
    let (moving, quiet) = (channel_of(&cluster, 0), channel_of(&cluster, 1));
    let moving = subscribe(&broker, &shards[0], &moving).await;
    let quiet = subscribe(&broker, &shards[0], &quiet).await;
    let slot = cluster.slot(&format!("push:{moving}"));
    let there_and_back = {
        let (cluster, name) = (Arc::clone(&cluster), format!("push:{moving}"));
        tokio::task::spawn_blocking(move || {
            for (from, to) in [(0, 2), (2, 1), (1, 0)] {
                cluster.move_slot(slot, from, to, MASTERS);
                let subscribers = || cluster.nodes[to].ask(&["PUBSUB", "SHARDNUMSUB", &name]);
                until("it is subscribed at its new master", || subscribers().ends_with("\n1"));
            }
        })
    };
    let (mut answers, mut offsets, mut n) = (FuturesOrdered::new(), Vec::new(), 0);
    while !there_and_back.is_finished() || n < 2_000 {
        // Several at a time, without waiting for an answer in between.
        for _ in 0..10 {
            n += 1;
            answers.push_back(broker.publish(kept(&moving, &n.to_string())));
        }
        while answers.len() > 500 {
            offsets.extend(answers.next().await.map(|answer| answer.unwrap().offset));
        }
        broker.publish(kept(&quiet, "q")).await.unwrap();
    }
    there_and_back.await.unwrap();
    offsets.extend(answers.collect::<Vec<_>>().await.into_iter().map(|answer| answer.unwrap().offset));
    assert!(offsets.iter().copied().eq(1..=n), "numbered in the order of the calls");
    let wanted: Vec<String> = (1..=n).map(|n| n.to_string()).collect();
    assert_eq!(history(&broker, &moving).await, wanted[wanted.len().saturating_sub(10_000)..]);

    let mut seen = Seen::default();
    broker.publish(plain(&moving, "last")).await.unwrap();
    eventually("it is live where it is now", || {
        seen.take(&shards[0]);
        seen.of(&moving).last() == Some(&"last")
    })
    .await;
    let live: Vec<u64> = seen.of(&moving).iter().filter_map(|text| text.parse().ok()).collect();
    assert!(live.is_sorted_by(|a, b| a < b), "live ones come once and in order");
    assert!(seen.of(&quiet).len() >= (n / 10) as usize, "nobody else misses anything");
    assert_eq!(seen.resumed, [&*moving; 3], "each gap is told, of this channel alone");
    let stats = broker.stats();
    assert!(count(&stats.redirections) > 0, "otherwise nothing was tested");
    assert_eq!((count(&stats.channels_moved), stats.all_gaps()), (3, 0));
    eventually("every move is counted", || count(&stats.slots_moved) == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_whose_slot_is_half_moved_is_a_time_out_and_goes_on_as_soon_as_its_keys_are_together() {
    let cluster = three();
    let mut settings = settings(&cluster);
    settings.io_timeout = Duration::from_secs(1);
    let (broker, shards) = start(settings, 1).await;
    let name = channel_of(&cluster, 0);
    let channel = subscribe(&broker, &shards[0], &name).await;
    broker.publish(kept(&channel, "1")).await.unwrap();
    let slot = cluster.slot(&format!("push:{name}"));
    cluster.open(slot, 0, 1);
    let begun = Instant::now();
    let answers = join_all(["lost", "too"].map(|text| broker.publish(kept(&channel, text)))).await;
    assert!(answers.iter().all(|answer| *answer == Err(BrokerError::Timeout(Duration::from_secs(1)))), "{answers:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let other: Channel = channel_of(&cluster, 2).into();
    let waiting = broker.publish(kept(&channel, "2"));
    broker.publish(kept(&other, "does not wait")).await.unwrap();
    while cluster.move_keys(slot, 0, 1, 10) > 0 {}
    waiting.await.unwrap();
    let more = join_all(["3", "4", "5"].map(|text| broker.publish(kept(&channel, text)))).await;
    assert!(more.iter().all(Result::is_ok), "the next master takes what it is asked: {more:?}");
    let wanted = ["1", "2", "3", "4", "5"];
    assert_eq!(history(&broker, &channel).await, wanted, "what was a time-out has not been published");
    cluster.close(slot, 0, 1, MASTERS);
    broker.publish(kept(&channel, "6")).await.unwrap();
    assert_eq!(history(&broker, &channel).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_is_replaced_and_those_who_had_its_channels_are_told() {
    let mut cluster = Cluster::start(MASTERS, true);
    let (broker, shards) = start(settings(&cluster), 1).await;
    let names = [0, 1, 2].map(|master| channel_of(&cluster, master));
    for name in &names {
        subscribe(&broker, &shards[0], name).await;
    }
    let lost: Channel = names[1].as_str().into();
    broker.publish(kept(&lost, "before")).await.unwrap();
    shards[0].publications(1).await;
    // Its replica has it as well.
    let replica = &cluster.nodes[MASTERS + 1];
    eventually("the replica has its stream and its position", || replica.ask(&["DBSIZE"]) == "2").await;
    let address = cluster.nodes[1].address();
    cluster.nodes[1].kill();
    eventually("what is away is named", || match broker.health() {
        BrokerHealth::Degraded { reason, .. } => reason.contains(&address),
        BrokerHealth::Healthy => false,
    })
    .await;
    healthy(&broker).await;
    let mut seen = Seen::default();
    eventually("the gap is told", || {
        seen.take(&shards[0]);
        !seen.resumed.is_empty()
    })
    .await;
    assert_eq!(seen.resumed, [&*lost], "of this channel alone");
    broker.publish(kept(&lost, "after")).await.unwrap();
    eventually("it comes from the new master", || {
        seen.take(&shards[0]);
        seen.of(&lost) == ["after"]
    })
    .await;
    assert_eq!(history(&broker, &lost).await, ["before", "after"]);
    assert_eq!(broker.stats().all_gaps(), 1);
}

#[tokio::test]
async fn without_sharded_pub_sub_any_node_takes_a_publish_and_one_connection_a_shard_has_all() {
    let cluster = three();
    let mut settings = settings(&cluster);
    settings.sharded = false;
    let (broker, shards) = start(settings, 2).await;
    assert_eq!(count(&broker.stats().connections), 2);
    for master in 0..MASTERS {
        let name = channel_of(&cluster, master);
        let channel = subscribe(&broker, &shards[0], &name).await;
        broker.publish(plain(&channel, "plain")).await.unwrap();
        broker.publish(kept(&channel, "kept")).await.unwrap();
        cluster.nodes[(master + 1) % MASTERS].ask(&["PUBLISH", &format!("push:{name}"), "from elsewhere"]);
        let mut got: Vec<String> = Vec::new();
        for publication in shards[0].publications(3).await {
            assert_eq!(*publication.channel, name);
            got.push(String::from_utf8_lossy(&publication.payload.data).into_owned());
        }
        got.sort();
        assert_eq!(got, ["from elsewhere", "kept", "plain"]);
        assert_eq!(history(&broker, &channel).await, ["kept"]);
    }
}

#[tokio::test]
async fn functions_that_a_master_has_lost_are_loaded_there_again() {
    let cluster = three();
    let (broker, _) = start(settings(&cluster), 1).await;
    for master in 0..MASTERS {
        let channel: Channel = channel_of(&cluster, master).into();
        broker.publish(kept(&channel, "1")).await.unwrap();
        cluster.nodes[master].tell(&["FUNCTION", "FLUSH"]);
        broker.publish(kept(&channel, "2")).await.unwrap();
        assert_eq!(history(&broker, &channel).await, ["1", "2"]);
    }
}

#[tokio::test]
async fn masters_beyond_the_bound_are_said_and_the_others_serve() {
    let cluster = three();
    let mut settings = settings(&cluster);
    settings.max_masters = 2;
    let (collectors, inboxes) = shards(1);
    let broker = crate::common::start(settings, inboxes);
    let says = |broker: &RedisBroker| match broker.health() {
        BrokerHealth::Degraded { reason, .. } => reason.contains("engine.redis.cluster_max_masters = 2"),
        BrokerHealth::Healthy => false,
    };
    eventually("it is said", || says(&broker)).await;
    let (mut served, begun) = (0, Instant::now());
    for master in 0..MASTERS {
        let channel: Channel = channel_of(&cluster, master).into();
        assert_eq!(broker.subscribe(&channel, 0), Interest::Pending);
    }
    while served < 2 {
        assert!(begun.elapsed() < DEADLINE);
        served += usize::from(collectors[0].answer().await.1.is_ok());
    }
}

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_is_said_and_publishes_fail_at_once() {
    let (_, inboxes) = shards(1);
    let broker = crate::common::start(
        quick(Servers::Cluster { seeds: vec!["redis://me:secret@127.0.0.1:1".to_owned()] }),
        inboxes,
    );
    eventually("the reason names the node and no password", || match broker.health() {
        BrokerHealth::Degraded { reason, .. } => reason.contains("127.0.0.1:1: ") && !reason.contains("secret"),
        BrokerHealth::Healthy => false,
    })
    .await;
    for request in [plain(&"news".into(), "1"), kept(&"news".into(), "2")] {
        let answer = broker.publish(request).now_or_never();
        assert!(matches!(answer, Some(Err(BrokerError::Disconnected(_)))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_in_no_cluster_is_not_believed_while_another_knows_more() {
    let (cluster, outside) = (three(), Process::start("save \"\"\ncluster-enabled yes\n"));
    let mut settings = settings(&cluster);
    settings.servers = Servers::Cluster { seeds: vec![outside.address(), cluster.nodes[2].address()] };
    let (broker, shards) = start(settings, 1).await;
    let channel = subscribe(&broker, &shards[0], "news").await;
    broker.publish(plain(&channel, "1")).await.unwrap();
    assert_eq!(shards[0].publications(1).await[0].payload.data, "1");
}

#[tokio::test]
async fn the_rights_that_the_documentation_names_are_enough() {
    let cluster = three();
    let page = include_str!("../../../docs/deploy.md");
    let rights =
        page.lines().find_map(|line| line.trim().strip_prefix("ACL SETUSER gateway ")).expect("the page names them");
    for node in &cluster.nodes {
        let words: Vec<&str> = ["ACL", "SETUSER", "gateway"].into_iter().chain(rights.split(' ')).collect();
        node.tell(&words);
    }
    let mut settings = settings(&cluster);
    settings.user = Some("gateway".to_owned());
    settings.password = Some("secret".to_owned());
    let (broker, shards) = start(settings, 1).await;
    let channel = subscribe(&broker, &shards[0], "news").await;
    broker.publish(plain(&channel, "plain")).await.unwrap();
    let mut request = kept(&channel, "kept");
    request.idempotency_key = Some("once".to_owned());
    broker.publish(request.clone()).await.unwrap();
    broker.publish(request).await.unwrap();
    assert_eq!(shards[0].publications(2).await.len(), 2);
    assert_eq!(history(&broker, &channel).await, ["kept"]);
    broker.remove_history(&channel).await.unwrap();
    let info = Arc::new(ClientInfo { client: "c".into(), user: "u".into(), ..ClientInfo::default() });
    let attends = |change| broker.attend(&channel, &info, change, Attendance { presence: true, announce: true });
    attends(Change::Joined);
    assert_eq!(broker.presence(&channel, 10).await.unwrap().members.len(), 1);
    attends(Change::Left);
    assert_eq!(broker.presence_stats(&channel).await.unwrap().clients, 0);
    assert_eq!(broker.stats().presence_restored.load(Ordering::Relaxed), 0, "nothing was refused");
    broker.unsubscribe(&channel, 0);
    eventually("it is let go", || count(&broker.stats().subscribed_channels) == 0).await;
    // At the end it takes all of its clients out.
    attends(Change::Joined);
    broker.shutdown().await;
    let owner = cluster.first_master(cluster.slot("push:news"), MASTERS);
    let left = ["EXISTS", "{push:news}:nodes", "{push:news}:users"];
    assert_eq!(cluster.nodes[owner].ask(&left), "0");
}

/// Who is in a channel moves with its slot: while it moves, questions wait, and changes are told afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_moves_with_its_slot() {
    let cluster = three();
    let mut settings = settings(&cluster);
    settings.presence_update_interval = Duration::from_millis(200);
    let (broker, _) = start(settings.clone(), 1).await;
    let (other, _) = start(settings, 1).await;
    let channel: Channel = channel_of(&cluster, 0).into();
    let slot = cluster.slot(&format!("push:{channel}"));
    let attends = |broker: &RedisBroker, number: usize, change| {
        let (client, user) = (format!("client{number}"), format!("user{number}"));
        let info = Arc::new(ClientInfo { client, user, ..ClientInfo::default() });
        broker.attend(&channel, &info, change, Attendance { presence: true, announce: false });
    };
    let clients = || async { other.presence_stats(&channel).await.map(|stats| (stats.clients, stats.users)) };
    (0..50).for_each(|number| attends(&broker, number, Change::Joined));
    assert_eq!(
        broker.presence_stats(&channel).await.unwrap().clients,
        50,
        "a question stands behind what came before it"
    );
    (50..80).for_each(|number| attends(&other, number, Change::Joined));
    within("both are counted", || async { clients().await == Ok((80, 80)) }).await;

    cluster.open(slot, 0, 1);
    // Somebody goes and somebody comes while some keys are here and some are there.
    assert!(cluster.move_keys(slot, 0, 1, 2) > 0);
    attends(&broker, 0, Change::Left);
    attends(&broker, 100, Change::Joined);
    attends(&broker, 101, Change::Joined);
    while cluster.move_keys(slot, 0, 1, 100) > 0 {}
    cluster.close(slot, 0, 1, MASTERS);
    within("those who are there are counted at the new master", || async { clients().await == Ok((81, 81)) }).await;
    let members = other.presence(&channel, 100).await.unwrap().members;
    assert_eq!(members.len(), 81);
    assert!(members.iter().all(|member| member.client != "client0"));
    broker.shutdown().await;
    assert_eq!(clients().await, Ok((30, 30)), "who stops leaves");
}

/// Waits until an answer is what it should be.
async fn within<F: Future<Output = bool>>(what: &str, look: impl Fn() -> F) {
    let start = Instant::now();
    while !look().await {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
