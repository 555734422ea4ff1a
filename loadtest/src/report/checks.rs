//! Bounds, and whether they were held.

use serde::{Deserialize, Serialize};

use super::figures::{Figure, Figures};
use super::format::{grouped, plain};
use crate::client::tally::Accounting;

/// A bound and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// What is bounded.
    pub(crate) what: String,
    /// The bound, in words.
    pub(crate) bound: String,
    /// The measured value, in words.
    pub(crate) measured: String,
    /// Whether it was held.
    pub(crate) passed: bool,
}

/// All checks of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Nothing lost, nothing twice, order kept, no session ended.
    pub(crate) fn accounting(&mut self, accounting: &Accounting) {
        let fault = accounting.fault();
        self.push(
            "messages",
            "none lost, doubled or out of order".to_owned(),
            fault.is_none(),
            fault.unwrap_or_else(|| format!("{} delivered", grouped(accounting.delivered as f64, 0))),
        );
    }

    /// A figure must not be above a bound, where there is one. A figure that was not measured misses it.
    pub(crate) fn at_most(&mut self, figures: &Figures, figure: &Figure, bound: Option<f64>) {
        self.bound(figures, figure, "<=", bound, |value, bound| value <= bound);
    }

    /// A figure must not be below a bound, where there is one. A figure that was not measured misses it.
    pub(crate) fn at_least(&mut self, figures: &Figures, figure: &Figure, bound: Option<f64>) {
        self.bound(figures, figure, ">=", bound, |value, bound| value >= bound);
    }

    fn bound(
        &mut self,
        figures: &Figures,
        figure: &Figure,
        sign: &str,
        bound: Option<f64>,
        held: fn(f64, f64) -> bool,
    ) {
        let Some(bound) = bound else { return };
        let value = figures.get(figure);
        self.push(
            figure.title,
            // As it was given, because a rounded bound may look held where it is missed.
            format!("{sign} {bound} {}", figure.unit.sign()).trim_end().to_owned(),
            value.is_some_and(|value| held(value, bound)),
            value.map_or("nothing measured".to_owned(), plain),
        );
    }

    /// Any other check.
    pub(crate) fn push(&mut self, what: &str, bound: String, passed: bool, measured: String) {
        self.0.push(Check { what: what.to_owned(), bound, measured, passed });
    }

    /// Whether all of them were held.
    pub(crate) fn passed(&self) -> bool {
        self.0.iter().all(|check| check.passed)
    }

    /// In the order in which they were made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Check> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figures::{DELIVERIES_PER_SECOND, P50_US};

    fn figures() -> Figures {
        let mut figures = Figures::default();
        figures.set(&P50_US, 9.0);
        figures
    }

    #[test]
    fn a_bound_is_held_missed_or_not_given() {
        let mut checks = Checks::default();
        checks.at_most(&figures(), &P50_US, None);
        assert_eq!(checks, Checks::default());
        checks.at_most(&figures(), &P50_US, Some(9.0));
        checks.at_least(&figures(), &P50_US, Some(9.0));
        assert!(checks.passed());
        checks.at_most(&figures(), &P50_US, Some(8.9));
        assert!(!checks.passed());
        assert_eq!(checks.0[2].bound, "<= 8.9 us");
    }

    #[test]
    fn a_bound_on_what_was_not_measured_is_missed() {
        let mut checks = Checks::default();
        checks.at_least(&figures(), &DELIVERIES_PER_SECOND, Some(0.0));
        assert!(!checks.passed());
    }

    #[test]
    fn a_loss_fails_the_run() {
        let mut checks = Checks::default();
        checks.accounting(&Accounting { delivered: 5, ..Accounting::default() });
        assert!(checks.passed());
        checks.accounting(&Accounting { delivered: 5, lost: 1, ..Accounting::default() });
        assert!(!checks.passed());
    }
}
