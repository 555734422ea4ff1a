//! How a run went: what was counted at moments about a quarter of a second apart.

use serde::{Deserialize, Serialize};

/// A timeline has at most so many points.
pub(crate) const MAX_POINTS: usize = 2_000;

/// The counts at one moment; they run from the beginning of the run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Seconds since the run began.
    pub(crate) t: f64,
    /// Sessions that are up.
    pub(crate) sessions: u64,
    /// Deliveries so far.
    #[serde(default)]
    pub(crate) delivered: u64,
    /// Messages published so far.
    #[serde(default)]
    pub(crate) published: u64,
    /// The server's resident memory, where its process is known.
    #[serde(default)]
    pub(crate) server_rss_bytes: Option<u64>,
    /// The server's CPU time so far, where its process is known.
    #[serde(default)]
    pub(crate) server_cpu_seconds: Option<f64>,
    /// Kernel memory in TCP buffers of this machine.
    #[serde(default)]
    pub(crate) socket_memory_bytes: Option<u64>,
}

/// Collects points, however long the run takes: a full timeline drops every other point, and keeps only half as many
/// of those that come.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    points: Vec<Point>,
    /// Keep each so-manieth point that is pushed.
    step: usize,
    /// Points to skip before the next that is kept.
    skip: usize,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { points: Vec::new(), step: 1, skip: 0 }
    }
}

impl Timeline {
    /// Adds a point, whose time is not before the last one's.
    pub(crate) fn push(&mut self, point: Point) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.points.len() == MAX_POINTS {
            let mut number = 0usize;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.step *= 2;
            // The bound is even, so that this point is one new step after the last one that was kept.
        }
        self.points.push(point);
        self.skip = self.step - 1;
    }

    /// The points so far, the oldest first.
    pub(crate) fn into_points(self) -> Vec<Point> {
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_keeps_evenly_spaced_points_within_the_bound() {
        for pushed in [10usize, MAX_POINTS, MAX_POINTS + 1, 3 * MAX_POINTS + 7, 40 * MAX_POINTS] {
            let mut timeline = Timeline::default();
            (0..pushed).for_each(|t| timeline.push(Point { t: t as f64, ..Point::default() }));
            let points = timeline.into_points();
            assert!(points.len() <= MAX_POINTS && points.len() >= pushed.min(MAX_POINTS / 2), "{pushed}");
            let step = points[1].t - points[0].t;
            assert!(points.windows(2).all(|pair| (pair[1].t - pair[0].t - step).abs() < 1e-9), "{pushed}");
            assert!(points[points.len() - 1].t + 2.0 * step >= pushed as f64, "{pushed}");
        }
    }
}
