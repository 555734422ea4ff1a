//! The settings as types, one file per group, each with its defaults.
//!
//! A field's path is its place in [`Config`]: `client.ping_interval` is `config.client.ping_interval`.
//! What a key means, its bounds and how it compares with the incumbent's stands in the key table
//! ([`super::keys`]); a test holds that the two list the same keys.

mod channel;
mod client;
mod engine;
mod node;
mod server;

pub use channel::{
    ChannelConfig, ChannelOptions, ChannelRegex, DELTA_FOSSIL, DataFormat, Namespace, QueuePolicy, RecoveryMode,
};
pub use client::Client;
pub use engine::{Embedded, Engine, EngineType, FsyncPolicy, RedisEngine, RedisPublish};
pub use node::{Log, LogLevel, Memory, Node, Shutdown};
pub use server::{Demo, Health, HttpApi, HttpServer, Prometheus, TcpServer, WebSocket};

use serde::{Deserialize, Serialize};

/// Every setting of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP listeners: clients' and operators'.
    pub http_server: HttpServer,
    /// The listener for raw TCP clients.
    pub tcp_server: TcpServer,
    /// Logs.
    pub log: Log,
    /// Where messages come from.
    pub engine: Engine,
    /// What the embedded broker keeps.
    pub embedded: Embedded,
    /// What plain Redis `PUBLISH` uses.
    pub redis_publish: RedisPublish,
    /// Number of shards (threads that own sessions); 0 is one per core.
    pub shards: usize,
    /// Client connections.
    pub client: Client,
    /// Channels and namespaces.
    pub channel: ChannelConfig,
    /// The WebSocket transport.
    pub websocket: WebSocket,
    /// The server API over HTTP.
    pub http_api: HttpApi,
    /// Health endpoints.
    pub health: Health,
    /// The metrics page.
    pub prometheus: Prometheus,
    /// The demo page.
    pub demo: Demo,
    /// Memory pressure.
    pub memory: Memory,
    /// How the node stops.
    pub shutdown: Shutdown,
    /// The node itself.
    pub node: Node,
}
