//! A shard with virtual sockets: what a node does without the system calls.
//!
//! A socket takes everything that is written and forgets it; what it costs itself is a few instructions.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidegate::admission::{Admission, Caps};
use tidegate::config::{ChannelOptions, Config};
use tidegate::node::resolve;
use tidegate::origin::Origins;
use tidegate::shard::entropy::Entropy;
use tidegate::shard::inbox::{Inbox, Message};
use tidegate::shard::slab::Key;
use tidegate::shard::socket::Socket;
use tidegate::shard::stats::ShardStats;
use tidegate::shard::{Setup, Shard};
use tidegate_broadcaster::{Broker, EmbeddedBroker, Event, Inboxes, Publication, ShardInbox};

use crate::client::{self, Form};

/// A shard did not do what a scenario is about, so that its figures would mean nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    /// A connection was refused.
    #[error("the shard refused a connection")]
    Refused,
    /// Not as many as there should be.
    #[error("{what}: {found} and not {expected}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
    /// The part that speaks with Redis failed.
    #[error("the reader of Redis: {0}")]
    Redis(#[from] io::Error),
}

/// Holds a figure to what the scenario promises.
pub(crate) fn expect(what: &'static str, found: u64, expected: u64) -> Result<(), Wrong> {
    if found == expected { Ok(()) } else { Err(Wrong::Count { what, found, expected }) }
}

/// The shard's end of a socket.
#[derive(Debug)]
pub(crate) struct Virtual {
    /// What the client has sent and the shard has not read.
    input: Arc<Mutex<Vec<u8>>>,
    /// Bytes that the shard has written, of all sockets.
    written: Arc<AtomicU64>,
    /// The sockets that were written, in order; kept where a scenario answers them.
    heard: Option<Arc<Mutex<Vec<usize>>>>,
    /// The client's number.
    number: usize,
}

impl Socket for Virtual {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut input = self.input.lock();
        if input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Scenarios send less at once than the shard's buffer holds.
        let n = input.len().min(buffer.len());
        buffer[..n].copy_from_slice(&input[..n]);
        input.drain(..n);
        Ok(n)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(heard) = &self.heard {
            heard.lock().push(self.number);
        }
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut length = 0;
        for slice in slices {
            length += self.write(slice)?;
        }
        Ok(length)
    }

    fn shutdown_write(&mut self) {}
}

/// The client's end of a socket.
#[derive(Debug)]
struct Client {
    input: Arc<Mutex<Vec<u8>>>,
    key: Key,
}

/// A shard and its clients.
pub(crate) struct World {
    shard: Shard<Virtual>,
    inbox: Arc<Inbox<Virtual>>,
    admission: Arc<Admission>,
    clients: Vec<Client>,
    /// What the shard counts.
    pub(crate) stats: Arc<ShardStats>,
    /// Bytes that the shard has written.
    pub(crate) written: Arc<AtomicU64>,
    heard: Option<Arc<Mutex<Vec<usize>>>>,
    messages: Vec<Message<Virtual>>,
    now: Instant,
}

impl World {
    /// A shard with the default settings, open to anonymous clients and every channel.
    pub(crate) fn new() -> Self {
        let mut config = Config::default();
        config.client.allow_anonymous_connect_without_token = true;
        config.channel.without_namespace = ChannelOptions {
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            ..ChannelOptions::default()
        };
        let now = Instant::now();
        let inbox = Arc::new(Inbox::new(16 << 20));
        let inboxes: Inboxes = Arc::new([Arc::clone(&inbox) as Arc<dyn ShardInbox>]);
        let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::new(inboxes));
        let stats = Arc::new(ShardStats::default());
        let setup = Setup {
            id: 0,
            settings: Arc::new(resolve::settings(&config)),
            websocket_path: Some("/connection/websocket".into()),
            origins: Arc::new(Origins::default()),
            flush_interval: config.websocket.flush_interval,
            start: now,
            start_unix_ms: 0,
        };
        let mut seed = 0_u8;
        let entropy = Entropy::new(move |bytes| {
            bytes.iter_mut().for_each(|byte| {
                seed = seed.wrapping_mul(13).wrapping_add(7);
                *byte = seed;
            });
        });
        let shard = Shard::new(setup, broker, Arc::clone(&inbox), Arc::clone(&stats), entropy);
        let caps = Caps { connections: 1_000_000, per_address: 0, rate: 0, handshakes: 0 };
        let admission = Arc::new(Admission::new(caps, 1, Arc::default(), now));
        Self {
            shard,
            inbox,
            admission,
            clients: Vec::new(),
            stats,
            written: Arc::default(),
            heard: None,
            messages: Vec::new(),
            now,
        }
    }

    /// The same, and notes which sockets are written: for scenarios whose clients answer.
    pub(crate) fn with_ears() -> Self {
        Self { heard: Some(Arc::default()), ..Self::new() }
    }

    /// Connects a client by WebSocket and subscribes it, in three turns: accepted, upgraded, subscribed.
    pub(crate) fn connect(&mut self, form: Form, channel: &str) -> Result<(), Wrong> {
        let number = self.clients.len();
        let input = Arc::new(Mutex::new(client::upgrade(form)));
        let socket = Virtual {
            input: Arc::clone(&input),
            written: Arc::clone(&self.written),
            heard: self.heard.clone(),
            number,
        };
        let permit = self.admission.admit([127, 0, 0, 1].into(), 0, self.now).map_err(|_| Wrong::Refused)?;
        self.inbox.send(Message::Accepted { socket, permit, raw: false });
        self.turn();
        // The reactor would now watch the socket; nobody else is new in this turn.
        let key = self.shard.tasks.rewatch.pop().ok_or(Wrong::Refused)?;
        let connection = self.shard.connection(key).ok_or(Wrong::Refused)?;
        connection.watched = connection.wanted();
        self.clients.push(Client { input, key });
        self.news(number);
        self.turn();
        let mut commands = client::connect(form);
        commands.extend_from_slice(&client::subscribe(form, channel));
        self.send(number, &commands);
        self.turn();
        self.settle();
        Ok(())
    }

    /// Puts bytes on a client's socket, and tells the shard.
    pub(crate) fn send(&mut self, number: usize, bytes: &[u8]) {
        self.clients[number].input.lock().extend_from_slice(bytes);
        self.news(number);
    }

    fn news(&mut self, number: usize) {
        let key = self.clients[number].key;
        self.shard.begin(self.now);
        self.shard.ready(key, true, false, false);
    }

    /// The sockets that were written since the last call.
    pub(crate) fn heard(&self) -> Vec<usize> {
        self.heard.as_ref().map(|heard| std::mem::take(&mut *heard.lock())).unwrap_or_default()
    }

    /// Hands the shard what a broker's reader hands it: the publications of a burst.
    pub(crate) fn deliver(&self, publications: &[Arc<Publication>]) {
        self.inbox.push(Event::Publications(publications.to_vec()));
    }

    /// One turn of the shard. Answers whether there is more to do.
    pub(crate) fn turn(&mut self) -> bool {
        self.shard.begin(self.now);
        let mut messages = self.inbox.take(std::mem::take(&mut self.messages));
        for message in messages.drain(..) {
            self.shard.receive(message);
        }
        self.messages = messages;
        let more = self.shard.finish();
        self.shard.end(self.now);
        more
    }

    /// Turns until there is nothing to do.
    pub(crate) fn settle(&mut self) {
        while self.turn() {}
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}
