//! What a worker counts: latencies, losses, order, failures. One per worker and measurement, merged at the end.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::stats::{self, Latency};

/// At most so many distinct reasons are told apart; the rest counts as "other reasons".
const MAX_REASONS: usize = 32;

/// Counts by reason, bounded.
pub(crate) type Reasons = BTreeMap<String, u64>;

/// Counts one more of a reason.
pub(crate) fn count(reasons: &mut Reasons, reason: &str, by: u64) {
    if let Some(known) = reasons.get_mut(reason) {
        *known += by;
    } else if reasons.len() < MAX_REASONS {
        reasons.insert(reason.to_owned(), by);
    } else {
        *reasons.entry("other reasons".to_owned()).or_default() += by;
    }
}

/// Adds the second to the first.
pub(crate) fn add(into: &mut Reasons, from: &Reasons) {
    from.iter().for_each(|(reason, by)| count(into, reason, *by));
}

/// Reasons in words, `3 x closed with 3008; 1 x refused with HTTP 503`.
pub(crate) fn words(reasons: &Reasons) -> String {
    let words: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} x {reason}")).collect();
    words.join("; ")
}

/// The figures of one measurement over a number of sessions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// From the time a message was due to its reading, in ns.
    #[serde(with = "crate::stats::sparse")]
    pub(crate) latency: Histogram<u64>,
    /// From the call of `connect` to the subscribe's reply, in ns.
    #[serde(with = "crate::stats::sparse")]
    pub(crate) setup: Histogram<u64>,
    /// When the last delivery was read, in ns of [`crate::clock::now`]; 0 without any.
    pub(crate) last_delivery: u64,
    /// Messages that arrived, duplicates not among them.
    pub(crate) delivered: u64,
    /// Messages that never came.
    pub(crate) lost: u64,
    /// Messages that came after a later one of their channel.
    pub(crate) out_of_order: u64,
    /// Messages that had come before.
    pub(crate) duplicates: u64,
    /// Messages of a channel that the session had not subscribed to.
    pub(crate) misrouted: u64,
    /// Publications that are none of this measurement's.
    pub(crate) strays: u64,
    /// Sessions that did not come up or could not be reopened, by reason.
    pub(crate) refused: Reasons,
    /// Reading sessions that ended after they were ready, by reason.
    pub(crate) ended: Reasons,
    /// Sessions that were closed and reopened on purpose.
    pub(crate) reopened: u64,
    /// Stalled sessions that ended, by reason.
    pub(crate) stalled_ended: Reasons,
    /// Messages that stalled sessions found once they read again.
    pub(crate) stalled_delivered: u64,
    /// Gaps, duplicates and wrong order among those.
    pub(crate) stalled_faults: u64,
}

impl Tally {
    /// An empty tally.
    pub(crate) fn new() -> Self {
        Self {
            latency: stats::histogram(),
            setup: stats::histogram(),
            last_delivery: 0,
            delivered: 0,
            lost: 0,
            out_of_order: 0,
            duplicates: 0,
            misrouted: 0,
            strays: 0,
            refused: Reasons::new(),
            ended: Reasons::new(),
            reopened: 0,
            stalled_ended: Reasons::new(),
            stalled_delivered: 0,
            stalled_faults: 0,
        }
    }

    /// Adds another worker's figures.
    pub(crate) fn merge(&mut self, other: &Self) {
        stats::merge(&mut self.latency, &other.latency);
        stats::merge(&mut self.setup, &other.setup);
        self.last_delivery = self.last_delivery.max(other.last_delivery);
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.duplicates += other.duplicates;
        self.misrouted += other.misrouted;
        self.strays += other.strays;
        self.stalled_delivered += other.stalled_delivered;
        self.stalled_faults += other.stalled_faults;
        self.reopened += other.reopened;
        add(&mut self.refused, &other.refused);
        add(&mut self.ended, &other.ended);
        add(&mut self.stalled_ended, &other.stalled_ended);
    }

    /// Adds a part to a sum of several, where there is a part.
    pub(crate) fn gather(sum: &mut Option<Self>, part: Option<Self>) {
        match (sum.as_mut(), part) {
            (Some(sum), Some(part)) => sum.merge(&part),
            (None, part) => *sum = part,
            (Some(_), None) => {}
        }
    }

    /// The part that says whether all went right.
    pub(crate) fn accounting(&self) -> Accounting {
        Accounting {
            delivered: self.delivered,
            lost: self.lost,
            out_of_order: self.out_of_order,
            duplicates: self.duplicates,
            misrouted: self.misrouted,
            strays: self.strays,
            sessions_ended: self.ended.clone(),
        }
    }

    /// Percentiles of [`Self::latency`].
    pub(crate) fn latency(&self) -> Latency {
        Latency::of(&self.latency)
    }
}

/// Where every message went; a healthy run has zeros behind `delivered`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounting {
    /// Messages that arrived.
    pub(crate) delivered: u64,
    /// Messages that never came.
    pub(crate) lost: u64,
    /// Messages that came after a later one.
    pub(crate) out_of_order: u64,
    /// Messages that came again.
    pub(crate) duplicates: u64,
    /// Messages of another session's channel.
    pub(crate) misrouted: u64,
    /// Publications from elsewhere.
    pub(crate) strays: u64,
    /// Sessions that ended before they should, by reason.
    pub(crate) sessions_ended: Reasons,
}

impl Accounting {
    /// Adds another measurement's figures.
    pub(crate) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.duplicates += other.duplicates;
        self.misrouted += other.misrouted;
        self.strays += other.strays;
        add(&mut self.sessions_ended, &other.sessions_ended);
    }

    /// What went wrong, in words; `None` if nothing did. Strays are no fault: another publisher may share the Redis.
    pub(crate) fn fault(&self) -> Option<String> {
        let mut faults = Vec::new();
        let counts = [
            (self.lost, "lost"),
            (self.out_of_order, "out of order"),
            (self.duplicates, "duplicated"),
            (self.misrouted, "misrouted"),
        ];
        for (count, what) in counts {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        for (reason, count) in &self.sessions_ended {
            faults.push(format!("{count} sessions ended: {reason}"));
        }
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_tallies_add_up() {
        let mut one = Tally::new();
        one.delivered = 2;
        one.last_delivery = 5;
        count(&mut one.ended, "closed with 3008", 1);
        let mut other = Tally::new();
        other.lost = 3;
        other.last_delivery = 4;
        count(&mut other.ended, "closed with 3008", 2);
        one.merge(&other);
        assert_eq!((one.delivered, one.lost, one.last_delivery), (2, 3, 5));
        assert_eq!(one.ended["closed with 3008"], 3);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut reasons = Reasons::new();
        for n in 0..100 {
            count(&mut reasons, &format!("reason {n}"), 1);
        }
        assert_eq!(reasons.len(), MAX_REASONS + 1);
        assert_eq!(reasons.values().sum::<u64>(), 100);
    }

    #[test]
    fn every_kind_of_fault_is_named_and_strays_are_none() {
        let mut fine = Accounting { delivered: 9, strays: 4, ..Accounting::default() };
        assert_eq!(fine.fault(), None);
        fine.lost = 1;
        fine.out_of_order = 2;
        assert_eq!(fine.fault().as_deref(), Some("1 lost, 2 out of order"));
    }
}
