//! The session: one client's state machine. Pure: commands and time in, outcomes out.
//!
//! - here: the state, the order of commands, and the commands that need nobody else;
//! - [`connect`], [`channels`], [`history`], [`presence`]: the commands that need settings or the hub;
//! - [`wishes`]: what a subscription asks for beyond live publications;
//! - [`heartbeat`]: pings, pongs and deadlines;
//! - [`settings`]: what sessions are allowed.
//!
//! A session is plain data, a few dozen bytes: it holds no buffer, no timer and no socket.
//!
//! # Order
//!
//! Commands take effect in the order in which they came. Two kinds wait for the broker, and
//! commands of one kind may be under way together, so that a client which restores a hundred
//! subscriptions needs one round trip and not a hundred. What must not overtake waits
//! ([`Session::must_wait`]): a publish for the subscribes before it, a subscribe for the publishes
//! before it, an unsubscribe for the subscribe of its own channel.

pub mod channels;
pub mod connect;
pub mod heartbeat;
pub mod history;
pub mod presence;
pub mod settings;
pub mod wishes;

use tidegate_broadcaster::{HistoryQuery, Retention};
use tidegate_protocol::code::{DisconnectCode, ErrorCode};
use tidegate_protocol::message::{
    Command, Publication, PublishResult, RefreshResult, Reply, SubscribeResult, UnsubscribeResult,
};
use uuid::Uuid;

use crate::hub::{ChannelId, Hub};
use crate::shard::wheel::Tick;
use heartbeat::Heartbeat;
use presence::Question;
use settings::Settings;
pub use wishes::Wishes;

/// Publishes and questions of one session that may wait for the broker together. What comes behind them
/// is not read: TCP tells the client to slow down.
const MAX_PENDING_CALLS: u16 = 64;

/// What stands between the namespace and the rest of an RPC method (`rpc.namespace_boundary`).
const RPC_BOUNDARY: char = ':';

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing but a connect command is allowed.
    New,
    /// Connected.
    Connected,
}

/// A session's end of a subscription. The other one is [`crate::hub::Subscriber`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The channel.
    pub channel: ChannelId,
    /// The place in the channel's list of subscribers; `None` until the broker has confirmed.
    position: u32,
}

impl Subscription {
    const PENDING: u32 = u32::MAX;

    /// The place in the channel's list of subscribers; `None` until the broker has confirmed.
    pub fn position(&self) -> Option<u32> {
        (self.position != Self::PENDING).then_some(self.position)
    }
}

/// One client.
#[derive(Debug)]
pub struct Session {
    state: State,
    client: Uuid,
    user: Box<str>,
    subscriptions: Vec<Subscription>,
    pending_subscribes: u16,
    pending_calls: u16,
    /// Pings, pongs, deadlines.
    pub heartbeat: Heartbeat,
}

/// What a session can see while it handles a command.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is allowed.
    pub settings: &'a Settings,
    /// The shard's channels.
    pub hub: &'a Hub,
    /// The time.
    pub now: Tick,
    /// The time of day in milliseconds since 1970, for clients that want it.
    pub unix_ms: i64,
    /// Random bits, for the jitter of the first ping.
    pub random: u64,
    /// An id that no other session has, for a session that connects.
    pub fresh_id: Uuid,
}

/// What handling a command came to.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "moved once, from the session to the shard's turn")]
pub enum Outcome {
    /// The answer is here.
    Reply(Reply),
    /// The session is connected; the answer is here.
    Connected(Reply),
    /// A pong; `true`: later than the lag threshold.
    Pong(bool),
    /// To be subscribed.
    Subscribe {
        /// The command.
        id: u32,
        /// The channel: the session has checked that it may.
        channel: String,
        /// What it asks for beyond live publications.
        wishes: Option<Box<Wishes>>,
    },
    /// To be unsubscribed, then answered.
    Unsubscribe {
        /// The command.
        id: u32,
        /// The session's subscription, if it has one.
        channel: Option<ChannelId>,
    },
    /// To be published.
    Publish {
        /// The command.
        id: u32,
        /// The channel.
        channel: String,
        /// Data and publisher.
        publication: Publication,
        /// What the channel keeps.
        retention: Option<Retention>,
    },
    /// To be read from the broker.
    History {
        /// The command.
        id: u32,
        /// The channel.
        channel: String,
        /// What of it.
        query: HistoryQuery,
        /// The epoch that the client has; empty where it has none.
        epoch: String,
    },
    /// To be asked of the broker.
    Presence {
        /// The command.
        id: u32,
        /// The channel.
        channel: String,
        /// What about it.
        question: Question,
    },
    /// The connection ends.
    Disconnect(DisconnectCode),
}

/// A reply without a body.
pub fn reply(id: u32) -> Reply {
    Reply { id, ..Reply::default() }
}

/// A reply that says what is wrong.
pub fn error_reply(id: u32, code: ErrorCode) -> Reply {
    Reply { error: Some(code.into()), ..reply(id) }
}

/// The reply to a subscribe that succeeded.
pub fn subscribe_reply(id: u32) -> Reply {
    Reply { subscribe: Some(SubscribeResult::default()), ..reply(id) }
}

/// The reply to an unsubscribe.
pub fn unsubscribe_reply(id: u32) -> Reply {
    Reply { unsubscribe: Some(UnsubscribeResult::default()), ..reply(id) }
}

/// The reply to a publish that succeeded.
pub fn publish_reply(id: u32) -> Reply {
    Reply { publish: Some(PublishResult::default()), ..reply(id) }
}

impl Session {
    /// A session whose transport is open since `now`. `frame_pings`: pings are the transport's.
    pub fn new(now: Tick, frame_pings: bool) -> Self {
        Self {
            state: State::New,
            client: Uuid::nil(),
            user: Box::default(),
            subscriptions: Vec::new(),
            pending_subscribes: 0,
            pending_calls: 0,
            heartbeat: Heartbeat::new(now, frame_pings),
        }
    }

    /// Where the session is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// The client's id; nil before it is connected.
    pub fn client(&self) -> Uuid {
        self.client
    }

    /// The user; empty for an anonymous one.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The subscriptions, those that wait for the broker included.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// Handles a command. [`Session::must_wait`] has been asked before.
    pub fn handle(&mut self, command: Command, view: &View<'_>) -> Outcome {
        let id = command.id;
        if self.state == State::New {
            return match command.connect {
                Some(request) if id != 0 => self.connect(id, &request, view),
                _ => Outcome::Disconnect(DisconnectCode::BadRequest),
            };
        }
        // The first request that is set counts, in this order; its members are the reference's.
        if command.send.is_some() && first_is_send(&command) {
            return Outcome::Disconnect(DisconnectCode::NotAvailable);
        }
        if id == 0 {
            return self.pong(view);
        }
        if command.connect.is_some() {
            Outcome::Disconnect(DisconnectCode::BadRequest)
        } else if let Some(request) = command.subscribe {
            self.subscribe(id, request, view)
        } else if let Some(request) = command.unsubscribe {
            self.unsubscribe(id, &request, view)
        } else if let Some(request) = command.publish {
            self.publish(id, request, view)
        } else if let Some(request) = command.presence {
            self.presence(id, request.channel, Question::Members, view)
        } else if let Some(request) = command.presence_stats {
            self.presence(id, request.channel, Question::Numbers, view)
        } else if let Some(request) = command.history {
            self.history(id, request, view)
        } else if let Some(request) = command.rpc {
            // No method is served yet; one with a namespace names one that does not exist.
            let unknown = request.method.contains(RPC_BOUNDARY);
            let code = if unknown { ErrorCode::MethodNotFound } else { ErrorCode::NotAvailable };
            Outcome::Reply(error_reply(id, code))
        } else if let Some(request) = command.refresh {
            // There are no tokens yet, so none can be valid, except where nothing is checked.
            match (request.token.is_empty(), view.settings.insecure) {
                (true, _) => Outcome::Disconnect(DisconnectCode::BadRequest),
                (false, false) => Outcome::Disconnect(DisconnectCode::InvalidToken),
                (false, true) => {
                    let refresh = RefreshResult { client: self.client.to_string(), ..RefreshResult::default() };
                    Outcome::Reply(Reply { refresh: Some(refresh), ..reply(id) })
                }
            }
        } else if let Some(request) = command.sub_refresh {
            self.sub_refresh(id, &request, view)
        } else {
            Outcome::Disconnect(DisconnectCode::BadRequest)
        }
    }

    /// Whether the command has to wait for others that are with the broker.
    pub fn must_wait(&self, command: &Command, hub: &Hub) -> bool {
        if self.pending_subscribes == 0 && self.pending_calls == 0 || command.id == 0 {
            return false;
        }
        if command.subscribe.is_some() {
            self.pending_calls > 0
        } else if let Some(request) = &command.unsubscribe {
            let mine = hub.find(&request.channel).and_then(|channel| self.place(channel));
            mine.is_some_and(|place| self.subscriptions[place].position().is_none())
        } else if command.publish.is_some()
            || command.history.is_some()
            || command.presence.is_some()
            || command.presence_stats.is_some()
        {
            self.pending_subscribes > 0 || self.pending_calls >= MAX_PENDING_CALLS
        } else {
            false
        }
    }

    /// The place of the subscription to `channel` in [`Session::subscriptions`].
    pub fn place(&self, channel: ChannelId) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| subscription.channel == channel)
    }

    /// Reserves a place for a channel that the broker has yet to confirm.
    pub fn reserve(&mut self, channel: ChannelId) {
        self.pending_subscribes += 1;
        self.grow();
        self.subscriptions.push(Subscription { channel, position: Subscription::PENDING });
    }

    /// Adds a channel, whose list holds the session at `position`.
    pub fn add(&mut self, channel: ChannelId, position: u32) {
        self.grow();
        self.subscriptions.push(Subscription { channel, position });
    }

    /// Most sessions have few channels: the first is worth exactly its own space.
    fn grow(&mut self) {
        if self.subscriptions.capacity() == self.subscriptions.len() {
            self.subscriptions.reserve_exact(self.subscriptions.len().clamp(1, 64));
        }
    }

    /// The broker has answered a subscribe: `Some(position)` is its place in the channel's list,
    /// `None` gives the reserved place up. Answers whether the session waited for this channel.
    pub fn settle(&mut self, channel: ChannelId, position: Option<u32>) -> Option<Removed> {
        let place = self.place(channel)?;
        self.pending_subscribes = self.pending_subscribes.saturating_sub(1);
        match position {
            Some(position) => {
                self.subscriptions[place].position = position;
                None
            }
            None => self.remove(place),
        }
    }

    /// Takes a subscription out. The last one moves into its place.
    pub fn remove(&mut self, place: usize) -> Option<Removed> {
        if place >= self.subscriptions.len() {
            return None;
        }
        let removed = self.subscriptions.swap_remove(place);
        let moved = self.subscriptions.get(place).copied();
        if self.subscriptions.is_empty() {
            self.subscriptions = Vec::new();
        }
        Some(Removed { removed, moved, place: place as u32 })
    }

    /// The channel's list has been reordered: this session's subscription at `place` is at
    /// `position` there.
    pub fn relocate(&mut self, place: u32, position: u32) {
        if let Some(subscription) = self.subscriptions.get_mut(place as usize) {
            subscription.position = position;
        }
    }

    /// Whether the broker has not answered all of the session's commands yet.
    pub fn awaits_broker(&self) -> bool {
        self.pending_subscribes > 0 || self.pending_calls > 0
    }

    /// A publish or a question has gone to the broker.
    pub fn call_started(&mut self) {
        self.pending_calls += 1;
    }

    /// The broker has answered one of them.
    pub fn call_ended(&mut self) {
        self.pending_calls = self.pending_calls.saturating_sub(1);
    }
}

/// A subscription that was taken out of a session's list, and the one that moved into its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// The one that was taken out.
    pub removed: Subscription,
    /// The one that is at `place` now.
    pub moved: Option<Subscription>,
    /// The place.
    pub place: u32,
}

/// Whether `send` is the first request that is set.
fn first_is_send(command: &Command) -> bool {
    command.connect.is_none()
        && command.subscribe.is_none()
        && command.unsubscribe.is_none()
        && command.publish.is_none()
        && command.presence.is_none()
        && command.presence_stats.is_none()
        && command.history.is_none()
        && command.rpc.is_none()
}

#[cfg(test)]
mod tests;
