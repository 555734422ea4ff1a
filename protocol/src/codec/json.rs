//! The JSON form of the messages, one object a line.
//!
//! Members have the names of the `.proto` file, and `build.rs` gives each field its attributes:
//! - Zero values are left out, except where SDKs expect them (`ALWAYS_PRESENT` there). A message that is set is
//!   written even when it is empty: `{}` is how SDKs know a success.
//! - `bytes` fields are embedded JSON (module `raw`), without newlines, so that these can end messages.
//! - 64-bit integers are numbers.
//! - On input, members come in any order, unknown ones are ignored, and `null` counts as absent (`nullable`), but
//!   for payloads, where `null` is a value like any other.

use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DecodeError, PublicationParts, Split};
use crate::code::ErrorCode;
use crate::message::Reply;

/// Splits the first object off a text of objects separated by newlines: its bytes, and what follows its newline.
/// Blank lines are skipped; nothing but blanks is `None`. The object is not checked beyond its brackets, but these
/// nest at most `depth` deep, so that a recursive parser can be let loose on it.
pub(super) fn split_object(text: &[u8], depth: usize) -> Result<Option<Split<'_>>, DecodeError> {
    let text = text.trim_ascii_start();
    match text.first() {
        None => return Ok(None),
        Some(b'{') => {}
        Some(&found) => return Err(DecodeError::Unexpected { expected: "a JSON object", found }),
    }
    let (body, rest) = text.split_at(object_len(text, depth)?);
    for (at, &byte) in rest.iter().enumerate() {
        match byte {
            b'\n' => return Ok(Some(Split { body, rest: &rest[at + 1..] })),
            b' ' | b'\t' | b'\r' => {}
            found => return Err(DecodeError::Unexpected { expected: "a newline", found }),
        }
    }
    Ok(Some(Split { body, rest: &[] }))
}

/// Bytes of the object at the start of `text`.
fn object_len(text: &[u8], limit: usize) -> Result<usize, DecodeError> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return Err(DecodeError::TooDeep { limit });
                }
            }
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            b'"' => at = string_end(text, at).ok_or(DecodeError::Truncated)?,
            _ => {}
        }
    }
    Err(DecodeError::Truncated)
}

/// Where the string ends whose first character is at `at`: behind its closing quote.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Appends a reply.
pub(super) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, reply).is_err() {
        // Neither the messages nor a Vec give it a reason. Should that change, the client still gets an answer.
        out.truncate(start);
        put(out, &[b"{\"id\":", itoa::Buffer::new().format(reply.id).as_bytes(), b",\"error\":{\"code\":100,"]);
        put(out, &[b"\"message\":\"", ErrorCode::Internal.reason().as_bytes(), b"\",\"temporary\":true}}"]);
    }
}

/// Appends the reply that carries one publication.
pub(super) fn encode_publication(parts: &PublicationParts<'_>, out: &mut Vec<u8>) {
    out.reserve(64 + parts.channel.len() + parts.data.len());
    put(out, &[b"{\"push\":{"]);
    if !parts.channel.is_empty() {
        put(out, &[b"\"channel\":"]);
        put_value(out, parts.channel);
        put(out, &[b","]);
    }
    put(out, &[b"\"pub\":{"]);
    let mut separator: &[u8] = b"";
    let mut member = |out: &mut Vec<u8>, name: &[u8]| {
        put(out, &[separator, name]);
        separator = b",";
    };
    if !parts.data.is_empty() {
        member(out, b"\"data\":");
        put(out, &[parts.data]);
    }
    if let Some(info) = parts.info {
        member(out, b"\"info\":");
        put_value(out, info);
    }
    if parts.offset != 0 {
        member(out, b"\"offset\":");
        put(out, &[itoa::Buffer::new().format(parts.offset).as_bytes()]);
    }
    if !parts.tags.is_empty() {
        member(out, b"\"tags\":");
        put_value(out, parts.tags);
    }
    if parts.delta {
        member(out, b"\"delta\":true");
    }
    if !parts.epoch.is_empty() {
        member(out, b"\"epoch\":");
        put_value(out, parts.epoch);
    }
    put(out, &[b"}}}"]);
}

/// Appends bytes.
fn put(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// Appends a value, escaped.
pub(super) fn put_value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        // As in `encode_reply`: what cannot be written must not break the framing.
        out.truncate(start);
        put(out, &[b"null"]);
    }
}

/// Whether a member may be left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads a member that may be `null`.
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a message that may be `null`, from an object only: serde on its own would take an array of its fields as well.
pub(crate) fn object<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Object<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_option(Object(std::marker::PhantomData))
}

/// `bytes` fields: JSON embedded as it is.
pub(crate) mod raw {
    use serde_json::value::RawValue;

    use super::{Bytes, Deserialize, Deserializer, Serialize, Serializer};
    use crate::codec::payload::{json_value, without_newlines};

    /// Keeps the value's bytes.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let value = <&RawValue>::deserialize(deserializer)?;
        Ok(Bytes::copy_from_slice(value.get().as_bytes()))
    }

    /// Writes JSON as it is, other text as a string, and binary as `null`: whatever it holds, the message stays JSON.
    pub(crate) fn serialize<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        let Ok(text) = simdutf8::basic::from_utf8(data) else { return serializer.serialize_unit() };
        let Some(value) = json_value(text) else { return serializer.serialize_str(text) };
        match without_newlines(value.get().as_bytes()) {
            std::borrow::Cow::Borrowed(_) => value.serialize(serializer),
            std::borrow::Cow::Owned(line) => match serde_json::from_slice::<&RawValue>(&line) {
                Ok(value) => value.serialize(serializer),
                Err(error) => Err(serde::ser::Error::custom(error)),
            },
        }
    }
}

/// The `bytes` field that is a JSON string.
pub(crate) mod text {
    use super::{Bytes, Deserialize, Deserializer, Serializer};

    /// Keeps the string's bytes.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Bytes::from).unwrap_or_default())
    }

    /// Writes UTF-8 as a string.
    pub(crate) fn serialize<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(simdutf8::basic::from_utf8(data).map_err(serde::ser::Error::custom)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::codec::{Format, decode_command, decode_reply};
    use crate::message::*;

    fn json(reply: &Reply) -> String {
        let mut out = Vec::new();
        encode_reply(reply, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn command(text: &str) -> Command {
        decode_command(Format::Json, text.as_bytes()).unwrap()
    }

    /// The object as split off, with what follows it.
    fn split(text: &str) -> Option<(&str, &str)> {
        let Split { body, rest } = split_object(text.as_bytes(), 3).unwrap()?;
        Some((std::str::from_utf8(body).unwrap(), std::str::from_utf8(rest).unwrap()))
    }

    #[test]
    fn objects_are_split_at_newlines_and_blank_lines_skipped() {
        assert_eq!(split("{}\n{}"), Some(("{}", "{}")));
        assert_eq!(split("{}"), Some(("{}", "")));
        assert_eq!(split("\r\n\n {\"a\":[]} \t\r\n\n"), Some(("{\"a\":[]}", "\n")));
        assert_eq!(split("{\n\"a\":\n1}\nx"), Some(("{\n\"a\":\n1}", "x")));
        assert_eq!(split(" \n\r\t"), None);
        assert_eq!(split(""), None);
    }

    #[test]
    fn braces_and_quotes_within_strings_do_not_end_an_object() {
        let text = r#"{"a":"}\"}\\"}"#;
        assert_eq!(split(text), Some((text, "")));
    }

    #[test]
    fn text_that_is_no_object_is_refused() {
        for text in ["1", "null", "[]", "\"{}\"", "x{}", "{}{}", "{} {}", "{},"] {
            let error = split_object(text.as_bytes(), 3).unwrap_err();
            assert!(matches!(error, DecodeError::Unexpected { .. }), "{text}: {error}");
        }
        for text in ["{", "{\"a", "{\"a\\", "{\"a\\\"", "{\"a\":[", "{\"a\":[]"] {
            let error = split_object(text.as_bytes(), 3).unwrap_err();
            assert!(matches!(error, DecodeError::Truncated), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused_before_it_is_parsed() {
        assert!(split_object(b"{\"a\":[{}]}", 3).is_ok());
        assert!(matches!(split_object(b"{\"a\":[{\"b\":[", 3), Err(DecodeError::TooDeep { limit: 3 })));
        let deep = [b"{\"a\":".repeat(1_000_000), b"1".to_vec(), b"}".repeat(1_000_000)].concat();
        assert!(matches!(split_object(&deep, 64), Err(DecodeError::TooDeep { limit: 64 })));
    }

    #[test]
    fn members_come_in_any_order_and_unknown_ones_are_ignored() {
        let found =
            command(r#"{"later":[{}],"subscribe":{"flag":1,"offset":18446744073709551615,"channel":"c"},"id":2}"#);
        let subscribe = SubscribeRequest { channel: "c".into(), flag: 1, offset: u64::MAX, ..Default::default() };
        assert_eq!(found, Command { id: 2, subscribe: Some(subscribe), ..Default::default() });
    }

    #[test]
    fn null_counts_as_absent() {
        let text = r#"{"id":null,"connect":{"token":null,"subs":null,"headers":null,"flag":null},"subscribe":null}"#;
        assert_eq!(command(text), Command { connect: Some(ConnectRequest::default()), ..Default::default() });
    }

    #[test]
    fn payloads_are_kept_byte_for_byte() {
        for payload in [r#"{ "b" : 1,"a":[1.50, "\u00e9"]}"#, "null", "0", "\"x\"", "[ ]", "{\n}"] {
            let found = command(&format!("{{\"id\":1,\"publish\":{{\"channel\":\"c\",\"data\": {payload} }}}}"));
            assert_eq!(found.publish.unwrap().data, payload);
        }
    }

    #[test]
    fn commands_of_the_wrong_shape_are_refused() {
        let cases = [
            r#"{"id":-1}"#,
            r#"{"id":4294967296}"#,
            r#"{"id":"1"}"#,
            r#"{"id":1.5}"#,
            r#"{"id":1,"connect":[]}"#,
            r#"{"id":1,"connect":["token"]}"#,
            r#"{"id":1,"connect":true}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"id":1,"subscribe":{"channel":1}}"#,
            r#"{"id":1,"subscribe":{"channel":"\ud800"}}"#,
            r#"{"id":1,"publish":{"data":nope}}"#,
            r#"{"id":1,"publish":{"data":[}}}"#,
            r#"{"id":1,}"#,
            r#"{]"#,
        ];
        for text in cases {
            let error = decode_command(Format::Json, text.as_bytes()).unwrap_err();
            assert!(matches!(error, DecodeError::Json(_) | DecodeError::Truncated), "{text}: {error}");
        }
    }

    #[test]
    fn invalid_utf8_is_refused_in_names_and_in_payloads() {
        assert!(decode_command(Format::Json, b"{\"id\":1,\"subscribe\":{\"channel\":\"\xff\"}}").is_err());
        assert!(decode_command(Format::Json, b"{\"id\":1,\"publish\":{\"data\":\"\xff\"}}").is_err());
    }

    #[test]
    fn zero_values_are_left_out() {
        assert_eq!(json(&Reply::default()), "{}");
        let reply = Reply { id: 1, connect: Some(ConnectResult::default()), ..Default::default() };
        assert_eq!(json(&reply), r#"{"id":1,"connect":{}}"#);
        let push = Push { channel: "c".into(), r#pub: Some(Publication::default()), ..Default::default() };
        assert_eq!(json(&Reply { push: Some(push), ..Default::default() }), r#"{"push":{"channel":"c","pub":{}}}"#);
    }

    #[test]
    fn empty_results_are_present() {
        let replies = [
            (Reply { unsubscribe: Some(UnsubscribeResult {}), ..Default::default() }, r#"{"unsubscribe":{}}"#),
            (Reply { publish: Some(PublishResult {}), ..Default::default() }, r#"{"publish":{}}"#),
            (Reply { subscribe: Some(SubscribeResult::default()), ..Default::default() }, r#"{"subscribe":{}}"#),
            (Reply { rpc: Some(RpcResult::default()), ..Default::default() }, r#"{"rpc":{}}"#),
            (Reply { refresh: Some(RefreshResult::default()), ..Default::default() }, r#"{"refresh":{}}"#),
        ];
        for (reply, expected) in replies {
            assert_eq!(json(&reply), expected);
        }
    }

    #[test]
    fn what_sdks_expect_is_present_even_when_zero() {
        let presence = BTreeMap::from([("id".to_owned(), ClientInfo::default())]);
        let replies = [
            (
                Reply { error: Some(Error { code: 100, ..Default::default() }), ..Default::default() },
                r#"{"error":{"code":100,"message":""}}"#,
            ),
            (
                Reply { presence: Some(PresenceResult { presence }), ..Default::default() },
                r#"{"presence":{"presence":{"id":{"user":"","client":""}}}}"#,
            ),
            (
                Reply { presence: Some(PresenceResult::default()), ..Default::default() },
                r#"{"presence":{"presence":{}}}"#,
            ),
            (
                Reply { presence_stats: Some(PresenceStatsResult::default()), ..Default::default() },
                r#"{"presence_stats":{"num_clients":0,"num_users":0}}"#,
            ),
            (
                Reply { history: Some(HistoryResult::default()), ..Default::default() },
                r#"{"history":{"publications":[],"epoch":"","offset":0}}"#,
            ),
        ];
        for (reply, expected) in replies {
            assert_eq!(json(&reply), expected);
        }
    }

    #[test]
    fn numbers_of_64_bits_are_numbers() {
        let subscribe = SubscribeResult { offset: u64::MAX, id: i64::MIN, ..Default::default() };
        assert_eq!(
            json(&Reply { subscribe: Some(subscribe), ..Default::default() }),
            r#"{"subscribe":{"offset":18446744073709551615,"id":-9223372036854775808}}"#
        );
    }

    #[test]
    fn payloads_are_embedded_without_newlines_and_never_break_the_framing() {
        let cases: &[(&[u8], &str)] = &[
            (b"{\"a\": 1}", "{\"a\": 1}"),
            (b"{\r\n\"a\":\n\"\\n\"}\n", "{\"a\":\"\\n\"}"),
            (b"plain \"text\"\n", "\"plain \\\"text\\\"\\n\""),
            (b"{\"a\":", "\"{\\\"a\\\":\""),
            (b"\xff\xfe", "null"),
        ];
        for (data, expected) in cases {
            let rpc = RpcResult { data: Bytes::from_static(data) };
            let reply = Reply { rpc: Some(rpc), ..Default::default() };
            assert_eq!(json(&reply), format!("{{\"rpc\":{{\"data\":{expected}}}}}"));
        }
    }

    #[test]
    fn strings_are_escaped() {
        let hostile = "\"\\\n\r\t\u{0}\u{1f}\u{7f}é\u{2028}😀</script>";
        let tags = BTreeMap::from([(hostile.to_owned(), hostile.to_owned())]);
        let info = ClientInfo { user: hostile.into(), client: hostile.into(), ..Default::default() };
        let parts = PublicationParts {
            channel: hostile,
            data: b"1",
            info: Some(&info),
            offset: 1,
            epoch: hostile,
            tags: &tags,
            delta: true,
        };
        let mut out = Vec::new();
        encode_publication(&parts, &mut out);
        assert!(!out.contains(&b'\n'));
        let push = decode_reply(Format::Json, &out).unwrap().push.unwrap();
        assert_eq!(push.channel, hostile);
        let publication = push.r#pub.unwrap();
        assert_eq!((publication.info, publication.tags), (Some(info.clone()), tags.clone()));
        assert_eq!((publication.epoch.as_str(), publication.delta), (hostile, true));
    }

    #[test]
    fn a_publication_has_the_members_that_it_needs() {
        let none = BTreeMap::new();
        let parts = PublicationParts {
            channel: "news",
            data: b"{\"a\":1}",
            info: None,
            offset: 0,
            epoch: "",
            tags: &none,
            delta: false,
        };
        let mut out = b"before".to_vec();
        encode_publication(&parts, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#"before{"push":{"channel":"news","pub":{"data":{"a":1}}}}"#);
        let info = ClientInfo { conn_info: Bytes::from_static(b"{}"), ..Default::default() };
        let mut out = Vec::new();
        encode_publication(&PublicationParts { info: Some(&info), offset: 7, epoch: "e", ..parts }, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"push":{"channel":"news","pub":{"data":{"a":1},"info":{"user":"","client":"","conn_info":{}},"offset":7,"epoch":"e"}}}"#
        );
    }

    #[test]
    fn an_emulation_request_carries_its_commands_in_a_string() {
        let text = r#"{"session":"s","node":"n","data":"{\"id\":1}\n{}"}"#;
        let request: EmulationRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.data, "{\"id\":1}\n{}");
        assert_eq!(
            serde_json::from_str::<EmulationRequest>(&serde_json::to_string(&request).unwrap()).unwrap(),
            request
        );
        assert!(serde_json::from_str::<EmulationRequest>(r#"{"data":{"id":1}}"#).is_err());
    }
}
