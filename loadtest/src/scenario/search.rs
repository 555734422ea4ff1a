//! The highest rate that a server holds: doubled until it does not, then halved in between.

use super::measure::{Load, Measured};
use super::pattern::{Pattern, bounds};
use crate::client::tally::Accounting;
use crate::error::Result;
use crate::report::figures;
use crate::report::format::grouped;
use crate::report::{Checks, Findings};
use crate::stats::curve;

/// How far beyond the first rate the search goes where no highest rate is given.
const REACH: f64 = 64.0;
/// The search ends when the rate that was not held is within this of one that was.
const CLOSE: f64 = 1.05;
/// What arrives later than this after the last message was due, in s, has piled up: a twentieth of the time, and a bit.
const LATE: (f64, f64) = (0.05, 0.25);

/// Between which rates the answer lies.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    held: Option<f64>,
    missed: Option<f64>,
    first: f64,
    most: f64,
}

impl Range {
    /// The rate to try next; `None` once the answer is close enough.
    fn next(&self) -> Option<f64> {
        match (self.held, self.missed) {
            (None, None) => Some(self.first),
            (Some(held), None) => (held < self.most).then(|| (held * 2.0).min(self.most)),
            // Below a hundredth of the first rate nobody looks for an answer.
            (None, Some(missed)) => (missed > self.first / 100.0).then(|| missed / 2.0),
            (Some(held), Some(missed)) => (missed > held * CLOSE).then(|| (held * missed).sqrt()),
        }
    }

    fn tried(&mut self, rate: f64, held: bool) {
        *if held { &mut self.held } else { &mut self.missed } = Some(rate);
    }
}

/// Tries one rate after the other. A rate that is missed is tried once more, because the machine may have been busy.
pub(super) fn run(pattern: &Pattern<'_>, load: &Load) -> Result<Findings> {
    let settings = pattern.stage.settings;
    let messages = &settings.messages;
    let most = messages.max_rate.unwrap_or(messages.rate * REACH);
    let mut range = Range { held: None, missed: None, first: messages.rate, most };
    let mut best: Option<(Measured, Accounting)> = None;
    let mut notes = Vec::new();
    let mut fleet = pattern.open()?;
    while let Some(rate) = range.next() {
        let load =
            Load { rate: Some(rate), messages: (rate * messages.seconds).round().max(1.0) as u64, ..load.clone() };
        let mut held = false;
        for attempt in ["", ", once more"] {
            let (measured, accounting) = pattern.measure(&fleet, &load)?;
            let miss = miss(pattern, &measured, &accounting, messages.seconds);
            let verdict = miss.as_deref().unwrap_or("held");
            let note = format!("{} messages/s{attempt}: {verdict}", grouped(rate, 0));
            pattern.stage.monitor.line(&note);
            notes.push(note);
            if miss.is_none() {
                best = Some((measured, accounting));
                held = true;
                break;
            }
            // Sessions that could not keep up may be gone, or have old messages before them.
            drop(fleet);
            fleet = pattern.open()?;
        }
        range.tried(rate, held);
    }
    drop(fleet);
    let mut findings = Findings { notes, ..Findings::default() };
    let mut checks = Checks::default();
    let Some((measured, accounting)) = best else {
        checks.push("highest rate", "one that is held".to_owned(), false, "none".to_owned());
        return Ok(Findings { checks, ..findings });
    };
    findings.figures = pattern.figures(&measured);
    findings.figures.set(&figures::MAX_RATE_HELD, range.held);
    findings.percentiles = curve(&measured.tally.latency);
    checks.accounting(&accounting);
    bounds(&mut checks, &findings.figures, &settings.bounds);
    checks.at_least(&findings.figures, &figures::MAX_RATE_HELD, settings.bounds.min_rate_held);
    Ok(Findings { checks, ..findings })
}

/// Why a rate was not held; `None` if it was.
fn miss(pattern: &Pattern<'_>, measured: &Measured, accounting: &Accounting, seconds: f64) -> Option<String> {
    if let Some(fault) = accounting.fault() {
        return Some(fault);
    }
    let allowed = seconds * (1.0 + LATE.0) + LATE.1;
    if measured.seconds > allowed {
        return Some(format!("took {:.1} s instead of {seconds:.1}", measured.seconds));
    }
    let mut checks = Checks::default();
    bounds(&mut checks, &pattern.figures(measured), &pattern.stage.settings.bounds);
    let missed: Vec<_> = checks
        .iter()
        .filter(|check| !check.passed)
        .map(|check| format!("{} {} (wanted {})", check.what, check.measured, check.bound))
        .collect();
    (!missed.is_empty()).then(|| missed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that a search tries against a server that holds `capacity`, and what it finds.
    fn search(first: f64, most: f64, capacity: f64) -> (Option<f64>, usize) {
        let mut range = Range { held: None, missed: None, first, most };
        let mut tried = 0;
        while let Some(rate) = range.next() {
            range.tried(rate, rate <= capacity);
            tried += 1;
            assert!(tried < 30 && rate <= most);
        }
        (range.held, tried)
    }

    #[test]
    fn a_search_ends_within_a_twentieth_of_the_capacity() {
        for capacity in [100.0, 130.0, 950.0, 1000.0, 3333.0, 6000.0] {
            let (held, tried) = search(100.0, 6400.0, capacity);
            let held = held.unwrap();
            assert!(held <= capacity && held * CLOSE >= capacity, "{capacity}: {held}");
            assert!(tried <= 13, "{capacity}: {tried}");
        }
    }

    #[test]
    fn a_search_goes_below_its_first_rate_and_not_beyond_its_last() {
        let (held, _) = search(100.0, 6400.0, 30.0);
        assert!(held.is_some_and(|held| held <= 30.0 && held * CLOSE >= 30.0), "{held:?}");
        assert_eq!(search(100.0, 500.0, 1e9).0, Some(500.0));
        assert_eq!(search(100.0, 500.0, 0.0).0, None);
    }
}
