//! One monotonic clock for publisher and clients, in whichever process of the machine they run.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`), which all processes share; never goes back.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither part is ever negative; 64 bits hold 584 years of uptime.
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

/// Waits on this thread for `duration`, for the pauses between measurements that a person asked for.
pub(crate) fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        // Nobody unparks this thread, but a park may end early.
        std::thread::park_timeout(left);
    }
}
