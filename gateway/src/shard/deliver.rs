//! Publications to sessions, in slices.

use std::sync::Arc;

use tidegate_broadcaster::{Publication, PushKind};
use tidegate_protocol::filter::Filter;

use super::Shard;
use super::encode::{Encodings, Form, Kind, encode_push};
use super::outbox::Queueing;
use super::socket::Socket;
use super::stats::{Dropped, Wire};
use crate::config::QueuePolicy;
use crate::hub::fanout::{BUDGET, QUANTUM, weight};
use crate::hub::stream::{Arrival, Stream};
use crate::hub::{ChannelId, Filters, Subscriber, Visit};

/// Cells of a round: for each wire one for each [`Kind`].
const CELLS: usize = 3 * Wire::ALL.len();

impl<S: Socket> Shard<S> {
    /// Puts a publication behind the others of its channel.
    pub(super) fn enqueue(&mut self, publication: Arc<Publication>) {
        let Some(channel) = self.hub.find(&publication.channel) else {
            // The last subscriber left while it was on its way.
            return self.inbox.release(weight(&publication));
        };
        if publication.kind == PushKind::Publication {
            self.recoveries.note(channel, &publication);
        }
        match self.hub.arrive(channel, &publication) {
            Arrival::InOrder => {}
            Arrival::Again => {
                self.stats.repeated.add(1);
                return self.inbox.release(weight(&publication));
            }
            Arrival::Gap(reason) => {
                self.lose_place(channel, reason);
                if self.hub.is_unused(channel) {
                    // Everybody was told, and nobody is left.
                    self.release_if_unused(channel);
                    return self.inbox.release(weight(&publication));
                }
            }
        }
        self.fanout.push(channel, publication);
    }

    /// Serves every ready channel once, as far as the turn's budget goes.
    pub(super) fn fan_out(&mut self) {
        let mut budget = BUDGET;
        for _ in 0..self.fanout.ready() {
            if budget == 0 {
                return;
            }
            let Some((channel, mut round, begun)) = self.fanout.take() else { return };
            let attendance = round.is_attendance();
            let policy = match self.hub.traits(channel).policy {
                // A place for the newest publication is none for who has come before somebody else.
                QueuePolicy::Latest if attendance => QueuePolicy::DropOldest,
                policy => policy,
            };
            let queueing = Queueing { channel, policy };
            if begun {
                self.inbox.release(round.publications.iter().map(|publication| weight(publication)).sum());
                self.hub.begin_visit(channel);
                if !attendance
                    && let (Some(stream), Some(last)) = (self.hub.stream(channel), round.publications.last())
                    && stream.has_deltas()
                {
                    round.wires.refer_to(stream.exchange(last));
                }
            }
            let Visit { subscribers: visited, stream, filters } = self.hub.visit(channel, QUANTUM.min(budget));
            budget -= visited.len();
            let publications = round.publications.len() as u64;
            let first = round.publications.first().map_or(0, |publication| publication.offset);
            // For each cell of the round its place in the turn's palette, and the publications in it.
            let mut shared: [Option<(u32, u32)>; CELLS] = [None; CELLS];
            let late = stream.filter(|stream| stream.has_late());
            let (mut offered, mut pending, mut filtered) = (0, 0, 0);
            for subscriber in visited {
                let Some((_, connection)) = self.connections.at_mut(subscriber.session) else { continue };
                let Some(wire) = connection.wire() else { continue };
                if attendance && !subscriber.is_attending() {
                    continue;
                }
                let kind = if attendance { Kind::Plain } else { subscriber.kind() };
                // Who has come in with a part of this round already gets the rest of it, and who has a filter what passes.
                if !attendance
                    && (late.is_some() || subscriber.is_filtered())
                    && let Some((from, filter)) = part_of(*subscriber, channel, first, late, filters)
                {
                    for publication in round.publications.iter() {
                        if publication.offset > 0 && publication.offset <= from {
                            continue;
                        }
                        offered += 1;
                        if filter.is_some_and(|filter| !filter.matches(&publication.tags)) {
                            filtered += 1;
                            continue;
                        }
                        subscriber.was_sent();
                        self.rest.clear();
                        let form = if kind == Kind::Plain { Form::Plain } else { Form::Whole };
                        if encode_push(wire, publication, form, &mut self.encoding, &mut self.rest) {
                            pending += 1;
                            if connection.marks.is_empty() {
                                self.dirty.push(subscriber.session);
                            }
                            self.palette
                                .mark_private(&mut connection.marks, 1, |out| out.extend_from_slice(&self.rest));
                        }
                    }
                    continue;
                }
                offered += publications;
                let (at, carried) = *shared[Encodings::place(wire, kind)].get_or_insert_with(|| {
                    let cell = round.wires.cell(wire, kind, &round.publications, queueing, &mut self.encoding);
                    (self.palette.share(cell.clone()), cell.publications)
                });
                if carried == 0 {
                    continue;
                }
                pending += u64::from(carried);
                if !attendance {
                    subscriber.was_sent();
                }
                if connection.marks.is_empty() {
                    self.dirty.push(subscriber.session);
                }
                self.palette.mark(&mut connection.marks, at);
            }
            self.stats.offered.add(offered);
            self.stats.pending.add(pending);
            // What a wire cannot carry: binary payloads for JSON clients.
            self.stats.dropped[Dropped::BinaryToJson as usize].add(offered - pending - filtered);
            self.stats.dropped[Dropped::Filtered as usize].add(filtered);
            if offered > 0 {
                let sessions = (offered / publications) as u32;
                let sent = round.publications.iter().map(|publication| (publication.received, sessions));
                self.palette.sent.extend(sent);
            }
            if self.hub.is_visiting(channel) {
                self.fanout.put_back(channel, round);
            } else {
                let numbers = round.publications.iter().map(|publication| publication.offset);
                if let (Some(stream), Some(last)) = (self.hub.stream(channel), numbers.max()) {
                    stream.passed(last);
                }
                self.fanout.finish(channel);
            }
        }
    }
}

/// Where a subscriber has come in within the round that begins with `first`, and its filter; `None`: it gets all of it.
fn part_of<'a>(
    subscriber: Subscriber,
    channel: ChannelId,
    first: u64,
    late: Option<&Stream>,
    filters: &'a Filters,
) -> Option<(u64, Option<&'a Filter>)> {
    let from = late.and_then(|stream| stream.late(subscriber.session)).filter(|from| *from >= first);
    let filter = if subscriber.is_filtered() { filters.get(&(channel, subscriber.session)) } else { None };
    (from.is_some() || filter.is_some()).then(|| (from.unwrap_or(0), filter.map(|filter| &**filter)))
}
