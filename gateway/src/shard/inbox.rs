//! The shard's inbox: the only way in from other threads.
//!
//! A push never waits, so order needs no second queue. The bound is on bytes of publications, from
//! their arrival until their channel's round begins: whoever brings them (a broker's reader) looks
//! at it after a burst and stops reading while it is exceeded.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_broadcaster::{BrokerError, Channel, Event, History, Presence, PresenceStats, Published, ShardInbox};
use tokio::sync::Notify;

use super::slab::Key;
use crate::admission::Permit;
use crate::hub::Hub;
use crate::hub::fanout::weight;
use crate::session::settings::Settings;

/// Who is in a channel, as far as it was asked.
#[derive(Debug)]
pub enum Attended {
    /// Who.
    Members(Presence),
    /// How many.
    Numbers(PresenceStats),
}

/// What others ask of a shard.
pub enum Message<S> {
    /// A connection that was let in.
    Accepted {
        /// Its socket.
        socket: S,
        /// Its place.
        permit: Permit,
        /// Raw TCP; otherwise an HTTP request follows.
        raw: bool,
    },
    /// What the broker says.
    Broker(Event),
    /// The broker's answer to a client's publish.
    Published {
        /// The client's connection.
        session: Key,
        /// Its command.
        command: u32,
        /// The answer.
        result: Result<Published, BrokerError>,
    },
    /// The broker's answer to a client's question about history.
    History {
        /// The client's connection.
        session: Key,
        /// Its command.
        command: u32,
        /// The epoch that it has; empty where it has none.
        epoch: String,
        /// The answer.
        result: Result<History, BrokerError>,
    },
    /// The broker's answer to a client's question about who is in a channel.
    Presence {
        /// The client's connection.
        session: Key,
        /// Its command.
        command: u32,
        /// The answer.
        result: Result<Attended, BrokerError>,
    },
    /// The broker's answer for sessions that are being brought up to date.
    Recovered {
        /// The channel.
        channel: Channel,
        /// Which question.
        read: u64,
        /// The answer.
        result: Result<History, BrokerError>,
    },
    /// Where the broker says that a channel is.
    Checked {
        /// The channel.
        channel: Channel,
        /// The answer.
        result: Result<History, BrokerError>,
    },
    /// These settings hold from now on.
    Reload(Arc<Settings>),
    /// Close every session, spread over this time.
    Drain(Duration),
    /// Close the sessions that cost most, until about so many bytes are free.
    Evict(usize),
    /// Look at the hub.
    Inspect(Box<dyn FnOnce(&Hub) + Send>),
}

/// The inbox.
pub struct Inbox<S> {
    messages: Mutex<Vec<Message<S>>>,
    /// Wakes the shard.
    wake: Notify,
    /// Bytes of publications that no round has taken yet.
    bytes: AtomicUsize,
    /// The bound on them.
    limit: usize,
    /// Wakes whoever waits for room.
    room: Notify,
}

impl<S> Inbox<S> {
    /// An empty inbox with room for `limit` bytes of publications.
    pub fn new(limit: usize) -> Self {
        Self {
            messages: Mutex::new(Vec::new()),
            wake: Notify::new(),
            bytes: AtomicUsize::new(0),
            limit,
            room: Notify::new(),
        }
    }

    /// Puts a message in and wakes the shard.
    pub fn send(&self, message: Message<S>) {
        let mut messages = self.messages.lock();
        let first = messages.is_empty();
        messages.push(message);
        drop(messages);
        // Whoever put in the first one has woken the shard for the others too.
        if first {
            self.wake.notify_one();
        }
    }

    /// Takes everything, leaving `empty` (an empty vector with its memory) in place.
    pub fn take(&self, empty: Vec<Message<S>>) -> Vec<Message<S>> {
        debug_assert!(empty.is_empty(), "what is put in place would be lost");
        std::mem::replace(&mut self.messages.lock(), empty)
    }

    /// Whether there is nothing, for a simulator.
    pub fn is_empty(&self) -> bool {
        self.messages.lock().is_empty()
    }

    /// Waits until there is something.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Bytes of publications that no round has taken yet.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A round has taken publications of this weight.
    pub fn release(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.room.notify_waiters();
        }
    }
}

impl<S: Send + 'static> ShardInbox for Inbox<S> {
    fn push(&self, event: Event) {
        if let Event::Publications(publications) = &event {
            let bytes = publications.iter().map(|publication: &Arc<_>| weight(publication)).sum();
            self.bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        self.send(Message::Broker(event));
    }

    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < self.limit
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            loop {
                // Registered before the look, so that no release falls in between.
                let mut notified = std::pin::pin!(self.room.notified());
                notified.as_mut().enable();
                if self.has_room() {
                    return;
                }
                notified.await;
            }
        })
    }
}
