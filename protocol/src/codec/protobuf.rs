//! The Protobuf form: each message behind its length.
//!
//! Decoding is prost's own, in `codec/mod.rs`: it holds every length against the bytes that are there and nests at
//! most 100 messages.

use prost::Message;
use prost::encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::PublicationParts;
/// Field numbers on the way to a publication, from `proto/client.proto`.
mod field {
    pub(super) const REPLY_PUSH: u32 = 4;
    pub(super) const PUSH_CHANNEL: u32 = 2;
    pub(super) const PUSH_PUB: u32 = 4;
    pub(super) const PUB_DATA: u32 = 4;
    pub(super) const PUB_INFO: u32 = 5;
    pub(super) const PUB_OFFSET: u32 = 6;
    pub(super) const PUB_TAGS: u32 = 7;
    pub(super) const PUB_DELTA: u32 = 8;
    pub(super) const PUB_EPOCH: u32 = 14;
    pub(super) const MAP_KEY: u32 = 1;
    pub(super) const MAP_VALUE: u32 = 2;
}

/// Appends a message behind its length.
pub(super) fn encode(message: &impl Message, out: &mut Vec<u8>) {
    encode_varint(message.encoded_len() as u64, out);
    message.encode_raw(out);
}

/// Appends the reply that carries one publication.
pub(super) fn encode_publication(parts: &PublicationParts<'_>, out: &mut Vec<u8>) {
    let publication = publication_len(parts);
    let push = delimited_len(field::PUSH_CHANNEL, parts.channel.len()) + nested_len(field::PUSH_PUB, publication);
    let reply = nested_len(field::REPLY_PUSH, push);

    out.reserve(encoded_len_varint(reply as u64) + reply);
    encode_varint(reply as u64, out);
    put_length(field::REPLY_PUSH, push, out);
    put_delimited(field::PUSH_CHANNEL, parts.channel.as_bytes(), out);
    put_length(field::PUSH_PUB, publication, out);
    put_delimited(field::PUB_DATA, parts.data, out);
    if let Some(info) = parts.info {
        encoding::message::encode(field::PUB_INFO, info, out);
    }
    if parts.offset != 0 {
        encoding::uint64::encode(field::PUB_OFFSET, &parts.offset, out);
    }
    for (key, value) in parts.tags {
        put_length(field::PUB_TAGS, tag_len(key, value), out);
        put_delimited(field::MAP_KEY, key.as_bytes(), out);
        put_delimited(field::MAP_VALUE, value.as_bytes(), out);
    }
    if parts.delta {
        encoding::bool::encode(field::PUB_DELTA, &true, out);
    }
    put_delimited(field::PUB_EPOCH, parts.epoch.as_bytes(), out);
}

/// Bytes of the publication's body.
fn publication_len(parts: &PublicationParts<'_>) -> usize {
    let mut length =
        delimited_len(field::PUB_DATA, parts.data.len()) + delimited_len(field::PUB_EPOCH, parts.epoch.len());
    if let Some(info) = parts.info {
        length += encoding::message::encoded_len(field::PUB_INFO, info);
    }
    if parts.offset != 0 {
        length += encoding::uint64::encoded_len(field::PUB_OFFSET, &parts.offset);
    }
    if parts.delta {
        length += encoding::bool::encoded_len(field::PUB_DELTA, &true);
    }
    for (key, value) in parts.tags {
        length += nested_len(field::PUB_TAGS, tag_len(key, value));
    }
    length
}

/// Bytes of one entry of the tags.
fn tag_len(key: &str, value: &str) -> usize {
    delimited_len(field::MAP_KEY, key.len()) + delimited_len(field::MAP_VALUE, value.len())
}

/// Bytes of a message of `length` bytes within another: present even when empty.
fn nested_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

/// Bytes of a string or bytes field: left out when empty.
fn delimited_len(tag: u32, length: usize) -> usize {
    if length == 0 { 0 } else { nested_len(tag, length) }
}

/// Appends the key and the length of what follows.
fn put_length(tag: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Appends a string or bytes field, if it is not empty.
fn put_delimited(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_length(tag, bytes.len(), out);
        out.extend_from_slice(bytes);
    }
}
