//! Where messages come from.
//!
//! - [`publication`]: one message on its way to sessions, and how its payload is classified;
//! - [`broker`]: the interface that the gateway sees, and the errors it can answer with;
//! - [`inbox`]: how a broker hands what it received to a shard;
//! - [`interest`]: which shards want which channel.

pub mod broker;
pub mod inbox;
pub mod interest;
pub mod publication;

pub use broker::{Broker, BrokerError, BrokerHealth, PublishFuture, PublishRequest, Published};
pub use inbox::{Event, ShardInbox};
pub use interest::{Interest, InterestMap, ShardId, ShardSet};
pub use publication::{Channel, Payload, PayloadKind, Publication};
