//! The JSON form of the messages, one object a line.
//!
//! Members have the names of the `.proto` file, and `build.rs` gives each field its attributes:
//! - Zero values are left out, except where SDKs expect them (`ALWAYS_PRESENT` there). A message that is set is
//!   written even when it is empty: `{}` is how SDKs know a success.
//! - `bytes` fields are embedded JSON ([`raw`]), without newlines, so that these can end messages.
//! - 64-bit integers are numbers.
//! - On input, members come in any order, unknown ones are ignored, and `null` counts as absent ([`nullable`]), but
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
fn put_value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
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
