//! Publications to sessions, in slices.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_broadcaster::Publication;
use tidegate_protocol::codec::payload::json_form;
use tidegate_protocol::codec::{Format, PublicationParts, encode_publication};
use tidegate_protocol::websocket::frame::{BINARY, TEXT, write_header};
use tungstenite::protocol::frame::coding::OpCode;

use super::Shard;
use super::palette::Cell;
use super::socket::Socket;
use super::stats::{Dropped, Wire};
use crate::hub::fanout::{BUDGET, QUANTUM, weight};

impl<S: Socket> Shard<S> {
    /// Puts a publication behind the others of its channel.
    pub(super) fn enqueue(&mut self, publication: Arc<Publication>) {
        match self.hub.find(&publication.channel) {
            Some(channel) => self.fanout.push(channel, publication),
            // The last subscriber left while it was on its way.
            None => self.inbox.release(weight(&publication)),
        }
    }

    /// Serves every ready channel once, as far as the turn's budget goes.
    pub(super) fn fan_out(&mut self) {
        let mut budget = BUDGET;
        for _ in 0..self.fanout.ready() {
            if budget == 0 {
                return;
            }
            let Some((channel, mut round, begun)) = self.fanout.take() else { return };
            if begun {
                self.inbox.release(round.publications.iter().map(|publication| weight(publication)).sum());
                self.hub.begin_visit(channel);
            }
            let visited = self.hub.visit(channel, QUANTUM.min(budget));
            budget -= visited.len();
            let publications = round.publications.len() as u64;
            let mut shared: [Option<u32>; 3] = [None; 3];
            let (mut offered, mut pending) = (0, 0);
            for subscriber in visited {
                let Some((_, connection)) = self.connections.at_mut(subscriber.session) else { continue };
                let Some(wire) = connection.wire() else { continue };
                let cell = round.wires[wire as usize]
                    .get_or_insert_with(|| encode(wire, &round.publications, &mut self.encoding));
                offered += publications;
                pending += u64::from(cell.publications);
                if cell.publications == 0 {
                    continue;
                }
                let at = *shared[wire as usize].get_or_insert_with(|| self.palette.share(cell.clone()));
                if connection.marks.is_empty() {
                    self.dirty.push(subscriber.session);
                }
                self.palette.mark(&mut connection.marks, at);
            }
            self.stats.offered.add(offered);
            self.stats.pending.add(pending);
            // What a wire cannot carry: binary payloads for JSON clients.
            self.stats.dropped[Dropped::BinaryToJson as usize].add(offered - pending);
            if offered > 0 {
                let sessions = (offered / publications) as u32;
                let sent = round.publications.iter().map(|publication| (publication.received, sessions));
                self.palette.sent.extend(sent);
            }
            if self.hub.is_visiting(channel) {
                self.fanout.put_back(channel, round);
            } else {
                self.fanout.finish(channel);
            }
        }
    }
}

/// Encodes a round's publications for one wire, joined.
fn encode(wire: Wire, publications: &[Arc<Publication>], scratch: &mut Vec<u8>) -> Cell {
    let payload: usize = publications.iter().map(|publication| weight(publication)).sum();
    let mut out = Vec::with_capacity(payload);
    let mut count = 0;
    for publication in publications {
        scratch.clear();
        if !encode_one(wire.format(), publication, scratch) {
            continue;
        }
        if wire.is_websocket() {
            write_header(opcode(wire.format()), scratch.len(), &mut out);
        }
        out.extend_from_slice(scratch);
        count += 1;
    }
    out.shrink_to_fit();
    Cell { bytes: Bytes::from(out), publications: count }
}

/// Appends one push; `false` where the format cannot carry the payload.
fn encode_one(format: Format, publication: &Publication, out: &mut Vec<u8>) -> bool {
    let payload = &publication.payload;
    let form;
    let data = match format {
        Format::Protobuf => &payload.data[..],
        Format::Json => {
            form = json_form(payload.kind, &payload.data);
            match &form {
                Some(form) => form,
                None => return false,
            }
        }
    };
    let parts = PublicationParts {
        channel: &publication.channel,
        data,
        info: publication.info.as_deref(),
        offset: publication.offset,
        epoch: &publication.epoch,
        tags: &publication.tags,
    };
    encode_publication(format, &parts, out);
    true
}

/// The frame type of a WebSocket with this format.
pub(super) fn opcode(format: Format) -> OpCode {
    match format {
        Format::Json => TEXT,
        Format::Protobuf => BINARY,
    }
}
