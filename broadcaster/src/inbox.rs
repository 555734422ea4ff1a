//! How a broker hands to a shard what it received.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::broker::BrokerError;
use crate::publication::{Channel, Publication};

/// What a broker tells a shard.
#[derive(Debug, Clone)]
pub enum Event {
    /// Publications in the order in which the broker delivered them.
    Publications(Vec<Arc<Publication>>),
    /// The answer to a [`crate::Broker::subscribe`] that was pending. After an error the
    /// shard's interest is gone: a later subscribe starts anew.
    ///
    /// [`crate::Broker::unsubscribe`] takes a pending answer back, unless it stands in the inbox
    /// already. So a shard ignores an answer to a channel that it does not wait for, and calls
    /// unsubscribe after an error if it has asked for the channel again since.
    ///
    /// An error may come unasked: the broker refuses a channel that was live, because its access
    /// lists have changed while it was away. The shard's interest is gone then as well.
    Subscribed {
        /// The channel.
        channel: Channel,
        /// Whether it is live.
        result: Result<(), BrokerError>,
    },
    /// A connection to the broker was lost and is whole again: publications may have been missed. Whoever watches
    /// positions compares them now.
    Resumed,
    /// As [`Event::Resumed`], of one channel: it was not live for a while, because it has moved to another server.
    ChannelResumed(Channel),
}

/// A shard, as a broker sees it.
///
/// A push never waits, so that order is kept without a queue in between; whoever pushes
/// looks at [`ShardInbox::has_room`] after a burst and waits for [`ShardInbox::room`]
/// before it reads on: that is how back-pressure reaches the broker's socket.
pub trait ShardInbox: Send + Sync + 'static {
    /// Puts an event into the inbox and wakes the shard.
    fn push(&self, event: Event);

    /// Whether the inbox is below its bound.
    fn has_room(&self) -> bool;

    /// Waits until the inbox is below its bound.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
