//! Where a channel with a history stands, as one shard sees it. Pure.
//!
//! The broker numbers a channel's publications, and a shard gets them in that order. So whether anything is missing is a matter
//! of the channel and not of each subscription: one number for all subscribers, looked at once for each publication.
//! What a subscription has of its own is where it came in ([`Stream::join`]), and only until everybody is past that.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_broadcaster::{Position, Publication};

use crate::shard::wheel::Tick;

/// What a publication is to a channel whose position is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or one before the place where watching began.
    InOrder,
    /// It has been here already.
    Again,
    /// Some are missing before it, or the numbering has changed.
    Gap(Reason),
}

/// Why subscriptions have lost their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A publication's offset is not the next one.
    Offset,
    /// A publication, or the broker, has another epoch.
    Epoch,
    /// The broker is further than the last publication that came.
    Check,
    /// A publication came too long after it was published (`client.channel_position_max_time_lag`).
    Lag,
}

impl Reason {
    /// Every reason, in the order of [`crate::shard::stats::ShardStats::gaps`].
    pub const ALL: [Self; 4] = [Self::Offset, Self::Epoch, Self::Check, Self::Lag];

    /// The `reason` label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Offset => "offset",
            Self::Epoch => "epoch",
            Self::Check => "position_check",
            Self::Lag => "time_lag",
        }
    }
}

/// A channel's place.
#[derive(Debug)]
pub struct Stream {
    epoch: Arc<str>,
    /// The newest publication that came; `None` as long as none has since watching began.
    seen: Option<u64>,
    /// Where watching began: everybody who came in has everything up to here from the history.
    began: u64,
    /// Subscriptions that are told when something is missing.
    positioned: u32,
    /// Subscriptions that came in at a place which the publications of the channel have not passed yet: session and place.
    late: FxHashMap<u32, u64>,
    /// The tick in which the position is to be compared with the broker's next; an entry for another tick is void.
    pub check_at: Tick,
    /// Subscriptions that receive deltas.
    deltas: u32,
    /// The newest publication that went out, while there are such.
    previous: Option<Arc<Publication>>,
    /// Where the broker was when it was found to be further last time.
    pub behind: Option<u64>,
}

impl Stream {
    /// Begins to watch a channel whose end is here.
    pub fn new(top: &Position) -> Self {
        Self {
            epoch: Arc::clone(&top.epoch),
            seen: None,
            began: top.offset,
            positioned: 0,
            late: FxHashMap::default(),
            check_at: 0,
            deltas: 0,
            previous: None,
            behind: None,
        }
    }

    /// A subscription receives deltas from now on, or does not any more.
    pub fn count_delta(&mut self, comes: bool) {
        self.deltas = if comes { self.deltas + 1 } else { self.deltas.saturating_sub(1) };
        if self.deltas == 0 {
            self.previous = None;
        }
    }

    /// Whether somebody receives deltas.
    pub fn has_deltas(&self) -> bool {
        self.deltas > 0
    }

    /// A round ends with this publication: what the round before it ended with, if somebody received deltas then.
    pub fn exchange(&mut self, last: &Arc<Publication>) -> Option<Arc<Publication>> {
        self.previous.replace(Arc::clone(last))
    }

    /// The numbering.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// A publication has come. One that is late counts where it is news to somebody.
    pub fn arrive(&mut self, offset: u64, epoch: &str, is_late: bool) -> Arrival {
        if *epoch != *self.epoch {
            return Arrival::Gap(Reason::Epoch);
        }
        if self.seen.is_some_and(|seen| offset <= seen) {
            return Arrival::Again;
        }
        // What was published before watching began may still be on its way, or some of it: everybody has it from the history.
        let known = self.known();
        self.seen = Some(offset);
        match offset.checked_sub(known + 1) {
            None => Arrival::InOrder,
            Some(0) if !is_late => Arrival::InOrder,
            Some(0) => Arrival::Gap(Reason::Lag),
            Some(_) => Arrival::Gap(Reason::Offset),
        }
    }

    /// Whether everything up to the broker's position has come.
    pub fn has_reached(&self, top: &Position) -> Result<bool, Reason> {
        if top.epoch != self.epoch {
            return Err(Reason::Epoch);
        }
        Ok(self.has_come_to(top.offset))
    }

    /// Whether everything up to this offset has come.
    pub fn has_come_to(&self, offset: u64) -> bool {
        offset <= self.known()
    }

    /// The newest publication that everybody has or gets.
    fn known(&self) -> u64 {
        self.seen.unwrap_or(0).max(self.began)
    }

    /// A session has come in: it has everything up to `from`.
    pub fn join(&mut self, session: u32, from: u64) {
        // An answer that was long on its way may know less than one that was asked for later and came first.
        self.began = self.began.min(from);
        self.positioned += 1;
        self.late.insert(session, from);
    }

    /// A session has left. Answers whether nobody is left whose position counts.
    pub fn leave(&mut self, session: u32) -> bool {
        self.late.remove(&session);
        self.positioned = self.positioned.saturating_sub(1);
        self.positioned == 0
    }

    /// Whether there is any session that the channel is not past.
    pub fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// Where the session came in, if the channel is not past that.
    pub fn late(&self, session: u32) -> Option<u64> {
        self.late.get(&session).copied()
    }

    /// Everybody has been given everything up to this offset.
    pub fn passed(&mut self, offset: u64) {
        if !self.late.is_empty() {
            self.late.retain(|_, from| *from > offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(top: u64) -> Stream {
        Stream::new(&Position { offset: top, epoch: "e".into() })
    }

    fn top(offset: u64, epoch: &str) -> Position {
        Position { offset, epoch: epoch.into() }
    }

    #[test]
    fn what_is_not_the_next_one_is_a_gap_or_came_before() {
        let mut stream = stream(5);
        assert_eq!(stream.arrive(3, "e", false), Arrival::InOrder, "published before watching began");
        assert_eq!(stream.arrive(5, "e", false), Arrival::InOrder, "and so was what is missing in between");
        assert_eq!(stream.arrive(5, "e", false), Arrival::Again);
        assert_eq!(stream.arrive(6, "e", false), Arrival::InOrder);
        assert_eq!(stream.arrive(8, "e", false), Arrival::Gap(Reason::Offset));
        assert_eq!(stream.arrive(9, "e", false), Arrival::InOrder, "a gap is told once");
        assert_eq!(stream.arrive(10, "f", false), Arrival::Gap(Reason::Epoch));
    }

    #[test]
    fn who_knows_least_decides_what_is_missing() {
        let mut stream = stream(9);
        stream.join(1, 9);
        stream.join(2, 5);
        assert_eq!(stream.arrive(5, "e", false), Arrival::InOrder);
        assert_eq!(stream.arrive(7, "e", false), Arrival::Gap(Reason::Offset));
    }

    #[test]
    fn a_late_one_is_a_gap_where_it_is_news() {
        let mut stream = stream(5);
        assert_eq!(stream.arrive(5, "e", true), Arrival::InOrder, "everybody has it from the history");
        assert_eq!(stream.arrive(6, "e", true), Arrival::Gap(Reason::Lag));
        assert_eq!(stream.arrive(6, "e", true), Arrival::Again);
        assert_eq!(stream.arrive(7, "e", false), Arrival::InOrder);
        assert_eq!(stream.arrive(9, "e", true), Arrival::Gap(Reason::Offset), "what is missing is the better reason");
    }

    #[test]
    fn the_first_one_may_be_a_gap_too() {
        assert_eq!(stream(5).arrive(7, "e", false), Arrival::Gap(Reason::Offset));
        assert_eq!(stream(0).arrive(1, "e", false), Arrival::InOrder);
        assert_eq!(stream(0).arrive(2, "e", false), Arrival::Gap(Reason::Offset));
    }

    #[test]
    fn a_check_tells_what_no_publication_has() {
        let mut stream = stream(5);
        assert_eq!(stream.has_reached(&top(5, "e")), Ok(true));
        assert_eq!(stream.has_reached(&top(6, "e")), Ok(false));
        stream.arrive(6, "e", false);
        assert_eq!(stream.has_reached(&top(6, "e")), Ok(true));
        assert_eq!(stream.has_reached(&top(6, "f")), Err(Reason::Epoch));
    }

    #[test]
    fn who_came_in_is_late_until_the_channel_is_past_that() {
        let mut stream = stream(5);
        stream.join(1, 7);
        stream.join(2, 5);
        stream.passed(6);
        assert_eq!((stream.late(1), stream.late(2)), (Some(7), None));
        stream.passed(7);
        assert_eq!(stream.late(1), None);
        assert!(!stream.leave(1));
        assert!(stream.leave(2));
    }
}
