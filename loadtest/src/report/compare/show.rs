//! A comparison as text for a person and as JSON for a program.

use serde_json::{Value, json};

use super::group::{Comparison, Spread, Verdict};
use crate::report::checks::Checks;
use crate::report::figures::{self, Better, Figure};
use crate::terminal;

/// Tables with ratios, warnings, and the limits.
pub(crate) fn text(comparisons: &[Comparison<'_>], checks: &Checks) -> String {
    let mut text = String::new();
    for comparison in comparisons {
        let base = &comparison.groups[0].name;
        let others: Vec<_> = comparison.groups[1..].iter().map(|group| group.name.as_str()).collect();
        text.push_str(&format!("\n{}: {} over {base}\n\n", comparison.title, others.join(", ")));
        text.push_str(&terminal::table(&rows(comparison)));
        if comparison.has_repeats() {
            text.push_str("\nmedians, with the smallest and the largest value; ~ where these ranges overlap or differ by less than 1 %\n");
        }
        for warning in &comparison.warnings {
            text.push_str(&format!("\nwarning: {warning}"));
        }
        if !comparison.warnings.is_empty() {
            text.push('\n');
        }
    }
    text + &terminal::checks(checks)
}

/// The table of a comparison, its head first.
fn rows(comparison: &Comparison<'_>) -> Vec<Vec<String>> {
    let repeats = comparison.has_repeats();
    let mut head = vec!["figure".to_owned()];
    for (number, group) in comparison.groups.iter().enumerate() {
        let runs = group.reports.len();
        head.push(if repeats { format!("{} ({runs}x)", group.name) } else { group.name.clone() });
        if repeats {
            head.push("range".to_owned());
        }
        if number > 0 {
            head.push("ratio".to_owned());
            head.push(String::new());
        }
    }
    let mut rows = vec![head];
    for name in comparison.figures() {
        let better = Figure::named(name).map_or(Better::Neither, |figure| figure.better);
        let base = comparison.groups[0].spread(name);
        let mut row = vec![figures::title(name).to_owned()];
        for (number, group) in comparison.groups.iter().enumerate() {
            let spread = group.spread(name);
            row.push(spread.map_or("-".to_owned(), |spread| figures::show(name, spread.median)));
            if repeats {
                row.push(spread.map_or_else(String::new, |spread| range(name, &spread)));
            }
            if number > 0 {
                let both = spread.zip(base);
                row.push(both.map_or("-".to_owned(), |(spread, base)| ratio(spread.ratio(&base))));
                row.push(both.map_or("", |(spread, base)| mark(spread.verdict(&base, better))).to_owned());
            }
        }
        rows.push(row);
    }
    rows
}

/// `8.100..9.400 us`; empty where both ends look the same.
pub(crate) fn range(name: &str, spread: &Spread) -> String {
    let (min, max) = (figures::show(name, spread.min), figures::show(name, spread.max));
    if min == max {
        return String::new();
    }
    let unit = |text: &str| text.trim_start_matches(|c: char| c.is_ascii_digit() || "-,.".contains(c)).len();
    let (min_unit, max_unit) = (&min[min.len() - unit(&min)..], &max[max.len() - unit(&max)..]);
    let min = if min_unit == max_unit { min.trim_end_matches(min_unit) } else { min.as_str() };
    format!("{min}..{max}")
}

/// `1.04x`; more than anything over nothing.
pub(crate) fn ratio(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.2}x") } else { "over 0".to_owned() }
}

/// A word for a verdict.
pub(crate) fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Open => "~",
        Verdict::Same => "=",
        Verdict::None => "",
    }
}

/// Everything, for programs.
pub(crate) fn json(comparisons: &[Comparison<'_>], checks: &Checks) -> Value {
    let comparisons: Vec<Value> = comparisons
        .iter()
        .map(|comparison| {
            let base = &comparison.groups[0];
            let figures: serde_json::Map<String, Value> = comparison
                .figures()
                .into_iter()
                .map(|name| {
                    let better = Figure::named(name).map_or(Better::Neither, |figure| figure.better);
                    let groups: Vec<Value> = comparison
                        .groups
                        .iter()
                        .map(|group| match group.spread(name) {
                            None => Value::Null,
                            Some(spread) => {
                                let base = base.spread(name);
                                json!({
                                    "median": spread.median, "min": spread.min, "max": spread.max,
                                    // An infinite one becomes null, as JSON has no such number.
                                    "ratio": base.map(|base| spread.ratio(&base)),
                                    "verdict": base.map_or("", |base| mark(spread.verdict(&base, better))),
                                })
                            }
                        })
                        .collect();
                    (name.to_owned(), Value::Array(groups))
                })
                .collect();
            let groups: Vec<Value> = comparison
                .groups
                .iter()
                .map(|group| json!({ "name": group.name, "runs": group.reports.len() }))
                .collect();
            json!({
                "title": comparison.title, "groups": groups, "figures": figures, "warnings": comparison.warnings,
            })
        })
        .collect();
    json!({ "comparisons": comparisons, "checks": checks, "passed": checks.passed() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::report::compare::group::tests::report;
    use crate::report::compare::group::{Side, compare};

    fn reports() -> Vec<(Side, Report)> {
        let of = |label, cpu| (Side::Either, report("broadcast", label, 10_000, cpu));
        vec![of("floor", 8.0), of("floor", 9.0), of("tidegate", 9.5), of("tidegate", 10.5)]
    }

    #[test]
    fn the_table_has_medians_ranges_ratios_and_who_is_better() {
        let reports = reports();
        let text = text(&compare(&reports).unwrap(), &Checks::default());
        assert!(text.contains("broadcast: tidegate over floor"), "{text}");
        let line = text.lines().find(|line| line.starts_with("server CPU per delivery")).unwrap();
        let cells: Vec<_> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let wanted = [
            "server CPU per delivery",
            "8.500 us",
            "8.000..9.000 us",
            "10.000 us",
            "9.500..10.500 us",
            "1.18x",
            "worse",
        ];
        assert_eq!(cells, wanted);
    }

    #[test]
    fn a_range_over_two_units_keeps_both() {
        assert_eq!(range("p99_us", &Spread { median: 9_999.0, min: 900.0, max: 20_000.0 }), "900 us..20.0 ms");
        assert_eq!(range("lost", &Spread { median: 0.0, min: 0.0, max: 0.4 }), "");
    }

    #[test]
    fn the_json_has_the_same() {
        let reports = reports();
        let json = json(&compare(&reports).unwrap(), &Checks::default());
        let cpu = &json["comparisons"][0]["figures"]["cpu_us_per_delivery"][1];
        assert_eq!((&cpu["median"], &cpu["min"], &cpu["verdict"]), (&10.0.into(), &9.5.into(), &"worse".into()));
        assert_eq!(json["comparisons"][0]["groups"][1], json!({ "name": "tidegate", "runs": 2 }));
        assert_eq!(json["passed"], true);
    }
}
