//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doubles from a first delay to a longest one. Each delay is cut by up to half at random, so that the nodes of a
/// cluster do not come back at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    draws: u64,
    random: RandomState,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, draws: 0, random: RandomState::new() }
    }

    /// The next delay.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.next.min(self.longest);
        self.next = full * 2;
        self.draws += 1;
        // The standard hasher is seeded at random; a number of 0 to 1023 from it is all that is needed.
        let share = (self.random.hash_one(self.draws) % 1024) as u32;
        full - full / 2 * share / 1024
    }

    /// Starts over: the connection has proved good.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_lose_at_most_half() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for _ in 0..2 {
            for full in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
                let delay = backoff.next();
                assert!(delay <= Duration::from_millis(full) && delay >= Duration::from_millis(full / 2), "{delay:?}");
            }
            backoff.reset();
        }
    }
}
