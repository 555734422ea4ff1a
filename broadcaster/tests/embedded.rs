//! The embedded broker delivers in order, to those who asked, and tells publishers to wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use common::inbox::shards;
use futures_util::FutureExt;
use tidegate_broadcaster::{
    Attendance, Broker, BrokerError, Change, Channel, Content, EmbeddedBroker, Event, Interest, PublishRequest,
    PushKind,
};
use tidegate_protocol::message::ClientInfo;

fn request(channel: &Channel, data: impl Into<Bytes>) -> PublishRequest {
    PublishRequest { channel: Arc::clone(channel), data: data.into(), ..PublishRequest::default() }
}

#[tokio::test]
async fn a_publication_reaches_every_shard_that_asked_and_is_shared_between_them() {
    let (collectors, inboxes) = shards(3);
    let broker = EmbeddedBroker::new(inboxes);
    let channel: Channel = "news".into();
    assert_eq!(broker.subscribe(&channel, 0), Interest::Confirmed);
    assert_eq!(broker.subscribe(&channel, 2), Interest::Confirmed);
    broker.publish(request(&channel, "{}")).now_or_never().expect("ready at once").unwrap();

    let first = collectors[0].publications(1).await;
    let third = collectors[2].publications(1).await;
    assert!(Arc::ptr_eq(&first[0], &third[0]));
    assert!(Arc::ptr_eq(&first[0].channel, &channel), "the name is the one that was subscribed");
    assert_eq!(first[0].payload.kind, Content::Json);
    assert!(collectors[1].take().is_empty());
}

#[tokio::test]
async fn after_the_last_unsubscribe_a_publication_is_counted_as_wanted_by_nobody() {
    let (collectors, inboxes) = shards(2);
    let broker = EmbeddedBroker::new(inboxes);
    let channel: Channel = "news".into();
    broker.subscribe(&channel, 0);
    broker.subscribe(&channel, 1);
    broker.unsubscribe(&channel, 0);
    assert_eq!(broker.interest().len(), 1);
    broker.unsubscribe(&channel, 1);
    assert!(broker.interest().is_empty());
    broker.publish(request(&channel, "x")).await.unwrap();
    assert!(collectors.iter().all(|c| c.take().is_empty()));
    assert_eq!(broker.stats().no_interest.load(Ordering::Relaxed), 1);
    assert_eq!(broker.stats().delivered.load(Ordering::Relaxed), 0);
    assert_eq!(broker.stats().subscribed_channels.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_publishers_order_holds_and_all_shards_see_the_same_order() {
    const EACH: usize = 5_000;
    let (collectors, inboxes) = shards(2);
    let broker = Arc::new(EmbeddedBroker::new(inboxes));
    let channel: Channel = "news".into();
    broker.subscribe(&channel, 0);
    broker.subscribe(&channel, 1);
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (broker, channel) = (Arc::clone(&broker), Arc::clone(&channel));
            std::thread::spawn(move || {
                for n in 0..EACH {
                    drop(broker.publish(request(&channel, format!("{publisher} {n}"))));
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.join().unwrap();
    }
    let first = collectors[0].publications(4 * EACH).await;
    let second = collectors[1].publications(4 * EACH).await;
    assert!(first.iter().zip(&second).all(|(a, b)| Arc::ptr_eq(a, b)));
    let mut next = [0; 4];
    for publication in first {
        let text = String::from_utf8(publication.payload.data.to_vec()).unwrap();
        let (publisher, n) = text.split_once(' ').unwrap();
        let next = &mut next[publisher.parse::<usize>().unwrap()];
        assert_eq!(n.parse::<usize>().unwrap(), *next);
        *next += 1;
    }
}

#[tokio::test]
async fn a_full_inbox_makes_the_publisher_wait_and_refuses_beyond_its_bound() {
    let (collectors, inboxes) = shards(1);
    let broker = EmbeddedBroker::new(inboxes);
    let channel: Channel = "news".into();
    broker.subscribe(&channel, 0);
    collectors[0].close();
    let mut waiting = broker.publish(request(&channel, "0"));
    assert!((&mut waiting).now_or_never().is_none(), "it has to wait for room");

    let mut taken = 1;
    let refused = loop {
        match broker.publish(request(&channel, "more")).now_or_never() {
            None => taken += 1,
            Some(result) => break result,
        }
        assert!(taken < 100_000, "a full inbox must refuse at some point");
    };
    assert!(matches!(refused, Err(BrokerError::Overloaded(_))), "{refused:?}");

    collectors[0].open();
    waiting.await.unwrap();
    let delivered: usize = collectors[0]
        .take()
        .iter()
        .map(|event| match event {
            Event::Publications(batch) => batch.len(),
            Event::Subscribed { .. } | Event::Resumed | Event::ChannelResumed(_) => 0,
        })
        .sum();
    assert_eq!(delivered, taken, "what was accepted is delivered, what was refused is not");
    broker.publish(request(&channel, "after")).now_or_never().expect("there is room again").unwrap();
}

#[tokio::test]
async fn a_payload_beyond_the_limit_is_refused_and_reaches_nobody() {
    let (collectors, inboxes) = shards(1);
    let broker = EmbeddedBroker::new(inboxes).with_max_payload(10);
    let channel: Channel = "news".into();
    broker.subscribe(&channel, 0);
    let refused = broker.publish(request(&channel, "12345678901")).await;
    assert_eq!(refused, Err(BrokerError::TooLong { length: 11, limit: 10 }));
    broker.publish(request(&channel, "1234567890")).await.unwrap();
    let events = collectors[0].take();
    assert!(matches!(&events[..], [Event::Publications(batch)] if batch.len() == 1), "{events:?}");
}

#[tokio::test]
async fn whoever_comes_is_present_until_they_leave_and_is_told_in_the_order_of_the_channel() {
    let (collectors, inboxes) = shards(1);
    let broker = EmbeddedBroker::new(inboxes);
    let channel: Channel = "room".into();
    broker.subscribe(&channel, 0);
    let client =
        |id: &str, user: &str| Arc::new(ClientInfo { client: id.into(), user: user.into(), ..ClientInfo::default() });
    let (a, b) = (client("a", "1"), client("b", "1"));
    let both = Attendance { presence: true, announce: true };
    let quiet = Attendance { presence: true, announce: false };
    broker.attend(&channel, &a, Change::Joined, both);
    broker.publish(request(&channel, "x")).await.unwrap();
    broker.attend(&channel, &b, Change::Joined, both);
    broker.attend(&channel, &client("c", ""), Change::Joined, quiet);
    let stats = broker.presence_stats(&channel).await.unwrap();
    assert_eq!((stats.clients, stats.users), (3, 2));
    broker.attend(&channel, &a, Change::Left, both);
    broker.attend(&channel, &client("c", ""), Change::Left, quiet);
    let presence = broker.presence(&channel, 1).await.unwrap();
    assert_eq!((presence.clients, presence.members), (1, vec![b]));
    assert_eq!(broker.stats().present.load(Ordering::Relaxed), 1);

    let told: Vec<_> = collectors[0]
        .publications(4)
        .await
        .iter()
        .map(|publication| (publication.kind, publication.info.as_ref().map(|info| info.client.clone())))
        .collect();
    let expected = [
        (PushKind::Join, Some("a".into())),
        (PushKind::Publication, None),
        (PushKind::Join, Some("b".into())),
        (PushKind::Leave, Some("a".into())),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn more_clients_than_were_asked_for_are_counted_and_not_listed() {
    let broker = EmbeddedBroker::new(shards(1).1);
    let channel: Channel = "room".into();
    let attendance = Attendance { presence: true, announce: false };
    for n in 0..100_000 {
        let info = ClientInfo { client: format!("c{n}"), user: format!("u{}", n % 1000), ..ClientInfo::default() };
        broker.attend(&channel, &Arc::new(info), Change::Joined, attendance);
    }
    let presence = broker.presence(&channel, 99_999).await.unwrap();
    assert!(presence.is_too_large() && presence.clients == 100_000 && presence.members.is_empty());
    assert_eq!(broker.presence(&channel, 100_000).await.unwrap().members.len(), 100_000);
    let stats = broker.presence_stats(&channel).await.unwrap();
    assert_eq!((stats.clients, stats.users), (100_000, 1000));
}
