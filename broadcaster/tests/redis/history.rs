//! Histories: one step for offset, entry and delivery; what readers see; and servers that have lost the functions or have none.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tidegate_broadcaster::{
    Broker, BrokerError, Channel, HistoryQuery, PublishRequest, RedisBroker, Retention, Version,
};
use tidegate_protocol::message::ClientInfo;

use crate::common::eventually;
use crate::common::server::Server;
use crate::{healthy, quick, request, start, subscribe};

const KEEP: Retention = Retention { size: 10, ttl: Duration::from_secs(60), meta_ttl: Duration::from_secs(3600) };

fn kept(channel: &Channel, data: &str) -> PublishRequest {
    PublishRequest { retention: Some(KEEP), ..request(channel, data.to_owned()) }
}

async fn offsets(broker: &RedisBroker, channel: &Channel, query: HistoryQuery) -> (Vec<u64>, u64) {
    let history = broker.history(channel, query).await.unwrap();
    (history.publications.iter().map(|publication| publication.offset).collect(), history.top.offset)
}

fn query(since: Option<u64>, limit: u32, reverse: bool) -> HistoryQuery {
    HistoryQuery { since, limit, reverse, meta_ttl: KEEP.meta_ttl }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gets_the_same_offsets_in_their_order() {
    let server = Server::start().await;
    let (one, shards) = start(quick(&server), 1);
    let (other, _) = start(quick(&server), 1);
    let channel = subscribe(&one, &shards[0], "news").await;
    healthy(&one).await;
    healthy(&other).await;
    let answers = (0..300).map(|n| [&one, &other][n % 2].publish(kept(&channel, &n.to_string())));
    let mut given: Vec<u64> = join_all(answers).await.into_iter().map(|answer| answer.unwrap().offset).collect();
    given.sort_unstable();
    assert_eq!(given, (1..=300).collect::<Vec<_>>());
    let got = shards[0].publications(300).await;
    assert!(
        got.iter().zip(1..).all(|(publication, offset)| publication.offset == offset),
        "in the order of the offsets"
    );
    let top = other.history(&channel, HistoryQuery::top(KEEP.meta_ttl)).await.unwrap().top;
    assert!(got.iter().all(|publication| publication.epoch == top.epoch) && top.offset == 300);
}

#[tokio::test]
async fn history_is_read_from_either_end_and_holds_what_was_published() {
    let server = Server::start().await;
    let (broker, _) = start(quick(&server), 1);
    healthy(&broker).await;
    let channel: Channel = "news".into();
    let info = ClientInfo { user: "u".to_owned(), ..ClientInfo::default() };
    let tags = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    for n in 1..=14 {
        let full = PublishRequest {
            info: Some(info.clone()),
            tags: tags.clone(),
            ..kept(&channel, &format!("{{\"n\":{n}}}"))
        };
        broker.publish(full).await.unwrap();
    }
    assert_eq!(offsets(&broker, &channel, query(None, 0, false)).await, (vec![], 14));
    assert_eq!(offsets(&broker, &channel, query(None, 100, false)).await, ((5..=14).collect(), 14));
    assert_eq!(offsets(&broker, &channel, query(None, 2, true)).await, (vec![14, 13], 14));
    assert_eq!(offsets(&broker, &channel, query(Some(9), 2, false)).await, (vec![10, 11], 14));
    assert_eq!(offsets(&broker, &channel, query(Some(9), 2, true)).await, (vec![8, 7], 14));
    let history = broker.history(&channel, query(Some(13), 1, false)).await.unwrap();
    let last = &history.publications[0];
    assert_eq!(
        (last.payload.data.as_ref(), last.info.as_deref(), &last.tags),
        (b"{\"n\":14}".as_slice(), Some(&info), &tags)
    );
    broker.remove_history(&channel).await.unwrap();
    assert_eq!(offsets(&broker, &channel, query(None, 100, false)).await, (vec![], 14));
}

#[tokio::test]
async fn a_key_or_an_old_version_is_answered_and_not_published() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    let channel = subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    let with_key = |data: &str| PublishRequest { idempotency_key: Some("k 1".to_owned()), ..kept(&channel, data) };
    let with_version = |number, data: &str| PublishRequest {
        version: Some(Version { number, epoch: "v".to_owned() }),
        ..kept(&channel, data)
    };
    let first = broker.publish(with_key("1")).await.unwrap();
    assert_eq!(broker.publish(with_key("again")).await.unwrap(), first);
    assert_eq!(broker.publish(with_version(5, "2")).await.unwrap().offset, 2);
    assert_eq!(broker.publish(with_version(5, "old")).await.unwrap().offset, 2);
    assert_eq!(broker.publish(with_version(6, "3")).await.unwrap().offset, 3);
    let got = shards[0].publications(3).await;
    assert!(got.iter().zip(["1", "2", "3"]).all(|(publication, data)| publication.payload.data == data), "{got:?}");
    assert_eq!(offsets(&broker, &channel, query(None, 10, false)).await, (vec![1, 2, 3], 3));
}

#[tokio::test]
async fn what_a_backend_calls_itself_has_a_place_and_what_it_only_publishes_has_none() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    let channel = subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    let mut client = server.client().await;
    client.words("FCALL push_publish 1 push:news 1 size 5 ttl 60").await;
    client.words("PUBLISH push:news 2").await;
    client.words("FCALL push_publish 1 push:news 3 history 0").await;
    let got = shards[0].publications(3).await;
    let places: Vec<_> = got.iter().map(|publication| (publication.offset, publication.payload.data.clone())).collect();
    assert_eq!(places, [(1, "1".into()), (0, "2".into()), (0, "3".into())]);
    assert_eq!(offsets(&broker, &channel, query(None, 10, false)).await, (vec![1], 1));
}

#[tokio::test]
async fn a_backend_that_says_no_size_keeps_to_what_was_said_last() {
    let server = Server::start().await;
    let (broker, _) = start(quick(&server), 1);
    healthy(&broker).await;
    let channel: Channel = "news".into();
    broker.publish(kept(&channel, "1")).await.unwrap();
    let mut client = server.client().await;
    for _ in 0..20 {
        client.words("FCALL push_publish 1 push:news 2").await;
    }
    assert_eq!(offsets(&broker, &channel, query(None, 100, false)).await, ((12..=21).collect(), 21));
}

#[tokio::test]
async fn functions_that_were_flushed_are_loaded_again() {
    let server = Server::start().await;
    let (broker, _) = start(quick(&server), 1);
    healthy(&broker).await;
    let channel: Channel = "news".into();
    broker.publish(kept(&channel, "1")).await.unwrap();
    server.client().await.words("FUNCTION FLUSH").await;
    let answers = join_all((0..5).map(|_| broker.publish(kept(&channel, "2")))).await;
    assert_eq!(answers.into_iter().map(|answer| answer.unwrap().offset).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_server_without_functions_runs_scripts() {
    let server = Server::start_with(&["--rename-command", "FUNCTION", ""]).await;
    let (broker, _) = start(quick(&server), 1);
    healthy(&broker).await;
    let channel: Channel = "news".into();
    assert_eq!(broker.publish(kept(&channel, "1")).await.unwrap().offset, 1);
    server.client().await.words("SCRIPT FLUSH").await;
    assert_eq!(broker.publish(kept(&channel, "2")).await.unwrap().offset, 2);
    assert_eq!(offsets(&broker, &channel, query(None, 10, false)).await, (vec![1, 2], 2));
    broker.remove_history(&channel).await.unwrap();
    assert_eq!(offsets(&broker, &channel, query(None, 10, false)).await, (vec![], 2));
}

#[tokio::test]
async fn a_user_who_may_run_neither_publishes_plainly_and_learns_why_there_is_no_history() {
    let server = Server::start().await;
    server.client().await.words("ACL SETUSER gate on >secret +@all -function -script ~* &*").await;
    let mut settings = quick(&server);
    settings.user = Some("gate".to_owned());
    settings.password = Some("secret".to_owned());
    let (broker, _) = start(settings, 1);
    healthy(&broker).await;
    let channel: Channel = "news".into();
    broker.publish(request(&channel, "1")).await.unwrap();
    let refused = broker.publish(kept(&channel, "2")).await;
    assert!(matches!(&refused, Err(BrokerError::Refused(why)) if why.contains("NOPERM")), "{refused:?}");
}

#[tokio::test]
async fn a_reconnect_is_told_to_the_shards() {
    let mut server = Server::start().await;
    let (broker, shards) = start(quick(&server), 2);
    subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    server.kill();
    eventually("degraded", || broker.health() != tidegate_broadcaster::BrokerHealth::Healthy).await;
    server.restart().await;
    eventually("every shard is told", || shards.iter().all(|shard| shard.resumed() > 0)).await;
}
