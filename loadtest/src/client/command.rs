//! What a client is told to do: the same words for a thread and for a process, so that either can be one's hands.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::count::Schedule;
use super::session::Expectation;

/// An order to whoever holds sessions. Each is answered once it is done, opening once it has begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Command {
    /// Open these sessions; their numbers are `first`, `first + step`, ...
    Open {
        /// The first session's number.
        first: u32,
        /// The distance to the next.
        step: u32,
        /// How many and how.
        opening: Opening,
    },
    /// Begin a measurement.
    Round(Expectation),
    /// Let stalled sessions read.
    Resume,
    /// Close and reopen sessions in turn, from now on.
    Churn {
        /// Sessions per second; 0 to stop.
        per_second: f64,
    },
    /// Give away what was counted.
    Collect {
        /// Messages published per channel.
        published: Arc<[u32]>,
        /// When those of a channel were due.
        schedule: Schedule,
    },
}

impl Command {
    /// The part of hand `number` of `of`: every hand opens each so-manieth session, and does all other things whole.
    pub(super) fn share(&self, number: u32, of: u32) -> Self {
        match self {
            Self::Open { first, step, opening } => {
                Self::Open { first: first + number * step, step: step * of, opening: opening.share(number, of) }
            }
            Self::Churn { per_second } => Self::Churn { per_second: per_second / f64::from(of) },
            other => other.clone(),
        }
    }
}

/// A group of sessions to open.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// How many.
    pub(crate) sessions: u32,
    /// Sessions that stop reading once they are subscribed.
    pub(crate) stalled: bool,
    /// New connections per second; 0 for as fast as possible.
    pub(crate) rate: u32,
    /// At most so many sessions between `connect` and the subscribe's reply; 0 to begin all of them before any of them
    /// is served.
    pub(crate) in_flight: u32,
    /// Gives up when nothing has moved for so long.
    pub(crate) patience: Duration,
    /// Gives up when more than so many sessions do not come up.
    pub(crate) tolerated: u32,
}

impl Opening {
    fn share(self, number: u32, of: u32) -> Self {
        let share = |total: u32| total / of + u32::from(number < total % of);
        Self {
            sessions: share(self.sessions),
            rate: if self.rate == 0 { 0 } else { share(self.rate).max(1) },
            in_flight: if self.in_flight == 0 { 0 } else { share(self.in_flight).max(1) },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the sessions that a command opens.
    fn numbers(command: &Command) -> Vec<u32> {
        let Command::Open { first, step, opening } = command else { return Vec::new() };
        (0..opening.sessions).map(|n| first + n * step).collect()
    }

    #[test]
    fn every_session_is_opened_once_over_processes_and_their_threads() {
        let opening = Opening {
            sessions: 1_003,
            stalled: false,
            rate: 100,
            in_flight: 10,
            patience: Duration::from_secs(1),
            tolerated: 0,
        };
        let whole = Command::Open { first: 500, step: 1, opening };
        let mut opened = Vec::new();
        for process in 0..3 {
            for thread in 0..2 {
                opened.extend(numbers(&whole.share(process, 3).share(thread, 2)));
            }
        }
        opened.sort_unstable();
        assert_eq!(opened, (500..1_503).collect::<Vec<_>>());
    }

    #[test]
    fn a_rate_is_never_shared_down_to_no_limit() {
        let opening =
            Opening { sessions: 9, stalled: false, rate: 2, in_flight: 1, patience: Duration::ZERO, tolerated: 0 };
        let Command::Open { opening, .. } = (Command::Open { first: 0, step: 1, opening }).share(2, 3) else {
            panic!("an opening");
        };
        assert_eq!((opening.rate, opening.in_flight), (1, 1));
    }
}
