//! Between the time that the process measures and the time that the log has.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is further away than this is kept for so long: ten years.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// One moment in both times. A clock of the system that is set later on changes nothing until the next start.
#[derive(Debug, Clone, Copy)]
pub(in crate::embedded) struct Clock {
    instant: Instant,
    unix_ms: u64,
}

impl Clock {
    /// With the time of the system.
    pub(in crate::embedded) fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix_ms: millis(unix) }
    }

    /// Milliseconds since 1970.
    pub(in crate::embedded) fn unix_ms(&self, instant: Instant) -> u64 {
        let after = millis(instant.saturating_duration_since(self.instant));
        let before = millis(self.instant.saturating_duration_since(instant));
        self.unix_ms.saturating_add(after).saturating_sub(before)
    }

    /// The other way round. What is past is now.
    pub(in crate::embedded) fn instant(&self, unix_ms: u64) -> Instant {
        let after = Duration::from_millis(unix_ms.saturating_sub(self.unix_ms));
        self.instant + after.min(LONGEST)
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_there_and_back() {
        let clock = Clock::new();
        for after in [0, 1, 1500, 3_600_000] {
            let instant = clock.instant + Duration::from_millis(after);
            assert_eq!(clock.instant(clock.unix_ms(instant)), instant);
        }
        assert_eq!(clock.instant(0), clock.instant);
        assert_eq!(clock.instant(u64::MAX), clock.instant + LONGEST);
    }
}
