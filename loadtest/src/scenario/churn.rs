//! Sessions that come and go while messages are published.
//!
//! Who is closed and reopened is owed what is due after its subscribe was answered and before it is closed again; who
//! stays is owed everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::measure::{Load, measure, warm_up};
use super::pattern::bounds;
use super::stage::Stage;
use crate::client::count::Schedule;
use crate::client::layout::Layout;
use crate::client::tally;
use crate::client::{Fleet, TICK};
use crate::clock;
use crate::error::Result;
use crate::report::figures;
use crate::report::format::grouped;
use crate::report::{Checks, Findings};
use crate::stats::{Latency, curve};

/// Publishes while a share of the sessions is closed and reopened every second.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = &stage.settings.sessions;
    let sessions = settings.sessions;
    let target = stage.target(Layout::even(settings.channels, settings.subscriptions), sessions)?;
    let dialect = stage.dialect()?;
    let mut fleet = stage.fleet(&target, sessions)?;
    fleet.open(stage.opening(sessions), stage.monitor)?;
    let calm = stage.load("publishing", &target, sessions);
    let mut accounting = warm_up(&fleet, &*dialect, &calm, stage)?;
    let load = Load { churn: settings.churn * f64::from(sessions), ..calm };
    let measured = measure(&fleet, &*dialect, &load, stage.probe, stage.monitor, &mut |_| Ok(()))?;
    accounting.add(&measured.accounting);

    let back = await_all(&fleet, sessions, stage.opening(sessions).patience)?;
    let rest = fleet.collect(&Arc::from([]), Schedule::default())?;
    drop(fleet);
    let mut refused = measured.tally.refused.clone();
    tally::add(&mut refused, &rest.refused);
    let reopened = measured.tally.reopened + rest.reopened;

    let connect = Latency::of(&measured.tally.setup);
    let mut figures = measured.figures(sessions);
    figures.set(&figures::CHANNELS, f64::from(target.layout.channels()));
    figures.set(&figures::REOPENED, reopened as f64);
    figures.set(&figures::REFUSED, refused.values().sum::<u64>() as f64);
    figures.set(&figures::CONNECTS_PER_SECOND, reopened as f64 / stage.settings.messages.seconds);
    if connect.count > 0 {
        figures.set(&figures::CONNECT_P50_US, connect.p50_us);
        figures.set(&figures::CONNECT_P99_US, connect.p99_us);
    }
    let mut checks = Checks::default();
    checks.accounting(&accounting);
    checks.at_most(&figures, &figures::REFUSED, Some(f64::from(stage.settings.bounds.max_refused)));
    checks.push(
        "sessions",
        "all back at the end".to_owned(),
        back == u64::from(sessions),
        format!("{} of {}", grouped(back as f64, 0), grouped(f64::from(sessions), 0)),
    );
    checks.push("sessions that came and went", "some".to_owned(), reopened > 0, grouped(reopened as f64, 0));
    bounds(&mut checks, &figures, &stage.settings.bounds);
    let notes = refused.iter().map(|(reason, count)| format!("not reopened: {count} x {reason}")).collect();
    Ok(Findings { figures, percentiles: curve(&measured.tally.latency), notes, checks, ..Findings::default() })
}

/// Waits until everybody is back; says how many are.
fn await_all(fleet: &Fleet, sessions: u32, patience: Duration) -> Result<u64> {
    let deadline = Instant::now() + patience;
    loop {
        let back = fleet.counters().sessions();
        if back >= u64::from(sessions) || Instant::now() >= deadline {
            return Ok(back);
        }
        fleet.check()?;
        clock::pause(TICK);
    }
}
