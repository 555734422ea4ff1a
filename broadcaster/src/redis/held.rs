//! Keeps the order of a slot's commands in a cluster, whatever its servers say. No I/O and no clock.
//!
//! Commands of one slot go to one server at a time, as a pipeline. When the slot moves, the server sends some of them
//! back unexecuted, and more may be on their way to it. So every command has a number, given with its place in the
//! order; what comes back is held by its number, and so is whatever is called meanwhile. Only when nothing of the slot
//! is under way any more is the first of those tried, alone; when that has gone well, the others follow.
//!
//! The same happens when the layout names another server for a slot of which commands are under way.
//!
//! While a slot is being moved, its server sends commands on to the next one (`ASK`), which takes them one at a time.
//!
//! A server that has refused a command may execute a later one that was under way already, because the slot has come
//! back to it or the cluster is whole again. The refused one must not be tried after that: it is given up
//! ([`Held::done`]).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::topology::Lane;

/// How long after a refusal a slot is tried again. It doubles.
const FIRST_DELAY: Duration = Duration::from_millis(5);

/// Up to this.
const LONGEST_DELAY: Duration = Duration::from_millis(160);

/// The slots that have commands under way or held. `J` is a command.
#[derive(Debug)]
pub(crate) struct Held<J> {
    slots: HashMap<u16, Slot<J>>,
    /// The next command's number.
    next: u64,
    /// How many commands are held.
    len: usize,
}

#[derive(Debug)]
struct Slot<J> {
    /// Where the commands under way went.
    lane: Lane,
    under_way: usize,
    held: BTreeMap<u64, J>,
    /// Set by a refusal, cleared by a success.
    refused: Option<Refused>,
    /// Where the slot's server has sent commands on to.
    asked: Option<Lane>,
}

/// A command that may be sent now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Released<J> {
    pub(crate) job: J,
    /// Where to.
    pub(crate) lane: Lane,
    /// Whether the server has to be told that the command was sent on to it.
    pub(crate) asking: bool,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    delay: Duration,
    until: Instant,
}

impl<J> Default for Held<J> {
    fn default() -> Self {
        Self { slots: HashMap::new(), next: 0, len: 0 }
    }
}

impl<J> Held<J> {
    /// The next command's number.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many commands are held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether a new command of a slot may go to `lane` now; then it counts as under way. Else it has to be held.
    pub(crate) fn may_go(&mut self, slot: u16, lane: Option<Lane>) -> bool {
        let Some(lane) = lane else { return false };
        let slot = self.slots.entry(slot).or_insert_with(|| Slot::new(lane));
        if !slot.held.is_empty() || (slot.under_way > 0 && slot.lane != lane) {
            return false;
        }
        slot.lane = lane;
        slot.under_way += 1;
        true
    }

    /// Holds a new command.
    pub(crate) fn hold(&mut self, slot: u16, number: u64, job: J) {
        // No lane is of any meaning while nothing is under way.
        self.slots.entry(slot).or_insert_with(|| Slot::new(0)).held.insert(number, job);
        self.len += 1;
    }

    /// A command under way has been answered, or its connection is lost: it is over. `well`: the server has executed
    /// it. Answers the commands that were called before it and can be executed no more.
    pub(crate) fn done(&mut self, slot: u16, number: u64, well: bool) -> Vec<J> {
        let Some(found) = self.slots.get_mut(&slot) else { return Vec::new() };
        found.under_way = found.under_way.saturating_sub(1);
        let mut overtaken = Vec::new();
        if well {
            found.refused = None;
            while let Some(earlier) = found.held.first_entry().filter(|earlier| *earlier.key() < number) {
                overtaken.push(earlier.remove());
            }
            self.len -= overtaken.len();
        }
        if found.under_way == 0 && found.held.is_empty() {
            self.slots.remove(&slot);
        }
        overtaken
    }

    /// Whether nothing is under way or held.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// A command under way has come back unexecuted. `asked`: the server to ask instead, where it has named one.
    pub(crate) fn come_back(&mut self, slot: u16, number: u64, job: J, asked: Option<Lane>, now: Instant) {
        let Some(found) = self.slots.get_mut(&slot) else { return self.hold(slot, number, job) };
        found.under_way = found.under_way.saturating_sub(1);
        found.held.insert(number, job);
        self.len += 1;
        found.asked = asked;
        if asked.is_some() {
            return;
        }
        // Those that come back together count as one refusal.
        if found.refused.is_none_or(|refused| refused.until <= now) {
            let delay = found.refused.map_or(FIRST_DELAY, |refused| (refused.delay * 2).min(LONGEST_DELAY));
            found.refused = Some(Refused { delay, until: now + delay });
        }
    }

    /// Takes out those whose time is over, in their order.
    pub(crate) fn expire(&mut self, is_over: impl Fn(&J) -> bool) -> Vec<J> {
        let mut over = BTreeMap::new();
        self.slots.retain(|_, slot| {
            let late: Vec<u64> = slot.held.iter().filter(|(_, job)| is_over(job)).map(|(number, _)| *number).collect();
            over.extend(late.into_iter().filter_map(|number| slot.held.remove_entry(&number)));
            slot.under_way > 0 || !slot.held.is_empty()
        });
        self.len -= over.len();
        over.into_values().collect()
    }

    /// Takes out what may be sent now; it counts as under way. `owner` says where a slot belongs, and `is_up` whether a
    /// server can be sent to.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        owner: impl Fn(u16) -> Option<Lane>,
        is_up: impl Fn(Lane) -> bool,
    ) -> Vec<Released<J>> {
        let mut all = Vec::new();
        for (number, slot) in &mut self.slots {
            let waits = slot.asked.is_none() && slot.refused.is_some_and(|refused| refused.until > now);
            if slot.under_way > 0 || slot.held.is_empty() || waits {
                continue;
            }
            let asked = slot.asked.filter(|lane| is_up(*lane));
            let Some(lane) = asked.or_else(|| owner(*number).filter(|lane| is_up(*lane))) else { continue };
            slot.lane = lane;
            let asking = asked.is_some();
            let alone = asking || slot.refused.is_some();
            while let Some((_, job)) = slot.held.pop_first() {
                slot.under_way += 1;
                self.len -= 1;
                all.push(Released { job, lane, asking });
                if alone {
                    break;
                }
            }
        }
        all
    }
}

impl<J> Slot<J> {
    fn new(lane: Lane) -> Self {
        Self { lane, under_way: 0, held: BTreeMap::new(), refused: None, asked: None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// One slot, its two possible servers, and commands that are their own numbers.
    struct World {
        held: Held<u64>,
        now: Instant,
        /// The server that the layout names, and the one that really has the slot.
        layout: Option<Lane>,
        owner: Lane,
        /// Whether the owner gives the slot to the other one: it sends commands on, which takes them if it is asked.
        moving: bool,
        /// With each command, whether it asks.
        queues: [VecDeque<(u64, bool)>; 2],
        executed: Vec<u64>,
        given_up: Vec<u64>,
        called: u64,
    }

    impl World {
        fn call(&mut self) {
            let number = self.held.number();
            self.called += 1;
            if self.held.may_go(7, self.layout) {
                self.queues[usize::from(self.layout.unwrap())].push_back((number, false));
            } else {
                self.held.hold(7, number, number);
            }
        }

        fn serve(&mut self, lane: Lane) {
            let Some((job, asking)) = self.queues[usize::from(lane)].pop_front() else { return };
            let takes = if self.moving { self.owner != lane && asking } else { self.owner == lane };
            if takes {
                self.executed.push(job);
                self.given_up.extend(self.held.done(7, job, true));
            } else {
                let asked = (self.moving && self.owner == lane).then_some(1 - lane);
                self.held.come_back(7, job, job, asked, self.now);
            }
        }

        fn release(&mut self) {
            let layout = self.layout;
            for Released { job, lane, asking } in self.held.release(self.now, |_| layout, |_| true) {
                self.queues[usize::from(lane)].push_back((job, asking));
            }
        }
    }

    proptest! {
        #[test]
        fn every_command_is_executed_once_and_in_order_or_given_up(steps in prop::collection::vec(0..10_u8, 0..200)) {
            let mut world = World {
                held: Held::default(),
                now: Instant::now(),
                layout: None,
                owner: 0,
                moving: false,
                queues: Default::default(),
                executed: Vec::new(),
                given_up: Vec::new(),
                called: 0,
            };
            for step in steps {
                match step {
                    0..=2 => world.call(),
                    3 => world.serve(0),
                    4 => world.serve(1),
                    5 => world.release(),
                    6 => world.now += FIRST_DELAY,
                    // The layout follows when it likes.
                    7 => (world.owner, world.moving) = (1 - world.owner, false),
                    8 => world.moving = !world.moving,
                    _ => world.layout = Some(world.owner),
                }
            }
            (world.layout, world.moving) = (Some(world.owner), false);
            for _ in 0..1000 {
                world.now += LONGEST_DELAY;
                world.release();
                world.serve(0);
                world.serve(1);
            }
            prop_assert!(world.executed.is_sorted(), "{:?}", world.executed);
            let mut all = [world.executed, world.given_up].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (1..=world.called).collect::<Vec<_>>());
            prop_assert!(world.held.is_idle() && world.held.len() == 0, "nothing is left over");
        }
    }

    #[test]
    fn what_a_slot_that_moves_once_sends_back_is_executed_at_its_new_place_in_order() {
        let (now, mut held) = (Instant::now(), Held::default());
        let numbers: Vec<u64> = (0..3).map(|_| held.number()).collect();
        assert!(numbers.iter().all(|_| held.may_go(7, Some(0))));
        numbers.iter().for_each(|number| held.come_back(7, *number, *number, None, now));
        assert!(!held.may_go(7, Some(1)), "later ones wait behind them");
        let release = |held: &mut Held<u64>, now| {
            let released = held.release(now, |_| Some(1), |_| true);
            released.iter().map(|released| (released.job, released.lane, released.asking)).collect::<Vec<_>>()
        };
        assert_eq!(release(&mut held, now), [], "not at once");
        assert_eq!(release(&mut held, now + FIRST_DELAY), [(1, 1, false)], "the first alone");
        assert_eq!(held.done(7, 1, true), [0; 0]);
        assert_eq!(release(&mut held, now), [(2, 1, false), (3, 1, false)]);
        held.come_back(7, 2, 2, Some(0), now);
        held.come_back(7, 3, 3, Some(0), now);
        assert_eq!(release(&mut held, now), [(2, 0, true)], "one at a time, at once");
        assert_eq!(held.done(7, 2, true), [0; 0]);
        assert_eq!(release(&mut held, now), [(3, 0, true)]);
    }

    #[test]
    fn what_waits_too_long_is_given_up_in_order() {
        let mut held = Held::default();
        for number in 1..=3 {
            held.hold(number as u16 % 2, number, number);
        }
        assert_eq!(held.expire(|job| *job != 2), [1, 3]);
        assert_eq!((held.len(), held.slots.len()), (1, 1));
    }
}
