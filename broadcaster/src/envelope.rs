//! What Tidegate puts into a Redis message, and how it reads what anyone put there.
//!
//! A payload that anyone publishes to `push:<channel>` is the data itself. A message that Tidegate publishes goes to the
//! same Redis channel; where it carries nothing but data it looks the same. Where it has a publisher or tags, the
//! payload is an envelope:
//!
//! ```text
//! 00 54 47 31                four bytes: NUL, "TG1"
//! ..                         a protobuf message `Publication` of the client protocol, with `data` and, where
//!                            there are any, `info` and `tags`
//! ```
//!
//! No text and no JSON starts with a zero byte. Binary data that happens to start with the four bytes is put into an
//! envelope by Tidegate; another publisher has to do the same.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tidegate_protocol::message::{ClientInfo, Publication};

/// What an envelope starts with.
pub const MAGIC: [u8; 4] = *b"\0TG1";

/// What a Redis payload carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// The data, as it was published.
    pub data: Bytes,
    /// The publisher, where a client published.
    pub info: Option<ClientInfo>,
    /// Tags, for filters.
    pub tags: BTreeMap<String, String>,
}

/// An envelope that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the envelope cannot be read: {0}")]
pub struct EnvelopeError(#[from] prost::DecodeError);

/// The payload for Redis. Plain data is passed on without a copy.
pub fn encode(content: Content) -> Bytes {
    let Content { data, info, tags } = content;
    if info.is_none() && tags.is_empty() && !data.starts_with(&MAGIC) {
        return data;
    }
    let message = Publication { data, info, tags, ..Publication::default() };
    let mut payload = BytesMut::with_capacity(MAGIC.len() + message.encoded_len());
    payload.put_slice(&MAGIC);
    // It fails only where the buffer is too short, and this one grows.
    let encoded = message.encode(&mut payload);
    debug_assert_eq!(encoded, Ok(()));
    payload.freeze()
}

/// What a payload from Redis carries. The data shares the payload's bytes.
///
/// # Errors
/// The payload starts like an envelope and is none.
pub fn decode(mut payload: Bytes) -> Result<Content, EnvelopeError> {
    if !payload.starts_with(&MAGIC) {
        return Ok(Content { data: payload, info: None, tags: BTreeMap::new() });
    }
    let message = Publication::decode(payload.split_off(MAGIC.len()))?;
    Ok(Content { data: message.data, info: message.info, tags: message.tags })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(data: &'static [u8]) -> Content {
        Content { data: Bytes::from_static(data), info: None, tags: BTreeMap::new() }
    }

    #[test]
    fn plain_data_is_published_as_it_is() {
        assert_eq!(encode(plain(b"{\"a\":1}")), &b"{\"a\":1}"[..]);
        assert_eq!(encode(plain(b"")), &b""[..]);
    }

    #[test]
    fn data_that_looks_like_an_envelope_is_put_into_one() {
        let content = plain(b"\0TG1 and more");
        let payload = encode(content.clone());
        assert_ne!(payload, content.data);
        assert_eq!(decode(payload).unwrap(), content);
    }

    #[test]
    fn a_broken_envelope_is_an_error() {
        assert!(decode(Bytes::from_static(b"\0TG1\xff\xff\xff")).is_err());
        assert!(decode(Bytes::from_static(b"\0TG1\x22\xff\xff\xff\x7f")).is_err(), "data longer than the envelope");
    }

    prop_compose! {
        fn info()(user in ".{0,8}", client in ".{0,8}", conn in prop::collection::vec(any::<u8>(), 0..8)) -> ClientInfo {
            ClientInfo { user, client, conn_info: conn.into(), ..ClientInfo::default() }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            magic in any::<bool>(),
            rest in prop::collection::vec(any::<u8>(), 0..64),
            info in prop::option::of(info()),
            tags in prop::collection::btree_map(".{0,6}", ".{0,6}", 0..4),
        ) {
            let mut data = if magic { MAGIC.to_vec() } else { Vec::new() };
            data.extend(rest);
            let content = Content { data: data.into(), info, tags };
            prop_assert_eq!(decode(encode(content.clone())).unwrap(), content);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut data in prop::collection::vec(any::<u8>(), 0..64), magic in any::<bool>()) {
            if magic {
                data.splice(0..0, MAGIC);
            }
            let _ = decode(data.into());
        }
    }
}
