//! What a payload may be.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidegate_broadcaster::{Broker, Content, PublishRequest};
use tidegate_protocol::message::ClientInfo;

use crate::common::eventually;
use crate::common::server::Server;
use crate::{count, healthy, quick, request, start, subscribe};

#[tokio::test]
async fn each_kind_of_payload_arrives_untouched() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    let mut client = server.client().await;
    subscribe(&broker, &shards[0], "kinds").await;
    let cases: [(&[u8], Content); 6] = [
        (br#"{"a": [1, "x"]}"#, Content::Json),
        (b"42", Content::Json),
        (b"no json", Content::Text),
        (b"", Content::Text),
        (b"\xff\x00\xfe", Content::Binary),
        (b"line\r\nends\r\n$5\r\n", Content::Text),
    ];
    for (data, _) in cases {
        assert_eq!(client.publish("push:kinds", data).await, 1);
    }
    for (got, (data, kind)) in shards[0].publications(cases.len()).await.iter().zip(cases) {
        assert_eq!(got.payload.data, data);
        assert_eq!(got.payload.kind, kind, "{data:?}");
        assert_eq!((got.offset, &*got.epoch, &got.info), (0, "", &None));
    }
}

#[tokio::test]
async fn a_publisher_and_tags_travel_in_an_envelope_and_a_broken_one_is_counted() {
    let server = Server::start().await;
    let (broker, shards) = start(quick(&server), 1);
    let channel = subscribe(&broker, &shards[0], "news").await;
    healthy(&broker).await;
    let info = ClientInfo { user: "u".into(), client: "c".into(), ..ClientInfo::default() };
    let tags = BTreeMap::from([("lang".to_owned(), "de".to_owned())]);
    let full = PublishRequest { info: Some(info.clone()), tags: tags.clone(), ..request(&channel, "{}") };
    broker.publish(full).await.unwrap();
    let lookalike = Bytes::from_static(b"\0TG1 is how an envelope starts");
    broker.publish(request(&channel, lookalike.clone())).await.unwrap();
    server.client().await.publish("push:news", b"\0TG1\xff\xff").await;
    broker.publish(request(&channel, "last")).await.unwrap();

    let got = shards[0].publications(3).await;
    assert_eq!(got[0].info.as_deref(), Some(&info));
    assert_eq!(got[0].tags, tags);
    assert_eq!((&got[0].payload.data[..], got[0].payload.kind), (&b"{}"[..], Content::Json));
    assert_eq!(got[1].payload.data, lookalike);
    assert_eq!(got[2].payload.data, "last");
    assert_eq!(count(&broker.stats().malformed), 1);
}

#[tokio::test]
async fn a_payload_of_the_bound_arrives_and_one_byte_more_is_skipped() {
    const BOUND: usize = 300_000;
    let server = Server::start().await;
    let mut settings = quick(&server);
    settings.max_payload = BOUND;
    let (broker, shards) = start(settings, 1);
    let mut client = server.client().await;
    let channel = subscribe(&broker, &shards[0], "sizes").await;
    healthy(&broker).await;
    let sizes = [1, BOUND, BOUND + 1, 2, BOUND + 1, BOUND + 70_000, 3, BOUND];
    let payload = vec![b'x'; BOUND + 70_000];
    // Pipelined, so that skipped and wanted payloads share reads.
    let messages = sizes.map(|size| ("push:sizes".to_owned(), Bytes::copy_from_slice(&payload[..size])));
    assert_eq!(client.publish_all(messages).await, sizes.len() as i64);
    let got: Vec<_> = shards[0].publications(5).await.iter().map(|p| p.payload.data.len()).collect();
    assert_eq!(got, [1, BOUND, 2, 3, BOUND]);
    eventually("counted", || count(&broker.stats().oversized) == 3).await;
    assert_eq!(broker.stats().all_gaps(), 0);

    let error = broker.publish(request(&channel, payload)).await.unwrap_err();
    assert!(error.to_string().contains("300000"), "{error}");
}
