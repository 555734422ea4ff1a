//! What the API counts about itself.
//!
//! Several threads write, so these are locked increments; a call costs microseconds anyway.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::ApiError;
use super::method::Method;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Ok,
    /// The caller's fault.
    ClientError,
    /// The gateway's or the broker's fault.
    ServerError,
}

impl Outcome {
    /// Every outcome, in the order of metrics.
    pub const ALL: [Self; 3] = [Self::Ok, Self::ClientError, Self::ServerError];

    /// The `outcome` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
        }
    }

    /// The outcome of a call that came to `result`.
    pub fn of<T>(result: &Result<T, ApiError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) if error.is_callers_fault() => Self::ClientError,
            Err(_) => Self::ServerError,
        }
    }
}

/// Why a request did not come to a call of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No key, or a wrong one: 401.
    Unauthorized,
    /// No method of this name, or one that is not available yet.
    UnknownMethod,
    /// No JSON, or JSON of another shape: 400.
    Malformed,
    /// The body is larger than allowed: 413.
    TooLarge,
    /// The body did not arrive in time, or not at all: 408 or 400.
    BodyNotReceived,
}

impl Rejection {
    /// Every rejection, in the order of metrics.
    pub const ALL: [Self; 5] =
        [Self::Unauthorized, Self::UnknownMethod, Self::Malformed, Self::TooLarge, Self::BodyNotReceived];

    /// The `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::UnknownMethod => "unknown_method",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::BodyNotReceived => "body_not_received",
        }
    }
}

/// Bounds for the duration of a call: 100 us to 10 s, in ns.
pub const DURATION_BOUNDS: [u64; 12] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
    1_000_000_000,
    4_000_000_000,
    10_000_000_000,
];

/// The durations of one method's calls.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; DURATION_BOUNDS.len()],
    above: AtomicU64,
    sum: AtomicU64,
}

impl Durations {
    fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let at = DURATION_BOUNDS.partition_point(|bound| *bound < nanos);
        self.buckets.get(at).unwrap_or(&self.above).fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
    }

    /// Bounds in ns with the number of calls in each bucket (not cumulated); the last bound is `None`.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let inner = DURATION_BOUNDS.iter().zip(&self.buckets).map(|(bound, count)| (Some(*bound), count.load(Relaxed)));
        inner.chain(std::iter::once((None, self.above.load(Relaxed))))
    }

    /// The sum of all durations in ns.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

/// Counters of the API.
#[derive(Debug, Default)]
pub struct ApiStats {
    calls: [[AtomicU64; Outcome::ALL.len()]; Method::ALL.len()],
    durations: [Durations; Method::ALL.len()],
    rejected: [AtomicU64; Rejection::ALL.len()],
    /// Publishes that were answered from an earlier one with the same idempotency key.
    pub replayed: AtomicU64,
    /// Idempotency keys that were forgotten before their time, for want of room.
    pub keys_evicted: AtomicU64,
    /// Idempotency keys held now (gauge).
    pub keys: AtomicU64,
    /// When a failed publish was logged last.
    pub failures: OncePerSecond,
}

/// Lets one event a second through, and counts the others.
#[derive(Debug, Default)]
pub struct OncePerSecond(Mutex<(Option<Instant>, u64)>);

impl OncePerSecond {
    /// Notes an event at `now`. `Some` when it is to be told, with the number of those untold since the last one.
    pub fn note(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, untold) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < Duration::from_secs(1)) {
            *untold += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(untold))
    }
}

impl ApiStats {
    /// Counts a call, be it a request of its own or a command of a batch.
    pub fn count(&self, method: Method, outcome: Outcome, duration: Duration) {
        self.calls[method as usize][outcome as usize].fetch_add(1, Relaxed);
        self.durations[method as usize].record(duration);
    }

    /// Counts a request, or a command of a batch, that reached no method.
    pub fn reject(&self, rejection: Rejection) {
        self.rejected[rejection as usize].fetch_add(1, Relaxed);
    }

    /// How many calls of `method` ended so.
    pub fn calls(&self, method: Method, outcome: Outcome) -> u64 {
        self.calls[method as usize][outcome as usize].load(Relaxed)
    }

    /// How many requests were rejected so.
    pub fn rejected(&self, rejection: Rejection) -> u64 {
        self.rejected[rejection as usize].load(Relaxed)
    }

    /// How long calls of `method` took.
    pub fn durations(&self, method: Method) -> &Durations {
        &self.durations[method as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_second_is_told_and_the_others_counted() {
        let (once, start) = (OncePerSecond::default(), Instant::now());
        let note = |millis| once.note(start + Duration::from_millis(millis));
        assert_eq!(
            [note(0), note(10), note(999), note(1000), note(1001), note(2500)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let stats = ApiStats::default();
        for micros in [100, 101, 20_000_000] {
            stats.count(Method::Info, Outcome::Ok, Duration::from_micros(micros));
        }
        let buckets: Vec<_> = stats.durations(Method::Info).buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(buckets, [(Some(100_000), 1), (Some(250_000), 1), (None, 1)]);
        assert_eq!(stats.durations(Method::Info).sum(), 20_000_201_000);
        assert_eq!(stats.calls(Method::Info, Outcome::Ok), 3);
    }
}
