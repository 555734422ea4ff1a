//! A command's outcome: replies, subscriptions, publishes.

use std::time::Duration;

use tidegate_broadcaster::{
    BrokerError, Change, Channel, Event, HistoryQuery, Interest, PublishRequest, Published, Retention,
};
use tidegate_protocol::code::ErrorCode;
use tidegate_protocol::message::{Command, Publication, Reply};
use uuid::Uuid;

use super::connection::Phase;
use super::inbox::Message;
use super::slab::Key;
use super::socket::Socket;
use super::{Call, Shard};
use crate::hub::recovery::Reader;
use crate::hub::{ChannelId, Hub, Status, Subscriber, Waiter};
use crate::session::{
    Outcome, Removed, State, View, Wishes, error_reply, publish_reply, subscribe_reply, unsubscribe_reply,
};

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
            Outcome::Subscribe { id, channel, wishes } => self.subscribe(key, id, channel, wishes),
            Outcome::Unsubscribe { id, channel } => {
                if let Some(channel) = channel {
                    self.unsubscribe(key, channel);
                }
                self.reply(key, &unsubscribe_reply(id));
            }
            Outcome::Publish { id, channel, publication, retention } => {
                self.publish(key, id, &channel, publication, retention);
            }
            Outcome::History { id, channel, query, epoch } => {
                self.ask_history(key, id, &channel.into(), query, epoch);
            }
            Outcome::Presence { id, channel, question } => self.ask_presence(key, id, &channel.into(), question),
            Outcome::Disconnect(code) => self.disconnect(key, code),
        }
    }

    pub(super) fn reply(&mut self, key: Key, reply: &Reply) {
        self.stats.error_replies.add(u64::from(reply.error.is_some()));
        self.send_reply(key, reply);
    }

    fn subscribe(&mut self, key: Key, command: u32, name: String, wishes: Option<Box<Wishes>>) {
        if self.reload.is_some()
            && let Some(channel) = self.hub.find(&name)
        {
            self.renew(channel);
        }
        let channel = self.hub.find(&name).unwrap_or_else(|| {
            let name = Channel::from(name);
            let status = match self.broker.subscribe(&name, self.setup.id) {
                Interest::Confirmed => Status::Live,
                Interest::Pending => Status::Pending,
            };
            self.stats.channels.add(1);
            let traits = self.setup.settings.channels.traits(&name);
            let channel = self.hub.open(name, status, traits);
            if let Some(reload) = &mut self.reload {
                reload.note_fresh(channel);
            }
            channel
        });
        let live = self.hub.status(channel) == Some(Status::Live);
        let positioned = wishes.as_ref().is_some_and(|wishes| wishes.positioned);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if live && !positioned {
            let place = connection.session.subscriptions().len() as u32;
            let position = join(&mut self.hub, channel, Subscriber::new(key.index, place), wishes.as_deref());
            connection.session.add(channel, position);
            self.stats.subscriptions.add(1);
            self.attend(key, channel, Change::Joined);
            return self.reply(key, &subscribe_reply(command));
        }
        connection.session.reserve(channel);
        match wishes {
            Some(wishes) if live => self.catch_up(channel, Reader { session: key, command, wishes }),
            wishes => self.hub.wait(channel, Waiter { session: key, command, wishes }),
        }
    }

    pub(super) fn broker_event(&mut self, event: Event) {
        match event {
            Event::Resumed => self.broker_resumed(),
            Event::ChannelResumed(channel) => self.channel_resumed(&channel),
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
        for Waiter { session: key, command, wishes } in self.hub.settle(channel) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            // A closing session has given its places up.
            let Some(place) = connection.session.place(channel) else { continue };
            if connection.phase == Phase::Closing {
                continue;
            }
            match (&result, wishes) {
                (Ok(()), Some(wishes)) if wishes.positioned => {
                    self.catch_up(channel, Reader { session: key, command, wishes });
                    continue;
                }
                (Ok(()), wishes) => {
                    let subscriber = Subscriber::new(key.index, place as u32);
                    let position = join(&mut self.hub, channel, subscriber, wishes.as_deref());
                    connection.session.settle(channel, Some(position));
                    self.stats.subscriptions.add(1);
                    self.attend(key, channel, Change::Joined);
                    self.reply(key, &subscribe_reply(command));
                }
                (Err(error), _) => {
                    let removed = connection.session.settle(channel, None);
                    self.reply(key, &error_reply(command, error_code(error)));
                    self.fix_moved(removed);
                }
            }
            self.go_on(key);
        }
        if let Err(error) = &result {
            self.expel(name, channel);
            for reader in self.recoveries.forget(channel) {
                self.stay_out(channel, reader.session, reader.command, error_code(error));
                self.go_on(reader.session);
            }
            // The broker has forgotten the shard's interest already.
            self.close_channel(channel);
        } else {
            self.release_if_unused(channel);
        }
    }

    /// The broker has taken a live channel away (it may not be subscribed any more): its
    /// subscribers are told with a code after which SDKs try again. Answers how many they were.
    pub(super) fn expel(&mut self, name: &Channel, channel: ChannelId) -> usize {
        let mut expelled = 0;
        while let Some(session) = self.hub.first_subscriber(channel) {
            let Some((key, _)) = self.connections.at_mut(session) else { break };
            self.turn_out(key, channel, name);
            expelled += 1;
        }
        expelled
    }

    /// Takes a session out of a channel, which is let go with its last subscriber.
    pub(super) fn unsubscribe(&mut self, key: Key, channel: ChannelId) {
        self.leave(key, channel);
        self.release_if_unused(channel);
    }

    /// Lets a live channel go that nobody has or waits for.
    pub(super) fn release_if_unused(&mut self, channel: ChannelId) {
        let unused = self.hub.is_unused(channel) && !self.recoveries.has(channel);
        if unused && self.hub.status(channel) == Some(Status::Live) {
            self.release(channel);
        }
    }

    /// Takes a session out of a channel.
    pub(super) fn leave(&mut self, key: Key, channel: ChannelId) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(place) = connection.session.place(channel) else { return };
        let removed = connection.session.remove(place);
        let position = removed.and_then(|removed| removed.removed.position());
        self.fix_moved(removed);
        let Some(position) = position else { return }; // it still waited: `subscribed` will find nobody
        self.attend(key, channel, Change::Left);
        for moved in self.hub.unsubscribe(channel, position).into_iter().flatten() {
            if let Some((_, other)) = self.connections.at_mut(moved.subscriber.session) {
                other.session.relocate(moved.subscriber.place(), moved.position);
            }
        }
        self.stats.subscriptions.sub(1);
    }

    /// A subscription has moved within its session's list: its channel has to know.
    pub(super) fn fix_moved(&mut self, removed: Option<Removed>) {
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

    fn publish(
        &mut self,
        session: Key,
        command: u32,
        channel: &str,
        publication: Publication,
        retention: Option<Retention>,
    ) {
        let request = PublishRequest {
            channel: channel.into(),
            data: publication.data,
            info: publication.info,
            tags: publication.tags,
            delta: publication.delta,
            retention,
            ..PublishRequest::default()
        };
        let answer = self.broker.publish(request);
        self.call(session, Box::pin(async move { Message::Published { session, command, result: answer.await } }));
    }

    fn ask_history(&mut self, session: Key, command: u32, channel: &Channel, query: HistoryQuery, epoch: String) {
        let answer = self.broker.history(channel, query);
        let call = async move { Message::History { session, command, epoch, result: answer.await } };
        self.call(session, Box::pin(call));
    }

    /// A session waits for the broker.
    pub(super) fn call(&mut self, session: Key, call: Call<S>) {
        if let Some(connection) = self.connections.get_mut(session) {
            connection.session.call_started();
        }
        self.tasks.calls.push(call);
    }

    /// The broker has answered a publish.
    pub(super) fn published(&mut self, key: Key, command: u32, result: Result<Published, BrokerError>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.session.call_ended();
        let reply = match result {
            Ok(_) => publish_reply(command),
            Err(error) => error_reply(command, error_code(&error)),
        };
        self.reply(key, &reply);
        self.go_on(key);
    }

    /// If the connection waited for the broker, it may go on in this turn.
    pub(super) fn go_on(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|connection| connection.stalled) {
            self.resume.push(key);
        }
    }
}

/// Adds a subscriber to a live channel, with what it wishes, and answers its place there.
pub(super) fn join(hub: &mut Hub, channel: ChannelId, subscriber: Subscriber, wishes: Option<&Wishes>) -> u32 {
    let Some(wishes) = wishes else { return hub.subscribe(channel, subscriber) };
    let marks = [
        (wishes.positioned, Subscriber::positioned as fn(Subscriber) -> Subscriber),
        (wishes.delta, Subscriber::with_deltas),
        (wishes.attending, Subscriber::attending),
    ];
    let subscriber =
        marks.iter().filter(|(wished, _)| *wished).fold(subscriber, |subscriber, (_, mark)| mark(subscriber));
    match &wishes.filter {
        Some(filter) => hub.subscribe_filtered(channel, subscriber, filter.clone()),
        None => hub.subscribe(channel, subscriber),
    }
}

/// What a client is told of a broker's failure: a temporary error, after which it tries again, unless it is its own.
pub(super) fn error_code(error: &BrokerError) -> ErrorCode {
    match error {
        BrokerError::Overloaded(_) => ErrorCode::TooManyRequests,
        BrokerError::TooLong { .. } => ErrorCode::BadRequest,
        BrokerError::Disconnected(_) | BrokerError::Timeout(_) | BrokerError::Refused(_) => ErrorCode::Internal,
    }
}

fn milliseconds(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}
