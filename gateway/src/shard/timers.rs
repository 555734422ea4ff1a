//! What is due: pings, deadlines, and the drain.

use std::time::{Duration, Instant};

use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::codec::ping;
use tidegate_protocol::websocket::frame::{self, write_header};

use super::Shard;
use super::connection::Phase;
use super::encode::opcode;
use super::slab::Key;
use super::socket::Socket;
use super::wheel::Tick;
use crate::session::heartbeat::Due;

/// Connections that one turn looks at because their time has come, at most: half a millisecond of pings.
const DUE_AT_ONCE: usize = 64;

/// A tick's connections, some of which have been looked at.
#[derive(Debug)]
pub(super) struct Expiring {
    tick: Tick,
    due: Vec<Key>,
    at: usize,
}

/// A drain in progress: who is still to be closed, and until when.
#[derive(Debug)]
pub(super) struct Drain {
    left: Vec<Key>,
    total: usize,
    began: Instant,
    over: Duration,
}

impl Drain {
    /// How many should have been closed by `now`: in proportion to the time that has passed.
    fn due(&self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.began);
        if passed >= self.over {
            return self.total;
        }
        (self.total as f64 * passed.as_secs_f64() / self.over.as_secs_f64()).ceil() as usize
    }
}

impl<S: Socket> Shard<S> {
    /// Looks at connections whose tick has come: at so many in one turn that nobody notices the others' pings.
    pub(super) fn expire(&mut self) {
        let mut left = DUE_AT_ONCE;
        while left > 0 {
            let next = || self.wheel.expire(self.tick).map(|(tick, due)| Expiring { tick, due, at: 0 });
            let Some(mut expiring) = self.expiring.take().or_else(next) else { return };
            let end = expiring.due.len().min(expiring.at + left);
            left -= end - expiring.at;
            for key in &expiring.due[expiring.at..end] {
                let armed = self.connections.get(*key).is_some_and(|connection| connection.armed == expiring.tick);
                if armed {
                    self.due(*key);
                }
            }
            expiring.at = end;
            if end < expiring.due.len() {
                self.expiring = Some(expiring);
            } else {
                self.wheel.recycle(expiring.tick, expiring.due);
            }
        }
    }

    fn due(&mut self, key: Key) {
        if self.is_overdue(key) {
            // A shard that had no processor for a while sees the time before it sees what has come meanwhile: what the
            // peer is to be closed for not having sent may lie in its socket.
            self.read(key, false);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let timing = &self.setup.settings.timing;
        match connection.phase {
            Phase::Http if self.tick >= connection.deadline => {
                self.refuse_request(key, 408, "the request took longer than client.handshake_timeout");
            }
            Phase::Closing if self.tick >= connection.deadline => self.drop_connection(key),
            Phase::Http | Phase::Closing => {
                let deadline = connection.deadline;
                self.arm(key, deadline);
            }
            Phase::Open(_) => match connection.session.due(self.tick, timing) {
                Due::Wait(tick) => self.arm(key, tick),
                Due::Ping(tick) => {
                    self.send_ping(key);
                    self.arm(key, tick);
                }
                Due::Close(code) => self.disconnect(key, code),
            },
        }
    }

    /// Whether the peer is late with something, as far as the shard has looked.
    fn is_overdue(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        match connection.phase {
            Phase::Http => self.tick >= connection.deadline,
            Phase::Open(_) => connection.session.is_overdue(self.tick, &self.setup.settings.timing),
            Phase::Closing => false,
        }
    }

    fn send_ping(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(wire) = connection.wire() else { return };
        let frame_pings = connection.session.heartbeat.frame_pings;
        self.stats.pings.add(1);
        self.send_raw(key, |out| {
            let message = ping(wire.format());
            if frame_pings {
                return out.extend_from_slice(&frame::ping());
            }
            if wire.is_websocket() {
                write_header(opcode(wire.format()), message.len(), out);
            }
            out.extend_from_slice(message);
        });
    }

    /// Starts closing every session, spread over `over`. Connections that have not sent their
    /// request yet have nothing to lose: they are closed at once.
    pub(super) fn start_drain(&mut self, over: Duration) {
        let (open, waiting): (Vec<_>, Vec<_>) =
            self.connections.iter().partition(|(_, connection)| connection.wire().is_some());
        let left: Vec<Key> = open.into_iter().map(|(key, _)| key).collect();
        let waiting: Vec<Key> = waiting.into_iter().map(|(key, _)| key).collect();
        self.drain = Some(Drain { total: left.len(), left, began: self.now, over });
        self.close_all(waiting);
    }

    /// Closes as many as the drain's time asks for.
    pub(super) fn drain_some(&mut self) {
        let Some(drain) = self.drain.as_mut() else { return };
        let closed = drain.total - drain.left.len();
        let more = drain.due(self.now).saturating_sub(closed).min(drain.left.len());
        let chosen = drain.left.split_off(drain.left.len() - more);
        if drain.left.is_empty() && self.now >= drain.began + drain.over {
            let late: Vec<Key> = self.connections.iter().map(|(key, _)| key).collect();
            self.close_all(late);
        }
        self.close_all(chosen);
    }

    fn close_all(&mut self, keys: Vec<Key>) {
        for key in keys {
            self.disconnect(key, DisconnectCode::Shutdown);
        }
    }
}
