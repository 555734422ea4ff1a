//! What the API asks the node.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;

use super::pattern::Pattern;

/// What a node says about itself, in the shape of the API's `info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeInfo {
    /// The node's own identifier, new at each start.
    pub uid: String,
    /// Its configured name.
    pub name: String,
    /// Tidegate's version.
    pub version: String,
    /// Sessions.
    pub num_clients: u64,
    /// Different users among them; all anonymous ones count as one.
    pub num_users: u64,
    /// Channels with at least one subscriber.
    pub num_channels: u64,
    /// Subscriptions.
    pub num_subs: u64,
    /// Seconds since the start.
    pub uptime: u64,
}

/// Channels with their number of subscribers.
pub type ChannelCounts = BTreeMap<String, u64>;

/// The node could not say; why, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node could not be asked: {0}")]
pub struct ViewError(pub String);

/// The answer to a question whose answer the shards have to be asked for.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, ViewError>> + Send>>;

/// The node as the API sees it.
pub trait NodeView: Send + Sync + 'static {
    /// The node's figures now.
    fn info(&self) -> NodeInfo;

    /// The channels that match (all without a pattern), each with its number of subscribers over all shards.
    fn channels(&self, pattern: Option<Pattern>) -> Asked<ChannelCounts>;
}
