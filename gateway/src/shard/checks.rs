//! When which channel's position is to be compared with the broker's.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tidegate_broadcaster::Channel;

use super::wheel::Tick;

/// Channels by the tick in which they are due. An entry may be void by then: whoever takes it out looks.
#[derive(Debug, Default)]
pub(super) struct Checks(BinaryHeap<Reverse<(Tick, Channel)>>);

impl Checks {
    /// Enters a channel.
    pub(super) fn push(&mut self, due: Tick, channel: Channel) {
        self.0.push(Reverse((due, channel)));
    }

    /// Takes out the first channel that is due by now, with its tick.
    pub(super) fn pop(&mut self, now: Tick) -> Option<(Tick, Channel)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// The first tick in which a channel is due.
    pub(super) fn next(&self) -> Option<Tick> {
        self.0.peek().map(|Reverse((due, _))| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_come_when_they_are_due_and_not_before() {
        let mut checks = Checks::default();
        checks.push(9, "b".into());
        checks.push(5, "a".into());
        assert_eq!((checks.next(), checks.pop(4)), (Some(5), None));
        assert_eq!(checks.pop(5), Some((5, "a".into())));
        assert_eq!(checks.pop(20), Some((9, "b".into())));
        assert_eq!((checks.pop(20), checks.next()), (None, None));
    }
}
