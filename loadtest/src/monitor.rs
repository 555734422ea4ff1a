//! What a run looks like while it goes: progress for a person, and a timeline for the report.
//!
//! Every wait of a run goes through here, so that whatever it waits for, the sessions, the messages and the server's
//! costs are sampled on the way.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::client::Counters;
use crate::clock;
use crate::probe::{self, Probe};
use crate::terminal::Progress;

/// How often a sample is taken at first.
const EVERY: Duration = Duration::from_millis(250);
/// Points at most; a longer run has them further apart.
const MAX_POINTS: usize = 2_000;

/// One sample. What cannot be told is not in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Point {
    /// Seconds since the run began.
    pub(crate) t: f64,
    /// Sessions that are subscribed.
    pub(crate) sessions: u64,
    /// Messages delivered so far.
    pub(crate) delivered: u64,
    /// Messages published so far.
    pub(crate) published: u64,
    /// The server's resident memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_rss_bytes: Option<u64>,
    /// The server's CPU time so far, user and system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_seconds: Option<f64>,
    /// Pages of this machine in TCP buffers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket_memory_bytes: Option<u64>,
}

/// Points at even distances; when there are too many, every other one is dropped.
#[derive(Debug)]
struct Timeline {
    points: Vec<Point>,
    every: Duration,
    due: Duration,
}

impl Timeline {
    fn is_due(&self, now: Duration) -> bool {
        now >= self.due
    }

    fn push(&mut self, now: Duration, point: Point) {
        self.points.push(point);
        if self.points.len() == MAX_POINTS {
            let mut number = 0;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.every *= 2;
        }
        self.due = now + self.every;
    }
}

/// Shows how far a run is and writes its timeline.
#[derive(Debug)]
pub(crate) struct Monitor {
    progress: Progress,
    started: Instant,
    probe: Option<Probe>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    fleets: Vec<Arc<Counters>>,
    publishers: Vec<Arc<AtomicU64>>,
    timeline: Timeline,
}

impl Monitor {
    /// Watches a run that begins now, and the server's process if one is known.
    pub(crate) fn new(progress: Progress, probe: Option<Probe>) -> Self {
        let timeline = Timeline { points: Vec::new(), every: EVERY, due: Duration::ZERO };
        let state = State { fleets: Vec::new(), publishers: Vec::new(), timeline };
        Self { progress, started: Instant::now(), probe, state: RefCell::new(state) }
    }

    /// Counts these sessions from now on.
    pub(crate) fn watch_sessions(&self, counters: &Arc<Counters>) {
        self.state.borrow_mut().fleets.push(Arc::clone(counters));
    }

    /// A count of published messages that is watched from now on.
    pub(crate) fn watch_publisher(&self) -> Arc<AtomicU64> {
        let count = Arc::default();
        self.state.borrow_mut().publishers.push(Arc::clone(&count));
        count
    }

    /// Begins a step.
    pub(crate) fn begin(&self, what: &str, total: u64) {
        self.progress.begin(what, total);
        self.tick();
    }

    /// Says how far the step is; to be called often.
    pub(crate) fn at(&self, position: u64) {
        self.progress.at(position);
        self.tick();
    }

    /// Ends the step.
    pub(crate) fn end(&self) {
        self.progress.end();
        self.tick();
    }

    /// A line about the run.
    pub(crate) fn line(&self, text: &str) {
        self.progress.line(text);
    }

    /// Waits, showing the seconds.
    pub(crate) fn wait(&self, what: &str, duration: Duration) {
        let started = Instant::now();
        self.begin(what, duration.as_secs());
        while let Some(left) = duration.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            clock::pause(left.min(EVERY / 2));
            self.at(started.elapsed().as_secs().min(duration.as_secs()));
        }
        self.end();
    }

    /// The points so far, with one of this moment.
    pub(crate) fn timeline(&self) -> Vec<Point> {
        let point = self.sample();
        let mut points = self.state.borrow().timeline.points.clone();
        points.push(point);
        points
    }

    fn tick(&self) {
        let now = self.started.elapsed();
        if self.state.borrow().timeline.is_due(now) {
            let point = self.sample();
            self.state.borrow_mut().timeline.push(now, point);
        }
    }

    fn sample(&self) -> Point {
        let state = self.state.borrow();
        let brief = self.probe.as_ref().and_then(Probe::brief);
        let delivered = |fleet: &Arc<Counters>| fleet.delivered.load(Ordering::Acquire);
        Point {
            t: (self.started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            sessions: state.fleets.iter().map(|fleet| fleet.sessions()).sum(),
            delivered: state.fleets.iter().map(delivered).sum(),
            published: state.publishers.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            server_rss_bytes: brief.map(|brief| brief.rss),
            server_cpu_seconds: brief.map(|brief| brief.cpu_ns as f64 / 1e9),
            socket_memory_bytes: probe::socket_memory(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(t: f64) -> Point {
        Point {
            t,
            sessions: 0,
            delivered: 0,
            published: 0,
            server_rss_bytes: None,
            server_cpu_seconds: None,
            socket_memory_bytes: None,
        }
    }

    #[test]
    fn a_long_run_has_its_points_further_apart_and_never_too_many() {
        let mut timeline = Timeline { points: Vec::new(), every: EVERY, due: Duration::ZERO };
        let hours = 3 * 3600 * 4;
        for quarter in 0..hours {
            let now = EVERY * quarter;
            if timeline.is_due(now) {
                timeline.push(now, point(now.as_secs_f64()));
            }
            assert!(timeline.points.len() < MAX_POINTS);
        }
        assert!(timeline.points.len() >= MAX_POINTS / 2 && timeline.points[0].t == 0.0);
        let distances: std::collections::BTreeSet<_> =
            timeline.points.windows(2).map(|pair| ((pair[1].t - pair[0].t) * 1e3) as u64).collect();
        assert_eq!(distances.len(), 1, "{distances:?}");
    }

    #[test]
    fn sessions_messages_and_the_servers_costs_are_in_a_sample() {
        let monitor = Monitor::new(Progress::new(true), Some(Probe::own()));
        let counters = Arc::new(Counters::default());
        monitor.watch_sessions(&counters);
        counters.ready.store(5, Ordering::Release);
        counters.ended.store(2, Ordering::Release);
        counters.delivered.store(7, Ordering::Release);
        monitor.watch_publisher().store(4, Ordering::Relaxed);
        let points = monitor.timeline();
        let last = points.last().unwrap();
        assert_eq!((last.sessions, last.delivered, last.published), (3, 7, 4));
        assert!(last.server_rss_bytes.is_some_and(|bytes| bytes > 1 << 20) && last.server_cpu_seconds.is_some());
        assert!(last.socket_memory_bytes.is_some());
    }
}
