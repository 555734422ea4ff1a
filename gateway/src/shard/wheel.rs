//! The timer wheel: one deadline per connection, checked lazily.
//!
//! A connection's deadline moves with nearly every byte it receives. So nothing is moved in the
//! wheel then: when an entry comes up, the shard looks at the connection, and either acts or arms
//! it again for the time that is left. An entry counts only while the connection says that it is
//! armed for just this tick, so arming for an earlier time needs no removal either.

use super::slab::Key;

/// Coarse time: tenths of a second since the shard started.
pub type Tick = u32;

/// A tick, in milliseconds.
pub const TICK_MS: u64 = 100;

/// Slots in the wheel. A deadline further away than this (51 s) comes up early and is armed again.
const SLOTS: u32 = 512;

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Key>>,
    /// The next tick that has not been looked at.
    next: Tick,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), next: 0 }
    }
}

impl Wheel {
    /// Arms a key for `deadline`, or for the furthest slot if that is nearer. The answer is the
    /// tick in which it comes up: what the connection has to remember.
    pub fn arm(&mut self, key: Key, deadline: Tick) -> Tick {
        let tick = deadline.clamp(self.next, self.next + SLOTS - 1);
        self.slots[(tick % SLOTS) as usize].push(key);
        tick
    }

    /// Takes one tick's entries, oldest first, if a tick up to `now` has not been looked at yet.
    /// The vector is to be given back with [`Wheel::recycle`].
    pub fn expire(&mut self, now: Tick) -> Option<(Tick, Vec<Key>)> {
        while self.next <= now {
            let tick = self.next;
            self.next += 1;
            let due = std::mem::take(&mut self.slots[(tick % SLOTS) as usize]);
            if !due.is_empty() {
                return Some((tick, due));
            }
        }
        None
    }

    /// Gives an emptied slot's memory back to it, unless it is much more than the slot needs now.
    pub fn recycle(&mut self, tick: Tick, mut due: Vec<Key>) {
        let slot = &mut self.slots[(tick % SLOTS) as usize];
        if slot.is_empty() && due.len() * 4 >= due.capacity() {
            due.clear();
            *slot = due;
        }
    }

    /// The next tick that holds an entry, at most the whole wheel away; `None` when it is empty.
    pub fn next_due(&self) -> Option<Tick> {
        (self.next..self.next + SLOTS).find(|tick| !self.slots[(tick % SLOTS) as usize].is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    fn drain(wheel: &mut Wheel, now: Tick) -> Vec<(Tick, Key)> {
        let mut all = Vec::new();
        while let Some((tick, due)) = wheel.expire(now) {
            all.extend(due.iter().map(|key| (tick, *key)));
            wheel.recycle(tick, due);
        }
        all
    }

    #[test]
    fn an_entry_comes_up_in_its_tick_and_not_before() {
        let (mut slab, mut wheel) = (Slab::default(), Wheel::default());
        let key = slab.insert(());
        assert_eq!(wheel.arm(key, 30), 30);
        assert_eq!(wheel.next_due(), Some(30));
        assert_eq!(drain(&mut wheel, 29), []);
        assert_eq!(drain(&mut wheel, 30), [(30, key)]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn a_deadline_in_the_past_comes_up_at_once() {
        let (mut slab, mut wheel) = (Slab::default(), Wheel::default());
        assert_eq!(drain(&mut wheel, 100), []);
        let key = slab.insert(());
        assert_eq!(wheel.arm(key, 5), 101);
        assert_eq!(drain(&mut wheel, 101), [(101, key)]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_comes_up_early() {
        let (mut slab, mut wheel) = (Slab::default(), Wheel::default());
        let key = slab.insert(());
        assert_eq!(wheel.arm(key, 10_000), SLOTS - 1);
        assert_eq!(drain(&mut wheel, 600), [(SLOTS - 1, key)]);
    }

    #[test]
    fn ticks_that_were_slept_through_come_up_in_order() {
        let (mut slab, mut wheel) = (Slab::default(), Wheel::default());
        let (late, early) = (slab.insert(()), slab.insert(()));
        wheel.arm(late, 9);
        wheel.arm(early, 3);
        assert_eq!(drain(&mut wheel, 50), [(3, early), (9, late)]);
    }
}
