//! The shard: one thread that owns its sessions, and whatever it takes to serve them.
//!
//! | file | what is in it |
//! |---|---|
//! | here | the shard's state, and the order of things in a turn |
//! | [`reactor`], `poller` | the thread, its runtime and clock; its epoll set: the only files here that do I/O |
//! | [`inbox`] | the only way in from other threads |
//! | `read` | bytes from a socket to commands |
//! | `command` | a command's outcome: replies, subscriptions, publishes |
//! | `deliver`, [`encode`] | publications to sessions, in slices; publications as bytes |
//! | `presence` | who comes and goes, and who asks about it |
//! | `recover`, `checks` | sessions with a position: recovery, and what is told when something is missing |
//! | `reload` | new settings while the node runs |
//! | `write` | a turn's output to the sockets |
//! | `close` | how connections end |
//! | `timers` | what is due: pings, deadlines, drain |
//! | [`connection`], [`slab`], [`wheel`], [`outbox`], [`palette`] | the parts |
//! | [`stats`] | what is counted |
//!
//! Everything but the reactor is pure: sockets are a trait, time comes in as an argument.
//!
//! # A turn
//!
//! The reactor calls [`Shard::begin`] with the time, then [`Shard::ready`] for each socket with
//! news, [`Shard::receive`] for each message of the inbox, and [`Shard::finish`], which serves
//! what is due, hands publications to a slice of their subscribers and writes every marked socket
//! once. If `finish` says that there is more, the next turn follows at once, after a look at the
//! sockets.

mod checks;
mod close;
mod command;
pub mod connection;
mod deliver;
pub mod encode;
pub mod entropy;
pub mod inbox;
pub mod outbox;
pub mod palette;
mod poller;
mod presence;
pub mod reactor;
mod read;
mod recover;
mod reload;
pub mod slab;
pub mod socket;
pub mod stats;
mod timers;
pub mod wheel;
mod write;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_broadcaster::{Broker, ShardId};

use crate::admission::Permit;
use crate::hub::Hub;
use crate::hub::fanout::Fanout;
use crate::hub::recovery::Recoveries;
use crate::origin::Origins;
use crate::session::Session;
use crate::session::settings::Settings;
use checks::Checks;
use connection::{Connection, Phase, Watch};
use encode::Encodings;
use entropy::Entropy;
use inbox::{Inbox, Message};
use palette::Palette;
use reload::Reload;
use slab::{Key, Slab};
use socket::Socket;
use stats::ShardStats;
use timers::{Drain, Expiring};
use wheel::{TICK_MS, Tick, Wheel};

/// The bytes read from a socket at once.
const SCRATCH: usize = 64 * 1024;

/// What a shard needs to know and to reach.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The shard's number.
    pub id: ShardId,
    /// What sessions are allowed.
    pub settings: Arc<Settings>,
    /// The path of the WebSocket endpoint; `None`: there is none.
    pub websocket_path: Option<String>,
    /// Whose pages may open a WebSocket.
    pub origins: Arc<Origins>,
    /// How long output is collected before it is written; zero: until the end of the turn.
    pub flush_interval: Duration,
    /// When the shard starts: tick zero.
    pub start: Instant,
    /// The time of day at `start`, in milliseconds since 1970.
    pub start_unix_ms: i64,
}

/// A request that is no WebSocket, with what has been read of it.
#[derive(Debug)]
pub struct HandOff<S> {
    /// The socket.
    pub socket: S,
    /// The bytes read so far.
    pub bytes: Bytes,
    /// The place on the node.
    pub permit: Permit,
}

/// What a turn leaves for the reactor to do.
pub struct Tasks<S> {
    /// Connections whose [`Connection::wanted`] is not what is watched any more.
    pub rewatch: Vec<Key>,
    /// Requests for the HTTP server.
    pub hand_offs: Vec<HandOff<S>>,
    /// What the broker was asked: its answers, to be put into the inbox when they come.
    pub calls: Vec<Call<S>>,
}

/// An answer of the broker to come.
pub type Call<S> = Pin<Box<dyn Future<Output = Message<S>> + Send>>;

impl<S> Default for Tasks<S> {
    fn default() -> Self {
        Self { rewatch: Vec::new(), hand_offs: Vec::new(), calls: Vec::new() }
    }
}

/// A shard.
pub struct Shard<S> {
    setup: Setup,
    broker: Arc<dyn Broker>,
    inbox: Arc<Inbox<S>>,
    stats: Arc<ShardStats>,
    entropy: Entropy,
    connections: Slab<Connection<S>>,
    hub: Hub,
    fanout: Fanout<Encodings>,
    recoveries: Recoveries,
    checks: Checks,
    palette: Palette,
    wheel: Wheel,
    /// A tick that has come for more connections than one turn looks at.
    expiring: Option<Expiring>,
    /// Connections with marks, in the order in which they were first marked.
    dirty: Vec<u32>,
    /// Stalled connections that can go on in this turn.
    resume: Vec<Key>,
    /// Connections that have had their share of this turn, and go on in the next one.
    next_turn: Vec<Key>,
    /// Connections whose queue waits for the flush interval.
    delayed: Vec<Key>,
    /// When the next flush is due, if one is.
    next_flush: Option<Instant>,
    drain: Option<Drain>,
    reload: Option<Reload>,
    /// What a socket's bytes are read into; no idle connection has a buffer of its own.
    scratch: Vec<u8>,
    /// A message before its frame header is known.
    encoding: Vec<u8>,
    /// A message for one session that gets only a part of what the others get.
    rest: Vec<u8>,
    /// Commands that the session whose input is being used may still have handled in this turn.
    commands_left: u32,
    now: Instant,
    tick: Tick,
    /// Whether some socket may have more news than this turn has taken.
    look_again: bool,
    /// What the turn leaves for the reactor.
    pub tasks: Tasks<S>,
}

impl<S: Socket> Shard<S> {
    /// A shard without connections.
    pub fn new(
        setup: Setup,
        broker: Arc<dyn Broker>,
        inbox: Arc<Inbox<S>>,
        stats: Arc<ShardStats>,
        entropy: Entropy,
    ) -> Self {
        let recoveries = Recoveries::new(setup.settings.queue_max_size);
        Self {
            now: setup.start,
            tick: 0,
            setup,
            broker,
            inbox,
            stats,
            entropy,
            connections: Slab::default(),
            hub: Hub::default(),
            fanout: Fanout::default(),
            recoveries,
            checks: Checks::default(),
            palette: Palette::default(),
            wheel: Wheel::default(),
            expiring: None,
            dirty: Vec::new(),
            resume: Vec::new(),
            next_turn: Vec::new(),
            delayed: Vec::new(),
            next_flush: None,
            drain: None,
            reload: None,
            scratch: vec![0; SCRATCH],
            encoding: Vec::new(),
            rest: Vec::new(),
            commands_left: 0,
            look_again: false,
            tasks: Tasks::default(),
        }
    }

    /// Begins a turn.
    pub fn begin(&mut self, now: Instant) {
        self.now = now;
        self.resume.append(&mut self.next_turn);
        self.tick = (now.saturating_duration_since(self.setup.start).as_millis() / u128::from(TICK_MS)) as Tick;
    }

    /// Whether some socket may have more news than was taken of it since the last call, so that the reactor has to
    /// look at it again without being woken.
    pub fn must_look_again(&mut self) -> bool {
        std::mem::take(&mut self.look_again)
    }

    /// Takes in a message of the inbox.
    pub fn receive(&mut self, message: Message<S>) {
        match message {
            Message::Accepted { socket, permit, raw } => self.accept(socket, permit, raw),
            Message::Broker(event) => self.broker_event(event),
            Message::Published { session, command, result } => self.published(session, command, result),
            Message::History { session, command, epoch, result } => {
                self.history_read(session, command, &epoch, result);
            }
            Message::Presence { session, command, result } => self.attended(session, command, result),
            Message::Recovered { channel, read, result } => self.recovered(&channel, read, &result),
            Message::Checked { channel, result } => self.checked(&channel, &result),
            Message::Reload(settings) => self.reload(settings),
            Message::Drain(over) => self.start_drain(over),
            Message::Evict(bytes) => self.evict(bytes),
            Message::Inspect(look) => look(&self.hub),
        }
    }

    fn accept(&mut self, socket: S, mut permit: Permit, raw: bool) {
        let timing = &self.setup.settings.timing;
        let (phase, deadline) = if raw {
            permit.established();
            (Phase::Open(stats::Wire::TcpProtobuf), self.tick + timing.stale_close_delay)
        } else {
            self.stats.handshaking.add(1);
            (Phase::Http, self.tick + timing.handshake_timeout)
        };
        let key = self.connections.insert(Connection {
            socket,
            permit,
            session: Session::new(self.tick, false),
            assembler: Default::default(),
            input: None,
            outbox: None,
            marks: Default::default(),
            armed: 0,
            deadline,
            phase,
            watched: Watch::default(),
            stalled: false,
            delayed: false,
            write_closed: false,
            peer_closes: false,
        });
        if let Phase::Open(wire) = phase {
            self.count_open(wire);
        }
        self.arm(key, deadline);
        self.tasks.rewatch.push(key);
    }

    fn count_open(&self, wire: stats::Wire) {
        self.stats.connections[wire as usize].add(1);
        self.stats.opened[wire as usize].add(1);
    }

    /// Ends a turn: serves what is due, then writes. Answers whether there is more to do at once.
    pub fn finish(&mut self) -> bool {
        for key in std::mem::take(&mut self.resume) {
            self.resume(key);
        }
        self.expire();
        self.check_positions();
        self.renew_some();
        self.fan_out();
        // Behind the fan-out: whoever goes now has what this turn brought.
        self.drain_some();
        self.flush_marked();
        self.flush_delayed();
        self.stats.inbox_bytes.set(self.inbox.bytes() as u64);
        self.fanout.ready() > 0 || !self.next_turn.is_empty() || self.expiring.is_some() || self.reload.is_some()
    }

    /// Notes when the turn's writing ended, for the latency histogram, and forgets the turn's output.
    pub fn end(&mut self, now: Instant) {
        for (received, sessions) in self.palette.sent.drain(..) {
            let nanoseconds = now.saturating_duration_since(received).as_nanos();
            self.stats.latency.record(nanoseconds.try_into().unwrap_or(u64::MAX), u64::from(sessions));
        }
        self.palette.clear();
    }

    /// When the shard has to have a turn even if nothing happens.
    pub fn next_wake(&self) -> Option<Instant> {
        let due = [self.wheel.next_due(), self.checks.next()].into_iter().flatten().min();
        let due = due.map(|tick| self.setup.start + Duration::from_millis(u64::from(tick) * TICK_MS));
        let draining = self.drain.as_ref().map(|_| self.now + Duration::from_millis(TICK_MS));
        [due, draining, self.next_flush].into_iter().flatten().min()
    }

    /// The connection, for the reactor, which watches its socket.
    pub fn connection(&mut self, key: Key) -> Option<&mut Connection<S>> {
        self.connections.get_mut(key)
    }

    /// Every connection, for a simulator, which has to look at all of their sockets.
    pub fn keys(&self) -> Vec<Key> {
        self.connections.iter().map(|(key, _)| key).collect()
    }

    /// Whether no connection is left.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Arms the wheel for a connection.
    fn arm(&mut self, key: Key, deadline: Tick) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.armed = self.wheel.arm(key, deadline);
        }
    }

    /// Arms the wheel for what its session has due next, if that comes before what it is armed for.
    fn arm_sooner(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let deadline = connection.session.deadline(&self.setup.settings.timing);
        if deadline < connection.armed {
            self.arm(key, deadline);
        }
    }

    /// Has the reactor look at what the connection wants, if that has changed.
    fn rewatch(&mut self, key: Key) {
        if let Some(connection) = self.connections.get(key)
            && connection.wanted() != connection.watched
        {
            self.tasks.rewatch.push(key);
        }
    }
}

#[cfg(test)]
mod tests;
