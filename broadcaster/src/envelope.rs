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
//! A message of a channel with a history comes from the function `push_publish`, which puts its place before the payload:
//!
//! ```text
//! 00 54 47 32 20             NUL, "TG2 "
//! 37 20 ..  0a               offset, epoch, milliseconds since 1970 and, where it may be sent as a delta, a `d`, with spaces
//!                            between them, and a newline
//! ..                         the payload: the data itself, or the envelope above
//! ```
//!
//! Who comes and goes is told in the same channel, where its namespace says so:
//!
//! ```text
//! 00 54 47 33 6a             NUL, "TG3", and `j` for a client that joins, `l` for one that leaves
//! ..                         a protobuf message `ClientInfo` of the client protocol
//! ```
//!
//! No text and no JSON starts with a zero byte. Binary data that happens to start with the first three bytes of these is put into
//! an envelope by Tidegate; another publisher has to do the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tidegate_protocol::message::{ClientInfo, Publication};

use crate::publication::PushKind;

/// What an envelope starts with.
pub const MAGIC: [u8; 4] = *b"\0TG1";

/// What a place starts with.
const PLACE: &[u8] = b"\0TG2 ";

/// What comes before a client that joins or leaves, behind [`FAMILY`].
const JOIN: &[u8] = b"\0TG3j";
const LEAVE: &[u8] = b"\0TG3l";

/// What all of them start with: data that does so as well needs an envelope.
const FAMILY: &[u8] = b"\0TG";

/// The longest place, in bytes, with all that belongs to it.
pub const MAX_PLACE: usize = 128;

/// The longest message whose payload has at most `max_payload` bytes, as far as its first bytes tell.
pub fn max_message(message: &[u8], max_payload: usize) -> usize {
    if message.starts_with(PLACE) { max_payload.saturating_add(MAX_PLACE) } else { max_payload }
}

/// What a Redis payload carries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// What it is.
    pub kind: PushKind,
    /// The data, as it was published.
    pub data: Bytes,
    /// The publisher, where a client published; or who joins or leaves.
    pub info: Option<ClientInfo>,
    /// Tags, for filters.
    pub tags: BTreeMap<String, String>,
    /// Its place in the channel's history; never written by [`encode`].
    pub place: Option<Place>,
}

/// A message's place in its channel's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub offset: u64,
    /// The numbering.
    pub epoch: Arc<str>,
    /// When Redis took it, in milliseconds since 1970.
    pub unix_ms: u64,
    /// It may be sent as a delta to the one before.
    pub delta: bool,
}

/// An envelope that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is no Protobuf message.
    #[error("the envelope cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
    /// The place is none.
    #[error("the place in the history cannot be read")]
    Place,
}

/// The payload for Redis. Plain data is passed on without a copy.
pub fn encode(content: Content) -> Bytes {
    let Content { kind, data, info, tags, place: _ } = content;
    if let Some(head) = head(kind) {
        return [head, &info.unwrap_or_default().encode_to_vec()].concat().into();
    }
    if info.is_none() && tags.is_empty() && !data.starts_with(FAMILY) {
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

/// What the payload starts with where somebody joins or leaves.
fn head(kind: PushKind) -> Option<&'static [u8]> {
    match kind {
        PushKind::Publication => None,
        PushKind::Join => Some(JOIN),
        PushKind::Leave => Some(LEAVE),
    }
}

/// What a payload from Redis carries. The data shares the payload's bytes.
///
/// # Errors
/// The payload starts like an envelope and is none.
pub fn decode(mut payload: Bytes) -> Result<Content, EnvelopeError> {
    for kind in [PushKind::Join, PushKind::Leave] {
        if let Some(info) = head(kind).and_then(|head| payload.strip_prefix(head)) {
            return Ok(Content { kind, info: Some(ClientInfo::decode(info)?), ..Content::default() });
        }
    }
    let place = if payload.starts_with(PLACE) {
        let (place, length) = decode_place(&payload).ok_or(EnvelopeError::Place)?;
        bytes::Buf::advance(&mut payload, length);
        Some(place)
    } else {
        None
    };
    if !payload.starts_with(&MAGIC) {
        return Ok(Content { data: payload, place, ..Content::default() });
    }
    let message = Publication::decode(payload.split_off(MAGIC.len()))?;
    Ok(Content { data: message.data, info: message.info, tags: message.tags, place, ..Content::default() })
}

/// The place at the payload's beginning, and the bytes that it takes.
fn decode_place(payload: &[u8]) -> Option<(Place, usize)> {
    let head = payload.get(..payload.len().min(MAX_PLACE))?;
    let end = head.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(head.get(PLACE.len()..end)?).ok()?.split(' ');
    let (offset, epoch, unix_ms) = (words.next()?, words.next()?, words.next()?);
    let delta = match words.next() {
        None => false,
        Some("d") => true,
        Some(_) => return None,
    };
    let place = Place { offset: offset.parse().ok()?, epoch: epoch.into(), unix_ms: unix_ms.parse().ok()?, delta };
    (place.offset > 0 && words.next().is_none()).then_some((place, end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(data: &'static [u8]) -> Content {
        Content { data: Bytes::from_static(data), ..Content::default() }
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
    fn a_place_stands_before_the_payload_whatever_that_is() {
        let place = Place { offset: 7, epoch: "a-b".into(), unix_ms: 12, delta: true };
        let info = ClientInfo { user: "u".to_owned(), ..ClientInfo::default() };
        for content in [plain(b"{}"), plain(b""), plain(b"\0TG2 x"), Content { info: Some(info), ..plain(b"1") }] {
            let message = [b"\0TG2 7 a-b 12 d\n".as_slice(), &encode(content.clone())].concat();
            assert_eq!(decode(message.into()).unwrap(), Content { place: Some(place.clone()), ..content });
        }
        for broken in ["\0TG2 ", "\0TG2 7 e 1", "\0TG2 0 e 1\n", "\0TG2 x e 1\n", "\0TG2 7 e\n", "\0TG2 7 e 1 2\n"] {
            assert_eq!(decode(broken.into()), Err(EnvelopeError::Place), "{broken:?}");
        }
    }

    #[test]
    fn who_comes_and_goes_is_no_data() {
        let info = ClientInfo { user: "u".to_owned(), client: "c".to_owned(), ..ClientInfo::default() };
        for kind in [PushKind::Join, PushKind::Leave] {
            let content = Content { kind, info: Some(info.clone()), ..Content::default() };
            assert_eq!(decode(encode(content.clone())).unwrap(), content);
        }
        let alike = plain(b"\0TG3j and more");
        assert_eq!(decode(encode(alike.clone())).unwrap(), alike);
        assert!(decode(Bytes::from_static(b"\0TG3j\xff\xff")).is_err());
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
            let content = Content { data: data.into(), info, tags, ..Content::default() };
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
