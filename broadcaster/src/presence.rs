//! Presence: who is in a channel, and who comes and goes. Pure.
//!
//! A client is in a channel from its subscribe to its unsubscribe. Channels of namespaces with `presence` remember who is in
//! them; those with `join_leave` tell it to the subscribers who asked for that.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tidegate_protocol::message::ClientInfo;

use crate::publication::PushKind;

/// What a channel does with those who come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attendance {
    /// It remembers who is in it (`presence`).
    pub presence: bool,
    /// It tells subscribers (`join_leave`).
    pub announce: bool,
}

impl Attendance {
    /// Whether it does anything.
    pub fn is_any(self) -> bool {
        self.presence || self.announce
    }
}

/// A client has come into a channel, or has left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has subscribed.
    Joined,
    /// It has unsubscribed, or is gone.
    Left,
}

impl Change {
    /// What subscribers are told.
    pub(crate) fn push(self) -> PushKind {
        match self {
            Self::Joined => PushKind::Join,
            Self::Left => PushKind::Leave,
        }
    }
}

/// Who is in a channel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Presence {
    /// How many clients.
    pub clients: u64,
    /// All of them, in no order; none where there are more than were asked for.
    pub members: Vec<Arc<ClientInfo>>,
}

impl Presence {
    /// Whether there are more than were asked for, so that none is told.
    pub fn is_too_large(&self) -> bool {
        self.members.is_empty() && self.clients > 0
    }
}

/// How many are in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceStats {
    /// Clients.
    pub clients: u64,
    /// Users that they belong to; all anonymous clients are one.
    pub users: u64,
}

/// A client, known by its id.
#[derive(Debug, Clone)]
pub(crate) struct Member(Arc<ClientInfo>);

impl Member {
    /// The client of whom this is known.
    pub(crate) fn new(info: Arc<ClientInfo>) -> Self {
        Self(info)
    }

    /// What is known of it.
    pub(crate) fn into_info(self) -> Arc<ClientInfo> {
        self.0
    }
}

impl Borrow<str> for Member {
    fn borrow(&self) -> &str {
        &self.0.client
    }
}

impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.client.hash(state);
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.0.client == other.0.client
    }
}

impl Eq for Member {}

/// The clients in one channel.
#[derive(Debug, Default)]
pub(crate) struct Members(std::collections::HashSet<Member, foldhash::fast::RandomState>);

impl Members {
    /// Somebody has come. Answers whether that is new.
    pub(crate) fn join(&mut self, info: Arc<ClientInfo>) -> bool {
        self.0.replace(Member(info)).is_none()
    }

    /// Somebody has left. Answers whether they were here.
    pub(crate) fn leave(&mut self, client: &str) -> bool {
        let left = self.0.remove(client);
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
        left
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everybody.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ClientInfo>> {
        self.0.iter().map(|member| &member.0)
    }
}

/// How many clients each user has.
#[derive(Debug, Default)]
pub(crate) struct Users(HashMap<Box<str>, u32, foldhash::fast::RandomState>);

impl Users {
    /// A client of this user has come.
    pub(crate) fn join(&mut self, user: &str) {
        match self.0.get_mut(user) {
            Some(clients) => *clients += 1,
            None => _ = self.0.insert(user.into(), 1),
        }
    }

    /// A client of this user has left.
    pub(crate) fn leave(&mut self, user: &str) {
        if let Some(clients) = self.0.get_mut(user) {
            *clients -= 1;
            if *clients == 0 {
                self.0.remove(user);
            }
        }
    }

    /// How many users.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str, user: &str) -> Arc<ClientInfo> {
        Arc::new(ClientInfo { client: id.into(), user: user.into(), ..ClientInfo::default() })
    }

    #[test]
    fn a_client_is_in_a_channel_once() {
        let mut members = Members::default();
        assert!(members.join(client("a", "1")) && members.join(client("b", "1")));
        assert!(!members.join(client("a", "2")), "what is known of it is replaced");
        assert_eq!(members.len(), 2);
        assert!(members.iter().any(|info| info.client == "a" && info.user == "2"));
        assert!(members.leave("a") && !members.leave("a"));
        assert!(members.leave("b") && members.is_empty());
    }

    #[test]
    fn a_user_counts_once_and_all_who_are_anonymous_are_one() {
        let mut users = Users::default();
        for user in ["", "", "u", "u", "v"] {
            users.join(user);
        }
        assert_eq!(users.len(), 3);
        for user in ["u", "", "v", "nobody"] {
            users.leave(user);
        }
        assert_eq!(users.len(), 2);
    }
}
