//! What can be measured.
//!
//! - [`stage`]: what every scenario is made of: sessions, a publisher, a load
//! - [`measure`]: one measurement: publish, wait for the last message, read the costs
//! - [`idle`], [`storm`]: sessions that only exist, and that all come at once
//! - [`hold`]: many sessions on many servers, and a server that is killed
//! - [`pattern`]: broadcast, unicast and mixed; [`search`]: the highest rate that they hold
//! - [`churn`]: sessions that come and go
//! - [`slow`]: readers that stop reading, or read slowly
//! - [`hot`]: a flooded channel beside small ones
//! - [`compare`]: the server beside the floor

mod churn;
mod compare;
mod hold;
mod hot;
mod idle;
mod measure;
mod pattern;
mod search;
mod slow;
mod stage;
mod storm;

use self::stage::Stage;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::probe::Probe;
use crate::report::Findings;
use crate::settings::{Kind, Settings};
use crate::terminal::Progress;

/// Runs a scenario; what it found has its timeline.
///
/// # Errors
/// Whatever keeps the run from being made. Losses and missed bounds are no errors but findings.
pub(crate) fn run(kind: Kind, settings: &Settings, progress: Progress) -> Result<Findings> {
    let pids = &settings.server.server_pid;
    let probe = if pids.is_empty() { None } else { Some(Probe::new(pids)?) };
    let monitor = Monitor::new(progress, probe.clone());
    let stage = Stage { settings, monitor: &monitor, probe: probe.as_ref() };
    let findings = match kind {
        Kind::Idle => idle::run(&stage),
        Kind::Broadcast | Kind::Unicast | Kind::Mixed => pattern::run(kind, &stage),
        Kind::Hold => hold::run(&stage),
        Kind::Storm => storm::run(&stage),
        Kind::Churn => churn::run(&stage),
        Kind::Slow => slow::run(&stage),
        Kind::Hot => hot::run(&stage),
        Kind::CompareFloor => compare::run(&stage),
    }?;
    Ok(Findings { timeline: monitor.into_timeline(), ..findings })
}
