//! The task that keeps in Redis who of this node is in which channel.
//!
//! Each node has a part of a channel's presence for itself, and knows what is in it. So a node that lives says so once for each
//! channel and not for each client, a node that is gone takes its part with it, and a part that Redis has lost is noticed by its
//! size and told anew.
//!
//! Clients that come and go are gathered while Redis is busy: one call for each channel. What is asked about presence stands in
//! the same line, behind what happened before it.

mod line;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::Value;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidegate_protocol::message::ClientInfo;
use tokio::time::sleep_until;

pub(crate) use self::line::Line;
use self::line::{LineEnd, Note, line};
use super::commands::{Call, Publisher};
use super::functions::{self, Function};
use super::settings::RedisSettings;
use crate::broker::BrokerError;
use crate::envelope::{self, Content};
use crate::presence::{Change, Members};
use crate::publication::Channel;
use crate::stats::{BrokerStats, add};

/// Notes that are taken from the line at once.
const TAKEN_AT_ONCE: usize = 1024;

/// Calls under way, beyond which the task takes nothing new.
const MAX_IN_FLIGHT: usize = 256;

/// Clients in one call: it takes Redis about a millisecond.
const CLIENTS_IN_A_CALL: usize = 500;

/// How long the task waits before it tells again what Redis did not take.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The node's part of a channel.
#[derive(Debug)]
struct Part {
    members: Members,
    /// When the node says again that it lives; an entry of [`PresenceTask::due`] for another time is void.
    due: Instant,
}

/// An answer to a change: which channel, how many members there should be, and what Redis said.
type Answered = (Channel, u64, Result<Value, BrokerError>);

/// The task.
#[derive(Debug)]
pub(crate) struct PresenceTask {
    settings: Arc<RedisSettings>,
    publisher: Arc<Publisher>,
    stats: Arc<BrokerStats>,
    /// The name of this node's part in every channel: another one each time that a node starts.
    node: Bytes,
    line: LineEnd,
    parts: HashMap<Channel, Part, foldhash::fast::RandomState>,
    /// Channels by the time at which the node has to say that it lives.
    due: VecDeque<(Instant, Channel)>,
    /// Channels whose part in Redis is not what it should be.
    wrong: HashSet<Channel, foldhash::fast::RandomState>,
    /// When those are told anew.
    repair: Option<Instant>,
    /// Redis has not taken something since it was last seen to be well.
    failing: bool,
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = Answered> + Send>>>,
}

impl PresenceTask {
    /// A task for a node that has just started, and the way to it.
    pub(crate) fn new(
        settings: Arc<RedisSettings>,
        publisher: Arc<Publisher>,
        stats: Arc<BrokerStats>,
    ) -> (Line, Self) {
        let (way, line) = line(settings.max_queued_publishes, Arc::clone(&stats));
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let node = format!("{random:016x}").into();
        let task = Self {
            settings,
            publisher,
            stats,
            node,
            line,
            parts: HashMap::default(),
            due: VecDeque::new(),
            wrong: HashSet::default(),
            repair: None,
            failing: false,
            in_flight: FuturesUnordered::new(),
        };
        (way, task)
    }

    /// Runs until the node stops, or until nobody is left who could tell it anything.
    pub(crate) async fn run(mut self) {
        let mut notes = Vec::new();
        loop {
            let wake = [self.due.front().map(|(due, _)| *due), self.repair].into_iter().flatten().min();
            let has_room = self.in_flight.len() < MAX_IN_FLIGHT;
            tokio::select! {
                n = self.line.notes.recv_many(&mut notes, TAKEN_AT_ONCE), if has_room => {
                    if n == 0 || self.take(&mut notes) {
                        break;
                    }
                }
                () = self.line.waiting.changed.notified(), if has_room => {
                    self.take(&mut notes);
                }
                Some(answered) = self.in_flight.next() => self.answered(answered, Instant::now()),
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if has_room && wake.is_some() => {
                    let now = Instant::now();
                    self.say_that_we_live(now);
                    self.tell_anew(now);
                }
            }
        }
        // Whoever is still here leaves with the node.
        for channel in std::mem::take(&mut self.parts).into_keys() {
            self.update(&channel, 0, vec![Bytes::from_static(b"!")]);
            while self.in_flight.len() >= MAX_IN_FLIGHT {
                self.in_flight.next().await;
            }
        }
        while self.in_flight.next().await.is_some() {}
    }

    /// Deals with what has changed, and then with notes, which are about things that it has in it. Answers whether the task is to end.
    fn take(&mut self, notes: &mut Vec<Note>) -> bool {
        for (channel, changes) in self.line.waiting.take().into_channels() {
            for some in changes.chunks(CLIENTS_IN_A_CALL) {
                let noted = some.iter().filter(|(info, change)| self.note(&channel, info, *change));
                let words: Vec<_> = noted.flat_map(|(info, change)| words(info, *change)).collect();
                if !words.is_empty() && !self.wrong.contains(&channel) {
                    let members = self.members(&channel);
                    self.update(&channel, members, words);
                }
            }
        }
        let mut stop = false;
        for note in notes.drain(..) {
            match note {
                Note::Announces { channel, info, change } => self.announce(&channel, &info, change),
                Note::Asks { call, answer } => {
                    let answered = self.publisher.call(call);
                    tokio::spawn(async move { answer.send(answered.await) });
                }
                Note::Stop => stop = true,
            }
        }
        stop
    }

    /// How many clients this node has in a channel.
    fn members(&self, channel: &Channel) -> u64 {
        self.parts.get(channel).map_or(0, |part| part.members.len() as u64)
    }

    /// Notes who has come or gone. Answers whether that changes anything.
    fn note(&mut self, channel: &Channel, info: &Arc<ClientInfo>, change: Change) -> bool {
        match change {
            Change::Joined => {
                let part = self.parts.entry(Channel::clone(channel)).or_insert_with(|| {
                    let due = Instant::now() + self.settings.presence_update_interval;
                    self.due.push_back((due, Channel::clone(channel)));
                    Part { members: Members::default(), due }
                });
                let new = part.members.join(Arc::clone(info));
                add(&self.stats.present, u64::from(new));
                true
            }
            Change::Left => {
                let Some(part) = self.parts.get_mut(channel) else { return false };
                let left = part.members.leave(&info.client);
                self.stats.present.fetch_sub(u64::from(left), Ordering::Relaxed);
                if part.members.is_empty() {
                    self.parts.remove(channel);
                }
                left
            }
        }
    }

    /// Tells the channel's subscribers on all nodes. What Redis does not take is counted as a publish that failed.
    fn announce(&self, channel: &Channel, info: &ClientInfo, change: Change) {
        let content = Content { kind: change.push(), info: Some(info.clone()), ..Content::default() };
        let call = Call::Publish { channel: self.settings.key(channel), payload: envelope::encode(content) };
        // It is in the line; nobody waits for what comes of it.
        drop(self.publisher.call(call));
    }

    /// Changes the node's part of a channel, after which it should have so many members.
    fn update(&mut self, channel: &Channel, members: u64, changes: Vec<Bytes>) {
        let ttl = functions::seconds(self.settings.presence_ttl);
        let args = [self.node.clone(), ttl].into_iter().chain(changes).collect();
        let answer = self.publisher.call(Call::Function {
            function: Function::UpdatePresence,
            key: self.settings.key(channel),
            args,
        });
        let channel = Channel::clone(channel);
        self.in_flight.push(Box::pin(async move { (channel, members, answer.await) }));
    }

    fn answered(&mut self, (channel, members, result): Answered, now: Instant) {
        match result.and_then(functions::updated) {
            Ok((found, more)) => {
                if std::mem::take(&mut self.failing) {
                    // It may have lost more than what it did not take.
                    self.due = self.parts.keys().map(|channel| (now, Channel::clone(channel))).collect();
                    self.parts.values_mut().for_each(|part| part.due = now);
                }
                if found != members {
                    tracing::debug!(%channel, members, found, "a channel's presence is told anew");
                    self.is_wrong(channel, now, Duration::ZERO);
                } else if more {
                    let members = self.members(&channel);
                    self.update(&channel, members, Vec::new());
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "Redis does not take who is present; trying again");
                }
                self.is_wrong(channel, now, TRY_AGAIN);
            }
        }
    }

    fn is_wrong(&mut self, channel: Channel, now: Instant, wait: Duration) {
        self.wrong.insert(channel);
        self.repair.get_or_insert(now + wait);
    }

    /// Says of the channels that are due that the node lives.
    fn say_that_we_live(&mut self, now: Instant) {
        while self.in_flight.len() < MAX_IN_FLIGHT && self.due.front().is_some_and(|(due, _)| *due <= now) {
            let Some((due, channel)) = self.due.pop_front() else { return };
            let Some(part) = self.parts.get_mut(&channel).filter(|part| part.due == due) else { continue };
            part.due = now + self.settings.presence_update_interval;
            let members = part.members.len() as u64;
            self.due.push_back((part.due, Channel::clone(&channel)));
            if !self.wrong.contains(&channel) {
                self.update(&channel, members, Vec::new());
            }
        }
    }

    /// Tells anew what is wrong in Redis.
    fn tell_anew(&mut self, now: Instant) {
        if self.repair.is_none_or(|repair| repair > now) {
            return;
        }
        self.repair = None;
        for channel in std::mem::take(&mut self.wrong) {
            if self.publisher.reaches(&self.settings.key(&channel)).is_err() {
                self.is_wrong(channel, now, TRY_AGAIN);
                continue;
            }
            if self.in_flight.len() >= MAX_IN_FLIGHT {
                self.is_wrong(channel, now, Duration::ZERO);
                continue;
            }
            add(&self.stats.presence_restored, 1);
            let mut changes = vec![Bytes::from_static(b"!")];
            let mut told = 0;
            let members = self.parts.get(&channel).map(|part| part.members.iter().cloned().collect::<Vec<_>>());
            for some in members.unwrap_or_default().chunks(CLIENTS_IN_A_CALL) {
                changes.extend(some.iter().flat_map(|info| words(info, Change::Joined)));
                told += some.len() as u64;
                self.update(&channel, told, std::mem::take(&mut changes));
            }
            if !changes.is_empty() {
                self.update(&channel, 0, changes);
            }
        }
    }
}

/// A change as arguments of `push_presence_update`.
fn words(info: &ClientInfo, change: Change) -> Vec<Bytes> {
    let client = Bytes::copy_from_slice(info.client.as_bytes());
    match change {
        Change::Joined => vec![Bytes::from_static(b"+"), client, functions::member(info)],
        Change::Left => vec![Bytes::from_static(b"-"), client],
    }
}
