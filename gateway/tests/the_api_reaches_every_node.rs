//! The server API through the real program: what is published at one node reaches the clients of all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use serde_json::{Value, json};
use support_process::client::{Client, Wire};
use support_process::eventually;
use support_process::http::{get, post};
use support_process::node::{API_KEY, Node, Setup};
use support_process::redis::Redis;

fn two_nodes() -> (Redis, [Node; 2]) {
    let redis = Redis::start();
    let nodes = [0, 1].map(|_| Setup::new().redis(&redis.url()).start());
    (redis, nodes)
}

#[test]
fn every_method_asks_for_the_key() {
    let node = Setup::new().start();
    let mut client = Client::connect(&node, Wire::Json);
    client.subscribe("a");
    let calls = [
        ("publish", r#"{"channel":"a","data":1}"#),
        ("broadcast", r#"{"channels":["a"],"data":2}"#),
        ("batch", r#"{"commands":[{"publish":{"channel":"a","data":3}}]}"#),
        ("info", "{}"),
        ("channels", "{}"),
    ];
    for (method, body) in calls {
        for key in [None, Some(""), Some("another"), Some("the-key-of-the-test")] {
            assert_eq!(node.api_with(method, body, key).status, 401, "{method} with {key:?}");
        }
    }
    for (method, body) in calls {
        let answer = node.api_with(method, body, Some(API_KEY));
        assert_eq!(answer.status, 200, "{method}: {}", String::from_utf8_lossy(&answer.body));
    }
    for data in [b"1", b"2", b"3"] {
        client.expect("a", data);
    }
    let other_ways = [
        post(node.http, "/api/publish", &[("Authorization", &format!("apikey {API_KEY}"))], calls[0].1.as_bytes()),
        post(node.http, &format!("/api/publish?api_key={API_KEY}"), &[], calls[0].1.as_bytes()),
    ];
    for answer in other_ways {
        assert_eq!(answer.status, 200);
        assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), json!({"result": {}}));
        client.expect("a", b"1");
    }
    assert_eq!(get(node.http, "/api/publish").status, 405);
}

#[test]
fn data_passes_byte_for_byte_and_reaches_the_clients_of_the_other_node() {
    let (_redis, [near, far]) = two_nodes();
    let mut clients: Vec<_> =
        [&near, &far].iter().flat_map(|node| Wire::ALL.map(|wire| Client::connect(node, wire))).collect();
    for client in &mut clients {
        client.subscribe("exact");
    }
    let data = [
        r#"{"b":  1.00, "a":[1E5, 12345678901234567890123], "a": "\u00e9\/" }"#,
        r#""just text, \"quoted\"""#,
        "null",
        "-0.0e+1",
    ];
    for data in data {
        assert_eq!(near.api("publish", &format!(r#"{{"channel":"exact", "data": {data}}}"#)), json!({"result": {}}));
        for client in &mut clients {
            client.expect("exact", data.as_bytes());
        }
    }
    // On the wire of JSON a newline ends a message, so white space may change there, and only there.
    near.api("publish", "{\"channel\":\"exact\",\"data\":{\"a\":\n1}}");
    for client in &mut clients {
        let (_, publication) = client.publication();
        if client.wire == Wire::Json {
            assert_eq!(serde_json::from_slice::<Value>(&publication.data).unwrap(), json!({"a": 1}));
        } else {
            assert_eq!(&publication.data[..], b"{\"a\":\n1}");
        }
    }
    // Bytes that are no text reach those who can have them.
    near.api("publish", r#"{"channel":"exact","b64data":"AAH/"}"#);
    near.api("publish", r#"{"channel":"exact","data":"last"}"#);
    for client in &mut clients {
        if client.wire != Wire::Json {
            client.expect("exact", &[0, 1, 0xff]);
        }
        client.expect("exact", b"\"last\"");
    }
}

#[test]
fn a_broadcast_of_1000_channels_reaches_each_on_every_node() {
    let (_redis, nodes) = two_nodes();
    let channels: Vec<String> = (0..1000).map(|n| format!("room-{n}")).collect();
    // A session has at most 128 channels: each client takes 100, every node has all of them.
    let mut clients: Vec<(Client, &[String])> = Vec::new();
    for node in &nodes {
        for (at, rooms) in channels.chunks(100).enumerate() {
            let mut client = Client::connect(node, Wire::ALL[at % 3]);
            for room in rooms {
                client.subscribe(room);
            }
            clients.push((client, rooms));
        }
    }
    let answer = nodes[0].api("broadcast", &json!({"channels": channels, "data": {"n": 1}}).to_string());
    let responses = answer["result"]["responses"].as_array().unwrap();
    assert!(responses.len() == 1000 && responses.iter().all(|response| *response == json!({"result": {}})));
    for (client, rooms) in &mut clients {
        let mut got: Vec<String> = (0..rooms.len()).map(|_| client.publication().0).collect();
        got.sort();
        let mut wanted = rooms.to_vec();
        wanted.sort();
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_batch_answers_each_command_in_its_place() {
    let (_redis, [near, far]) = two_nodes();
    let mut client = Client::connect(&far, Wire::Json);
    client.subscribe("a");
    let commands = json!([
        {"publish": {"channel": "a", "data": 1}},
        {"publish": {"channel": "", "data": 2}},
        {"broadcast": {"channels": ["a", "b"], "data": 3}},
        {"nonsense": {}},
        {"info": {}},
    ]);
    let answer = near.api("batch", &json!({ "commands": commands }).to_string());
    let replies = answer["replies"].as_array().unwrap();
    assert_eq!(replies.len(), 5, "{answer}");
    assert_eq!(replies[0], json!({"publish": {}}));
    assert_eq!((&replies[1]["error"]["code"], &replies[3]["error"]["code"]), (&107.into(), &104.into()), "{answer}");
    assert_eq!(replies[2]["broadcast"]["responses"].as_array().unwrap().len(), 2);
    assert_eq!(replies[4]["info"]["nodes"].as_array().unwrap().len(), 1);
    client.expect("a", b"1");
    client.expect("a", b"3");
}

/// As docs/server-api.md says: so far both show the node that was asked.
#[test]
fn info_and_channels_show_the_node_that_was_asked() {
    let (_redis, [near, far]) = two_nodes();
    let mut here: Vec<_> = Wire::ALL.iter().map(|wire| Client::connect(&near, *wire)).collect();
    let mut there = Client::connect(&far, Wire::Json);
    for client in here.iter_mut().chain([&mut there]) {
        client.subscribe("chat.shared");
    }
    here[0].subscribe("news");
    there.subscribe("afar");

    let info = near.api("info", "{}");
    let [node] = info["result"]["nodes"].as_array().unwrap().as_slice() else { panic!("one node: {info}") };
    assert_eq!((&node["num_clients"], &node["num_subs"], &node["num_channels"]), (&3.into(), &4.into(), &2.into()));
    assert!(node["version"].as_str().unwrap().starts_with("Tidegate "), "{node}");
    assert!(node["uptime"].as_u64().is_some_and(|seconds| seconds < 120), "{node}");
    let other = &far.api("info", "{}")["result"]["nodes"][0];
    assert!(!node["uid"].as_str().unwrap().is_empty() && node["uid"] != other["uid"]);

    let channels = |node: &Node, body: &str| node.api("channels", body)["result"]["channels"].clone();
    let all = json!({"chat.shared": {"num_clients": 3}, "news": {"num_clients": 1}});
    assert_eq!(channels(&near, "{}"), all);
    assert_eq!(channels(&near, r#"{"pattern":"chat.*"}"#), json!({"chat.shared": {"num_clients": 3}}));
    assert_eq!(channels(&far, "{}"), json!({"chat.shared": {"num_clients": 1}, "afar": {"num_clients": 1}}));

    here.remove(0);
    eventually("a client that is gone is gone from the list", || {
        (channels(&near, "{}") == json!({"chat.shared": {"num_clients": 2}})).then_some(())
    });
}

#[test]
fn a_payload_beyond_the_limit_is_the_callers_error_and_costs_no_subscriber() {
    let redis = Redis::start();
    for node in [Setup::new().start(), Setup::new().redis(&redis.url()).start()] {
        let mut client = Client::connect(&node, Wire::Json);
        client.subscribe("a");
        let long = "x".repeat(2 << 20);
        let answer = node.api("publish", &json!({"channel": "a", "data": long}).to_string());
        assert_eq!(answer["error"]["code"], 107, "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|why| why.contains("limit of 1048576")), "{answer}");
        node.api("publish", r#"{"channel":"a","data":"next"}"#);
        client.expect("a", br#""next""#);
    }
}

#[test]
fn what_is_published_is_kept_and_read_from_any_node() {
    let settings = "[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 3\nhistory_ttl = \"60s\"\n";
    let redis = Redis::start();
    let nodes = [0, 1].map(|_| Setup::new().redis(&redis.url()).settings(settings).start());
    let alone = Setup::new().settings(settings).start();
    for [near, far] in [[&nodes[0], &nodes[1]], [&alone, &alone]] {
        let publish = |more: Value| {
            let mut body = json!({"channel": "kept:a", "data": {"a": 1}});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            near.api("publish", &body.to_string())["result"]["offset"].clone()
        };
        let history = |more: Value| {
            let mut body = json!({"channel": "kept:a"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            far.api("history", &body.to_string())
        };
        let offsets = |more: Value| {
            let answer = history(more);
            let publications = answer["result"]["publications"].as_array().unwrap_or_else(|| panic!("{answer}"));
            publications.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(publish(json!({"tags": {"k": "v"}})), 1);
        let first = &history(json!({"limit": -1}))["result"]["publications"][0];
        assert_eq!(*first, json!({"data": {"a": 1}, "offset": 1, "tags": {"k": "v"}}));
        assert_eq!([publish(json!({"idempotency_key": "k"})), publish(json!({"idempotency_key": "k"}))], [2, 2]);
        assert_eq!(
            [publish(json!({"version": 7})), publish(json!({"version": 7})), publish(json!({"version": 8}))],
            [3, 3, 4]
        );
        assert_eq!(publish(json!({"skip_history": true})), Value::Null, "it has no place");
        assert_eq!(publish(json!({"b64data": "/wA="})), 5);
        assert_eq!(offsets(json!({})), [0_u64; 0]);
        assert_eq!(offsets(json!({"limit": -1})), [3, 4, 5]);
        assert_eq!(offsets(json!({"limit": 2, "reverse": true})), [5, 4]);
        let epoch = history(json!({}))["result"]["epoch"].clone();
        assert_eq!(offsets(json!({"limit": 9, "since": {"offset": 3, "epoch": epoch}})), [4, 5]);
        assert_eq!(history(json!({"since": {"offset": 3, "epoch": "other"}}))["error"]["code"], 112);
        assert_eq!(history(json!({"since": {"offset": 0}, "reverse": true}))["error"]["code"], 107);
        assert_eq!(history(json!({"limit": 1, "reverse": true}))["result"]["publications"][0]["b64data"], "/wA=");
        assert_eq!(near.api("history_remove", r#"{"channel": "kept:a"}"#), json!({"result": {}}));
        let left = history(json!({"limit": -1}));
        assert_eq!((&left["result"]["publications"], &left["result"]["offset"]), (&json!([]), &json!(5)));
        for method in ["history", "history_remove"] {
            for (channel, code) in [("plain", 108), ("none:a", 102), ("", 107)] {
                assert_eq!(
                    near.api(method, &json!({"channel": channel}).to_string())["error"]["code"],
                    code,
                    "{channel}"
                );
            }
        }
    }
}
