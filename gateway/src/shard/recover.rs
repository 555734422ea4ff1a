//! Sessions with a position: how they come in, and what they are told when they have missed something.
//!
//! Nothing here waits: the broker's answers come through the inbox, and live publications go on to everybody else.

use std::sync::Arc;

use tidegate_broadcaster::{BrokerError, Change, Channel, History, HistoryQuery, Position, Publication};
use tidegate_protocol::code::{ErrorCode, UnsubscribeCode};
use tidegate_protocol::codec::Format;
use tidegate_protocol::message::{
    HistoryResult, Publication as PublicationMessage, Push, Reply, SubscribeResult, Unsubscribe,
};

use super::Shard;
use super::command::{error_code, join as add};
use super::connection::Phase;
use super::encode::{Form, as_string, can_carry, encode_push};
use super::inbox::Message;
use super::slab::Key;
use super::socket::Socket;
use super::stats::{Dropped, Wire};
use super::wheel::Tick;
use crate::hub::recovery::{Joining, Live, Reader, join};
use crate::hub::stream::{Reason, Stream};
use crate::hub::{ChannelId, Subscriber};
use crate::session::{error_reply, reply};

/// Positions that one turn asks the broker for, at most.
const CHECKS_AT_ONCE: usize = 64;

/// How long what the broker has and the shard has not may be on its way, in ticks: a position that is behind for longer has
/// missed something.
const ON_ITS_WAY: Tick = 5;

impl<S: Socket> Shard<S> {
    /// Begins to bring a session up to date; it has reserved its place.
    pub(super) fn catch_up(&mut self, channel: ChannelId, reader: Reader) {
        let query = reader.wishes.query();
        let Some(read) = self.recoveries.begin(channel, reader) else { return };
        self.ask(channel, query, move |channel, result| Message::Recovered { channel, read, result });
    }

    /// Asks the broker for a part of the channel's history.
    fn ask(
        &mut self,
        channel: ChannelId,
        query: HistoryQuery,
        message: impl FnOnce(Channel, Result<History, BrokerError>) -> Message<S> + Send + 'static,
    ) {
        let Some(name) = self.hub.name(channel).map(Channel::clone) else { return };
        let answer = self.broker.history(&name, query);
        self.tasks.calls.push(Box::pin(async move { message(name, answer.await) }));
    }

    /// The broker has answered: whoever waited for it comes in.
    pub(super) fn recovered(&mut self, name: &Channel, read: u64, result: &Result<History, BrokerError>) {
        let Some(channel) = self.hub.find(name) else { return };
        let (readers, live) = self.recoveries.end(channel, read);
        if let Ok(history) = result
            && self.hub.stream(channel).is_some_and(|stream| *stream.epoch() != history.top.epoch)
        {
            // Nobody has noticed yet.
            self.lose_place(channel, Reason::Epoch);
        }
        for reader in readers {
            let key = reader.session;
            self.come_in(channel, &reader, result, &live);
            self.go_on(key);
        }
        self.release_if_unused(channel);
    }

    fn come_in(&mut self, channel: ChannelId, reader: &Reader, result: &Result<History, BrokerError>, live: &Live) {
        let key = reader.session;
        let Some(connection) = self.connections.get_mut(key) else { return };
        // A closing session has given its places up.
        let Some(place) = connection.session.place(channel) else { return };
        let Phase::Open(wire) = connection.phase else { return };
        let joining = match result {
            Ok(history) => join(&reader.wishes, history, live).map_err(|_| ErrorCode::Internal),
            Err(error) => Err(error_code(error)),
        };
        let joining = joining.and_then(|joining| {
            let lost = reader.wishes.recover.is_some() && !joining.recovered && reader.wishes.reject_unrecovered;
            if lost { Err(ErrorCode::UnrecoverablePosition) } else { Ok(joining) }
        });
        let (joining, history) = match (joining, result) {
            (Ok(joining), Ok(history)) => (joining, history),
            (Err(code), _) => return self.stay_out(channel, key, reader.command, code),
            (Ok(_), Err(error)) => return self.stay_out(channel, key, reader.command, error_code(error)),
        };
        let subscriber = Subscriber::new(key.index, place as u32);
        let position = add(&mut self.hub, channel, subscriber, Some(&reader.wishes));
        connection.session.settle(channel, Some(position));
        let mut began = false;
        let stream = self.hub.watch(channel, || {
            began = true;
            // Not the history's end: what came while it was read does not come again.
            Stream::new(&Position { offset: joining.from, epoch: Arc::clone(&history.top.epoch) })
        });
        stream.join(key.index, joining.from);
        if reader.wishes.delta {
            stream.count_delta(true);
        }
        if began {
            self.check_later(channel, self.setup.settings.position_check);
        }
        self.stats.subscriptions.add(1);
        self.attend(key, channel, Change::Joined);
        if reader.wishes.recover.is_some() {
            self.stats.recoveries[usize::from(!joining.recovered)].add(1);
        }
        self.welcome(key, wire, reader, joining, history);
    }

    /// Answers a subscribe with what was missed, and sends what came meanwhile.
    fn welcome(&mut self, key: Key, wire: Wire, reader: &Reader, joining: Joining, history: &History) {
        let Joining { missed, live, recovered, offset, .. } = joining;
        let passes = |publication: &Publication| {
            reader.wishes.filter.as_ref().is_none_or(|filter| filter.matches(&publication.tags))
        };
        let (mut offered, mut carried) = (missed.len() as u64, 0);
        // A JSON client with deltas gets every payload as a string.
        let as_text = reader.wishes.delta && wire.format() == Format::Json;
        let chosen = missed.iter().filter(|publication| {
            let passes = passes(publication);
            self.stats.offered.add(u64::from(!passes));
            self.stats.dropped[Dropped::Filtered as usize].add(u64::from(!passes));
            offered -= u64::from(!passes);
            passes
        });
        let publications = chosen.filter(|publication| can_carry(wire, publication)).map(|publication| {
            carried += 1;
            message(publication, as_text)
        });
        let result = SubscribeResult {
            recoverable: reader.wishes.recoverable,
            positioned: true,
            epoch: history.top.epoch.to_string(),
            offset,
            publications: publications.collect(),
            recovered,
            was_recovering: reader.wishes.recover.is_some(),
            delta: reader.wishes.delta,
            ..SubscribeResult::default()
        };
        self.account_for(offered, carried);
        self.send_reply_with(key, &Reply { subscribe: Some(result), ..reply(reader.command) }, carried as u32);
        for publication in live {
            if !passes(&publication) {
                self.stats.offered.add(1);
                self.stats.dropped[Dropped::Filtered as usize].add(1);
                continue;
            }
            let mut bytes = Vec::new();
            let form = if reader.wishes.delta { Form::Whole } else { Form::Plain };
            let carried = encode_push(wire, &publication, form, &mut self.encoding, &mut bytes);
            self.account_for(1, u64::from(carried));
            if carried {
                self.send_publication(key, &bytes);
            }
        }
    }

    /// Publications offered to one session, and how many of them its wire carries.
    fn account_for(&self, offered: u64, carried: u64) {
        self.stats.offered.add(offered);
        self.stats.pending.add(carried);
        self.stats.dropped[Dropped::BinaryToJson as usize].add(offered - carried);
    }

    /// A session cannot come in: it gives its place up.
    pub(super) fn stay_out(&mut self, channel: ChannelId, key: Key, command: u32, code: ErrorCode) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let removed = connection.session.settle(channel, None);
        self.reply(key, &error_reply(command, code));
        self.fix_moved(removed);
    }

    /// Something of the channel is missing: everybody whose position counts is told, with a code after which SDKs subscribe
    /// again and recover.
    pub(super) fn lose_place(&mut self, channel: ChannelId, reason: Reason) {
        let Some(name) = self.hub.name(channel).map(Channel::clone) else { return };
        let sessions = self.hub.positioned(channel);
        self.stats.gaps[reason as usize].add(1);
        self.stats.insufficient.add(sessions.len() as u64);
        tracing::debug!(channel = %name, reason = reason.label(), sessions = sessions.len(), "publications are missing");
        for session in sessions {
            let Some((key, _)) = self.connections.at_mut(session) else { continue };
            self.turn_out(key, channel, &name);
        }
    }

    /// Ends a subscription; SDKs subscribe again.
    pub(super) fn turn_out(&mut self, key: Key, channel: ChannelId, name: &Channel) {
        self.leave(key, channel);
        let code = UnsubscribeCode::InsufficientState;
        let unsubscribe = Unsubscribe { code: code.code().into(), reason: code.reason().into() };
        let push = Push { channel: name.to_string(), unsubscribe: Some(unsubscribe), ..Push::default() };
        self.reply(key, &Reply { push: Some(push), ..Reply::default() });
    }

    /// The broker may have missed something: every position is compared at once.
    pub(super) fn broker_resumed(&mut self) {
        for channel in self.hub.watched() {
            self.check_later(channel, Some(0));
        }
    }

    /// As [`Self::broker_resumed`], of one channel.
    pub(super) fn channel_resumed(&mut self, name: &Channel) {
        if let Some(channel) = self.hub.find(name) {
            self.check_later(channel, Some(0));
        }
    }

    /// Compares the channel's position with the broker's after so many ticks.
    fn check_later(&mut self, channel: ChannelId, delay: Option<Tick>) {
        let (Some(delay), Some(name)) = (delay, self.hub.name(channel).map(Channel::clone)) else { return };
        let due = self.tick + delay;
        if let Some(stream) = self.hub.stream(channel) {
            stream.check_at = due;
            self.checks.push(due, name);
        }
    }

    /// Asks for the positions that are due.
    pub(super) fn check_positions(&mut self) {
        for _ in 0..CHECKS_AT_ONCE {
            let Some((due, name)) = self.checks.pop(self.tick) else { return };
            let Some(channel) = self.hub.find(&name) else { continue };
            // The channel is checked at another time, or not any more.
            if self.hub.stream(channel).is_none_or(|stream| stream.check_at != due) {
                continue;
            }
            self.stats.position_checks.add(1);
            let meta_ttl = self.setup.settings.channels.meta_ttl(&name);
            self.ask(channel, HistoryQuery::top(meta_ttl), |channel, result| Message::Checked { channel, result });
        }
    }

    /// The broker has told a channel's position.
    pub(super) fn checked(&mut self, name: &Channel, result: &Result<History, BrokerError>) {
        let Some(channel) = self.hub.find(name) else { return };
        let Some(stream) = self.hub.stream(channel) else { return };
        let delay = self.setup.settings.position_check;
        // A broker that is away tells nothing; it is asked again, and when it is back at once.
        let Ok(History { top, .. }) = result else { return self.check_later(channel, delay) };
        match stream.has_reached(top) {
            Ok(true) => {
                stream.behind = None;
                self.check_later(channel, delay);
            }
            // Who was behind this place when it was asked for last has had time enough.
            Ok(false) if stream.behind.is_some_and(|behind| !stream.has_come_to(behind)) => {
                self.lose_place(channel, Reason::Check);
                self.release_if_unused(channel);
            }
            Ok(false) => {
                stream.behind = Some(top.offset);
                self.check_later(channel, Some(ON_ITS_WAY));
            }
            Err(reason) => {
                self.lose_place(channel, reason);
                self.release_if_unused(channel);
            }
        }
    }

    /// The broker has answered a history command.
    pub(super) fn history_read(&mut self, key: Key, command: u32, epoch: &str, result: Result<History, BrokerError>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.session.call_ended();
        let wire = connection.wire();
        let answer = match result {
            Ok(history) if epoch.is_empty() || *epoch == *history.top.epoch => {
                let carried = |publication: &&Arc<Publication>| wire.is_none_or(|wire| can_carry(wire, publication));
                let publications =
                    history.publications.iter().filter(carried).map(|publication| message(publication, false));
                let history = HistoryResult {
                    publications: publications.collect(),
                    epoch: history.top.epoch.to_string(),
                    offset: history.top.offset,
                };
                Reply { history: Some(history), ..reply(command) }
            }
            Ok(_) => error_reply(command, ErrorCode::UnrecoverablePosition),
            Err(error) => error_reply(command, error_code(&error)),
        };
        self.reply(key, &answer);
        self.go_on(key);
    }
}

/// A publication as part of a reply.
fn message(publication: &Publication, as_text: bool) -> PublicationMessage {
    let data = &publication.payload.data;
    let text = if as_text { as_string(data).map(Into::into) } else { None };
    PublicationMessage {
        data: text.unwrap_or_else(|| data.clone()),
        info: publication.info.as_deref().cloned(),
        offset: publication.offset,
        tags: publication.tags.clone().into_iter().collect(),
        ..PublicationMessage::default()
    }
}
