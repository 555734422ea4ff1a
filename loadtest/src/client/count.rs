//! Which messages of a channel have come to a session, and which are missing, in eight bytes.

use serde::{Deserialize, Serialize};

/// How far a session has come with one of its channels.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    /// The sequence number that comes next, or [`JOINING`].
    next: u32,
    /// Messages before `next` that have not come.
    missing: u32,
}

/// Marks a channel that was subscribed to in the middle of a measurement and has had no message yet.
const JOINING: u32 = u32::MAX;

impl Count {
    /// From the beginning of a measurement.
    pub(crate) const START: Self = Self { next: 0, missing: 0 };
    /// From its middle.
    pub(crate) const JOIN: Self = Self { next: JOINING, missing: 0 };

    /// Messages before the newest that have not come.
    pub(crate) fn missing(self) -> u64 {
        u64::from(self.missing)
    }

    /// Whether the first message is still to come, to a session that has joined in the middle.
    pub(crate) fn is_joining(self) -> bool {
        self.next == JOINING
    }

    /// The first message that comes to who has joined in the middle, and how many are missing before it.
    pub(crate) fn join(&mut self, sequence: u32, missing: u32) {
        *self = Self { next: sequence, missing: missing.min(sequence) };
    }

    /// A message has come.
    #[inline]
    pub(crate) fn take(&mut self, sequence: u32) -> Arrival {
        if let Some(gap) = sequence.checked_sub(self.next) {
            self.missing = self.missing.saturating_add(gap);
            self.next = sequence.saturating_add(1);
            return Arrival { gap, late: false, again: false };
        }
        // Without a list of what is missing, an earlier message counts as late as long as something is missing, and as a
        // duplicate otherwise. Both fail a run.
        let late = self.missing > 0;
        self.missing -= u32::from(late);
        Arrival { gap: 0, late, again: !late }
    }

    /// How many of `published` messages never came to a session that has been subscribed since `ready`; for one that
    /// has joined in the middle those count that were due later.
    pub(crate) fn lost(self, published: u32, ready: u64, schedule: Schedule) -> u64 {
        if self.is_joining() {
            return schedule.due_after(ready, published);
        }
        self.missing() + u64::from(published.saturating_sub(self.next))
    }
}

/// What a message is to the channel that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Messages between the one before and this one.
    pub(crate) gap: u32,
    /// It was missing, and comes behind later ones.
    pub(crate) late: bool,
    /// It has come before.
    pub(crate) again: bool,
}

/// When the messages of a channel were due.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// The first one, in ns of [`crate::clock::now`].
    pub(crate) first: u64,
    /// From one to the next, in ns; 0 where there is no schedule.
    pub(crate) interval: u64,
}

impl Schedule {
    /// How many of the first `published` messages were due after `time`; none where there is no schedule.
    fn due_after(self, time: u64, published: u32) -> u64 {
        if self.interval == 0 {
            return 0;
        }
        let before = time.checked_sub(self.first).map_or(0, |since| since / self.interval + 1);
        u64::from(published).saturating_sub(before)
    }
}
