//! Publishing.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tidegate_broadcaster::{Broker, BrokerError, Channel};

use crate::common::eventually;
use crate::common::inbox::DEADLINE;
use crate::common::server::Server;
use crate::{count, degraded, healthy, quick, request, start, subscribe};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_arrive_in_the_order_of_the_calls_even_if_nobody_polls_them() {
    const MESSAGES: usize = 5_000;
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    let channel = subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    let mut kept = Vec::new();
    for n in 0..MESSAGES {
        let future = broker.publish(request(&channel, n.to_string()));
        if n % 3 == 0 {
            kept.push(future);
        }
    }
    kept.reverse();
    assert!(join_all(kept).await.iter().all(Result::is_ok));
    let got = shards[0].publications(MESSAGES).await;
    assert!(got.iter().enumerate().all(|(n, publication)| publication.payload.data == n.to_string()));
    eventually("counted", || count(&broker.stats().publish_ok) == MESSAGES as u64).await;
}

#[tokio::test]
async fn what_is_queued_at_shutdown_is_still_published_and_later_publishes_fail() {
    let server = Server::start().await;
    let (broker, _) = start(quick(&server), 1);
    let (other, shards) = start(quick(&server), 1);
    let channel = subscribe(&other, &shards[0], "news").await;
    healthy(&broker).await;
    for n in 0..3_000 {
        drop(broker.publish(request(&channel, n.to_string())));
    }
    broker.shutdown().await;
    let got = shards[0].publications(3_000).await;
    assert!(got.iter().enumerate().all(|(n, publication)| publication.payload.data == n.to_string()));
    let late = broker.publish(request(&channel, "late")).await;
    assert!(matches!(late, Err(BrokerError::Disconnected(_))), "{late:?}");
}

#[tokio::test]
async fn without_a_connection_a_publish_fails_at_once_and_after_it_publishes_work_again() {
    let mut server = Server::start().await;
    let (broker, _) = start(quick(&server), 1);
    let channel: Channel = "news".into();
    healthy(&broker).await;
    broker.publish(request(&channel, "1")).await.unwrap();
    server.kill();
    degraded(&broker).await;
    // The connection for publishing notices the loss on its own.
    eventually("refused at once", || {
        matches!(broker.publish(request(&channel, "2")).now_or_never(), Some(Err(BrokerError::Disconnected(_))))
    })
    .await;
    server.restart().await;
    healthy(&broker).await;
    broker.publish(request(&channel, "3")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_time_out_and_a_full_queue_an_overload() {
    let server = Server::start().await;
    let mut settings = quick(&server);
    settings.io_timeout = Duration::from_millis(500);
    settings.max_queued_publishes = 10;
    let (broker, _) = start(settings, 1);
    let channel: Channel = "news".into();
    healthy(&broker).await;
    server.freeze();
    let start = Instant::now();
    let mut waiting = vec![broker.publish(request(&channel, "first"))];
    let overload = loop {
        match broker.publish(request(&channel, "more")).now_or_never() {
            None => waiting.push(broker.publish(request(&channel, "more"))),
            Some(result) => break result,
        }
        tokio::task::yield_now().await;
        assert!(waiting.len() < 1_000, "a queue of 10 must be full at some point");
    };
    assert_eq!(overload, Err(BrokerError::Overloaded(10)));
    assert_eq!(waiting.remove(0).await, Err(BrokerError::Timeout(Duration::from_millis(500))));
    let rest = join_all(waiting).await;
    assert!(rest.iter().all(Result::is_err), "{rest:?}");
    assert!(start.elapsed() < Duration::from_secs(3), "nobody waited long: {:?}", start.elapsed());
    server.thaw();
    healthy(&broker).await;
    broker.publish(request(&channel, "again")).await.unwrap();
    // The connection that timed out is not left behind: there are ours, one of each kind, and this one.
    let mut client = server.client().await;
    let start = Instant::now();
    while client.connections().await.len() != 3 {
        assert!(start.elapsed() < DEADLINE, "{:?}", client.connections().await);
    }
}

#[tokio::test]
async fn a_publish_that_redis_refuses_says_why_and_the_connection_goes_on() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.words("ACL SETUSER gate on >secret +@all ~* resetchannels &push:free").await;
    let mut settings = quick(&server);
    settings.user = Some("gate".to_owned());
    settings.password = Some("secret".to_owned());
    let (broker, shards) = start(settings, 1);
    let free = subscribe(&broker, &shards[0], "free").await;
    healthy(&broker).await;
    let results = join_all([
        broker.publish(request(&free, "1")),
        broker.publish(request(&"secret".into(), "2")),
        broker.publish(request(&free, "3")),
    ])
    .await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(&results[1], Err(BrokerError::Refused(why)) if why.contains("NOPERM")), "{results:?}");
    let got = shards[0].publications(2).await;
    assert_eq!(got[1].payload.data, "3");
}
