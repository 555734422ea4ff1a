//! While Redis is away, and after it is back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_broadcaster::stats::GapReason;
use tidegate_broadcaster::{Broker, BrokerError, BrokerHealth, Channel, Interest, RedisBroker, RedisSettings, Servers};

use crate::common::eventually;
use crate::common::server::Server;
use crate::{count, degraded, healthy, quick, start, subscribe};

fn gaps(broker: &RedisBroker, reason: GapReason) -> u64 {
    count(&broker.stats().gaps[reason as usize])
}

#[tokio::test]
async fn a_broker_starts_without_redis_and_gives_up_on_subscribes_in_time() {
    let mut server = Server::start().await;
    let mut settings = quick(&server);
    settings.io_timeout = Duration::from_millis(400);
    server.kill();
    let (broker, shards) = start(settings, 2);
    assert!(matches!(broker.health(), BrokerHealth::Degraded { .. }));
    let channel: Channel = "news".into();
    let asked = Instant::now();
    assert_eq!(broker.subscribe(&channel, 0), Interest::Pending);
    assert_eq!(broker.subscribe(&channel, 1), Interest::Pending);
    broker.unsubscribe(&channel, 1);
    let timeout = BrokerError::Timeout(Duration::from_millis(400));
    assert_eq!(shards[0].answer().await, ("news".to_owned(), Err(timeout)));
    assert!(asked.elapsed() >= Duration::from_millis(400) && asked.elapsed() < Duration::from_secs(2));
    assert!(broker.interest().is_empty(), "the interest is gone");
    assert!(shards[1].take().is_empty(), "no answer to what was taken back");
    assert_eq!(count(&broker.stats().subscribe_timeouts), 1);

    // Asked while Redis is away, answered when it is there.
    assert_eq!(broker.subscribe(&channel, 0), Interest::Pending);
    server.restart().await;
    assert_eq!(shards[0].answer().await, ("news".to_owned(), Ok(())));
    healthy(&broker).await;
    assert_eq!(broker.stats().all_gaps(), 0, "nothing was subscribed before, so there is no gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_channels_are_subscribed_in_batches_and_again_after_a_restart() {
    const CHANNELS: usize = 20_000;
    let mut server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    healthy(&broker).await;
    let channels: Vec<Channel> = (0..CHANNELS).map(|n| format!("c{n}").into()).collect();
    for channel in &channels {
        broker.subscribe(channel, 0);
    }
    for _ in 0..CHANNELS {
        shards[0].answer().await.1.unwrap();
    }
    assert_eq!(count(&broker.stats().subscribed_channels), CHANNELS as u64);

    for restart in 1..=2 {
        server.kill();
        degraded(&broker).await;
        eventually("the gap is counted", || broker.stats().all_gaps() == restart).await;
        assert_eq!(count(&broker.stats().subscribed_channels), 0);
        assert!(shards[0].take().is_empty(), "a shard that has its channels is told nothing");
        let batches = count(&broker.stats().subscribe_batches);
        server.restart().await;
        healthy(&broker).await;
        let batches = count(&broker.stats().subscribe_batches) - batches;
        assert_eq!(batches, CHANNELS.div_ceil(512) as u64);
        assert_eq!(count(&broker.stats().subscribed_channels), CHANNELS as u64);
        assert_eq!(count(&broker.stats().reconnects), restart);
        let mut client = server.client().await;
        let messages = (0..CHANNELS).map(|n| (format!("push:c{n}"), Bytes::from_static(b"x")));
        assert_eq!(client.publish_all(messages).await, CHANNELS as i64);
        assert_eq!(shards[0].publications(CHANNELS).await.len(), CHANNELS);
    }
    assert!(count(&broker.stats().gap_ms) > 0);
    for channel in &channels {
        broker.unsubscribe(channel, 0);
    }
    eventually("all are let go", || broker.interest().is_empty()).await;
    assert!(count(&broker.stats().unsubscribe_batches) < 2_000, "in batches");
}

#[tokio::test]
async fn a_killed_subscriber_connection_is_one_gap_and_every_channel_works_again() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    let mut client = server.client().await;
    subscribe(&broker, &shards[0], "a").await;
    let gone = subscribe(&broker, &shards[0], "gone").await;
    healthy(&broker).await;
    for kill in 1..=5 {
        client.words("CLIENT KILL TYPE pubsub").await;
        eventually("the gap is counted", || gaps(&broker, GapReason::Closed) == kill).await;
        if kill == 1 {
            broker.unsubscribe(&gone, 0);
        }
        healthy(&broker).await;
        assert_eq!(client.publish("push:a", b"x").await, 1);
        shards[0].publications(1).await;
    }
    eventually("what was let go meanwhile is not subscribed again", || broker.interest().len() == 1).await;
    eventually("the gauge agrees", || count(&broker.stats().subscribed_channels) == 1).await;
}

#[tokio::test]
async fn a_connection_that_is_only_half_there_is_found_by_the_probe() {
    let server = Server::start().await;
    let mut settings = quick(&server);
    settings.probe_interval = Duration::from_millis(100);
    settings.io_timeout = Duration::from_millis(300);
    let (broker, shards) = start(settings, 1);
    subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    // Idle for several probes: they are answered and nothing is lost.
    let idle = Instant::now();
    eventually("some time", || idle.elapsed() > Duration::from_millis(600)).await;
    assert_eq!(broker.stats().all_gaps(), 0);

    server.freeze();
    degraded(&broker).await;
    eventually("the subscriber noticed", || gaps(&broker, GapReason::Silent) == 1).await;
    server.thaw();
    healthy(&broker).await;
    let mut client = server.client().await;
    eventually("subscribed again", || count(&broker.stats().subscribed_channels) == 1).await;
    assert!(client.publish("push:news", b"x").await >= 1);
    assert_eq!(shards[0].publications(1).await[0].payload.data, "x");
    assert!(count(&broker.stats().gap_ms) >= 300, "counted from when Redis was last heard");
}

#[tokio::test]
async fn a_subscriber_that_redis_drops_for_being_slow_comes_back() {
    // Redis drops it at once beyond 64 KiB of what the connection's buffers do not hold.
    let server = Server::start_with(&["--client-output-buffer-limit", "pubsub", "65536", "0", "0"]).await;
    let (broker, shards) = start(quick(&server), 1);
    let mut client = server.client().await;
    subscribe(&broker, &shards[0], "flood").await;
    healthy(&broker).await;
    shards[0].close();
    let payload = Bytes::from(vec![b'x'; 100_000]);
    let start = Instant::now();
    while client.publish("push:flood", &payload).await == 1 {
        assert!(start.elapsed() < Duration::from_secs(20), "Redis never dropped it");
    }
    shards[0].open();
    eventually("the gap is counted", || broker.stats().all_gaps() == 1).await;
    healthy(&broker).await;
    shards[0].take();
    assert_eq!(client.publish("push:flood", b"after").await, 1);
    assert_eq!(shards[0].publications(1).await[0].payload.data, "after");
}

#[tokio::test]
async fn a_live_channel_that_is_forbidden_later_is_told_to_its_shard_and_the_others_live_on() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.words("ACL SETUSER gate on >secret +@all ~* allchannels").await;
    let mut settings = quick(&server);
    settings.servers = Servers::One(server.url().replace("redis://", "redis://gate:secret@"));
    let (broker, shards) = start(settings, 1);
    for name in ["a", "b", "c"] {
        subscribe(&broker, &shards[0], name).await;
    }
    healthy(&broker).await;
    // Redis closes the connection of a subscriber that loses a channel.
    client.words("ACL SETUSER gate resetchannels &push:a &push:c").await;
    let (name, result) = shards[0].answer().await;
    assert_eq!(name, "b");
    assert!(matches!(result, Err(BrokerError::Refused(_))), "{result:?}");
    healthy(&broker).await;
    for name in ["push:a", "push:c"] {
        assert_eq!(client.publish(name, b"x").await, 1);
        shards[0].publications(1).await;
    }
    assert_eq!(broker.interest().len(), 2);
    assert_eq!(broker.stats().all_gaps(), 1);
}

#[tokio::test]
async fn something_that_is_no_redis_degrades_the_broker_and_does_not_end_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (broker, _) = start(RedisSettings::new(address.to_string()), 1);
    eventually("the reason says so", || match broker.health() {
        BrokerHealth::Degraded { reason, .. } => reason.contains("no Redis"),
        BrokerHealth::Healthy => false,
    })
    .await;
    server.abort();
}
