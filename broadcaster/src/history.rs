//! History: what a channel keeps, where a reader of it is, and whether all that the reader missed is still there. Pure.
//!
//! A channel's publications are numbered from 1. The numbers go on after the publications themselves have gone, so that a
//! reader who was away too long learns that something is missing. The epoch names one such numbering: it changes when the
//! numbers begin anew (the broker has lost its data, or `history_meta_ttl` has passed without a publication).

use std::sync::Arc;
use std::time::Duration;

use crate::publication::Publication;

/// A place in a channel's history: everything up to `offset` is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The last publication that is known; 0 before the first.
    pub offset: u64,
    /// Which numbering. Clients that have none yet say an empty one.
    pub epoch: Arc<str>,
}

/// What a channel keeps, from the options of its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Publications (`history_size`), at least 1.
    pub size: u32,
    /// How long they are kept after the last one (`history_ttl`); more than zero.
    pub ttl: Duration,
    /// How long the position is remembered after the last publication or reader (`history_meta_ttl`), no shorter than `ttl`.
    pub meta_ttl: Duration,
}

/// What of a channel's history is asked for. The position of the end is always part of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only publications behind this offset (before it, in reverse); `None`: from the beginning (the end).
    pub since: Option<u64>,
    /// The most publications; 0 asks for the position alone.
    pub limit: u32,
    /// The newest first.
    pub reverse: bool,
    /// As in [`Retention::meta_ttl`]: whoever reads a position keeps it alive.
    pub meta_ttl: Duration,
}

/// A part of a channel's history.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// In the order that was asked for.
    pub publications: Vec<Arc<Publication>>,
    /// The end of the channel's history when it was read.
    pub top: Position,
}

impl HistoryQuery {
    /// Asks for the position of the end alone.
    pub fn top(meta_ttl: Duration) -> Self {
        Self { since: None, limit: 0, reverse: false, meta_ttl }
    }

    /// Asks for what a reader at `offset` has missed.
    pub fn missed(offset: u64, limit: u32, meta_ttl: Duration) -> Self {
        Self { since: Some(offset), limit, reverse: false, meta_ttl }
    }

    /// Asks for the newest publication.
    pub fn newest(meta_ttl: Duration) -> Self {
        Self { since: None, limit: 1, reverse: true, meta_ttl }
    }
}

impl History {
    /// Whether this, the answer to [`HistoryQuery::missed`], is all that a reader at `from` has missed.
    ///
    /// It is not where the numbering has changed, where the beginning has gone already, or where the limit cut the end off.
    pub fn completes(&self, from: &Position) -> bool {
        if !from.epoch.is_empty() && from.epoch != self.top.epoch {
            return false;
        }
        match (self.publications.first(), self.publications.last()) {
            (Some(first), Some(last)) => first.offset == from.offset + 1 && last.offset == self.top.offset,
            _ => from.offset == self.top.offset,
        }
    }

    /// Whether this, the answer to [`HistoryQuery::newest`], brings a reader who needs no more than the newest publication
    /// up to date: it is here, or the reader has it.
    pub fn has_newest(&self, from: Option<&Position>) -> bool {
        let newest = self.publications.first().is_some_and(|newest| newest.offset == self.top.offset);
        newest || from.is_some_and(|from| self.is_known_to(from))
    }

    /// Whether a reader at `from` has everything.
    pub fn is_known_to(&self, from: &Position) -> bool {
        from.offset == self.top.offset && from.epoch == self.top.epoch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::publication::{Payload, PushKind};

    fn history(offsets: impl IntoIterator<Item = u64>, top: u64) -> History {
        let publication = |offset| {
            Arc::new(Publication {
                channel: "c".into(),
                kind: PushKind::Publication,
                payload: Payload::new("{}".into()),
                offset,
                epoch: "e".into(),
                info: None,
                tags: Default::default(),
                delta: false,
                is_late: false,
                received: Instant::now(),
            })
        };
        History { publications: offsets.into_iter().map(publication).collect(), top: at(top, "e") }
    }

    fn at(offset: u64, epoch: &str) -> Position {
        Position { offset, epoch: epoch.into() }
    }

    #[test]
    fn a_reader_recovers_from_all_that_it_missed_and_from_nothing_less() {
        assert!(history(4..=6, 6).completes(&at(3, "e")));
        assert!(history([], 3).completes(&at(3, "e")), "nothing was missed");
        assert!(!history(5..=6, 6).completes(&at(3, "e")), "the beginning is gone");
        assert!(!history(4..=5, 6).completes(&at(3, "e")), "the limit cut the end off");
        assert!(!history([], 6).completes(&at(3, "e")), "all of it is gone");
        assert!(!history([], 3).completes(&at(9, "e")), "the reader knows more than there is");
    }

    #[test]
    fn another_numbering_is_never_complete_but_a_new_reader_takes_any() {
        assert!(!history([], 3).completes(&at(3, "other")));
        assert!(!history([], 0).completes(&at(0, "_")), "what SDKs say after code 3014");
        assert!(history(1..=3, 3).completes(&at(0, "")));
        assert!(history([], 0).completes(&at(0, "")), "a channel that never had a publication");
    }

    #[test]
    fn who_needs_only_the_newest_is_up_to_date_with_it() {
        assert!(history([6], 6).has_newest(None));
        assert!(history([], 6).has_newest(Some(&at(6, "e"))), "it has expired, but the reader has it");
        assert!(!history([], 6).has_newest(Some(&at(5, "e"))));
        assert!(!history([], 6).has_newest(None));
    }
}
