//! The way to the presence task: what shards leave for it, without ever waiting.
//!
//! Of each client and channel only the last change counts, so what waits is bounded by who is there, however often they
//! come and go while Redis is slow. What subscribers are told of it, and questions, stand in a line of a fixed length.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fred::types::Value;
use tidegate_protocol::message::ClientInfo;
use tokio::sync::{Notify, mpsc, oneshot};

use super::super::commands::Call;
use crate::broker::{Answer, BrokerError};
use crate::presence::{Attendance, Change, Member};
use crate::publication::Channel;
use crate::stats::{BrokerStats, add};

/// What keeps its place among others of its kind.
#[derive(Debug)]
pub(super) enum Note {
    /// Subscribers on all nodes are told that a client has come or gone.
    Announces { channel: Channel, info: Arc<ClientInfo>, change: Change },
    /// A question about a channel, whose answer goes to whoever asked.
    Asks { call: Call, answer: oneshot::Sender<Result<Value, BrokerError>> },
    /// The node stops: it leaves all channels, and the task ends.
    Stop,
}

/// The shards' end.
#[derive(Debug)]
pub(crate) struct Line {
    waiting: Arc<Waiting>,
    notes: mpsc::Sender<Note>,
    stats: Arc<BrokerStats>,
}

/// The task's end.
#[derive(Debug)]
pub(super) struct LineEnd {
    /// Changes that the task has not taken yet.
    pub(super) waiting: Arc<Waiting>,
    /// What has to keep its place.
    pub(super) notes: mpsc::Receiver<Note>,
}

/// Both ends of a line for so many notes.
pub(super) fn line(length: usize, stats: Arc<BrokerStats>) -> (Line, LineEnd) {
    let waiting = Arc::<Waiting>::default();
    let (sender, notes) = mpsc::channel(length);
    (Line { waiting: Arc::clone(&waiting), notes: sender, stats }, LineEnd { waiting, notes })
}

impl Line {
    /// A client has come or gone. What cannot be told to subscribers counts as a publish that failed.
    pub(crate) fn attend(&self, channel: &Channel, info: &Arc<ClientInfo>, change: Change, attendance: Attendance) {
        if attendance.presence {
            self.waiting.lock().note(channel, info, change);
            self.waiting.changed.notify_one();
        }
        if attendance.announce {
            let (channel, info) = (Channel::clone(channel), Arc::clone(info));
            let told = self.notes.try_send(Note::Announces { channel, info, change });
            add(&self.stats.publish_errors, u64::from(told.is_err()));
        }
    }

    /// A question, answered behind everything that happened before it.
    pub(crate) fn ask(&self, call: Call) -> Answer<Value> {
        let (answer, answered) = oneshot::channel();
        let asked = self.notes.try_send(Note::Asks { call, answer });
        let waiting = self.notes.max_capacity() - self.notes.capacity();
        let stopped = || BrokerError::Disconnected("shut down".into());
        Box::pin(async move {
            asked.map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => BrokerError::Overloaded(waiting),
                mpsc::error::TrySendError::Closed(_) => stopped(),
            })?;
            answered.await.unwrap_or_else(|_| Err(stopped()))
        })
    }

    /// Nothing comes any more: the task leaves all channels, and has ended then.
    pub(crate) async fn stop(&self) {
        // It may have ended already: then there is nothing to tell.
        let _ = self.notes.send(Note::Stop).await;
        self.notes.closed().await;
    }
}

/// Changes that wait for the task.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    changes: Mutex<Changes>,
    /// There are some.
    pub(super) changed: Notify,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that wait.
    pub(super) fn take(&self) -> Changes {
        std::mem::take(&mut *self.lock())
    }
}

/// By channel and client, the last change, and whether the client had left before it came: then the task may know it.
#[derive(Debug, Default)]
pub(super) struct Changes(
    HashMap<Channel, HashMap<Member, Last, foldhash::fast::RandomState>, foldhash::fast::RandomState>,
);

#[derive(Debug)]
struct Last {
    change: Change,
    /// The first change that waits was a leave: the task has the client.
    is_known: bool,
}

impl Changes {
    fn note(&mut self, channel: &Channel, info: &Arc<ClientInfo>, change: Change) {
        let clients = self.0.entry(Channel::clone(channel)).or_default();
        match clients.entry(Member::new(Arc::clone(info))) {
            Entry::Vacant(place) => _ = place.insert(Last { change, is_known: change == Change::Left }),
            Entry::Occupied(place) if change == Change::Left && !place.get().is_known => _ = place.remove(),
            // The key is replaced as well: a client that is here again may have another user.
            Entry::Occupied(place) => {
                let is_known = place.get().is_known;
                place.remove();
                clients.insert(Member::new(Arc::clone(info)), Last { change, is_known });
            }
        }
        if clients.is_empty() {
            self.0.remove(channel);
        }
    }

    /// Channels with what has changed in them.
    pub(super) fn into_channels(self) -> impl Iterator<Item = (Channel, Vec<(Arc<ClientInfo>, Change)>)> {
        let changes =
            |clients: HashMap<Member, Last, _>| clients.into_iter().map(|(who, last)| (who.into_info(), last.change));
        self.0.into_iter().map(move |(channel, clients)| (channel, changes(clients).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str) -> Arc<ClientInfo> {
        Arc::new(ClientInfo { client: id.into(), ..ClientInfo::default() })
    }

    fn after(changes: &[(&str, Change)]) -> Vec<(String, Change)> {
        let mut all = Changes::default();
        for (id, change) in changes {
            all.note(&"room".into(), &client(id), *change);
        }
        let mut left: Vec<_> = all
            .into_channels()
            .flat_map(|(_, some)| some)
            .map(|(info, change)| (info.client.clone(), change))
            .collect();
        left.sort_by(|a, b| a.0.cmp(&b.0));
        left
    }

    #[test]
    fn the_last_change_of_a_client_counts() {
        use Change::{Joined, Left};
        let of = |id: &str, change| vec![(id.to_owned(), change)];
        assert_eq!(after(&[("a", Joined)]), of("a", Joined));
        assert_eq!(after(&[("a", Left)]), of("a", Left));
        assert_eq!(after(&[("a", Joined), ("a", Left)]), []);
        assert_eq!(after(&[("a", Left), ("a", Joined)]), of("a", Joined));
        assert_eq!(after(&[("a", Left), ("a", Joined), ("a", Left)]), of("a", Left));
        assert_eq!(after(&[("a", Joined), ("b", Left)]).len(), 2);
    }

    #[test]
    fn a_client_that_comes_and_goes_takes_no_more_room_each_time() {
        let mut all = Changes::default();
        for n in 0..10_000 {
            all.note(&"room".into(), &client(&n.to_string()), Change::Joined);
            all.note(&"room".into(), &client(&n.to_string()), Change::Left);
        }
        assert!(all.0.is_empty());
    }
}
