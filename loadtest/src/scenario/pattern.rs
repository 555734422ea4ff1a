//! Broadcast (channels for all), unicast (channels for each), mixed (channels by popularity).

use std::sync::Arc;

use super::measure::{Load, Measured, measure, warm_up};
use super::search;
use super::stage::Stage;
use crate::client::Fleet;
use crate::client::layout::Layout;
use crate::client::tally::Accounting;
use crate::client::target::Target;
use crate::error::Result;
use crate::publisher::Dialect;
use crate::report::figures::{self, Figures};
use crate::report::{Checks, Findings};
use crate::settings::{Bounds, Kind, Settings};
use crate::stats::curve;
use crate::zipf::Zipf;

/// Publishes to the sessions once, or at rising rates.
pub(super) fn run(kind: Kind, stage: &Stage<'_>) -> Result<Findings> {
    let sessions = stage.settings.sessions.sessions;
    let target = stage.target(layout(kind, stage.settings), sessions)?;
    let pattern = Pattern { stage: *stage, target, sessions, dialect: stage.dialect()? };
    let mut load = stage.load("publishing", &pattern.target, sessions);
    if stage.settings.messages.find_max_rate {
        return search::run(&pattern, &load);
    }
    if let Some(burst) = stage.settings.messages.burst {
        load = Load { messages: burst.into(), rate: None, ..load };
    }
    let fleet = pattern.open()?;
    let (measured, accounting) = pattern.measure(&fleet, &load)?;
    drop(fleet);
    let figures = pattern.figures(&measured);
    let mut checks = Checks::default();
    checks.accounting(&accounting);
    bounds(&mut checks, &figures, &stage.settings.bounds);
    Ok(Findings { figures, percentiles: curve(&measured.tally.latency), checks, ..Findings::default() })
}

/// The bounds on what is delivered.
pub(super) fn bounds(checks: &mut Checks, figures: &Figures, bounds: &Bounds) {
    checks.at_most(figures, &figures::P50_US, bounds.max_p50_us);
    checks.at_most(figures, &figures::P99_US, bounds.max_p99_us);
    checks.at_most(figures, &figures::CPU_US_PER_DELIVERY, bounds.max_cpu_us_per_delivery);
    checks.at_least(figures, &figures::DELIVERIES_PER_SECOND, bounds.min_deliveries_per_second);
}

fn layout(kind: Kind, settings: &Settings) -> Layout {
    let sessions = &settings.sessions;
    match kind {
        Kind::Unicast => Layout::own(sessions.sessions, sessions.subscriptions),
        Kind::Mixed => Layout::popular(Arc::new(Zipf::new(sessions.channels, settings.messages.zipf))),
        _ => Layout::even(sessions.channels, sessions.subscriptions),
    }
}

/// Sessions and who publishes to them.
pub(super) struct Pattern<'a> {
    /// Settings, progress, probe.
    pub(super) stage: Stage<'a>,
    target: Target,
    sessions: u32,
    dialect: Box<dyn Dialect>,
}

impl Pattern<'_> {
    /// Opens the sessions.
    pub(super) fn open(&self) -> Result<Fleet> {
        let mut fleet = self.stage.fleet(&self.target, self.sessions)?;
        fleet.open(self.stage.opening(self.sessions), self.stage.monitor)?;
        Ok(fleet)
    }

    /// Warms up and measures; a loss while warming up is a loss.
    pub(super) fn measure(&self, fleet: &Fleet, load: &Load) -> Result<(Measured, Accounting)> {
        let mut accounting = warm_up(fleet, &*self.dialect, load, &self.stage)?;
        let measured = measure(fleet, &*self.dialect, load, self.stage.probe, self.stage.monitor, &mut |_| Ok(()))?;
        accounting.add(&measured.accounting);
        Ok((measured, accounting))
    }

    /// The figures of a measurement.
    pub(super) fn figures(&self, measured: &Measured) -> Figures {
        let mut figures = measured.figures(self.sessions);
        figures.set(&figures::CHANNELS, f64::from(self.target.layout.channels()));
        figures
    }
}
