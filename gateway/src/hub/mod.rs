//! The hub: who listens to what, on one shard. Pure.
//!
//! - here: channels, their subscribers, and who still waits for the broker's confirmation;
//! - [`fanout`]: which publications go to whom next, in slices;
//! - [`stream`]: whether anything is missing of a channel with a history;
//! - [`recovery`]: sessions that are being brought up to date.
//!
//! A subscription is known from both sides, so that either can find the other without a search:
//! the channel's list holds the session and the place in the session's list, the session's list
//! holds the channel and the place in the channel's list.

pub mod fanout;
pub mod recovery;
pub mod stream;

use std::collections::HashMap;

use tidegate_broadcaster::{Attendance, Channel, Publication};
use tidegate_protocol::filter::Filter;

use crate::config::QueuePolicy;
use crate::session::Wishes;
use crate::shard::encode::Kind;
use crate::shard::slab::Key;
use stream::{Arrival, Stream};

/// A channel's number on its shard; used again after the channel is gone.
pub type ChannelId = u32;

/// One end of a subscription, in the channel's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriber {
    /// The session's slot in the slab. The session leaves the list before it leaves the slab.
    pub session: u32,
    /// The subscription's place in the session's list, and the marks. A session's list is far shorter than what they leave for
    /// the place (`client.channel_limit` is at most a million).
    place: u32,
}

impl Subscriber {
    /// The subscription is told when it has missed something.
    const POSITIONED: u32 = 1 << 31;
    /// The subscription gets only some publications.
    const FILTERED: u32 = 1 << 30;
    /// The subscription receives deltas.
    const DELTA: u32 = 1 << 29;
    /// The subscription has been sent what the last round ended with.
    const READY: u32 = 1 << 28;
    /// The subscription is told who comes and goes.
    const ATTENDING: u32 = 1 << 27;
    const MARKS: u32 = Self::POSITIONED | Self::FILTERED | Self::DELTA | Self::READY | Self::ATTENDING;

    /// A subscription that is at `place` of its session's list.
    pub fn new(session: u32, place: u32) -> Self {
        debug_assert!(place & Self::MARKS == 0, "a place leaves room for the marks");
        Self { session, place }
    }

    /// The same, and it is told when it has missed something.
    #[must_use]
    pub fn positioned(self) -> Self {
        Self { place: self.place | Self::POSITIONED, ..self }
    }

    /// The same, and it gets only some publications.
    #[must_use]
    fn filtered(self) -> Self {
        Self { place: self.place | Self::FILTERED, ..self }
    }

    /// The same, and it receives deltas.
    #[must_use]
    pub fn with_deltas(self) -> Self {
        Self { place: self.place | Self::DELTA, ..self }
    }

    /// The same, and it is told who comes and goes.
    #[must_use]
    pub fn attending(self) -> Self {
        Self { place: self.place | Self::ATTENDING, ..self }
    }

    /// Whether the subscription is told who comes and goes.
    pub fn is_attending(self) -> bool {
        self.place & Self::ATTENDING != 0
    }

    /// Whether the subscription receives deltas.
    pub fn has_deltas(self) -> bool {
        self.place & Self::DELTA != 0
    }

    /// How the subscription is to receive a round.
    pub fn kind(self) -> Kind {
        match self.place & (Self::DELTA | Self::READY) {
            Self::DELTA => Kind::First,
            marks if marks & Self::DELTA != 0 => Kind::Delta,
            _ => Kind::Plain,
        }
    }

    /// The subscription has been sent what the round ends with: a delta may refer to that.
    pub fn was_sent(&mut self) {
        if self.has_deltas() {
            self.place |= Self::READY;
        }
    }

    /// The subscription's place in the session's list.
    pub fn place(self) -> u32 {
        self.place & !Self::MARKS
    }

    /// Whether the subscription gets only some publications.
    pub fn is_filtered(self) -> bool {
        self.place & Self::FILTERED != 0
    }

    /// Whether the subscription is told when it has missed something.
    pub fn is_positioned(self) -> bool {
        self.place & Self::POSITIONED != 0
    }
}

/// Where a subscription went when another one was taken out of a channel's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Whose subscription it is.
    pub subscriber: Subscriber,
    /// Its new place in the channel's list.
    pub position: u32,
}

/// A session that waits for a channel to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The session.
    pub session: Key,
    /// The id of its subscribe command.
    pub command: u32,
    /// What it asks for beyond live publications; most ask for nothing.
    pub wishes: Option<Box<Wishes>>,
}

/// What a channel has of its namespace, for as long as the shard has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// What becomes of publications that a slow session has not taken.
    pub policy: QueuePolicy,
    /// What becomes of who comes and goes.
    pub attendance: Attendance,
}

/// Whether a channel is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The broker has confirmed it.
    Live,
    /// The broker has been asked.
    Pending,
}

#[derive(Debug)]
struct Entry {
    name: Channel,
    status: Status,
    traits: Traits,
    subscribers: Vec<Subscriber>,
    /// Where the fan-out in progress stands: subscribers below it are still to be visited.
    cursor: u32,
}

/// A shard's channels.
#[derive(Debug, Default)]
pub struct Hub {
    ids: HashMap<Channel, ChannelId, foldhash::fast::RandomState>,
    entries: Vec<Option<Entry>>,
    free: Vec<ChannelId>,
    /// Apart from the entries, because few channels have any, and only for a moment.
    waiters: rustc_hash::FxHashMap<ChannelId, Vec<Waiter>>,
    /// Where channels stand that have a subscriber whose position counts.
    streams: rustc_hash::FxHashMap<ChannelId, Stream>,
    /// By channel and session; few subscriptions have one.
    filters: Filters,
}

/// Filters by channel and session.
pub type Filters = rustc_hash::FxHashMap<(ChannelId, u32), Box<Filter>>;

/// A slice of a fan-out.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Who is visited.
    pub subscribers: &'a mut [Subscriber],
    /// Where the channel stands, if somebody's position counts.
    pub stream: Option<&'a Stream>,
    /// What the filtered ones among them get.
    pub filters: &'a Filters,
}

impl Hub {
    /// Bytes of a channel's entry, beside its name and its list of subscribers.
    pub const ENTRY_SIZE: usize = size_of::<Option<Entry>>();

    /// Bytes of a channel's place in the table of names.
    pub const NAME_SIZE: usize = size_of::<(Channel, ChannelId)>();

    /// The channel of this name, if the shard has it.
    pub fn find(&self, name: &str) -> Option<ChannelId> {
        self.ids.get(name).copied()
    }

    /// The channel's name.
    pub fn name(&self, id: ChannelId) -> Option<&Channel> {
        self.entry(id).map(|entry| &entry.name)
    }

    /// Whether the channel is live; `None` where the shard does not have it.
    pub fn status(&self, id: ChannelId) -> Option<Status> {
        self.entry(id).map(|entry| entry.status)
    }

    /// What the channel has of its namespace.
    pub fn traits(&self, id: ChannelId) -> Traits {
        self.entry(id).map_or_else(Traits::default, |entry| entry.traits)
    }

    /// The number of channels.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Channels with their numbers of subscribers.
    pub fn channels(&self) -> impl Iterator<Item = (&Channel, usize)> {
        self.entries.iter().flatten().map(|entry| (&entry.name, entry.subscribers.len()))
    }

    /// Adds a channel that the shard does not have.
    pub fn open(&mut self, name: Channel, status: Status, traits: Traits) -> ChannelId {
        debug_assert!(self.find(&name).is_none(), "a channel is opened once");
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as ChannelId
        });
        self.entries[id as usize] =
            Some(Entry { name: Channel::clone(&name), status, traits, subscribers: Vec::new(), cursor: 0 });
        self.ids.insert(name, id);
        id
    }

    /// Removes a channel that has neither subscribers nor waiters, and answers its name.
    pub fn close(&mut self, id: ChannelId) -> Option<Channel> {
        debug_assert!(self.is_unused(id), "a channel in use stays");
        let entry = self.entries.get_mut(id as usize)?.take()?;
        self.ids.remove(&entry.name);
        self.free.push(id);
        Some(entry.name)
    }

    /// The channel has other traits now.
    pub fn set_traits(&mut self, id: ChannelId, traits: Traits) {
        if let Some(entry) = self.entry_mut(id) {
            entry.traits = traits;
        }
    }

    /// Ids of channels are below this one.
    pub fn slots(&self) -> ChannelId {
        self.entries.len() as ChannelId
    }

    /// Nobody waits for the broker's answer any more. Answers who did.
    pub fn give_up_waiting(&mut self, id: ChannelId) -> Vec<Waiter> {
        self.waiters.remove(&id).unwrap_or_default()
    }

    /// Whether the channel has neither subscribers nor waiters.
    pub fn is_unused(&self, id: ChannelId) -> bool {
        self.entry(id).is_none_or(|entry| entry.subscribers.is_empty()) && !self.waiters.contains_key(&id)
    }

    /// Notes that a session waits for the channel.
    pub fn wait(&mut self, id: ChannelId, waiter: Waiter) {
        self.waiters.entry(id).or_default().push(waiter);
    }

    /// The broker has answered: the channel is live, or is about to be closed. Answers who waited.
    pub fn settle(&mut self, id: ChannelId) -> Vec<Waiter> {
        if let Some(entry) = self.entry_mut(id) {
            entry.status = Status::Live;
        }
        self.waiters.remove(&id).unwrap_or_default()
    }

    /// Adds a subscriber and answers its place in the channel's list. A fan-out in progress does
    /// not visit it: it came after those publications.
    pub fn subscribe(&mut self, id: ChannelId, subscriber: Subscriber) -> u32 {
        let Some(entry) = self.entry_mut(id) else {
            debug_assert!(false, "subscribers join channels that exist");
            return 0;
        };
        if entry.subscribers.is_empty() {
            entry.subscribers.reserve_exact(1); // most channels of a large node have one
        }
        entry.subscribers.push(subscriber);
        (entry.subscribers.len() - 1) as u32
    }

    /// The same for one that gets only some publications.
    pub fn subscribe_filtered(&mut self, id: ChannelId, subscriber: Subscriber, filter: Box<Filter>) -> u32 {
        self.filters.insert((id, subscriber.session), filter);
        self.subscribe(id, subscriber.filtered())
    }

    /// Some subscriber's session, if there is any.
    pub fn first_subscriber(&self, id: ChannelId) -> Option<u32> {
        self.entry(id)?.subscribers.first().map(|subscriber| subscriber.session)
    }

    /// Takes the subscriber at `position` out. Up to two others move into other places.
    ///
    /// A fan-out in progress still visits every other subscriber exactly once: the list is in two
    /// parts, not visited and visited, and each part closes its own gap.
    pub fn unsubscribe(&mut self, id: ChannelId, position: u32) -> [Option<Moved>; 2] {
        let (filters, streams) = (&mut self.filters, &mut self.streams);
        let Some(entry) = self.entries.get_mut(id as usize).and_then(Option::as_mut) else { return [None, None] };
        let mut gap = position as usize;
        if gap >= entry.subscribers.len() {
            debug_assert!(false, "a subscription knows its place");
            return [None, None];
        }
        let leaving = entry.subscribers[gap];
        if leaving.is_filtered() {
            filters.remove(&(id, leaving.session));
        }
        if leaving.is_positioned()
            && let Some(stream) = streams.get_mut(&id)
        {
            if leaving.has_deltas() {
                stream.count_delta(false);
            }
            if stream.leave(leaving.session) {
                streams.remove(&id);
            }
        }
        let mut moved = [None, None];
        if gap < entry.cursor as usize {
            entry.cursor -= 1;
            let last = entry.cursor as usize;
            if gap != last {
                entry.subscribers.swap(gap, last);
                moved[0] = Some(Moved { subscriber: entry.subscribers[gap], position: gap as u32 });
                gap = last;
            }
        }
        entry.subscribers.swap_remove(gap);
        moved[1] = entry.subscribers.get(gap).map(|subscriber| Moved { subscriber: *subscriber, position: gap as u32 });
        if entry.subscribers.len() * 4 < entry.subscribers.capacity() {
            entry.subscribers.shrink_to(entry.subscribers.len() * 2);
        }
        moved
    }

    /// A session's list has been reordered: the subscription at `position` is now at `place` there.
    pub fn relocate(&mut self, id: ChannelId, position: u32, place: u32) {
        if let Some(subscriber) = self.entry_mut(id).and_then(|entry| entry.subscribers.get_mut(position as usize)) {
            subscriber.place = place | (subscriber.place & Subscriber::MARKS);
        }
    }

    /// Where the channel stands, if some subscriber's position counts.
    pub fn stream(&mut self, id: ChannelId) -> Option<&mut Stream> {
        // Nearly every publication of many nodes asks for one that is not there.
        if self.streams.is_empty() { None } else { self.streams.get_mut(&id) }
    }

    /// Begins to watch the channel's position, if it is not being watched.
    pub fn watch(&mut self, id: ChannelId, stream: impl FnOnce() -> Stream) -> &mut Stream {
        self.streams.entry(id).or_insert_with(stream)
    }

    /// A publication has come for the channel.
    pub fn arrive(&mut self, id: ChannelId, publication: &Publication) -> Arrival {
        match self.stream(id) {
            Some(stream) if publication.offset > 0 => {
                stream.arrive(publication.offset, &publication.epoch, publication.is_late)
            }
            _ => Arrival::InOrder,
        }
    }

    /// Channels whose position is watched.
    pub fn watched(&self) -> Vec<ChannelId> {
        self.streams.keys().copied().collect()
    }

    /// Sessions of subscribers that are told when they have missed something.
    pub fn positioned(&self, id: ChannelId) -> Vec<u32> {
        let subscribers = self.entry(id).map_or(&[][..], |entry| &entry.subscribers);
        subscribers
            .iter()
            .filter(|subscriber| subscriber.is_positioned())
            .map(|subscriber| subscriber.session)
            .collect()
    }

    /// Starts a fan-out: every subscriber of now is to be visited. Answers how many there are.
    pub fn begin_visit(&mut self, id: ChannelId) -> usize {
        let Some(entry) = self.entry_mut(id) else { return 0 };
        entry.cursor = entry.subscribers.len() as u32;
        entry.subscribers.len()
    }

    /// The next subscribers to visit, at most `most`, with where the channel stands; empty when the fan-out is done.
    pub fn visit(&mut self, id: ChannelId, most: usize) -> Visit<'_> {
        let filters = &self.filters;
        let stream = if self.streams.is_empty() { None } else { self.streams.get(&id) };
        let Some(entry) = self.entries.get_mut(id as usize).and_then(Option::as_mut) else {
            return Visit { subscribers: &mut [], stream: None, filters };
        };
        let end = entry.cursor as usize;
        let start = end.saturating_sub(most);
        entry.cursor = start as u32;
        Visit { subscribers: &mut entry.subscribers[start..end], stream, filters }
    }

    /// Whether a fan-out has subscribers left to visit.
    pub fn is_visiting(&self, id: ChannelId) -> bool {
        self.entry(id).is_some_and(|entry| entry.cursor > 0)
    }

    fn entry(&self, id: ChannelId) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    fn entry_mut(&mut self, id: ChannelId) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests;
