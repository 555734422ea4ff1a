//! How connections end.
//!
//! - The gateway ends it ([`Shard::disconnect`]): what is queued is written first, unless the code
//!   says otherwise, then a close frame (raw TCP: a disconnect push), and the peer gets a moment to
//!   close too.
//! - The peer says that it goes ([`Shard::closed_by_peer`]): its close frame is answered.
//! - It is gone ([`Shard::lost`]): the socket is dropped.
//!
//! In each case the session leaves its channels in the same turn.

use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::message::{Disconnect, Push, Reply};
use tidegate_protocol::websocket::assemble::FrameError;
use tidegate_protocol::websocket::frame;

use super::Shard;
use super::connection::Phase;
use super::slab::Key;
use super::socket::Socket;
use super::stats::Dropped;
use super::wheel::{TICK_MS, Tick};
use crate::pressure::{self, Cost};
use crate::session::State;

/// Sessions evicted in one step, at most. The memory that they free shows with a delay: a larger
/// step would evict many more than needed.
const EVICTED_AT_ONCE: usize = 256;

/// How long the peer of a closing connection has to close too while the node stops: one second.
const DRAIN_CLOSE_TIMEOUT: Tick = (1000 / TICK_MS) as Tick;

impl<S: Socket> Shard<S> {
    /// Ends a connection with a code of the protocol.
    pub(super) fn disconnect(&mut self, key: Key, code: DisconnectCode) {
        // The protocol's own exceptions: these two do not wait for what is queued.
        let discard = match code {
            DisconnectCode::Slow => Some(Dropped::QueueFull),
            DisconnectCode::ConnectionClosed => Some(Dropped::Closed),
            _ => None,
        };
        self.close(key, code, discard);
    }

    fn close(&mut self, key: Key, code: DisconnectCode, discard: Option<Dropped>) {
        let Some(connection) = self.connections.get(key) else { return };
        let wire = match connection.phase {
            Phase::Open(wire) => wire,
            Phase::Http => return self.refuse_request(key, 503, code.reason()),
            Phase::Closing => return,
        };
        self.stats.disconnects[code.index()].add(1);
        if let Some(reason) = discard {
            self.discard(key, reason);
        }
        if wire.is_websocket() {
            self.send_raw(key, |out| out.extend_from_slice(&frame::close(code.code(), code.reason())));
        } else {
            let disconnect =
                Disconnect { code: code.code().into(), reason: code.reason().into(), reconnect: code.reconnect() };
            let push = Push { disconnect: Some(disconnect), ..Push::default() };
            self.send_reply(key, &Reply { push: Some(push), ..Reply::default() });
        }
        self.start_closing(key);
    }

    /// A frame breaks the rules of WebSocket.
    pub(super) fn broken_frame(&mut self, key: Key, error: &FrameError) {
        self.stats.broken_frames.add(1);
        self.send_raw(key, |out| out.extend_from_slice(&frame::close(error.close_code(), &error.to_string())));
        self.start_closing(key);
    }

    /// The peer's close frame is answered with its own code.
    pub(super) fn closed_by_peer(&mut self, key: Key, code: Option<u16>) {
        self.stats.closed_by_peer.add(1);
        let answer = code.map_or_else(frame::close_without_code, |code| frame::close(code, ""));
        self.send_raw(key, |out| out.extend_from_slice(&answer));
        self.start_closing(key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.peer_closes = true;
        }
    }

    /// The connection is broken, or the peer has closed it.
    pub(super) fn lost(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|connection| connection.phase != Phase::Closing) {
            self.stats.closed_by_peer.add(1);
        }
        self.drop_connection(key);
    }

    /// Answers a request that cannot be served, and closes.
    pub(super) fn refuse_request(&mut self, key: Key, status: u16, reason: &str) {
        self.stats.refused_requests.add(1);
        self.send_raw(key, |out| crate::refusal::write(status, reason, out));
        self.start_closing(key);
    }

    /// Takes the session off, and lets the connection end by itself.
    fn start_closing(&mut self, key: Key) {
        self.end_session(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.phase = Phase::Closing;
        connection.input = None;
        connection.assembler = Default::default();
        connection.stalled = false;
        connection.delayed = false;
        // A node that stops does not wait long for peers that keep their sockets open.
        let close_timeout = self.setup.settings.timing.close_timeout;
        let close_timeout = if self.drain.is_some() { close_timeout.min(DRAIN_CLOSE_TIMEOUT) } else { close_timeout };
        connection.deadline = self.tick + close_timeout;
        let deadline = connection.deadline;
        self.arm(key, deadline);
        self.rewatch(key);
    }

    /// Everything is written: says so to the peer of a connection that is closing.
    pub(super) fn finish_closing(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase == Phase::Closing
            && connection.outbox.is_none()
            && connection.marks.is_empty()
            && !std::mem::replace(&mut connection.write_closed, true)
        {
            if connection.peer_closes {
                return self.drop_connection(key);
            }
            connection.socket.shutdown_write();
        }
    }

    /// The reactor cannot serve the connection.
    pub(super) fn abandon(&mut self, key: Key) {
        self.drop_connection(key);
    }

    /// Drops a connection, whatever state it is in.
    pub(super) fn drop_connection(&mut self, key: Key) {
        self.end_session(key);
        self.discard_all(key, Dropped::Closed);
        self.connections.remove(key);
    }

    /// Takes the session out of its channels and counts it off. Does nothing the second time.
    fn end_session(&mut self, key: Key) {
        loop {
            let last = self.connections.get(key).and_then(|connection| connection.session.subscriptions().last());
            let Some(channel) = last.map(|subscription| subscription.channel) else { break };
            self.unsubscribe(key, channel);
        }
        let Some(connection) = self.connections.get(key) else { return };
        match connection.phase {
            Phase::Open(wire) => {
                self.stats.connections[wire as usize].sub(1);
                if connection.session.state() == State::Connected {
                    self.stats.sessions.sub(1);
                }
            }
            Phase::Http => self.stats.handshaking.sub(1),
            Phase::Closing => {}
        }
    }

    /// Gives up what waits for the socket, but for a message that is half written.
    fn discard(&mut self, key: Key, reason: Dropped) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let marks = std::mem::take(&mut connection.marks);
        let mut given_up: u64 = self.palette.pieces(marks).map(|piece| u64::from(piece.publications())).sum();
        if let Some(outbox) = connection.outbox.as_mut() {
            let before = outbox.bytes();
            given_up += outbox.discard();
            self.stats.queue_bytes.sub((before - outbox.bytes()) as u64);
            if outbox.is_empty() {
                connection.outbox = None;
            }
        }
        self.stats.pending.sub(given_up);
        self.stats.dropped[reason as usize].add(given_up);
    }

    /// Gives up everything that waits for the socket.
    fn discard_all(&mut self, key: Key, reason: Dropped) {
        self.discard(key, reason);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(rest) = connection.outbox.take() {
            self.stats.queue_bytes.sub(rest.bytes() as u64);
            self.stats.pending.sub(rest.publications());
            self.stats.dropped[reason as usize].add(rest.publications());
        }
    }

    /// Ends the sessions that cost most, until about `bytes` are free.
    pub(super) fn evict(&mut self, bytes: usize) {
        let costs = self.connections.iter().filter(|(_, connection)| connection.wire().is_some());
        let costs = costs.map(|(key, connection)| Cost {
            session: key,
            queued: connection.queued(),
            silent_for: connection.session.heartbeat.silent_for(self.tick),
        });
        let chosen = pressure::choose(costs.collect(), bytes, EVICTED_AT_ONCE);
        if chosen.is_empty() {
            return;
        }
        tracing::warn!(shard = self.setup.id, sessions = chosen.len(), "evicting sessions under memory pressure");
        self.stats.evicted.add(chosen.len() as u64);
        for key in chosen {
            self.close(key, DisconnectCode::ForceReconnect, Some(Dropped::Evicted));
        }
    }
}
