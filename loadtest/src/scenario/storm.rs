//! Everybody connects at once.

use std::time::Duration;

use super::stage::Stage;
use crate::client::count::Schedule;
use crate::client::layout::Layout;
use crate::client::{Opening, tally};
use crate::error::Result;
use crate::probe::Probe;
use crate::report::figures::{self, Figures};
use crate::report::{Checks, Findings};
use crate::stats::Latency;

/// How long the sessions are held afterwards: a server that takes everybody and drops some has not served them.
const HOLD: Duration = Duration::from_secs(2);

/// Connects, and holds for a moment.
pub(super) fn run(stage: &Stage<'_>) -> Result<Findings> {
    let settings = stage.settings;
    let sessions = settings.sessions.sessions;
    let target = stage.target(Layout::of_idle(&settings.sessions), sessions)?;
    let mut fleet = stage.fleet(&target, sessions)?;
    let before = stage.probe.map(Probe::sample).transpose()?;
    // Refusals are what is to be counted here.
    let opened = fleet.open(Opening { tolerated: u32::MAX, ..stage.opening(sessions) }, stage.monitor)?;
    let after = stage.probe.map(Probe::sample).transpose()?;
    stage.monitor.wait("holding", HOLD);
    let tally = fleet.collect(&std::sync::Arc::from([]), Schedule::default())?;
    drop(fleet);

    let connect = Latency::of(&tally.setup);
    let usage = after.zip(before).map(|(after, before)| after.since(&before));
    let mut figures = Figures::default();
    figures.set(&figures::SESSIONS, f64::from(opened.up));
    figures.set(&figures::CHANNELS, f64::from(target.layout.channels()));
    figures.set(&figures::REFUSED, f64::from(opened.refused));
    figures.set(&figures::CONNECT_SECONDS, opened.took.as_secs_f64());
    figures.set(&figures::CONNECTS_PER_SECOND, f64::from(opened.up) / opened.took.as_secs_f64());
    figures.set(&figures::CONNECT_P50_US, connect.p50_us);
    figures.set(&figures::CONNECT_P99_US, connect.p99_us);
    figures.set(&figures::CONNECT_CPU_US, usage.and_then(|usage| usage.cpu_us_per(f64::from(opened.up))));
    figures.set(&figures::SERVER_RSS_BYTES, usage.map(|usage| usage.rss_bytes as f64));

    let mut checks = Checks::default();
    let bounds = &settings.bounds;
    checks.at_most(&figures, &figures::REFUSED, Some(f64::from(bounds.max_refused)));
    let ended = tally::words(&tally.ended);
    let held = if ended.is_empty() { format!("{} held", opened.up) } else { ended };
    checks.push("sessions", "all held".to_owned(), tally.ended.is_empty(), held);
    checks.at_most(&figures, &figures::CONNECT_SECONDS, bounds.max_connect_seconds);
    checks.at_most(&figures, &figures::CONNECT_CPU_US, bounds.max_connect_cpu_us);
    let notes = tally.refused.iter().map(|(reason, count)| format!("refused: {count} x {reason}")).collect();
    Ok(Findings { figures, percentiles: crate::stats::curve(&tally.setup), notes, checks, ..Findings::default() })
}
