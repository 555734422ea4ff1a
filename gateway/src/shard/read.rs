//! Bytes from a socket to commands.
//!
//! Bytes are read into the shard's scratch buffer and used from there; what cannot be used yet (an
//! incomplete frame, commands that have to wait) is copied aside.

use std::io::ErrorKind;

use bytes::Bytes;
use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::codec::{Commands, Delimited, Format, decode_command, split_delimited};
use tidegate_protocol::websocket::assemble::Step;
use tidegate_protocol::websocket::handshake::{Head, RequestHead, parse_head, upgrade, write_response};

use super::connection::{Input, Phase};
use super::slab::Key;
use super::socket::Socket;
use super::stats::Wire;
use super::{HandOff, Shard};
use crate::session::Session;

/// Commands of one session handled in one turn. The rest of its input waits for the next turn, so
/// that a frame with ten thousand of them holds up nobody else.
const COMMANDS_PER_TURN: u32 = 256;

impl<S: Socket> Shard<S> {
    /// A socket has news. `gone`: the connection is broken. (A peer that only sends no more is no such news: what it
    /// has sent counts, and the end of its stream is read behind it.)
    pub fn ready(&mut self, key: Key, input: bool, output: bool, gone: bool) {
        if output {
            self.write_queued(key);
        }
        if input || gone {
            self.read(key, gone);
        }
        self.rewatch(key);
    }

    /// Reads what a socket has, and uses it.
    pub(super) fn read(&mut self, key: Key, gone: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.stalled && gone {
            return self.lost(key);
        }
        if connection.stalled {
            return;
        }
        self.commands_left = COMMANDS_PER_TURN;
        let mut scratch = std::mem::take(&mut self.scratch);
        match connection.socket.read(&mut scratch) {
            // The end counts only behind the replies to what came before it: until then it stays unread.
            Ok(0) if !gone && connection.session.awaits_broker() => connection.stalled = true,
            Ok(0) => self.lost(key),
            Ok(n) => {
                // What fills the buffer may not have been all.
                self.look_again |= n == scratch.len();
                self.stats.bytes_in.add(n as u64);
                connection.session.heartbeat.touch(self.tick);
                match connection.input.take() {
                    None => self.process(key, &mut scratch[..n]),
                    Some(mut input) => {
                        input.bytes.extend_from_slice(&scratch[..n]);
                        self.process(key, &mut input.bytes);
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.look_again = true,
            Err(_) => self.lost(key),
        }
        self.scratch = scratch;
    }

    /// A connection that had to wait can go on.
    pub(super) fn resume(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.stalled = false;
        self.commands_left = COMMANDS_PER_TURN;
        if let Some(input) = connection.input.take() {
            let Input { commands, mut bytes } = *input;
            if !commands.is_empty() {
                self.message(key, &commands);
            }
            self.process(key, &mut bytes);
        }
        self.rewatch(key);
    }

    /// Uses as much as it can, and keeps the rest with the connection.
    fn process(&mut self, key: Key, bytes: &mut [u8]) {
        let mut used = 0;
        while used < bytes.len() {
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.stalled {
                break;
            }
            let step = match connection.phase {
                Phase::Http => self.request(key, &bytes[used..]),
                Phase::Open(Wire::TcpProtobuf) => self.delimited(key, &bytes[used..]),
                Phase::Open(_) => self.frame(key, &mut bytes[used..]),
                Phase::Closing => return,
            };
            match step {
                Some(n) => used += n,
                None => break,
            }
        }
        if used < bytes.len()
            && let Some(connection) = self.connections.get_mut(key)
            && connection.phase != Phase::Closing
        {
            connection.input.get_or_insert_default().bytes = bytes[used..].to_vec();
        }
    }

    /// A request head: the upgrade is answered here, everything else is the HTTP server's. Answers
    /// the bytes used; `None`: more are needed, or the connection is not the shard's any more.
    fn request(&mut self, key: Key, bytes: &[u8]) -> Option<usize> {
        let head = match parse_head(bytes, self.setup.settings.limits.head_size) {
            Ok(Head::Incomplete) => return None,
            Ok(Head::Request(head)) => head,
            Err(error) => {
                self.refuse_request(key, error.status(), &error.to_string());
                return None;
            }
        };
        if self.setup.websocket_path.as_deref() != Some(head.path) {
            self.hand_off(key, bytes);
            return None;
        }
        let upgrade = match upgrade(&head) {
            Ok(Some(upgrade)) => upgrade,
            Ok(None) => {
                self.hand_off(key, bytes);
                return None;
            }
            Err(error) => {
                self.refuse_request(key, error.status(), &error.to_string());
                return None;
            }
        };
        if !self.origin_allowed(&head) {
            self.refuse_request(key, 403, "this origin is not in client.allowed_origins");
            return None;
        }
        let connection = self.connections.get_mut(key)?;
        let wire = Wire::websocket(upgrade.format);
        connection.permit.established();
        connection.phase = Phase::Open(wire);
        connection.session = Session::new(self.tick, upgrade.frame_ping);
        self.stats.handshaking.sub(1);
        self.count_open(wire);
        self.send_raw(key, |out| write_response(&upgrade, out));
        self.arm_sooner(key);
        Some(head.length)
    }

    fn origin_allowed(&self, head: &RequestHead<'_>) -> bool {
        head.header("origin").is_none_or(|origin| self.setup.origins.allow(origin))
    }

    /// Gives a request that is no WebSocket to the HTTP server.
    fn hand_off(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.connections.remove(key) else { return };
        self.stats.handshaking.sub(1);
        let mut permit = connection.permit;
        permit.established();
        self.tasks.hand_offs.push(HandOff { socket: connection.socket, bytes: Bytes::copy_from_slice(bytes), permit });
    }

    /// One length-delimited command of a raw TCP stream. Answers the bytes used.
    fn delimited(&mut self, key: Key, bytes: &[u8]) -> Option<usize> {
        let limit = self.setup.settings.limits.message_size;
        let (body, consumed) = match split_delimited(bytes, limit) {
            Ok(Delimited::Incomplete) => return None,
            Ok(Delimited::Message { body, consumed }) => (body, consumed),
            Err(error) => {
                self.disconnect(key, error.disconnect());
                return None;
            }
        };
        let command = match decode_command(Format::Protobuf, body) {
            Ok(command) => command,
            Err(error) => {
                self.disconnect(key, error.disconnect());
                return None;
            }
        };
        let connection = self.connections.get_mut(key)?;
        if connection.session.must_wait(&command, &self.hub) {
            connection.stalled = true;
            return None;
        }
        if self.commands_left == 0 {
            connection.stalled = true;
            self.next_turn.push(key);
            return None;
        }
        self.commands_left -= 1;
        self.command(key, command);
        Some(consumed)
    }

    /// One WebSocket frame. Answers the bytes used.
    fn frame(&mut self, key: Key, bytes: &mut [u8]) -> Option<usize> {
        let limit = self.setup.settings.limits.message_size;
        let connection = self.connections.get_mut(key)?;
        // Taken out for the time of the step, because a message may borrow from it.
        let mut assembler = std::mem::take(&mut connection.assembler);
        let used = match assembler.step(bytes, limit, true) {
            Ok(Step::Incomplete) => None,
            Ok(Step::Continue { consumed }) => Some(consumed),
            Ok(Step::Message { payload, consumed, .. }) => {
                self.message(key, &payload);
                Some(consumed)
            }
            Ok(Step::Ping { payload, consumed }) => {
                self.send_frame_pong(key, payload);
                Some(consumed)
            }
            Ok(Step::Pong { consumed }) => {
                let lagging = connection.session.heartbeat.frame_pong(self.tick, &self.setup.settings.timing);
                self.stats.lagging.add(u64::from(lagging));
                Some(consumed)
            }
            Ok(Step::Close { code, .. }) => {
                self.closed_by_peer(key, code);
                None
            }
            Err(error) => {
                self.broken_frame(key, &error);
                None
            }
        };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.assembler = assembler;
        }
        used
    }

    /// The commands of one message.
    fn message(&mut self, key: Key, payload: &[u8]) {
        let settings = std::sync::Arc::clone(&self.setup.settings);
        let Some(format) = self.connections.get(key).and_then(|connection| connection.wire()).map(Wire::format) else {
            return;
        };
        let mut commands = Commands::new(format, payload, &settings.limits);
        let mut any = false;
        loop {
            let rest = commands.rest();
            let command = match commands.next() {
                None if !any => return self.disconnect(key, DisconnectCode::BadRequest),
                None => return,
                Some(Err(error)) => return self.disconnect(key, error.disconnect()),
                Some(Ok(command)) => command,
            };
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.wire().is_none() {
                return; // an earlier command has ended it
            }
            let waits = connection.session.must_wait(&command, &self.hub);
            if waits || self.commands_left == 0 {
                connection.stalled = true;
                connection.input.get_or_insert_default().commands = rest.to_vec();
                if !waits {
                    self.next_turn.push(key);
                }
                return;
            }
            self.commands_left -= 1;
            any = true;
            self.command(key, command);
        }
    }
}
