//! A command's outcome: replies, subscriptions, publishes.

use std::time::Duration;

use tidegate_broadcaster::{BrokerError, Channel, Event, Interest, PublishRequest, Published};
use tidegate_protocol::code::{ErrorCode, UnsubscribeCode};
use tidegate_protocol::message::{Command, Publication, Push, Reply, Unsubscribe};
use uuid::Uuid;

use super::Shard;
use super::connection::Phase;
use super::slab::Key;
use super::socket::Socket;
use crate::hub::{ChannelId, Status, Subscriber, Waiter};
use crate::session::{Outcome, Removed, State, View, error_reply, publish_reply, subscribe_reply, unsubscribe_reply};

impl<S: Socket> Shard<S> {
    /// Has the session handle a command, and does what comes out.
    pub(super) fn command(&mut self, key: Key, command: Command) {
        self.stats.commands.add(1);
        let since_start = self.now.saturating_duration_since(self.setup.start);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let connects = connection.session.state() == State::New;
        let view = View {
            settings: &self.setup.settings,
            hub: &self.hub,
            now: self.tick,
            unix_ms: self.setup.start_unix_ms + milliseconds(since_start),
            random: if connects { self.entropy.bits() } else { 0 },
            fresh_id: if connects { self.entropy.uuid() } else { Uuid::nil() },
        };
        match connection.session.handle(command, &view) {
            Outcome::Pong(lagging) => self.stats.lagging.add(u64::from(lagging)),
            Outcome::Reply(reply) => self.reply(key, &reply),
            Outcome::Connected(reply) => {
                self.stats.sessions.add(1);
                self.reply(key, &reply);
                self.arm_sooner(key);
            }
            Outcome::Subscribe { id, channel } => self.subscribe(key, id, channel),
            Outcome::Unsubscribe { id, channel } => {
                if let Some(channel) = channel {
                    self.unsubscribe(key, channel);
                }
                self.reply(key, &unsubscribe_reply(id));
            }
            Outcome::Publish { id, channel, publication } => self.publish(key, id, &channel, publication),
            Outcome::Disconnect(code) => self.disconnect(key, code),
        }
    }

    fn reply(&mut self, key: Key, reply: &Reply) {
        self.stats.error_replies.add(u64::from(reply.error.is_some()));
        self.send_reply(key, reply);
    }

    fn subscribe(&mut self, key: Key, command: u32, name: String) {
        let channel = self.hub.find(&name).unwrap_or_else(|| {
            let name = Channel::from(name);
            let status = match self.broker.subscribe(&name, self.setup.id) {
                Interest::Confirmed => Status::Live,
                Interest::Pending => Status::Pending,
            };
            self.stats.channels.add(1);
            self.hub.open(name, status)
        });
        if self.hub.status(channel) == Some(Status::Live) {
            self.join(key, channel);
            self.reply(key, &subscribe_reply(command));
        } else if let Some(connection) = self.connections.get_mut(key) {
            connection.session.reserve(channel);
            self.hub.wait(channel, Waiter { session: key, command });
        }
    }

    /// Adds a session to a live channel.
    fn join(&mut self, key: Key, channel: ChannelId) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let place = connection.session.subscriptions().len() as u32;
        let position = self.hub.subscribe(channel, Subscriber { session: key.index, place });
        connection.session.add(channel, position);
        self.stats.subscriptions.add(1);
    }

    pub(super) fn broker_event(&mut self, event: Event) {
        match event {
            Event::Publications(publications) => {
                self.stats.publications.add(publications.len() as u64);
                for publication in publications {
                    self.enqueue(publication);
                }
            }
            Event::Subscribed { channel, result } => self.subscribed(&channel, result),
        }
    }

    /// The broker has answered a subscribe: whoever waited gets a reply.
    fn subscribed(&mut self, name: &Channel, result: Result<(), BrokerError>) {
        let Some(channel) = self.hub.find(name) else { return };
        for Waiter { session: key, command } in self.hub.settle(channel) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            // A closing session has given its places up.
            let Some(place) = connection.session.place(channel) else { continue };
            if connection.phase == Phase::Closing {
                continue;
            }
            match &result {
                Ok(()) => {
                    let subscriber = Subscriber { session: key.index, place: place as u32 };
                    let position = self.hub.subscribe(channel, subscriber);
                    connection.session.settle(channel, Some(position));
                    self.stats.subscriptions.add(1);
                    self.reply(key, &subscribe_reply(command));
                }
                Err(error) => {
                    let removed = connection.session.settle(channel, None);
                    self.reply(key, &error_reply(command, error_code(error)));
                    self.fix_moved(removed);
                }
            }
            self.go_on(key);
        }
        if result.is_err() {
            self.expel(name, channel);
            // The broker has forgotten the shard's interest already.
            self.close_channel(channel);
        } else if self.hub.is_unused(channel) {
            self.release(channel);
        }
    }

    /// The broker has taken a live channel away (it may not be subscribed any more): its
    /// subscribers are told with a code after which SDKs try again.
    fn expel(&mut self, name: &Channel, channel: ChannelId) {
        let code = UnsubscribeCode::InsufficientState;
        while let Some(session) = self.hub.first_subscriber(channel) {
            let Some((key, _)) = self.connections.at_mut(session) else { break };
            self.leave(key, channel);
            let unsubscribe = Unsubscribe { code: code.code().into(), reason: code.reason().into() };
            let push = Push { channel: name.to_string(), unsubscribe: Some(unsubscribe), ..Push::default() };
            self.reply(key, &Reply { push: Some(push), ..Reply::default() });
        }
    }

    /// Takes a session out of a channel, which is let go with its last subscriber.
    pub(super) fn unsubscribe(&mut self, key: Key, channel: ChannelId) {
        self.leave(key, channel);
        if self.hub.is_unused(channel) && self.hub.status(channel) == Some(Status::Live) {
            self.release(channel);
        }
    }

    /// Takes a session out of a channel.
    fn leave(&mut self, key: Key, channel: ChannelId) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(place) = connection.session.place(channel) else { return };
        let removed = connection.session.remove(place);
        let position = removed.and_then(|removed| removed.removed.position());
        self.fix_moved(removed);
        let Some(position) = position else { return }; // it still waited: `subscribed` will find nobody
        for moved in self.hub.unsubscribe(channel, position).into_iter().flatten() {
            if let Some((_, other)) = self.connections.at_mut(moved.subscriber.session) {
                other.session.relocate(moved.subscriber.place, moved.position);
            }
        }
        self.stats.subscriptions.sub(1);
    }

    /// A subscription has moved within its session's list: its channel has to know.
    fn fix_moved(&mut self, removed: Option<Removed>) {
        if let Some(Removed { moved: Some(moved), place, .. }) = removed
            && let Some(position) = moved.position()
        {
            self.hub.relocate(moved.channel, position, place);
        }
    }

    /// The last subscriber is gone.
    fn release(&mut self, channel: ChannelId) {
        if let Some(name) = self.close_channel(channel) {
            self.broker.unsubscribe(&name, self.setup.id);
        }
    }

    fn close_channel(&mut self, channel: ChannelId) -> Option<Channel> {
        for publication in self.fanout.forget(channel) {
            self.inbox.release(crate::hub::fanout::weight(&publication));
        }
        let name = self.hub.close(channel)?;
        self.stats.channels.sub(1);
        Some(name)
    }

    fn publish(&mut self, key: Key, command: u32, channel: &str, publication: Publication) {
        let request = PublishRequest {
            channel: channel.into(),
            data: publication.data,
            info: publication.info,
            tags: publication.tags,
        };
        let answer = self.broker.publish(request);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.session.publish_started();
        }
        self.tasks.publishes.push((key, command, answer));
    }

    /// The broker has answered a publish.
    pub(super) fn published(&mut self, key: Key, command: u32, result: Result<Published, BrokerError>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.session.publish_ended();
        let reply = match result {
            Ok(_) => publish_reply(command),
            Err(error) => error_reply(command, error_code(&error)),
        };
        self.reply(key, &reply);
        self.go_on(key);
    }

    /// If the connection waited for the broker, it may go on in this turn.
    fn go_on(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|connection| connection.stalled) {
            self.resume.push(key);
        }
    }
}

/// What a client is told of a broker's failure: a temporary error, after which it tries again, unless it is its own.
fn error_code(error: &BrokerError) -> ErrorCode {
    match error {
        BrokerError::Overloaded(_) => ErrorCode::TooManyRequests,
        BrokerError::TooLong { .. } => ErrorCode::BadRequest,
        BrokerError::Disconnected(_) | BrokerError::Timeout(_) | BrokerError::Refused(_) => ErrorCode::Internal,
    }
}

fn milliseconds(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}
