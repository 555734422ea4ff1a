//! Where messages come from.
//!
//! - [`publication`]: one message on its way to sessions;
//! - [`broker`]: the interface that the gateway sees, and the errors it can answer with;
//! - [`inbox`]: how a broker hands what it received to a shard;
//! - [`interest`]: which shards want which channel;
//! - [`dispatch`]: from a burst of publications to the shards that want them;
//! - [`stats`]: what a broker counts;
//! - [`presence`]: who is in a channel, and who comes and goes;
//! - [`history`]: what a channel keeps, and whether a reader has missed any of it;
//! - [`embedded`]: the broker of a node that stands alone;
//! - [`redis`]: the broker on Redis: a server, a cluster, or what Sentinels watch;
//! - [`envelope`]: what Tidegate puts into a Redis message, and how it reads what anyone put there.

#![forbid(unsafe_code)]

pub mod broker;
pub mod dispatch;
pub mod embedded;
pub mod envelope;
pub mod history;
pub mod inbox;
pub mod interest;
#[cfg(feature = "internals")]
pub use redis::internals;
pub mod presence;
pub mod publication;
pub mod redis;
pub mod stats;

pub use broker::{
    Answer, Broker, BrokerError, BrokerHealth, HistoryFuture, PublishFuture, PublishRequest, Published, Version,
};
pub use dispatch::{Dispatcher, Inboxes};
pub use embedded::EmbeddedBroker;
pub use embedded::log::{Fsync, LogError, LogSettings, LogStats};
pub use history::{History, HistoryQuery, Position, Retention};
pub use inbox::{Event, ShardInbox};
pub use interest::{Interest, InterestMap, ShardId, ShardSet};
pub use presence::{Attendance, Change, Presence, PresenceStats};
pub use publication::{Channel, Payload, Publication, PushKind};
pub use redis::{RedisBroker, RedisSettings, Servers};
pub use stats::BrokerStats;
pub use tidegate_protocol::codec::payload::Content;
