//! From the log's records, in their order, to what is kept of each channel. Pure.
//!
//! A record may come twice: a batch is written again after a write that failed, and a snapshot holds what the segments
//! behind it say as well. So each record says what is, and not what to change: one whose offset is known is passed
//! over. Publications stay where they are, and only their places are remembered; what is still kept at the end is read
//! then.

use std::collections::{HashMap, VecDeque};

use super::clock::millis;
use super::record::{Entry, Place, Record, State, Terms};
use crate::embedded::streams::IDEMPOTENCY_TTL;
use crate::publication::Channel;

/// Where a publication's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    /// The file, in the order of reading.
    pub(super) file: u32,
    /// Its first byte there.
    pub(super) at: u64,
    /// Its bytes.
    pub(super) length: u32,
}

/// What is known of a channel.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) epoch: String,
    pub(super) top: u64,
    /// The publications, without a gap.
    pub(super) spots: VecDeque<Spot>,
    /// The offset of the last of them.
    last: u64,
    pub(super) publications_until: u64,
    pub(super) until: u64,
    pub(super) version: (u64, String),
    /// Until when, the key, the offset that it came to; the oldest first.
    pub(super) answered: VecDeque<(u64, String, u64)>,
}

/// All channels.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Where in `channels` each name is.
    names: HashMap<Channel, usize, foldhash::fast::RandomState>,
    channels: Vec<(Channel, Replayed)>,
    /// Records so far.
    pub(super) records: u64,
    /// Some channel's numbers have a gap: publications are missing that were written.
    pub(super) has_gap: bool,
}

impl Replayed {
    fn new(epoch: &str, top: u64) -> Self {
        Self { epoch: epoch.to_owned(), top, ..Self::default() }
    }

    fn push(&mut self, offset: u64, spot: Spot) {
        if self.last + 1 != offset {
            self.spots.clear();
        }
        self.spots.push_back(spot);
        self.last = offset;
    }

    /// Forgets the publications up to this offset.
    fn remove(&mut self, up_to: u64) {
        let beyond = self.last.saturating_sub(up_to);
        while self.spots.len() as u64 > beyond {
            self.spots.pop_front();
        }
    }

    /// Notes that the numbering has come to this offset, and answers whether something before it is missing.
    fn reach(&mut self, offset: u64) -> bool {
        let is_behind = self.top < offset;
        if is_behind {
            self.top = offset;
            self.spots.clear();
        }
        is_behind
    }
}

impl Replay {
    /// Takes the next record, which stands at this spot.
    pub(super) fn apply(&mut self, record: Record<'_>, spot: Spot) {
        self.records += 1;
        match record {
            Record::Publish(entry, terms) => self.publish(&entry, &terms, spot),
            Record::Kept(entry) => self.keep(&entry, spot),
            Record::Stream(state) => self.replace(&state),
            Record::Remove(place) => {
                let gap = self.channel(&place, place.offset).reach(place.offset);
                self.channel(&place, place.offset).remove(place.offset);
                self.has_gap |= gap;
            }
            Record::Position(place, until) => {
                let channel = self.channel(&place, place.offset);
                channel.until = channel.until.max(until);
                self.has_gap |= channel.reach(place.offset);
            }
            Record::Clean => {}
        }
    }

    fn publish(&mut self, entry: &Entry<'_>, terms: &Terms<'_>, spot: Spot) {
        let offset = entry.place.offset;
        let channel = self.channel(&entry.place, offset.saturating_sub(1));
        if offset <= channel.top {
            return;
        }
        let gap = channel.reach(offset - 1);
        channel.top = offset;
        if terms.unix_ms >= channel.publications_until {
            channel.spots.clear();
        }
        channel.push(offset, spot);
        while channel.spots.len() > terms.retention.size.max(1) as usize {
            channel.spots.pop_front();
        }
        channel.publications_until = terms.unix_ms.saturating_add(millis(terms.retention.ttl));
        channel.until = channel.until.max(terms.unix_ms.saturating_add(millis(terms.retention.meta_ttl)));
        if let Some((number, epoch)) = terms.version {
            channel.version = (number, epoch.to_owned());
        }
        while channel.answered.front().is_some_and(|(until, ..)| *until <= terms.unix_ms) {
            channel.answered.pop_front();
        }
        if let Some(key) = terms.idempotency_key {
            let until = terms.unix_ms.saturating_add(millis(IDEMPOTENCY_TTL));
            channel.answered.push_back((until, key.to_owned(), offset));
        }
        self.has_gap |= gap;
    }

    fn keep(&mut self, entry: &Entry<'_>, spot: Spot) {
        let offset = entry.place.offset;
        let channel = self.channel(&entry.place, offset);
        if !channel.spots.is_empty() && offset <= channel.last {
            return;
        }
        let gap = !channel.spots.is_empty() && channel.last + 1 != offset;
        channel.push(offset, spot);
        self.has_gap |= gap;
    }

    fn replace(&mut self, state: &State<'_>) {
        let answered = state.answered.iter().map(|(until, key, offset)| (*until, (*key).to_owned(), *offset)).collect();
        let replayed = Replayed {
            publications_until: state.publications_until,
            until: state.until,
            version: (state.version.0, state.version.1.to_owned()),
            answered,
            ..Replayed::new(state.top.epoch, state.top.offset)
        };
        *self.channel(&state.top, 0) = replayed;
    }

    /// The channel in this numbering, with this top where nothing is known of it.
    fn channel(&mut self, place: &Place<'_>, top: u64) -> &mut Replayed {
        let index = self.names.get(place.channel).copied().unwrap_or_else(|| {
            let name = Channel::from(place.channel);
            self.names.insert(Channel::clone(&name), self.channels.len());
            self.channels.push((name, Replayed::new(place.epoch, top)));
            self.channels.len() - 1
        });
        let (_, channel) = &mut self.channels[index];
        if channel.epoch != place.epoch {
            *channel = Replayed::new(place.epoch, top);
        }
        channel
    }

    /// What is kept at this time, in no order.
    pub(super) fn finish(mut self, unix_ms: u64) -> (Vec<(Channel, Replayed)>, bool) {
        self.channels.retain(|(_, channel)| channel.until > unix_ms);
        for (_, channel) in &mut self.channels {
            if !channel.spots.is_empty() && channel.last != channel.top {
                channel.spots.clear();
                self.has_gap = true;
            }
            if channel.publications_until <= unix_ms {
                channel.spots.clear();
            }
            channel.answered.retain(|(until, ..)| *until > unix_ms);
        }
        (self.channels, self.has_gap)
    }
}

#[cfg(test)]
mod tests;
