//! Parameters of the methods, as JSON carries them.
//!
//! Members that are not known are passed over, as the incumbent does: a library may send what a
//! later version understands. `null` counts as absent, but for `data`, where it is a payload.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ApiError;

/// Parameters of `publish` and of `broadcast`: one struct, since a raw value cannot be flattened into two.
#[derive(Debug, Deserialize)]
pub struct Publish<'a> {
    /// `publish`: where to.
    pub channel: Option<String>,
    /// `broadcast`: where to.
    pub channels: Option<Vec<String>>,
    /// The payload: any JSON value, taken as the very bytes that stand in the request.
    #[serde(borrow, default, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
    /// The payload in base64; wins over `data`.
    pub b64data: Option<String>,
    /// For filters of subscribers.
    pub tags: Option<BTreeMap<String, String>>,
    /// A publish with a key that was seen a short while ago is answered, not repeated.
    pub idempotency_key: Option<String>,
    /// Delivers, and does not keep.
    pub skip_history: Option<bool>,
    /// It may be sent as a delta to the publication before.
    pub delta: Option<bool>,
    /// The version of the state that this is about; an older one than the channel has seen is not published. Without
    /// effect where the channel keeps no history.
    pub version: Option<u64>,
    /// Versions of different epochs do not compare.
    pub version_epoch: Option<String>,
}

/// Takes a value that is there, `null` among them; serde's default makes `None` of a missing one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Publish<'_> {
    /// The payload's bytes. `body` is the request that `self` was read from.
    ///
    /// # Errors
    /// 107 where there is no payload, an empty one, or base64 that is none.
    pub fn payload(&self, body: &Bytes) -> Result<Bytes, ApiError> {
        if let Some(encoded) = self.b64data.as_deref().filter(|encoded| !encoded.is_empty()) {
            return match BASE64.decode(encoded.as_bytes()) {
                Ok(data) => Ok(data.into()),
                Err(error) => Err(ApiError::bad_request(format!("b64data is not base64 with padding: {error}"))),
            };
        }
        match self.data.map(RawValue::get) {
            // A share of a large body would keep all of it for as long as the payload lives.
            Some(data) if data.len() < body.len() / 2 => Ok(Bytes::copy_from_slice(data.as_bytes())),
            Some(data) => Ok(share(body, data)),
            None => Err(ApiError::bad_request("data is missing: give data (any JSON value) or b64data")),
        }
    }
}

/// The part of `body` that `data` is, without a copy; a copy where `data` stems from elsewhere.
fn share(body: &Bytes, data: &str) -> Bytes {
    let start = (data.as_ptr() as usize).checked_sub(body.as_ptr() as usize);
    match start.and_then(|start| Some(start..start.checked_add(data.len())?)) {
        Some(range) if range.end <= body.len() => body.slice(range),
        _ => Bytes::copy_from_slice(data.as_bytes()),
    }
}

/// Parameters of `channels`.
#[derive(Debug, Deserialize)]
pub struct Channels {
    /// Which ones; absent or empty: all.
    pub pattern: Option<String>,
}

/// Parameters of `batch`.
#[derive(Debug, Deserialize)]
pub struct Batch<'a> {
    /// What to do.
    #[serde(borrow, default)]
    pub commands: Vec<Command<'a>>,
    /// Whether the commands may run at once; otherwise each waits for the one before it.
    #[serde(default)]
    pub parallel: Option<bool>,
}

/// One command of a batch: an object with one member, `{method: params}`.
#[derive(Debug)]
pub struct Command<'a> {
    /// The only member, or `None` where there was not exactly one.
    pub call: Option<(String, &'a RawValue)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Command<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneMember;
        impl<'de> Visitor<'de> for OneMember {
            type Value = Command<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one member, {\"<method>\": {...}}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut call = map.next_entry()?;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    call = None;
                }
                Ok(Command { call })
            }
        }
        deserializer.deserialize_map(OneMember)
    }
}

/// One line of the older form: a POST to the prefix itself with a method and params on each line.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    /// Which method.
    pub method: String,
    /// Its parameters; absent: none.
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
}

/// What a publish came to; members without a value are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PublishResult {
    /// Position in the channel's history.
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// The history's epoch.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub epoch: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl From<tidegate_broadcaster::Published> for PublishResult {
    fn from(published: tidegate_broadcaster::Published) -> Self {
        Self { offset: published.offset, epoch: published.epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(body: &'static str) -> Result<Bytes, ApiError> {
        let body = Bytes::from_static(body.as_bytes());
        serde_json::from_slice::<Publish<'_>>(&body).unwrap().payload(&body)
    }

    #[test]
    fn data_is_taken_byte_for_byte() {
        for data in [r#"{ "b" : 1e400,"a":[ 1.0 , "\u00e9\/é" ] }"#, "null", "0", r#""""#, "[]"] {
            let body = Bytes::from(format!(r#"{{"channel":"c", "data": {data} , "other": 1}}"#));
            let publish: Publish<'_> = serde_json::from_slice(&body).unwrap();
            assert_eq!(publish.payload(&body).unwrap(), data);
        }
    }

    #[test]
    fn a_payload_that_is_most_of_the_body_is_shared_and_a_small_one_copied() {
        let within = |inner: &Bytes, outer: &Bytes| outer.as_ptr_range().contains(&inner.as_ptr());
        for (padding, shared) in [(0, true), (1000, false)] {
            let body = Bytes::from(format!(r#"{{"data":"{}","x":"{}"}}"#, "d".repeat(100), "x".repeat(padding)));
            let publish: Publish<'_> = serde_json::from_slice(&body).unwrap();
            assert_eq!(within(&publish.payload(&body).unwrap(), &body), shared);
        }
    }

    #[test]
    fn base64_goes_before_data_and_missing_or_broken_data_is_refused() {
        assert_eq!(payload(r#"{"data":1,"b64data":"AP8="}"#).unwrap(), [0, 255].as_slice());
        assert_eq!(payload(r#"{"data":1,"b64data":""}"#).unwrap(), "1");
        assert!(payload(r#"{"channel":"c"}"#).unwrap_err().message.contains("data is missing"));
        assert!(payload(r#"{"b64data":"A"}"#).unwrap_err().message.contains("base64"));
    }

    #[test]
    fn a_command_has_exactly_one_member() {
        let batch: Batch<'_> =
            serde_json::from_str(r#"{"commands":[{"publish":{"a":1}},{},{"publish":1,"info":2}],"parallel":true}"#)
                .unwrap();
        let calls: Vec<_> = batch.commands.iter().map(|command| command.call.as_ref()).collect();
        let (method, params) = calls[0].unwrap();
        assert_eq!((method.as_str(), params.get()), ("publish", r#"{"a":1}"#));
        assert!(calls[1].is_none() && calls[2].is_none());
        assert!(serde_json::from_str::<Batch<'_>>(r#"{"commands":[1]}"#).is_err());
    }
}
