//! Live, ready, started, and why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tidegate_broadcaster::{Broker, BrokerHealth};

use crate::pressure::{Level, PressureStats};

/// Where the node is between its start and its end.
#[derive(Debug, Default)]
pub struct Lifecycle {
    started: AtomicBool,
    draining: AtomicBool,
}

impl Lifecycle {
    /// Every listener is open and every shard runs.
    pub fn set_started(&self) {
        self.started.store(true, Relaxed);
    }

    /// The node was told to stop: no new connections from here on.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the start is done.
    pub fn is_started(&self) -> bool {
        self.started.load(Relaxed)
    }

    /// Whether the node is going away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

/// What the checks look at.
pub struct HealthSources {
    /// Started, draining.
    pub lifecycle: Arc<Lifecycle>,
    /// For each shard, how long ago its last turn was. A shard turns at least once a second, if only for its wheel.
    pub turn_ages: Box<dyn Fn() -> Vec<Duration> + Send + Sync>,
    /// The age from which a shard counts as stuck.
    pub max_turn_age: Duration,
    /// Memory.
    pub pressure: Arc<PressureStats>,
    /// The broker.
    pub broker: Arc<dyn Broker>,
}

/// How a check, or all of them together, came out. The worst is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something is missing, and this node still serves better than none.
    Degraded,
    /// The answer to the question is no.
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was seen, for a person.
    pub detail: String,
}

/// The answer to one of the questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of the checks.
    pub status: Status,
    /// Each check.
    pub checks: Vec<Check>,
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
        Self { status, checks }
    }
}

impl HealthSources {
    /// Whether the process works at all. When not, it should be restarted.
    pub fn live(&self) -> Report {
        Report::new(vec![self.shards()])
    }

    /// Whether new connections should come here. A broker that is away does not change that: every
    /// other node would be without it as well, and the sessions that are here stay.
    pub fn ready(&self) -> Report {
        Report::new(vec![self.started(), self.draining(), self.memory(), self.shards(), self.broker()])
    }

    /// Whether the start is done.
    pub fn startup(&self) -> Report {
        Report::new(vec![self.started()])
    }

    fn started(&self) -> Check {
        match self.lifecycle.is_started() {
            true => check("started", Status::Ok, "listeners are open and shards run"),
            false => check("started", Status::Failed, "still starting"),
        }
    }

    fn draining(&self) -> Check {
        match self.lifecycle.is_draining() {
            false => check("draining", Status::Ok, "not asked to stop"),
            true => check("draining", Status::Failed, "stopping: sessions are being closed, new ones are refused"),
        }
    }

    fn memory(&self) -> Check {
        let (used, limit) = (self.pressure.used.load(Relaxed), self.pressure.limit.load(Relaxed));
        let share = if limit > 0 { used as f64 / limit as f64 * 100.0 } else { 0.0 };
        let figures = format!("{used} of {limit} bytes ({share:.0} %)");
        match self.pressure.level() {
            Level::Normal => check("memory", Status::Ok, figures),
            Level::Refusing => check("memory", Status::Failed, format!("{figures}: new connections are refused")),
            Level::Evicting => {
                let text = format!("{figures}: new connections are refused, the costliest sessions closed");
                check("memory", Status::Failed, text)
            }
        }
    }

    fn shards(&self) -> Check {
        let ages = (self.turn_ages)();
        let stuck: Vec<_> = (0..).zip(&ages).filter(|(_, age)| **age > self.max_turn_age).collect();
        if stuck.is_empty() {
            return check("shards", Status::Ok, format!("all {} turn", ages.len()));
        }
        let each: Vec<_> = stuck
            .iter()
            .map(|(shard, age): &(usize, _)| format!("shard {shard} last turned {:.1} s ago", age.as_secs_f64()))
            .collect();
        check("shards", Status::Failed, each.join(", "))
    }

    fn broker(&self) -> Check {
        let name = self.broker.name();
        match self.broker.health() {
            BrokerHealth::Healthy => check("broker", Status::Ok, format!("{name}: connected")),
            BrokerHealth::Degraded { since, reason } => {
                let seconds = since.as_secs_f64();
                let text = match name {
                    // It has nothing to be connected to: what it can miss is the disk.
                    "embedded" => format!("{name}: for {seconds:.1} s {reason}; publishes with history are refused"),
                    _ => format!(
                        "{name}: not connected for {seconds:.1} s ({reason}); sessions stay, publications do not arrive"
                    ),
                };
                check("broker", Status::Degraded, text)
            }
        }
    }
}

fn check(name: &'static str, status: Status, detail: impl Into<String>) -> Check {
    Check { name, status, detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::api::tests::Notebook;

    struct Fixture {
        broker: Arc<Notebook>,
        ages: Arc<Mutex<Vec<Duration>>>,
        health: HealthSources,
    }

    fn fixture() -> Fixture {
        let (broker, ages) = (Arc::new(Notebook::default()), Arc::new(Mutex::new(vec![Duration::ZERO; 2])));
        let turn_ages = ages.clone();
        let health = HealthSources {
            lifecycle: Arc::default(),
            turn_ages: Box::new(move || turn_ages.lock().unwrap().clone()),
            max_turn_age: Duration::from_secs(5),
            pressure: Arc::default(),
            broker: broker.clone(),
        };
        Fixture { broker, ages, health }
    }

    fn worst(report: &Report) -> &str {
        let worst = report.checks.iter().find(|check| check.status == report.status);
        worst.map(|check| check.detail.as_str()).unwrap_or_default()
    }

    #[test]
    fn a_node_is_ready_between_its_start_and_its_drain() {
        let Fixture { health, .. } = fixture();
        assert_eq!((health.startup().status, health.ready().status), (Status::Failed, Status::Failed));
        assert_eq!(health.live().status, Status::Ok);
        health.lifecycle.set_started();
        assert_eq!((health.startup().status, health.ready().status), (Status::Ok, Status::Ok));
        health.lifecycle.set_draining();
        assert_eq!((health.startup().status, health.ready().status), (Status::Ok, Status::Failed));
        assert_eq!(health.live().status, Status::Ok);
    }

    #[test]
    fn a_node_that_refuses_for_memory_is_not_ready_and_says_how_much_there_is() {
        let Fixture { health, .. } = fixture();
        health.lifecycle.set_started();
        health.pressure.used.store(820, Relaxed);
        health.pressure.limit.store(1000, Relaxed);
        health.pressure.set_level(Level::Refusing);
        let report = health.ready();
        assert_eq!(report.status, Status::Failed);
        assert_eq!(worst(&report), "820 of 1000 bytes (82 %): new connections are refused");
        health.pressure.set_level(Level::Normal);
        assert_eq!(health.ready().status, Status::Ok);
        assert_eq!(health.live().status, Status::Ok);
    }

    #[test]
    fn a_broker_that_is_away_degrades_readiness_without_ending_it() {
        let Fixture { broker, health, .. } = fixture();
        health.lifecycle.set_started();
        broker.away.store(true, Relaxed);
        let report = health.ready();
        assert_eq!(report.status, Status::Degraded);
        assert!(worst(&report).contains("redis: not connected for 12.0 s (connection refused)"), "{report:?}");
    }

    #[test]
    fn a_stuck_shard_ends_liveness_and_is_named() {
        let Fixture { ages, health, .. } = fixture();
        ages.lock().unwrap()[1] = Duration::from_secs(5);
        assert_eq!(health.live().status, Status::Ok);
        ages.lock().unwrap()[1] = Duration::from_millis(7500);
        let report = health.live();
        assert_eq!((report.status, worst(&report)), (Status::Failed, "shard 1 last turned 7.5 s ago"));
    }
}
