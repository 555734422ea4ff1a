//! A turn's output to the sockets: each marked socket is written once.

use std::io::{ErrorKind, IoSlice};

use bytes::Bytes;
use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::codec::encode_reply;
use tidegate_protocol::message::Reply;
use tidegate_protocol::websocket::frame::{self, write_header};

use super::Shard;
use super::connection::Phase;
use super::encode::opcode;
use super::outbox::{Chunk, MAX_SLICES, Outbox, Queueing};
use super::palette::Piece;
use super::slab::Key;
use super::socket::Socket;
use super::stats::Dropped;
use crate::config::QueuePolicy;

/// What one call to the kernel came to.
enum Wrote {
    /// It took so many bytes.
    Some(usize),
    /// The connection is broken.
    Broken,
}

impl Wrote {
    fn from(result: std::io::Result<usize>) -> Self {
        match result {
            Ok(n) => Self::Some(n),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Self::Some(0),
            Err(_) => Self::Broken,
        }
    }
}

impl<S: Socket> Shard<S> {
    /// Marks a session for bytes of its own, framed already.
    pub(super) fn send_raw(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.send_counted(key, 0, write);
    }

    /// Marks a session for a publication of its own, framed already.
    pub(super) fn send_publication(&mut self, key: Key, bytes: &[u8]) {
        self.send_counted(key, 1, |out| out.extend_from_slice(bytes));
    }

    fn send_counted(&mut self, key: Key, publications: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.marks.is_empty() {
            self.dirty.push(key.index);
        }
        self.palette.mark_private(&mut connection.marks, publications, write);
    }

    /// Marks an open session for a reply.
    pub(super) fn send_reply(&mut self, key: Key, reply: &Reply) {
        self.send_reply_with(key, reply, 0);
    }

    /// Marks an open session for a reply that carries so many publications.
    pub(super) fn send_reply_with(&mut self, key: Key, reply: &Reply, publications: u32) {
        let Some(wire) = self.connections.get(key).and_then(|connection| connection.wire()) else { return };
        let mut message = std::mem::take(&mut self.encoding);
        message.clear();
        encode_reply(wire.format(), reply, &mut message);
        self.send_counted(key, publications, |out| {
            if wire.is_websocket() {
                write_header(opcode(wire.format()), message.len(), out);
            }
            out.extend_from_slice(&message);
        });
        self.encoding = message;
    }

    /// Answers a ping frame.
    pub(super) fn send_frame_pong(&mut self, key: Key, payload: &[u8]) {
        self.send_raw(key, |out| out.extend_from_slice(&frame::pong(payload)));
    }

    /// Writes every marked socket once. Closing one marks it again, for its close frame.
    pub(super) fn flush_marked(&mut self) {
        let mut at = 0;
        while let Some(index) = self.dirty.get(at).copied() {
            at += 1;
            self.flush(index);
        }
        self.dirty.clear();
    }

    fn flush(&mut self, index: u32) {
        let Some((key, connection)) = self.connections.at_mut(index) else { return };
        let marks = std::mem::take(&mut connection.marks);
        // The flush interval is for publications: a reply, a ping or a close frame goes at once, and
        // takes what waits with it.
        let shared_alone = || self.palette.pieces(marks).all(|piece| matches!(piece, Piece::Shared(_)));
        let delay = !self.setup.flush_interval.is_zero() && shared_alone();
        let queue_all = connection.outbox.is_some() || delay;
        let mut written = 0;
        if !queue_all {
            match write_pieces(&mut connection.socket, self.palette.pieces(marks)) {
                Wrote::Some(n) => written = n,
                Wrote::Broken => {
                    connection.marks = marks; // `lost` accounts for them
                    return self.lost(key);
                }
            }
            self.stats.writes.add(1);
            self.stats.bytes_out.add(written as u64);
            connection.session.heartbeat.touch(self.tick);
        }
        // Account for what the socket took, and queue what it did not.
        let (mut left, mut queued) = (written, 0);
        let (mut messages, mut publications) = (0, 0);
        for piece in self.palette.pieces(marks) {
            let length = piece.bytes().len();
            if left >= length && queued == 0 && !queue_all {
                left -= length;
                messages += u64::from(piece.messages());
                publications += u64::from(piece.publications());
                continue;
            }
            let outbox = connection.outbox.get_or_insert_with(Box::<Outbox>::default);
            let mut chunk = chunk(&piece, left);
            if left == 0 && chunk.queueing.policy == QueuePolicy::Latest {
                let (bytes, replaced) = outbox.replace(chunk.queueing.channel);
                self.stats.queue_bytes.sub(bytes as u64);
                let within = newest_alone(&piece, &mut chunk);
                self.stats.conflated.add(replaced + within);
                self.stats.pending.sub(replaced + within);
            }
            queued += chunk.bytes.len();
            outbox.push(chunk, left > 0);
            left = 0;
        }
        self.stats.messages_out.add(messages);
        self.stats.delivered.add(publications);
        self.stats.pending.sub(publications);
        if messages > 0 {
            self.stats.batch.record(messages, 1);
        }
        if queued == 0 {
            return self.finish_closing(key);
        }
        self.stats.queue_bytes.add(queued as u64);
        if !queue_all {
            self.stats.short_writes.add(1);
        }
        // A socket that is behind is written when it has room, whatever the interval.
        if delay && !connection.delayed && !connection.watched.output {
            connection.delayed = true;
            self.delayed.push(key);
            self.next_flush.get_or_insert(self.now + self.setup.flush_interval);
        }
        let most = self.setup.settings.queue_max_size;
        if connection.queued() > most
            && let Some(outbox) = connection.outbox.as_mut()
        {
            let (bytes, dropped) = outbox.drop_oldest(most);
            self.stats.queue_bytes.sub(bytes as u64);
            self.stats.pending.sub(dropped);
            self.stats.dropped[Dropped::QueueOldest as usize].add(dropped);
            if outbox.is_empty() {
                connection.outbox = None;
            }
        }
        let too_much = connection.queued() > most;
        if too_much && connection.phase != Phase::Closing {
            return self.disconnect(key, DisconnectCode::Slow);
        }
        if !delay && std::mem::take(&mut connection.delayed) {
            self.write_queued(key);
        }
        self.rewatch(key);
    }

    /// A socket has room again: writes as much of its queue as it takes.
    pub(super) fn write_queued(&mut self, key: Key) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let Some(outbox) = connection.outbox.as_mut() else { return };
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let used = outbox.slices(&mut slices);
            let wanted: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let n = match Wrote::from(connection.socket.write_vectored(&slices[..used])) {
                Wrote::Some(n) => n,
                Wrote::Broken => return self.lost(key),
            };
            let taken = outbox.advance(n);
            let empty = outbox.is_empty();
            if empty {
                connection.outbox = None;
            }
            if n > 0 {
                connection.session.heartbeat.touch(self.tick);
            }
            self.stats.writes.add(1);
            self.stats.bytes_out.add(n as u64);
            self.stats.queue_bytes.sub(n as u64);
            self.stats.messages_out.add(taken.messages);
            self.stats.delivered.add(taken.publications);
            self.stats.pending.sub(taken.publications);
            if taken.messages > 0 {
                self.stats.batch.record(taken.messages, 1);
            }
            if empty {
                return self.finish_closing(key);
            }
            if n < wanted {
                self.stats.short_writes.add(1);
                return;
            }
        }
    }

    /// The flush interval is over: writes what it has collected.
    pub(super) fn flush_delayed(&mut self) {
        if self.next_flush.is_none_or(|due| due > self.now) {
            return;
        }
        self.next_flush = None;
        for key in std::mem::take(&mut self.delayed) {
            if let Some(connection) = self.connections.get_mut(key)
                && std::mem::take(&mut connection.delayed)
            {
                self.write_queued(key);
                self.rewatch(key);
            }
        }
    }
}

/// Hands a session's pieces to the kernel in one call. What one call cannot take waits in the queue.
fn write_pieces<'a, S: Socket>(socket: &mut S, mut pieces: impl Iterator<Item = Piece<'a>>) -> Wrote {
    let Some(first) = pieces.next() else { return Wrote::Some(0) };
    let Some(second) = pieces.next() else { return Wrote::from(socket.write(bytes_of(first))) };
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let mut used = 0;
    for (slice, piece) in slices.iter_mut().zip([first, second].into_iter().chain(pieces)) {
        *slice = IoSlice::new(bytes_of(piece));
        used += 1;
    }
    Wrote::from(socket.write_vectored(&slices[..used]))
}

/// A piece's bytes, for as long as the palette lives.
fn bytes_of(piece: Piece<'_>) -> &[u8] {
    match piece {
        Piece::Shared(cell) => &cell.bytes,
        Piece::Private { bytes, .. } => bytes,
    }
}

/// What is left of a piece after its first `written` bytes. Shared bytes stay shared, unless the
/// rest is so small that it would pin many times its size.
fn chunk(piece: &Piece<'_>, written: usize) -> Chunk {
    let bytes = match piece {
        Piece::Shared(cell) if (cell.bytes.len() - written) * 4 >= cell.bytes.len() => cell.bytes.slice(written..),
        _ => Bytes::copy_from_slice(&piece.bytes()[written..]),
    };
    let queueing = match piece {
        Piece::Shared(cell) => cell.queueing,
        Piece::Private { .. } => Queueing::default(),
    };
    Chunk { bytes, messages: piece.messages(), publications: piece.publications(), queueing }
}

/// Leaves the last publication of a piece alone in its chunk. Answers how many others there were.
fn newest_alone(piece: &Piece<'_>, chunk: &mut Chunk) -> u64 {
    let Piece::Shared(cell) = piece else { return 0 };
    if chunk.publications <= 1 {
        return 0;
    }
    chunk.bytes = Bytes::copy_from_slice(&cell.bytes[cell.last as usize..]);
    (chunk.messages, chunk.publications) = (1, 1);
    u64::from(cell.publications) - 1
}
