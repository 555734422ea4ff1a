//! What a run looks like while it goes: progress for a person, and a timeline for the report.
//!
//! Every wait of a run goes through here, so that whatever it waits for, the sessions, the messages and the server's
//! costs are sampled on the way.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Counters;
use crate::clock;
use crate::probe::Probe;
use crate::report::timeline::{Point, Timeline};
use crate::sockstat::Sockstat;
use crate::terminal::Progress;

/// How often a sample is taken.
const EVERY: Duration = Duration::from_millis(250);
/// A sample is taken as well whenever so large a part of the sessions has come: connecting takes but a moment, and
/// memory over connections is what it is to show.
const PARTS: u64 = 50;

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
    /// Sessions that there will be.
    expected: u64,
    /// At the last sample.
    sessions: u64,
    due: Duration,
    timeline: Timeline,
}

impl State {
    fn sessions(&self) -> u64 {
        self.fleets.iter().map(|fleet| fleet.sessions()).sum()
    }
}

impl Monitor {
    /// Watches a run that begins now, and the server's process if one is known.
    pub(crate) fn new(progress: Progress, probe: Option<Probe>) -> Self {
        let state = State {
            fleets: Vec::new(),
            publishers: Vec::new(),
            expected: 0,
            sessions: 0,
            due: Duration::ZERO,
            timeline: Timeline::default(),
        };
        Self { progress, started: Instant::now(), probe, state: RefCell::new(state) }
    }

    /// Counts these sessions from now on, of which there will be so many.
    pub(crate) fn watch_sessions(&self, counters: &Arc<Counters>, expected: u32) {
        let mut state = self.state.borrow_mut();
        state.fleets.push(Arc::clone(counters));
        state.expected = state.expected.max(expected.into());
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

    /// The points of the run, with one of this moment.
    pub(crate) fn into_timeline(self) -> Vec<Point> {
        self.sample();
        self.state.into_inner().timeline.into_points()
    }

    fn tick(&self) {
        let state = self.state.borrow();
        let came = state.sessions().abs_diff(state.sessions) * PARTS > state.expected.max(1);
        if self.started.elapsed() >= state.due || came {
            drop(state);
            self.sample();
        }
    }

    fn sample(&self) {
        let mut state = self.state.borrow_mut();
        let brief = self.probe.as_ref().and_then(Probe::brief);
        let now = self.started.elapsed();
        state.sessions = state.sessions();
        state.due = now + EVERY;
        let delivered = |fleet: &Arc<Counters>| fleet.delivered.load(Ordering::Acquire);
        let point = Point {
            t: (now.as_secs_f64() * 1e3).round() / 1e3,
            sessions: state.sessions,
            delivered: state.fleets.iter().map(delivered).sum(),
            published: state.publishers.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            server_rss_bytes: brief.map(|brief| brief.rss),
            server_cpu_seconds: brief.map(|brief| brief.cpu_ns as f64 / 1e9),
            socket_memory_bytes: Sockstat::read().ok().map(|sockets| sockets.tcp_memory_bytes),
        };
        state.timeline.push(point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_over_connections_has_points_however_fast_they_come() {
        let monitor = Monitor::new(Progress::new(true), None);
        let counters = Arc::new(Counters::default());
        monitor.watch_sessions(&counters, 1000);
        for _ in 0..1000 {
            counters.ready.fetch_add(1, Ordering::Release);
            monitor.at(0);
        }
        let points = monitor.into_timeline();
        let gaps = points.windows(2).map(|pair| pair[1].sessions - pair[0].sessions);
        assert!(points.len() >= 45 && gaps.max().is_some_and(|gap| gap <= 21), "{points:?}");
    }

    #[test]
    fn sessions_messages_and_the_servers_costs_are_in_a_sample() {
        let monitor = Monitor::new(Progress::new(true), Some(Probe::trusted(vec![std::process::id()])));
        let counters = Arc::new(Counters::default());
        monitor.watch_sessions(&counters, 5);
        counters.ready.store(5, Ordering::Release);
        counters.ended.store(2, Ordering::Release);
        counters.delivered.store(7, Ordering::Release);
        monitor.watch_publisher().store(4, Ordering::Relaxed);
        let points = monitor.into_timeline();
        let last = points.last().unwrap();
        assert_eq!((last.sessions, last.delivered, last.published), (3, 7, 4));
        assert!(last.server_rss_bytes.is_some_and(|bytes| bytes > 1 << 20) && last.server_cpu_seconds.is_some());
        assert!(last.socket_memory_bytes.is_some());
    }
}
