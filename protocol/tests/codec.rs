//! Properties of the codecs: what goes in comes out, in both formats, and no bytes make a decoder panic.
#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use tidegate_protocol::codec::payload::{self, Content};
use tidegate_protocol::codec::{
    Commands, Delimited, Format, PublicationParts, decode_command, decode_reply, encode_command, encode_publication,
    encode_reply, ping, split_delimited,
};
use tidegate_protocol::limits::Limits;
use tidegate_protocol::message::*;

/// Payloads that both formats carry unchanged: none, or compact JSON.
fn payload() -> impl Strategy<Value = Bytes> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            btree_map(any::<String>(), inner, 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    });
    option::of(value).prop_map(|value| value.map(|value| value.to_string().into()).unwrap_or_default())
}

fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(any::<String>(), any::<String>(), 0..4)
}

fn filter() -> impl Strategy<Value = FilterNode> {
    let leaf = (any::<[String; 4]>(), vec(any::<String>(), 0..3)).prop_map(|([op, key, cmp, val], vals)| FilterNode {
        op,
        key,
        cmp,
        val,
        vals,
        nodes: vec![],
    });
    leaf.prop_recursive(3, 8, 3, |inner| {
        (any::<String>(), vec(inner, 0..3)).prop_map(|(op, nodes)| FilterNode { op, nodes, ..Default::default() })
    })
}

prop_compose! {
    fn subscribe()(
        strings in any::<[String; 5]>(), flags in any::<[bool; 5]>(), data in payload(), tf in option::of(filter()),
        (offset, flag) in any::<(u64, i64)>(), numbers in any::<[i32; 3]>(),
    ) -> SubscribeRequest {
        let [channel, token, epoch, delta, cursor] = strings;
        let [recover, positioned, recoverable, join_leave, asc] = flags;
        let [r#type, phase, limit] = numbers;
        SubscribeRequest {
            channel, token, recover, epoch, offset, data, positioned, recoverable, join_leave, delta, tf, flag, r#type,
            phase, cursor, limit, asc,
        }
    }
}

prop_compose! {
    fn connect()(
        strings in any::<[String; 5]>(), data in payload(), subs in btree_map(any::<String>(), subscribe(), 0..3),
        headers in tags(), flag in any::<i64>(),
    ) -> ConnectRequest {
        let [token, name, version, dict, profile] = strings;
        ConnectRequest { token, data, subs, name, version, headers, flag, dict, profile }
    }
}

prop_compose! {
    fn sub_refresh()(
        channel in any::<String>(), token in any::<String>(), r#type in any::<i32>(), untrack in vec(any::<String>(), 0..3),
        track in vec((any::<String>(), vec(any::<(String, u64)>(), 0..3)), 0..3),
    ) -> SubRefreshRequest {
        let batch = |(signature, items): (String, Vec<(String, u64)>)| TrackBatch {
            signature,
            items: items.into_iter().map(|(key, version)| KeyedItem { key, version }).collect(),
        };
        SubRefreshRequest { channel, token, r#type, track: track.into_iter().map(batch).collect(), untrack }
    }
}

fn command() -> impl Strategy<Value = Command> {
    let none = Command::default;
    let request = prop_oneof![
        Just(none()),
        Just(Command { ping: Some(PingRequest {}), ..none() }),
        connect().prop_map(move |connect| Command { connect: Some(connect), ..none() }),
        subscribe().prop_map(move |subscribe| Command { subscribe: Some(subscribe), ..none() }),
        sub_refresh().prop_map(move |request| Command { sub_refresh: Some(request), ..none() }),
        any::<String>().prop_map(move |channel| Command {
            unsubscribe: Some(UnsubscribeRequest { channel: channel.clone() }),
            presence: Some(PresenceRequest { channel: channel.clone() }),
            presence_stats: Some(PresenceStatsRequest { channel: channel.clone() }),
            refresh: Some(RefreshRequest { token: channel }),
            ..none()
        }),
        (any::<[String; 3]>(), payload(), any::<i32>(), any::<bool>(), option::of(any::<(u64, String)>())).prop_map(
            move |([channel, key, method], data, number, truth, since)| Command {
                publish: Some(PublishRequest {
                    channel: channel.clone(),
                    data: data.clone(),
                    r#type: number,
                    key,
                    removed: truth
                }),
                history: Some(HistoryRequest {
                    channel,
                    limit: number,
                    since: since.map(|(offset, epoch)| StreamPosition { offset, epoch }),
                    reverse: truth,
                }),
                rpc: Some(RpcRequest { data: data.clone(), method }),
                send: Some(SendRequest { data }),
                ..none()
            }
        ),
    ];
    (any::<u32>(), request).prop_map(|(id, request)| Command { id, ..request })
}

prop_compose! {
    fn info()(user in any::<String>(), client in any::<String>(), conn_info in payload(), chan_info in payload())
    -> ClientInfo {
        ClientInfo { user, client, conn_info, chan_info }
    }
}

prop_compose! {
    fn publication()(
        data in payload(), info in option::of(info()), tags in tags(), strings in any::<[String; 3]>(),
        (delta, removed) in any::<(bool, bool)>(), (time, score) in any::<(i64, i64)>(),
        (offset, version) in any::<(u64, u64)>(), prev_data in payload(),
    ) -> Publication {
        let [channel, key, epoch] = strings;
        Publication {
            data, info, offset, tags, delta, time, channel, key, removed, score, epoch, prev_data, version,
        }
    }
}

prop_compose! {
    fn subscribed()(
        flags in any::<[bool; 6]>(), (ttl, publish_debounce, offset, id) in any::<(u32, u32, u64, i64)>(),
        (r#type, phase) in any::<(i32, i32)>(), (epoch, cursor) in any::<(String, String)>(), data in payload(),
        publications in vec(publication(), 0..3), state in vec(publication(), 0..2),
    ) -> SubscribeResult {
        let [expires, recoverable, recovered, positioned, was_recovering, delta] = flags;
        SubscribeResult {
            expires, ttl, recoverable, epoch, publications, recovered, offset, positioned, data, was_recovering, delta,
            id, r#type, phase, cursor, state, publish_debounce,
        }
    }
}

prop_compose! {
    fn connected()(
        strings in any::<[String; 4]>(), (expires, pong) in any::<(bool, bool)>(), (ttl, ping) in any::<(u32, u32)>(),
        data in payload(), subs in btree_map(any::<String>(), subscribed(), 0..2), (time, flag) in any::<(i64, i64)>(),
    ) -> ConnectResult {
        let [client, version, session, node] = strings;
        ConnectResult {
            client, version, expires, ttl, data, subs, ping, pong, session, node, time, flag, dict: None,
        }
    }
}

fn push() -> impl Strategy<Value = Push> {
    let none = Push::default;
    let content = prop_oneof![
        publication().prop_map(move |publication| Push { r#pub: Some(publication), ..none() }),
        option::of(info()).prop_map(move |info| Push {
            join: Some(Join { info: info.clone() }),
            leave: Some(Leave { info }),
            ..none()
        }),
        (any::<u32>(), any::<String>(), any::<bool>()).prop_map(move |(code, reason, reconnect)| Push {
            unsubscribe: Some(Unsubscribe { code, reason: reason.clone() }),
            disconnect: Some(Disconnect { code, reason, reconnect }),
            refresh: Some(Refresh { expires: reconnect, ttl: code }),
            ..none()
        }),
        payload().prop_map(move |data| Push {
            message: Some(Message { data: data.clone() }),
            subscribe: Some(Subscribe { data, ..Default::default() }),
            ..none()
        }),
        connected().prop_map(move |result| Push {
            connect: Some(Connect {
                client: result.client,
                version: result.version,
                data: result.data,
                subs: result.subs,
                expires: result.expires,
                ttl: result.ttl,
                ping: result.ping,
                pong: result.pong,
                session: result.session,
                node: result.node,
                time: result.time,
            }),
            ..none()
        }),
    ];
    (any::<i64>(), any::<String>(), content).prop_map(|(id, channel, content)| Push { id, channel, ..content })
}

fn reply() -> impl Strategy<Value = Reply> {
    let none = Reply::default;
    let content = prop_oneof![
        Just(none()),
        push().prop_map(move |push| Reply { push: Some(push), ..none() }),
        connected().prop_map(move |result| Reply { connect: Some(result), ..none() }),
        subscribed().prop_map(move |result| Reply { subscribe: Some(result), ..none() }),
        Just(Reply {
            unsubscribe: Some(UnsubscribeResult {}),
            publish: Some(PublishResult {}),
            ping: Some(PingResult {}),
            ..none()
        }),
        (any::<(u32, String, bool)>(), payload()).prop_map(move |((code, message, temporary), data)| Reply {
            error: Some(Error { code, message, temporary }),
            rpc: Some(RpcResult { data }),
            presence_stats: Some(PresenceStatsResult { num_clients: code, num_users: code }),
            ..none()
        }),
        (btree_map(any::<String>(), info(), 0..3), any::<(String, bool, u32)>()).prop_map(
            move |(presence, (version, expires, ttl))| Reply {
                presence: Some(PresenceResult { presence }),
                refresh: Some(RefreshResult { version, expires, ttl, ..Default::default() }),
                ..none()
            }
        ),
        (vec(publication(), 0..3), any::<String>(), any::<u64>()).prop_map(move |(publications, epoch, offset)| {
            Reply {
                sub_refresh: Some(SubRefreshResult { items: publications.clone(), ..Default::default() }),
                history: Some(HistoryResult { publications, epoch, offset }),
                ..none()
            }
        }),
    ];
    (any::<u32>(), content).prop_map(|(id, content)| Reply { id, ..content })
}

/// A transport message with these commands.
fn encode(format: Format, commands: &[Command]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        encode_command(format, command, &mut out);
        if format == Format::Json {
            out.push(b'\n');
        }
    }
    out
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Json), Just(Format::Protobuf)]
}

/// Limits that generated messages keep within.
fn wide() -> Limits {
    Limits { message_size: 1 << 24, ..Limits::default() }
}

/// The body of one encoded reply.
fn body(format: Format, encoded: &[u8]) -> &[u8] {
    match format {
        Format::Json => encoded,
        Format::Protobuf => match split_delimited(encoded, usize::MAX).unwrap() {
            Delimited::Message { body, consumed } if consumed == encoded.len() => body,
            other => panic!("not one message: {other:?}"),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn commands_survive_the_way(commands in vec(command(), 0..4), format in format()) {
        let message = encode(format, &commands);
        let decoded: Vec<_> = Commands::new(format, &message, &wide()).map(Result::unwrap).collect();
        prop_assert_eq!(decoded, commands);
    }

    #[test]
    fn replies_survive_the_way(reply in reply(), format in format()) {
        let mut encoded = Vec::new();
        encode_reply(format, &reply, &mut encoded);
        if format == Format::Json {
            prop_assert!(!encoded.contains(&b'\n'));
        }
        prop_assert_eq!(decode_reply(format, body(format, &encoded)).unwrap(), reply);
    }

    #[test]
    fn a_publication_is_the_same_with_and_without_building_messages(
        channel in any::<String>(), data in payload(), info in option::of(info()), offset in any::<u64>(),
        epoch in any::<String>(), tags in tags(), delta in any::<bool>(), format in format(),
    ) {
        let parts =
            PublicationParts { channel: &channel, data: &data, info: info.as_ref(), offset, epoch: &epoch, tags: &tags, delta };
        let mut direct = Vec::new();
        encode_publication(format, &parts, &mut direct);
        let publication = Publication {
            data: data.clone(), info: info.clone(), offset, epoch: epoch.clone(), tags: tags.clone(), delta,
            ..Default::default()
        };
        let push = Push { channel: channel.clone(), r#pub: Some(publication), ..Default::default() };
        let mut built = Vec::new();
        encode_reply(format, &Reply { push: Some(push), ..Default::default() }, &mut built);
        prop_assert_eq!(direct, built);
    }

    #[test]
    fn replies_with_any_payload_are_one_line_of_json(data in vec(any::<u8>(), 0..64)) {
        let reply = Reply { rpc: Some(RpcResult { data: data.into() }), ..Default::default() };
        let mut encoded = Vec::new();
        encode_reply(Format::Json, &reply, &mut encoded);
        prop_assert!(!encoded.contains(&b'\n'));
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&encoded).is_ok());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..256), format in format()) {
        for command in Commands::new(format, &bytes, &Limits::default()) {
            drop(command);
        }
        drop(decode_command(format, &bytes));
        drop(decode_reply(format, &bytes));
        drop(split_delimited(&bytes, 100));
    }

    #[test]
    fn a_damaged_message_never_panics_and_yields_no_more_commands_than_before(
        commands in vec(command(), 1..3), format in format(), at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>(),
    ) {
        let mut message = encode(format, &commands);
        let at = at.index(message.len());
        message[at] = byte;
        message.truncate(1 + cut.index(message.len()));
        let mut rest = message.len();
        let mut decoder = Commands::new(format, &message, &wide());
        while let Some(command) = decoder.next() {
            prop_assert!(decoder.rest().len() < rest, "no progress");
            rest = decoder.rest().len();
            if command.is_err() {
                prop_assert!(decoder.next().is_none());
            }
        }
    }

    #[test]
    fn a_stream_split_anywhere_gives_the_same_messages(
        bodies in vec(vec(any::<u8>(), 0..300), 0..8), chunks in vec(1_usize..64, 1..32),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            prost::encoding::encode_varint(body.len() as u64, &mut stream);
            stream.extend_from_slice(body);
        }
        let (mut found, mut pending, mut rest) = (Vec::new(), Vec::new(), stream.as_slice());
        for size in chunks.iter().cycle() {
            let (chunk, behind) = rest.split_at(rest.len().min(*size));
            pending.extend_from_slice(chunk);
            rest = behind;
            while let Delimited::Message { body, consumed } = split_delimited(&pending, 300).unwrap() {
                found.push(body.to_vec());
                pending.drain(..consumed);
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(pending.is_empty());
        prop_assert_eq!(found, bodies);
    }

    #[test]
    fn a_payload_is_json_exactly_when_a_parser_takes_it(bytes in prop_oneof![
        vec(any::<u8>(), 0..32),
        "[\\[\\]{}\",:0-9a-f\\\\ \n.eE+-]{0,24}".prop_map(String::into_bytes),
        payload().prop_map(Into::into),
    ]) {
        let content = payload::classify(&bytes);
        prop_assert_eq!(content != Content::Binary, std::str::from_utf8(&bytes).is_ok());
        prop_assert_eq!(content == Content::Json, serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok()
            && content != Content::Binary);
        if let Some(form) = payload::json_form(content, &bytes) {
            prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&form).is_ok());
            prop_assert!(memchr::memchr2(b'\n', b'\r', &form).is_none());
        } else {
            prop_assert_eq!(content, Content::Binary);
        }
    }
}

#[test]
fn pings_are_replies() {
    for format in [Format::Json, Format::Protobuf] {
        assert_eq!(decode_reply(format, body(format, ping(format))).unwrap(), Reply::default());
    }
}
