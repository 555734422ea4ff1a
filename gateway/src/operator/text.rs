//! Prometheus text format, version 0.0.4, for the values that the exporter cannot take: its
//! counters are integers, and its histograms want single observations.

use std::fmt::{Display, Write};

/// A label's name and value. Values are fixed words or numbers of our own and need no escaping.
pub type Label<'a> = (&'a str, &'a str);

/// Text that is being written, family by family.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Goes on after `text`.
    pub fn after(text: String) -> Self {
        Self(text)
    }

    /// What was written.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Begins a family; `kind` is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One sample of the family begun last.
    pub fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.labelled(name, labels, None, value);
    }

    /// One histogram of the family begun last.
    ///
    /// `buckets` are bounds with the number of observations in each (not cumulated), ascending, the
    /// one for the rest last with `None`. Bounds and `sum` are multiplied by `unit`.
    pub fn histogram(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        buckets: impl Iterator<Item = (Option<u64>, u64)>,
        sum: u64,
        unit: f64,
    ) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (bound, within) in buckets {
            count += within;
            if let Some(bound) = bound {
                self.labelled(&bucket, labels, Some(&(bound as f64 * unit)), count);
            }
        }
        self.labelled(&bucket, labels, Some(&"+Inf"), count);
        self.sample(&format!("{name}_sum"), labels, sum as f64 * unit);
        self.sample(&format!("{name}_count"), labels, count);
    }

    fn labelled(&mut self, name: &str, labels: &[Label<'_>], bound: Option<&dyn Display>, value: impl Display) {
        let mut set = String::new();
        let all = labels.iter().map(|(name, value)| (*name, value as &dyn Display));
        for (name, value) in all.chain(bound.map(|bound| ("le", bound))) {
            let separator = if set.is_empty() { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(set, "{separator}{name}=\"{value}\"");
        }
        match set.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{set}}} {value}")),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{line}");
    }
}

/// Nanoseconds as seconds.
pub const NANOS: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulated_and_ends_with_infinity() {
        let mut text = Text::after("before 1\n".to_owned());
        text.family("t_seconds", "histogram", "Help.");
        let buckets = [(Some(50_000), 2), (Some(1_000_000_000), 1), (None, 4)];
        text.histogram("t_seconds", &[("a", "b")], buckets.into_iter(), 1_500_000_000, NANOS);
        let expected = "before 1\n# HELP t_seconds Help.\n# TYPE t_seconds histogram\n\
            t_seconds_bucket{a=\"b\",le=\"0.00005\"} 2\n\
            t_seconds_bucket{a=\"b\",le=\"1\"} 3\n\
            t_seconds_bucket{a=\"b\",le=\"+Inf\"} 7\n\
            t_seconds_sum{a=\"b\"} 1.5\n\
            t_seconds_count{a=\"b\"} 7\n";
        assert_eq!(text.into_string(), expected);
    }
}
