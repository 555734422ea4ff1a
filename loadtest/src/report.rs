//! The result of a run: a table for a person, JSON for a program, and whether every bound was held.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::client::tally::Accounting;
use crate::error::{Context, Result};
use crate::stats::Latency;
use crate::terminal;

/// A bound and what was measured.
#[derive(Debug, Serialize)]
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

/// What a scenario found.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The table, its head first.
    pub(crate) rows: Vec<Vec<String>>,
    /// Everything, for programs.
    pub(crate) result: serde_json::Value,
    /// What was to be held.
    pub(crate) checks: Checks,
}

/// All checks of a run.
#[derive(Debug, Default, Serialize)]
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

    /// A value must not be above a bound, where there is one.
    pub(crate) fn at_most(&mut self, what: &str, bound: Option<f64>, value: Option<f64>, unit: &str) {
        let Some(bound) = bound else { return };
        let passed = value.is_some_and(|value| value <= bound);
        self.push(
            what,
            format!("<= {} {unit}", plain(bound)),
            passed,
            value.map_or("nothing measured".to_owned(), plain),
        );
    }

    /// A value must not be below a bound, where there is one.
    pub(crate) fn at_least(&mut self, what: &str, bound: Option<f64>, value: Option<f64>, unit: &str) {
        let Some(bound) = bound else { return };
        let passed = value.is_some_and(|value| value >= bound);
        self.push(
            what,
            format!(">= {} {unit}", plain(bound)),
            passed,
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
}

#[derive(Serialize)]
struct Document<'a> {
    tool: &'static str,
    version: &'static str,
    scenario: &'a str,
    settings: &'a serde_json::Value,
    machine: Machine,
    result: &'a serde_json::Value,
    checks: &'a Checks,
    passed: bool,
}

#[derive(Serialize)]
struct Machine {
    cpus: usize,
    kernel: String,
}

/// Prints the findings, and writes them to a file if one is named.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn publish(
    scenario: &str,
    settings: &serde_json::Value,
    findings: &Findings,
    file: Option<&Path>,
) -> Result<()> {
    let mut text = format!("\n{scenario}\n\n{}", terminal::table(&findings.rows));
    for check in &findings.checks.0 {
        let verdict = if check.passed { "ok    " } else { "FAILED" };
        text.push_str(&format!("\n{verdict}  {}: {} (wanted {})", check.what, check.measured, check.bound));
    }
    text.push('\n');
    // A closed standard output must not keep the file from being written.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let Some(file) = file else { return Ok(()) };
    let document = Document {
        tool: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        scenario,
        settings,
        machine: Machine {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        },
        result: &findings.result,
        checks: &findings.checks,
        passed: findings.checks.passed(),
    };
    let json = serde_json::to_string_pretty(&document)
        .map_err(std::io::Error::from)
        .context(|| "cannot encode the report".to_owned())?;
    std::fs::write(file, json + "\n").context(|| format!("cannot write {}", file.display()))
}

/// The result as JSON; a value that cannot be encoded shows as null.
pub(crate) fn to_json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A row of the table.
pub(crate) fn row(cells: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    cells.into_iter().map(Into::into).collect()
}

/// A number with a comma after each three digits, and so many digits behind the point.
pub(crate) fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let digits = whole.trim_start_matches('-');
    let sign = &whole[..whole.len() - digits.len()];
    let mut out = String::with_capacity(text.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{sign}{out}{rest}")
}

/// A value that may not have been measured.
pub(crate) fn optional(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| grouped(value, decimals))
}

/// A latency in the unit that suits it.
pub(crate) fn duration_us(us: f64) -> String {
    if us >= 1e6 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 10_000.0 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{} us", grouped(us, 0))
    }
}

/// The percentiles of a latency, in the order p50, p90, p99, p99.9, max.
pub(crate) fn percentiles(latency: &Latency) -> [String; 5] {
    [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us].map(duration_us)
}

fn plain(value: f64) -> String {
    if value.abs() >= 100.0 { grouped(value, 0) } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(grouped(0.0, 0), "0");
        assert_eq!(grouped(999.0, 0), "999");
        assert_eq!(grouped(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(grouped(-1000.0, 0), "-1,000");
    }

    #[test]
    fn a_bound_is_held_missed_or_not_given() {
        let mut checks = Checks::default();
        checks.at_most("a", None, Some(9.0), "");
        assert!(checks.0.is_empty());
        checks.at_most("a", Some(1.0), Some(1.0), "");
        checks.at_least("b", Some(1.0), Some(1.0), "");
        assert!(checks.passed());
        checks.at_most("c", Some(1.0), Some(1.1), "");
        assert!(!checks.passed());
    }

    #[test]
    fn a_bound_on_what_was_not_measured_is_missed() {
        let mut checks = Checks::default();
        checks.at_least("a", Some(1.0), None, "");
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
