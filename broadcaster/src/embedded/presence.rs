//! Who is in the channels of a node that stands alone. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_protocol::message::ClientInfo;

use crate::presence::{Change, Members, Presence, PresenceStats, Users};
use crate::publication::Channel;

/// Everybody, by channel.
#[derive(Debug, Default)]
pub(super) struct Rooms(HashMap<Channel, Room, foldhash::fast::RandomState>);

#[derive(Debug, Default)]
struct Room {
    members: Members,
    users: Users,
}

impl Rooms {
    /// Somebody has come or gone. Answers by how many members there are more.
    pub(super) fn note(&mut self, channel: &Channel, info: &Arc<ClientInfo>, change: Change) -> i64 {
        match change {
            Change::Joined => {
                let room = self.0.entry(Channel::clone(channel)).or_default();
                let new = room.members.join(Arc::clone(info));
                if new {
                    room.users.join(&info.user);
                }
                i64::from(new)
            }
            Change::Left => {
                let Some(room) = self.0.get_mut(channel) else { return 0 };
                let left = room.members.leave(&info.client);
                if left {
                    room.users.leave(&info.user);
                }
                if room.members.is_empty() {
                    self.0.remove(channel);
                }
                -i64::from(left)
            }
        }
    }

    /// Who is in a channel, if there are no more than `limit`.
    pub(super) fn presence(&self, channel: &str, limit: u32) -> Presence {
        let Some(room) = self.0.get(channel) else { return Presence::default() };
        let clients = room.members.len() as u64;
        let members = if clients > limit.into() { Vec::new() } else { room.members.iter().map(Arc::clone).collect() };
        Presence { clients, members }
    }

    /// How many are in a channel.
    pub(super) fn stats(&self, channel: &str) -> PresenceStats {
        let count = |room: &Room| PresenceStats { clients: room.members.len() as u64, users: room.users.len() as u64 };
        self.0.get(channel).map(count).unwrap_or_default()
    }
}
