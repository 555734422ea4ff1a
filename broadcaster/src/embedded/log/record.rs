//! What happened to a channel's history, as bytes. Pure.
//!
//! ```text
//! record  length of the rest u32, type u8, channel, ...
//! ```
//!
//! The length is little-endian, so that whoever wants other channels passes a record over without reading it. Other
//! numbers are varints, texts and bytes have their length before them, times are milliseconds since 1970. Whether the
//! bytes are those that were written is the block's to know ([`super::block`]).

use std::time::Duration;

use bytes::BufMut;
use prost::encoding::{decode_varint, encode_varint};
use tidegate_protocol::codec::payload::Content;

use super::clock::millis;
use crate::broker::Version;
use crate::history::Retention;

const PUBLISH: u8 = 1;
const KEPT: u8 = 2;
const STREAM: u8 = 3;
const REMOVE: u8 = 4;
const POSITION: u8 = 5;
const CLEAN: u8 = 6;

/// Bytes of a record's length.
const LENGTH: usize = size_of::<u32>();

/// Flags of an entry. The two lowest bits are the payload's kind.
const DELTA: u8 = 1 << 2;
const EXTRA: u8 = 1 << 3;
/// Flags of a publish's terms.
const KEY: u8 = 1;
const VERSION: u8 = 2;

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::embedded) enum Record<'a> {
    /// A publication, with what came of it for its channel.
    Publish(Entry<'a>, Terms<'a>),
    /// A publication of a snapshot, behind its channel's [`Record::Stream`].
    Kept(Entry<'a>),
    /// All that is known of a channel but its publications: it replaces whatever was said before.
    Stream(State<'a>),
    /// The channel's publications up to this offset were removed.
    Remove(Place<'a>),
    /// A channel's position exists, or lives longer: until then at least.
    Position(Place<'a>, u64),
    /// The file ends here in good order: the node was stopped, or the snapshot is whole. Counts only as the last
    /// record.
    Clean,
}

/// A place in the numbering of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) struct Place<'a> {
    pub(in crate::embedded) channel: &'a str,
    pub(in crate::embedded) epoch: &'a str,
    pub(in crate::embedded) offset: u64,
}

/// A publication.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::embedded) struct Entry<'a> {
    pub(in crate::embedded) place: Place<'a>,
    pub(in crate::embedded) kind: Content,
    pub(in crate::embedded) delta: bool,
    pub(in crate::embedded) data: &'a [u8],
    /// Publisher and tags as a Protobuf `Publication` of the client protocol; empty where there are none.
    pub(in crate::embedded) extra: &'a [u8],
}

/// On which terms something was published.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::embedded) struct Terms<'a> {
    pub(in crate::embedded) unix_ms: u64,
    pub(in crate::embedded) retention: Retention,
    pub(in crate::embedded) idempotency_key: Option<&'a str>,
    pub(in crate::embedded) version: Option<(u64, &'a str)>,
}

/// A channel without its publications.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::embedded) struct State<'a> {
    /// The end of its numbering.
    pub(in crate::embedded) top: Place<'a>,
    pub(in crate::embedded) publications_until: u64,
    pub(in crate::embedded) until: u64,
    pub(in crate::embedded) version: (u64, &'a str),
    /// Idempotency keys: until when, the key, the offset that it came to.
    pub(in crate::embedded) answered: Vec<(u64, &'a str, u64)>,
}

/// Bytes that are no record, though their block's checksum is right: a fault, or a later version has written them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record that cannot be read")]
pub(super) struct Malformed;

impl Record<'_> {
    /// Appends the record's bytes, which are fewer than 4 GiB: a publication is bounded far below that.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(0);
        match self {
            Self::Publish(entry, terms) => {
                out.push(PUBLISH);
                entry.encode(out);
                terms.encode(out);
            }
            Self::Kept(entry) => {
                out.push(KEPT);
                entry.encode(out);
            }
            Self::Stream(state) => {
                out.push(STREAM);
                state.encode(out);
            }
            Self::Remove(place) => {
                out.push(REMOVE);
                place.encode(out);
            }
            Self::Position(place, until) => {
                out.push(POSITION);
                place.encode(out);
                encode_varint(*until, out);
            }
            Self::Clean => out.push(CLEAN),
        }
        let length = (out.len() - start - LENGTH) as u32;
        if let Some(place) = out.get_mut(start..start + LENGTH) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// A record that was not read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    /// Bytes of the record, its length included.
    pub(super) length: usize,
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The record at the beginning of `bytes`; moves `bytes` behind it.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn next(bytes: &mut &'a [u8]) -> Result<Self, Malformed> {
        let (length, behind) = bytes.split_first_chunk().ok_or(Malformed)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Malformed)?;
        let (record, behind) = behind.split_at_checked(length).ok_or(Malformed)?;
        let (kind, rest) = record.split_first().ok_or(Malformed)?;
        *bytes = behind;
        Ok(Self { length: LENGTH + length, kind: *kind, rest })
    }

    /// The name of its channel; empty where it has none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn channel(&self) -> Result<&'a [u8], Malformed> {
        if self.kind == CLEAN { Ok(&[]) } else { Input(self.rest).bytes() }
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self) -> Result<Record<'a>, Malformed> {
        let mut input = Input(self.rest);
        let record = match self.kind {
            PUBLISH => Record::Publish(Entry::decode(&mut input)?, Terms::decode(&mut input)?),
            KEPT => Record::Kept(Entry::decode(&mut input)?),
            STREAM => Record::Stream(State::decode(&mut input)?),
            REMOVE => Record::Remove(Place::decode(&mut input)?),
            POSITION => Record::Position(Place::decode(&mut input)?, input.number()?),
            CLEAN => Record::Clean,
            _ => return Err(Malformed),
        };
        if input.0.is_empty() { Ok(record) } else { Err(Malformed) }
    }
}

impl<'a> Place<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put(self.channel.as_bytes(), out);
        put(self.epoch.as_bytes(), out);
        encode_varint(self.offset, out);
    }

    fn decode(input: &mut Input<'a>) -> Result<Self, Malformed> {
        Ok(Self { channel: input.text()?, epoch: input.text()?, offset: input.number()? })
    }
}

impl<'a> Entry<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            Content::Json => 0,
            Content::Text => 1,
            Content::Binary => 2,
        };
        let flag = |set, flag| if set { flag } else { 0 };
        self.place.encode(out);
        out.push(kind | flag(self.delta, DELTA) | flag(!self.extra.is_empty(), EXTRA));
        put(self.data, out);
        if !self.extra.is_empty() {
            put(self.extra, out);
        }
    }

    fn decode(input: &mut Input<'a>) -> Result<Self, Malformed> {
        let place = Place::decode(input)?;
        let flags = input.byte()?;
        let kind = match flags & 0b11 {
            0 => Content::Json,
            1 => Content::Text,
            2 => Content::Binary,
            _ => return Err(Malformed),
        };
        let data = input.bytes()?;
        let extra = if flags & EXTRA > 0 { input.bytes()? } else { &[] };
        Ok(Self { place, kind, delta: flags & DELTA > 0, data, extra })
    }
}

impl<'a> Terms<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let Retention { size, ttl, meta_ttl } = self.retention;
        let flag = |set, flag| if set { flag } else { 0 };
        out.push(flag(self.idempotency_key.is_some(), KEY) | flag(self.version.is_some(), VERSION));
        for number in [self.unix_ms, size.into(), millis(ttl), millis(meta_ttl)] {
            encode_varint(number, out);
        }
        if let Some(key) = self.idempotency_key {
            put(key.as_bytes(), out);
        }
        if let Some((number, epoch)) = self.version {
            encode_varint(number, out);
            put(epoch.as_bytes(), out);
        }
    }

    fn decode(input: &mut Input<'a>) -> Result<Self, Malformed> {
        let flags = input.byte()?;
        let unix_ms = input.number()?;
        let size = u32::try_from(input.number()?).map_err(|_| Malformed)?;
        let (ttl, meta_ttl) = (Duration::from_millis(input.number()?), Duration::from_millis(input.number()?));
        let idempotency_key = if flags & KEY > 0 { Some(input.text()?) } else { None };
        let version = if flags & VERSION > 0 { Some((input.number()?, input.text()?)) } else { None };
        Ok(Self { unix_ms, retention: Retention { size, ttl, meta_ttl }, idempotency_key, version })
    }
}

impl<'a> State<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.top.encode(out);
        for number in [self.publications_until, self.until, self.version.0] {
            encode_varint(number, out);
        }
        put(self.version.1.as_bytes(), out);
        encode_varint(self.answered.len() as u64, out);
        for (until, key, offset) in &self.answered {
            encode_varint(*until, out);
            put(key.as_bytes(), out);
            encode_varint(*offset, out);
        }
    }

    fn decode(input: &mut Input<'a>) -> Result<Self, Malformed> {
        let top = Place::decode(input)?;
        let (publications_until, until) = (input.number()?, input.number()?);
        let version = (input.number()?, input.text()?);
        let mut answered = Vec::new();
        // The count is not trusted with an allocation: each key takes bytes that have to be there.
        for _ in 0..input.number()? {
            answered.push((input.number()?, input.text()?, input.number()?));
        }
        Ok(Self { top, publications_until, until, version, answered })
    }
}

impl<'a> From<&'a Version> for (u64, &'a str) {
    fn from(version: &'a Version) -> Self {
        (version.number, &version.epoch)
    }
}

fn put(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, Malformed> {
        // Most are short.
        if let Some((first, rest)) = self.0.split_first().filter(|(first, _)| **first < 0x80) {
            self.0 = rest;
            return Ok(u64::from(*first));
        }
        decode_varint(&mut self.0).map_err(|_| Malformed)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    #[inline]
    fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// A record with everything that it borrows.
    #[derive(Debug, Clone)]
    struct Owned {
        what: u8,
        texts: [String; 4],
        numbers: [u64; 4],
        size: u32,
        kind: Content,
        delta: bool,
        data: Vec<u8>,
        extra: Vec<u8>,
        conditions: (bool, bool),
        answered: Vec<(u64, String, u64)>,
    }

    impl Owned {
        fn record(&self) -> Record<'_> {
            let [a, b, c, d] = self.numbers;
            let place = Place { channel: &self.texts[0], epoch: &self.texts[1], offset: a };
            let entry = Entry { place, kind: self.kind, delta: self.delta, data: &self.data, extra: &self.extra };
            let ttl = Duration::from_millis;
            let terms = Terms {
                unix_ms: b,
                retention: Retention { size: self.size, ttl: ttl(c), meta_ttl: ttl(d) },
                idempotency_key: self.conditions.0.then_some(&*self.texts[2]),
                version: self.conditions.1.then_some((c, &*self.texts[3])),
            };
            let answered = self.answered.iter().map(|(until, key, offset)| (*until, &**key, *offset)).collect();
            let state = State { top: place, publications_until: b, until: c, version: (d, &self.texts[3]), answered };
            match self.what {
                PUBLISH => Record::Publish(entry, terms),
                KEPT => Record::Kept(entry),
                STREAM => Record::Stream(state),
                REMOVE => Record::Remove(place),
                POSITION => Record::Position(place, b),
                _ => Record::Clean,
            }
        }
    }

    prop_compose! {
        fn owned()(
            what in PUBLISH..=CLEAN,
            texts in [".{0,8}", ".{0,8}", ".{0,8}", ".{0,8}"],
            numbers in [any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()],
            size in any::<u32>(),
            kind in prop_oneof![Just(Content::Json), Just(Content::Text), Just(Content::Binary)],
            delta in any::<bool>(),
            data in vec(any::<u8>(), 0..64),
            extra in option::of(vec(any::<u8>(), 0..32)),
            conditions in any::<(bool, bool)>(),
            answered in vec((any::<u64>(), ".{0,8}", any::<u64>()), 0..3),
        ) -> Owned {
            let extra = extra.unwrap_or_default();
            Owned { what, texts, numbers, size, kind, delta, data, extra, conditions, answered }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_one_behind_the_other(records in vec(owned(), 0..8)) {
            let mut bytes = Vec::new();
            records.iter().for_each(|owned| owned.record().encode(&mut bytes));
            let mut rest = &bytes[..];
            for owned in &records {
                let raw = Raw::next(&mut rest).unwrap();
                let record = owned.record();
                let channel = if record == Record::Clean { "" } else { &owned.texts[0] };
                prop_assert_eq!(raw.channel().unwrap(), channel.as_bytes());
                prop_assert_eq!(raw.read().unwrap(), record);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_part_of_a_record_is_one(owned in owned()) {
            let mut bytes = Vec::new();
            owned.record().encode(&mut bytes);
            for end in 0..bytes.len() {
                prop_assert!(Raw::next(&mut &bytes[..end]).is_err());
                // Nor is one whose length says so.
                if end > LENGTH {
                    let mut short = bytes[..end].to_vec();
                    short[..LENGTH].copy_from_slice(&((end - LENGTH) as u32).to_le_bytes());
                    prop_assert_eq!(Raw::next(&mut &short[..]).unwrap().read(), Err(Malformed));
                }
            }
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in vec(any::<u8>(), 0..256)) {
            let mut rest = &bytes[..];
            while let Ok(raw) = Raw::next(&mut rest) {
                let _ = (raw.channel(), raw.read());
            }
            let whole = Raw { length: bytes.len(), kind: bytes.first().copied().unwrap_or_default() % 8, rest: &bytes };
            let _ = (whole.channel(), whole.read());
        }
    }
}
