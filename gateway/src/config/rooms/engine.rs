//! Where messages come from.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::units;

/// `engine`: which broker carries messages between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Which broker.
    #[serde(rename = "type")]
    pub kind: EngineType,
    /// Redis, where `type` says so.
    pub redis: RedisEngine,
}

/// `engine.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineType {
    /// The embedded broker: this node alone.
    #[default]
    Memory,
    /// Redis (or Valkey): any number of nodes.
    Redis,
}

/// `engine.redis`: the connection to Redis.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisEngine {
    /// Addresses, as `redis://[user[:password]@]host[:port][/db]`; at present exactly one. Does not count where one of
    /// the two following is given.
    pub address: Vec<String>,
    /// Addresses of some nodes of a cluster.
    pub cluster_address: Vec<String>,
    /// Largest number of the cluster's masters.
    pub cluster_max_masters: usize,
    /// Whether a cluster is subscribed to and published to with sharded pub/sub.
    pub sharded_pub_sub: bool,
    /// Addresses of Sentinels.
    pub sentinel_address: Vec<String>,
    /// Name under which they watch the master.
    pub sentinel_master_name: String,
    /// User for the Sentinels; counts before one in their addresses.
    pub sentinel_user: String,
    /// Password for the Sentinels; counts before one in their addresses.
    pub sentinel_password: String,
    /// How often the cluster or the Sentinels are asked for the servers though nothing has happened.
    #[serde(with = "units::duration")]
    pub topology_interval: Duration,
    /// What the names of the keys begin with that the gateway itself uses.
    pub prefix: String,
    /// Number of the database, where the address names none.
    pub db: u8,
    /// User, where the address names none.
    pub user: String,
    /// Password, where the address names none.
    pub password: String,
    /// How long connecting may take.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// How long an answer may take.
    #[serde(with = "units::duration")]
    pub io_timeout: Duration,
    /// How long the clients of a node count as present after it was last heard of.
    #[serde(with = "units::duration")]
    pub presence_ttl: Duration,
}

impl fmt::Debug for RedisEngine {
    /// Leaves out the addresses, which may hold a password, and the passwords, so that no log shows them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RedisEngine");
        shown.field("sharded_pub_sub", &self.sharded_pub_sub).field("sentinel_master_name", &self.sentinel_master_name);
        shown.field("prefix", &self.prefix).field("db", &self.db).field("user", &self.user);
        shown.field("connect_timeout", &self.connect_timeout).field("io_timeout", &self.io_timeout);
        shown.finish_non_exhaustive()
    }
}

impl Default for RedisEngine {
    fn default() -> Self {
        Self {
            address: vec!["redis://127.0.0.1:6379".to_owned()],
            cluster_address: Vec::new(),
            cluster_max_masters: 32,
            sharded_pub_sub: true,
            sentinel_address: Vec::new(),
            sentinel_master_name: String::new(),
            sentinel_user: String::new(),
            sentinel_password: String::new(),
            topology_interval: Duration::from_secs(5),
            prefix: "tidegate".to_owned(),
            db: 0,
            user: String::new(),
            password: String::new(),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
            presence_ttl: Duration::from_secs(60),
        }
    }
}

/// `redis_publish`: what a backend's plain `PUBLISH` uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisPublish {
    /// A message for the channel `news` is published to this prefix and `news`.
    pub prefix: String,
    /// Longest payload, in bytes; a longer one is dropped and counted.
    pub max_payload: usize,
}

impl Default for RedisPublish {
    fn default() -> Self {
        Self { prefix: "push:".to_owned(), max_payload: 1 << 20 }
    }
}

/// `embedded`: what the embedded broker keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Embedded {
    /// Directory of the log that histories come back from after a restart; empty keeps them in memory alone.
    pub path: String,
    /// When what was written to the log is made durable.
    pub fsync: FsyncPolicy,
    /// How often, where `fsync` is `interval`.
    #[serde(with = "units::duration")]
    pub fsync_interval: Duration,
    /// Bytes of a file of the log.
    pub segment_size: u64,
    /// The log is rewritten when it has more than so many times the bytes of what it keeps.
    pub compaction_ratio: u32,
    /// Bytes that may wait to be written to the log.
    pub max_pending: usize,
    /// Bytes of memory that histories take at most.
    pub history_memory_limit: usize,
}

/// `embedded.fsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsyncPolicy {
    /// Before a publish is answered and delivered.
    Always,
    /// Every `fsync_interval`.
    #[default]
    Interval,
    /// When the system thinks fit.
    Never,
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            path: String::new(),
            fsync: FsyncPolicy::default(),
            fsync_interval: Duration::from_secs(1),
            segment_size: 64 << 20,
            compaction_ratio: 2,
            max_pending: 16 << 20,
            history_memory_limit: 512 << 20,
        }
    }
}
