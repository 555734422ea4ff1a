//! Commands take effect in order and are answered as the protocol says, on every wire.

use std::time::Duration;

use tidegate::config::{Config, Namespace};
use tidegate::shard::stats::Wire;
use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::message::{
    Command, ConnectRequest, HistoryRequest, PresenceRequest, PresenceStatsRequest, RpcRequest, SendRequest,
};

use crate::support::client::{self, Client, hello, publish, subscribe, unsubscribe};
use crate::support::{TestNode, open};

const NOT_AVAILABLE: u32 = 108;

/// A namespace in which everything is allowed, and one in which nothing is.
fn namespaces(config: &mut Config) {
    let closed = Namespace { name: "closed".into(), options: Default::default() };
    config.channel.namespaces = vec![Namespace { name: "open".into(), options: open() }, closed];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_is_answered_with_an_id_of_its_own_and_the_ping_interval() {
    let node = TestNode::start(|config| config.client.ping_interval = Duration::from_secs(25)).await;
    let mut ids = std::collections::HashSet::new();
    for wire in Wire::ALL.into_iter().chain(Wire::ALL) {
        let mut client = Client::open(&node, wire).await;
        let connect = client.say_hello().await;
        assert_eq!((connect.ping, connect.pong), (25, true));
        assert_eq!((connect.expires, connect.ttl, connect.time), (false, 0, 0));
        assert!(connect.version.starts_with("Tidegate "), "{}", connect.version);
        assert_eq!(connect.client.len(), 36, "a UUID: {}", connect.client);
        assert!(ids.insert(connect.client), "two clients have one id");
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_reaches_a_subscriber_is_the_one_that_was_published() {
    let node = TestNode::start(namespaces).await;
    for wire in Wire::ALL {
        let mut client = Client::subscribed(&node, wire, "open:news").await;
        node.publish("open:news", r#"{"a": [1, "<b>", null]}"#).await;
        let publication = client.publication("open:news").await;
        assert_eq!(publication.data, r#"{"a": [1, "<b>", null]}"#, "{wire:?}: untouched");
        assert_eq!((publication.info, publication.offset), (None, 0));
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_subscribe_publish_and_unsubscribe_in_one_message_take_effect_in_order() {
    let node = TestNode::ordinary().await;
    for wire in Wire::ALL {
        let mut client = Client::open(&node, wire).await;
        let mut commands = [
            hello(),
            subscribe("a"),
            subscribe("b"),
            publish("a", "1"),
            unsubscribe("a"),
            publish("a", "2"),
            publish("b", "3"),
            subscribe("a"),
        ];
        client.number(&mut commands);
        client.send_commands(&commands).await;

        let (mut answered, mut received) = (Vec::new(), Vec::new());
        while answered.len() < commands.len() || received.is_empty() {
            let reply = client.next_reply().await;
            assert_eq!(reply.error, None, "{wire:?}");
            match reply.push {
                Some(push) => received.push((push.channel, push.r#pub.expect("a publication").data)),
                None => answered.push(reply.id),
            }
        }
        // Publishes are answered by the broker: what needs it less may overtake them.
        let (publishes, others): (Vec<u32>, Vec<u32>) = answered.iter().partition(|id| [4, 6, 7].contains(id));
        assert_eq!(publishes, [4, 6, 7], "{wire:?}");
        assert_eq!(others, [1, 2, 3, 5, 8], "{wire:?}");
        // "1" may come or not: the client gave the subscription up before it could be delivered.
        received.retain(|(channel, _)| channel != "a");
        assert_eq!(received, [("b".to_owned(), "3".into())], "{wire:?}");

        // The subscription that was made last holds.
        node.publish("a", "4").await;
        assert_eq!(client.publication("a").await.data, "4");
        let reply = client.ask(unsubscribe("b")).await;
        assert!(reply.unsubscribe.is_some());
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_gets_its_own_publication_once_and_with_its_info() {
    let node = TestNode::ordinary().await;
    for (wire, data) in Wire::ALL.into_iter().zip(["\"json\"", "{\"b\":2}", "3"]) {
        let mut client = Client::open(&node, wire).await;
        let id = client.say_hello().await.client;
        client.subscribe("own").await;
        let command = client.send(publish("own", data)).await;
        let (mut replies, mut publications) = (0, Vec::new());
        while replies == 0 || publications.is_empty() {
            let reply = client.next_reply().await;
            match reply.push {
                Some(push) => publications.push(push.r#pub.expect("a publication")),
                None => {
                    assert_eq!(reply.id, command);
                    assert!(reply.publish.is_some());
                    replies += 1;
                }
            }
        }
        assert_eq!(publications[0].data, data);
        let info = publications[0].info.clone().expect("the publisher's info");
        assert_eq!((info.client, info.user), (id, String::new()));
        // Nothing but the next message follows.
        node.publish("own", "\"next\"").await;
        assert_eq!(client.publication("own").await.data, "\"next\"");
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsubscribe_ends_delivery_at_once() {
    let node = TestNode::ordinary().await;
    for wire in Wire::ALL {
        let mut client = Client::subscribed(&node, wire, "left").await;
        client.subscribe("kept").await;
        for channel in ["left", "never subscribed"] {
            let reply = client.ask(unsubscribe(channel)).await;
            assert!(reply.unsubscribe.is_some(), "an empty result, not a missing one");
        }
        node.publish("left", "1").await;
        node.publish("kept", "2").await;
        assert_eq!(client.publication("kept").await.data, "2");
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_that_are_off_answer_108() {
    let node = TestNode::start(namespaces).await;
    let rpc = |method: &str| Command {
        rpc: Some(RpcRequest { method: method.into(), ..RpcRequest::default() }),
        ..Command::default()
    };
    let in_channel = |channel: &str| {
        let presence = PresenceRequest { channel: channel.into() };
        let stats = PresenceStatsRequest { channel: channel.into() };
        let history = HistoryRequest { channel: channel.into(), ..HistoryRequest::default() };
        [
            Command { presence: Some(presence), ..Command::default() },
            Command { presence_stats: Some(stats), ..Command::default() },
            Command { history: Some(history), ..Command::default() },
        ]
    };
    for wire in Wire::ALL {
        let mut client = Client::subscribed(&node, wire, "open:news").await;
        for command in [rpc(""), rpc("getUser")].into_iter().chain(in_channel("open:news")) {
            assert_eq!(client.ask_in_vain(command.clone()).await.code, NOT_AVAILABLE, "{wire:?} {command:?}");
        }
        assert_eq!(client.ask_in_vain(rpc("users:get")).await.code, 104);
        for command in in_channel("missing:news") {
            assert_eq!(client.ask_in_vain(command).await.code, 102);
        }
        // The connection has lost nothing by it.
        node.publish("open:news", "1").await;
        client.publication("open:news").await;
    }
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_is_closed_with_3508() {
    let node = TestNode::ordinary().await;
    for wire in Wire::ALL {
        let mut client = Client::connect(&node, wire).await;
        let send = SendRequest { data: "1".into() };
        client.send_commands(&[Command { send: Some(send), ..Command::default() }]).await;
        assert_eq!(client.close_code().await, 3508);
    }
    assert_eq!(node.disconnects(DisconnectCode::NotAvailable), 3);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_done_in_a_channel_answers_an_error_that_says_so() {
    let node = TestNode::start(|config| {
        namespaces(config);
        config.client.channel_limit = 2;
    })
    .await;
    for wire in Wire::ALL {
        let mut client = Client::connect(&node, wire).await;
        client.subscribe("open:1").await;
        for (command, code) in [
            (subscribe("open:1"), 105),
            (subscribe("missing:1"), 102),
            (publish("missing:1", "1"), 102),
            (subscribe("closed:1"), 103),
            (publish("closed:1", "1"), 103),
            (subscribe("$open:private"), 103),
            (subscribe("open:users#42"), 103),
            (publish("open:1", ""), 107),
        ] {
            let error = client.ask_in_vain(command.clone()).await;
            assert_eq!(error.code, code, "{wire:?} {command:?}");
            assert!(!error.message.is_empty() && !error.temporary, "{error:?}");
        }
        client.subscribe("open:2").await;
        assert_eq!(client.ask_in_vain(subscribe("open:3")).await.code, 106);
        client.ask(unsubscribe("open:1")).await;
        client.subscribe("open:3").await;
    }
    assert_eq!(node.count(|shard| shard.error_replies.get()), 27);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_may_publish_where_only_subscribers_may() {
    let node = TestNode::start(|config| {
        let options = &mut config.channel.without_namespace;
        options.allow_publish_for_client = false;
        options.allow_publish_for_subscriber = true;
    })
    .await;
    let mut client = Client::connect(&node, Wire::WebSocketJson).await;
    assert_eq!(client.ask_in_vain(publish("news", "1")).await.code, 103);
    client.subscribe("news").await;
    let id = client.send(publish("news", "2")).await;
    let replies = [client.next_reply().await, client.next_reply().await];
    assert!(replies.iter().any(|reply| reply.id == id && reply.publish.is_some()), "{replies:?}");
    client.ask(unsubscribe("news")).await;
    assert_eq!(client.ask_in_vain(publish("news", "3")).await.code, 103);
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_no_token_is_let_in_only_where_that_is_allowed() {
    let node = TestNode::start(|config| config.client.allow_anonymous_connect_without_token = false).await;
    for wire in Wire::ALL {
        let mut client = Client::open(&node, wire).await;
        let mut commands = [hello(), subscribe("news")];
        client.number(&mut commands);
        client.send_commands(&commands).await;
        assert_eq!(client.close_code().await, 3501, "{wire:?}");
    }
    assert_eq!(node.disconnects(DisconnectCode::BadRequest), 3);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_verified_is_closed_with_3500() {
    let node = TestNode::ordinary().await;
    for wire in Wire::ALL {
        let mut client = Client::open(&node, wire).await;
        let connect = ConnectRequest { token: "a.b.c".into(), ..ConnectRequest::default() };
        client.send(Command { connect: Some(connect), ..Command::default() }).await;
        assert_eq!(client.close_code().await, 3500, "{wire:?}");
    }
    assert_eq!(node.disconnects(DisconnectCode::InvalidToken), 3);
    node.end(()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insecure_node_asks_for_nothing() {
    let node = TestNode::start(|config| {
        config.client.insecure = true;
        config.client.allow_anonymous_connect_without_token = false;
        config.channel.without_namespace = Default::default();
    })
    .await;
    let mut client = Client::open(&node, Wire::WebSocketProtobuf).await;
    let connect = ConnectRequest { token: "a.b.c".into(), ..ConnectRequest::default() };
    assert!(client.ask(Command { connect: Some(connect), ..Command::default() }).await.connect.is_some());
    for channel in ["news", "$private", "users#42"] {
        client.subscribe(channel).await;
    }
    node.publish("$private", "1").await;
    client.publication("$private").await;
    node.end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_id_may_be_any_number_but_zero() {
    let node = TestNode::ordinary().await;
    for wire in Wire::ALL {
        let mut client = Client::open(&node, wire).await;
        let ids = [7, u32::MAX, 7, 1];
        let commands = [hello(), subscribe("a"), subscribe("b"), unsubscribe("a")];
        let commands: Vec<Command> =
            ids.into_iter().zip(commands).map(|(id, command)| Command { id, ..command }).collect();
        client.send_message(&client::encode(wire.format(), &commands)).await;
        for id in ids {
            assert_eq!(client.reply_to(id).await.error, None);
        }
    }
    node.end(()).await;
}
