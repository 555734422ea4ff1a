//! A message on its way from a backend to the sessions of one node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidegate_protocol::message::ClientInfo;

/// A channel's name, shared by everything on the node that refers to the channel.
pub type Channel = Arc<str>;

/// What a payload is, decided once per node when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// Valid JSON: passed through to JSON clients as it is.
    Json,
    /// UTF-8 that is not JSON: JSON clients receive it as a JSON string.
    Text,
    /// Neither: only Protobuf clients can receive it.
    Binary,
}

/// A payload with its kind. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes as they were published; Protobuf clients receive exactly these.
    pub data: Bytes,
    /// What the bytes are.
    pub kind: PayloadKind,
}

/// One message for every subscriber of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The channel.
    pub channel: Channel,
    /// The data.
    pub payload: Payload,
    /// Position in the channel's history, from 1; 0 where the channel keeps none.
    pub offset: u64,
    /// The history's epoch; empty where the channel keeps none.
    pub epoch: Arc<str>,
    /// The publisher, where a client published.
    pub info: Option<Arc<ClientInfo>>,
    /// Tags, for filters.
    pub tags: BTreeMap<String, String>,
    /// When the node received it: where the publish-to-socket latency starts.
    pub received: Instant,
}
