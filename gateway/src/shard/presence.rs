//! Who comes into channels and leaves them, and who asks about it.

use std::sync::Arc;

use tidegate_broadcaster::{BrokerError, Change, Channel};
use tidegate_protocol::code::ErrorCode;
use tidegate_protocol::message::{ClientInfo, PresenceResult, PresenceStatsResult, Reply};

use super::Shard;
use super::command::error_code;
use super::inbox::{Attended, Message};
use super::slab::Key;
use super::socket::Socket;
use crate::hub::ChannelId;
use crate::session::presence::Question;
use crate::session::{error_reply, reply};

/// What a client takes in an answer beside its ids, in bytes, as JSON.
const MEMBER_OVERHEAD: usize = 48;

impl<S: Socket> Shard<S> {
    /// A session has come into a channel or has left it: the broker is told, where the channel cares.
    pub(super) fn attend(&self, key: Key, channel: ChannelId, change: Change) {
        let attendance = self.hub.traits(channel).attendance;
        if !attendance.is_any() {
            return;
        }
        let (Some(connection), Some(name)) = (self.connections.get(key), self.hub.name(channel)) else { return };
        self.broker.attend(name, &Arc::new(connection.session.info()), change, attendance);
    }

    /// A session asks who is in a channel.
    pub(super) fn ask_presence(&mut self, session: Key, command: u32, channel: &Channel, question: Question) {
        let call: super::Call<S> = match question {
            Question::Members => {
                let answer = self.broker.presence(channel, self.setup.settings.presence_limit);
                Box::pin(
                    async move { Message::Presence { session, command, result: answer.await.map(Attended::Members) } },
                )
            }
            Question::Numbers => {
                let answer = self.broker.presence_stats(channel);
                Box::pin(
                    async move { Message::Presence { session, command, result: answer.await.map(Attended::Numbers) } },
                )
            }
        };
        self.call(session, call);
    }

    /// The broker has answered.
    pub(super) fn attended(&mut self, key: Key, command: u32, result: Result<Attended, BrokerError>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.session.call_ended();
        let answer = match result {
            Ok(Attended::Numbers(stats)) => {
                let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                let presence_stats =
                    PresenceStatsResult { num_clients: number(stats.clients), num_users: number(stats.users) };
                Reply { presence_stats: Some(presence_stats), ..reply(command) }
            }
            Ok(Attended::Members(presence)) => {
                // What would not fit into the session's queue would end the session.
                let bytes: usize = presence.members.iter().map(|info| size(info)).sum();
                if presence.is_too_large() || bytes > self.setup.settings.queue_max_size {
                    self.stats.presence_refused.add(1);
                    error_reply(command, ErrorCode::LimitExceeded)
                } else {
                    let one = |info: &Arc<ClientInfo>| (info.client.clone(), ClientInfo::clone(info));
                    let presence = presence.members.iter().map(one).collect();
                    Reply { presence: Some(PresenceResult { presence }), ..reply(command) }
                }
            }
            Err(error) => error_reply(command, error_code(&error)),
        };
        self.reply(key, &answer);
        self.go_on(key);
    }
}

/// About the bytes that a client takes in an answer.
fn size(info: &ClientInfo) -> usize {
    2 * info.client.len() + info.user.len() + info.conn_info.len() + info.chan_info.len() + MEMBER_OVERHEAD
}
