//! Subscribing and letting go, while Redis is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis_protocol::resp2::types::BytesFrame;
use tidegate_broadcaster::{Broker, Channel, Event, Interest, Servers};

use crate::common::eventually;
use crate::common::inbox::DEADLINE;
use crate::common::server::{Client, Server};
use crate::{count, healthy, quick, start, subscribe};

/// How many connections subscribe to a channel.
async fn subscribers(client: &mut Client, channel: &str) -> i64 {
    match client.words(&format!("PUBSUB NUMSUB push:{channel}")).await {
        BytesFrame::Array(frames) => match frames[1] {
            BytesFrame::Integer(n) => n,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whatever_is_published_after_the_confirmation_arrives() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    let mut client = server.client().await;
    for round in 0..50 {
        let name = format!("round{round}");
        subscribe(&broker, &shards[0], &name).await;
        let messages = (0..200).map(|n| (format!("push:{name}"), Bytes::from(n.to_string())));
        assert_eq!(client.publish_all(messages).await, 200, "Redis found the subscriber each time");
        for (n, publication) in shards[0].publications(200).await.iter().enumerate() {
            assert_eq!(*publication.channel, *name);
            assert_eq!(publication.payload.data, n.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_pipelined_messages_arrive_in_order_and_complete() {
    const MESSAGES: usize = 100_000;
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 2);
    let channels: Vec<Channel> = (0..10).map(|n| format!("c{n}").into()).collect();
    for (n, channel) in channels.iter().enumerate() {
        // Even channels for both shards, odd ones for the first.
        assert_eq!(broker.subscribe(channel, 0), Interest::Pending);
        if n % 2 == 0 {
            assert_eq!(broker.subscribe(channel, 1), Interest::Pending);
        }
    }
    for _ in 0..10 {
        shards[0].answer().await.1.unwrap();
    }
    for _ in 0..5 {
        shards[1].answer().await.1.unwrap();
    }

    let mut client = server.client().await;
    let messages = (0..MESSAGES).map(|n| (format!("push:c{}", n % 10), Bytes::from(format!("{n:0200}"))));
    assert_eq!(client.publish_all(messages).await, MESSAGES as i64);
    let first = shards[0].publications(MESSAGES).await;
    for (n, publication) in first.iter().enumerate() {
        assert!(Arc::ptr_eq(&publication.channel, &channels[n % 10]), "the shared name");
        assert_eq!(publication.payload.data, format!("{n:0200}"));
    }
    let second = shards[1].publications(MESSAGES / 2).await;
    for (n, publication) in second.iter().enumerate() {
        assert!(Arc::ptr_eq(publication, &first[2 * n]), "one publication, shared by both shards");
    }
    let stats = broker.stats();
    assert_eq!(count(&stats.messages), MESSAGES as u64);
    assert_eq!(count(&stats.message_bytes), 200 * MESSAGES as u64);
    assert_eq!(count(&stats.delivered), MESSAGES as u64);
    assert_eq!(count(&stats.no_interest), 0);
}

#[tokio::test]
async fn a_second_shard_is_confirmed_at_once_and_receives_from_then_on() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 2);
    let mut client = server.client().await;
    let channel = subscribe(&broker, &shards[0], "news").await;
    assert_eq!(broker.subscribe(&channel, 1), Interest::Confirmed);
    client.publish("push:news", b"1").await;
    assert_eq!(shards[1].publications(1).await[0].payload.data, "1");
    assert_eq!(shards[0].publications(1).await.len(), 1);
    assert_eq!(count(&broker.stats().subscribe_batches), 1);
}

#[tokio::test]
async fn a_channel_is_let_go_after_the_grace_and_not_before() {
    let server = Server::start().await;
    let mut settings = quick(&server);
    settings.grace = Duration::from_millis(300);
    let (broker, shards) = start(settings, 1);
    let mut client = server.client().await;
    let channel = subscribe(&broker, &shards[0], "news").await;

    // Back within the grace: no traffic, nothing missed.
    broker.unsubscribe(&channel, 0);
    assert_eq!(broker.subscribe(&channel, 0), Interest::Confirmed);
    assert_eq!(client.publish("push:news", b"1").await, 1);
    shards[0].publications(1).await;

    broker.unsubscribe(&channel, 0);
    let left = Instant::now();
    while subscribers(&mut client, "news").await == 1 {
        assert!(left.elapsed() < Duration::from_secs(10), "never let go");
    }
    assert!(left.elapsed() >= Duration::from_millis(300), "let go after {:?}", left.elapsed());
    eventually("the channel is forgotten", || broker.interest().is_empty()).await;
    assert_eq!(client.publish("push:news", b"2").await, 0);
    assert!(shards[0].take().is_empty());
    assert_eq!(count(&broker.stats().subscribe_batches), 1);
    assert_eq!(count(&broker.stats().unsubscribe_batches), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_channel_is_live_whatever_came_and_went_before() {
    // A grace of next to nothing: subscribes meet the unsubscribes that are on their way.
    let server = Server::start().await;
    let mut settings = quick(&server);
    settings.grace = Duration::from_micros(200);
    let (broker, shards) = start(settings, 1);
    let mut client = server.client().await;
    let (mut pending, mut round) = (0, 0_u32);
    let deadline = Instant::now() + Duration::from_secs(60);
    // A busy machine lets the grace pass late: on until enough rounds had to subscribe anew.
    while round < 1_000 || pending <= 10 {
        assert!(Instant::now() < deadline, "only {pending} of {round} rounds had to subscribe anew");
        let channel: Channel = "races".into();
        if broker.subscribe(&channel, 0) == Interest::Pending {
            pending += 1;
            shards[0].answer().await.1.unwrap();
        }
        assert_eq!(client.publish("push:races", round.to_string().as_bytes()).await, 1, "round {round}");
        let got = shards[0].publications(1).await;
        assert_eq!(got[0].payload.data, round.to_string());
        broker.unsubscribe(&channel, 0);
        // From none to well beyond the grace and a timer's millisecond, so that every order of events comes about.
        let wait = Instant::now() + Duration::from_micros(u64::from(round % 40) * 80);
        while Instant::now() < wait {
            tokio::task::yield_now().await;
        }
        round += 1;
    }
    eventually("the channel is forgotten", || broker.interest().is_empty()).await;
    assert_eq!(count(&broker.stats().subscribed_channels), 0);
    assert_eq!(broker.stats().all_gaps(), 0);
}

#[tokio::test]
async fn an_unsubscribe_takes_back_a_subscribe_that_is_under_way() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    healthy(&broker).await;
    server.freeze();
    let (gone, kept): (Channel, Channel) = ("gone".into(), "kept".into());
    broker.subscribe(&gone, 0);
    broker.subscribe(&kept, 0);
    eventually("written", || count(&broker.stats().subscribe_batches) > 0).await;
    broker.unsubscribe(&gone, 0);
    server.thaw();
    assert_eq!(shards[0].answer().await.0, "kept");
    eventually("let go after its confirmation", || broker.interest().len() == 1).await;
    assert!(shards[0].take().is_empty(), "no answer to what was taken back");
}

#[tokio::test]
async fn a_channel_that_an_access_list_forbids_is_refused_and_the_others_are_not() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.words("ACL SETUSER gate on >secret +@all ~* resetchannels &push:free*").await;
    let mut settings = quick(&server);
    settings.servers = Servers::One(server.url().replace("redis://", "redis://gate:secret@"));
    let (broker, shards) = start(settings, 1);
    healthy(&broker).await;
    server.freeze();
    let names = ["free1", "secret1", "free2", "free3", "secret2"];
    for name in names {
        broker.subscribe(&name.into(), 0);
    }
    server.thaw();
    let mut refused = Vec::new();
    for _ in names {
        let (name, result) = shards[0].answer().await;
        match result {
            Ok(()) => assert!(name.starts_with("free")),
            Err(error) => {
                assert!(error.to_string().contains("NOPERM"), "{error}");
                refused.push(name);
            }
        }
    }
    assert_eq!(refused, ["secret1", "secret2"]);
    assert_eq!(broker.interest().len(), 3);
    assert_eq!(client.publish("push:free2", b"x").await, 1);
    shards[0].publications(1).await;
    assert_eq!(broker.stats().all_gaps(), 0, "the connection went on");
}

#[tokio::test]
async fn a_wrong_password_is_told_by_the_health() {
    let server = Server::start_with(&["--requirepass", "right"]).await;
    let mut settings = quick(&server);
    settings.password = Some("wrong".to_owned());
    let (broker, _) = start(settings, 1);
    eventually("the reason is the password", || match broker.health() {
        tidegate_broadcaster::BrokerHealth::Degraded { reason, .. } => reason.contains("WRONGPASS"),
        tidegate_broadcaster::BrokerHealth::Healthy => false,
    })
    .await;
    let mut settings = quick(&server);
    settings.password = Some("right".to_owned());
    let (broker, shards) = start(settings, 1);
    subscribe(&broker, &shards[0], "news").await;
}

#[tokio::test]
async fn a_shard_without_room_stops_the_reader_and_loses_nothing() {
    const MESSAGES: usize = 20_000;
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 2);
    let mut client = server.client().await;
    subscribe(&broker, &shards[0], "flood").await;
    shards[0].close();
    let messages = (0..MESSAGES).map(|n| (String::from("push:flood"), Bytes::from(format!("{n:0200}"))));
    assert_eq!(client.publish_all(messages).await, MESSAGES as i64, "Redis keeps what is not read");
    eventually("the reader waits", || count(&broker.stats().backpressure_waits) > 0).await;
    // A subscribe is written meanwhile; its confirmation waits behind the messages.
    assert_eq!(broker.subscribe(&"other".into(), 0), Interest::Pending);
    eventually("it is written", || count(&broker.stats().subscribe_batches) == 2).await;
    // The other shard's connection is not held up.
    assert_eq!(broker.subscribe(&"elsewhere".into(), 1), Interest::Pending);
    assert_eq!(shards[1].answer().await, ("elsewhere".to_owned(), Ok(())));
    assert!(broker.interest().shards("other").is_empty(), "not confirmed yet");
    let received = count(&broker.stats().messages) as usize;
    assert!(received < MESSAGES / 10, "one burst, not {received}");

    shards[0].open();
    let (mut got, mut confirmed) = (Vec::new(), 0);
    while got.len() < MESSAGES || confirmed == 0 {
        match shards[0].next().await {
            Event::Publications(batch) => got.extend(batch),
            // In front of the messages of its own burst, which are handed over together.
            Event::Subscribed { channel, result } => {
                assert_eq!((&*channel, result), ("other", Ok(())));
                assert!(got.len() > MESSAGES / 2, "after {} messages", got.len());
                confirmed += 1;
            }
            Event::Resumed | Event::ChannelResumed(_) => panic!("the broker was never away"),
        }
    }
    assert!(got.iter().enumerate().all(|(n, publication)| publication.payload.data == format!("{n:0200}")));
    assert_eq!((got.len(), confirmed), (MESSAGES, 1));
    assert!(shards[0].take().is_empty() && shards[1].take().is_empty());
    assert_eq!(broker.stats().all_gaps(), 0);
}

#[tokio::test]
async fn a_broker_that_is_dropped_closes_its_connections() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    drop(broker);
    let mut client = server.client().await;
    let start = Instant::now();
    while client.connections().await.len() != 1 {
        assert!(start.elapsed() < DEADLINE, "{:?}", client.connections().await);
    }
}

#[tokio::test]
async fn after_shutdown_redis_has_no_connection_of_ours_left() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    broker.shutdown().await;
    let mut client = server.client().await;
    let start = Instant::now();
    while client.connections().await.len() != 1 {
        assert!(start.elapsed() < DEADLINE, "{:?}", client.connections().await);
    }
    assert!(shards[0].take().iter().all(|event| !matches!(event, Event::Publications(_))));
}
