//! A message on its way from a backend to the sessions of one node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidegate_protocol::codec::payload::{Content, classify};
use tidegate_protocol::message::ClientInfo;

/// A channel's name, shared by everything on the node that refers to the channel.
pub type Channel = Arc<str>;

impl Publication {
    /// Tells that a client has come or gone.
    pub fn attendance(channel: Channel, kind: PushKind, info: Arc<ClientInfo>, received: Instant) -> Self {
        Self {
            channel,
            kind,
            payload: Payload { data: Bytes::new(), kind: Content::Text },
            offset: 0,
            epoch: Arc::default(),
            info: Some(info),
            tags: BTreeMap::new(),
            delta: false,
            is_late: false,
            received,
        }
    }
}

/// A payload with its kind. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes as they were published; Protobuf clients receive exactly these.
    pub data: Bytes,
    /// What the bytes are.
    pub kind: Content,
}

impl Payload {
    /// Finds out what the bytes are: one pass over them, or two where they may be JSON.
    pub fn new(data: Bytes) -> Self {
        Self { kind: classify(&data), data }
    }
}

/// What subscribers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushKind {
    /// A publication.
    #[default]
    Publication,
    /// A client has come into the channel: [`Publication::info`] says who. It goes to those who asked for that.
    Join,
    /// A client has left the channel, likewise.
    Leave,
}

/// One message for every subscriber of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The channel.
    pub channel: Channel,
    /// What it is. Whoever comes or goes has no data and no place in the history.
    pub kind: PushKind,
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
    /// It may be sent as a delta to the publication before, to those who asked for that.
    pub delta: bool,
    /// When it came, it was older than [`crate::redis::RedisSettings::max_time_lag`].
    pub is_late: bool,
    /// When the node received it: where the publish-to-socket latency starts.
    pub received: Instant,
}
