//! Ratios that must hold, so that a script can fail on them.

use super::group::Comparison;
use crate::report::checks::Checks;
use crate::report::figures::{ALL, Figure};

/// A bound on the ratio of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    figure: &'static Figure,
    ratio: f64,
}

/// Reads `FIGURE=RATIO`.
pub(crate) fn parse(text: &str) -> std::result::Result<Limit, String> {
    let (name, ratio) = text.split_once('=').ok_or("FIGURE=RATIO is wanted, as in cpu_us_per_delivery=1.15")?;
    let ratio = ratio.parse::<f64>().ok().filter(|ratio| ratio.is_finite() && *ratio > 0.0);
    let ratio = ratio.ok_or("the ratio is a number above 0")?;
    let figure = Figure::named(name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|figure| figure.name).collect();
        format!("there is no figure {name:?}; the figures are {}", names.join(", "))
    })?;
    Ok(Limit { figure, ratio })
}

/// Holds every comparison that has the figure to the limits. A figure that a group lacks, or that no comparison has,
/// misses them.
pub(crate) fn check(comparisons: &[Comparison<'_>], above: &[Limit], below: &[Limit]) -> Checks {
    let mut checks = Checks::default();
    for (limits, at_most) in [(above, true), (below, false)] {
        for Limit { figure, ratio: bound } in limits {
            let sign = if at_most { "<=" } else { ">=" };
            let wanted = format!("{sign} {bound}x");
            let mut found = false;
            for comparison in comparisons.iter().filter(|comparison| comparison.figures().contains(&figure.name)) {
                found = true;
                let base = comparison.groups[0].spread(figure.name);
                for group in &comparison.groups[1..] {
                    let ratio = group.spread(figure.name).zip(base).map(|(spread, base)| spread.ratio(&base));
                    let held = ratio.is_some_and(|ratio| if at_most { ratio <= *bound } else { ratio >= *bound });
                    let measured = ratio.map_or("measured on one side only".to_owned(), |ratio| format!("{ratio:.3}x"));
                    let base = &comparison.groups[0].name;
                    let what = format!("{}: {}, {} over {base}", comparison.title, figure.title.trim(), group.name);
                    checks.push(&what, wanted.clone(), held, measured);
                }
            }
            if !found {
                checks.push(figure.title, wanted, false, "nothing measured".to_owned());
            }
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::group::tests::report;
    use crate::report::compare::group::{Side, compare};

    #[test]
    fn a_limit_names_a_figure_and_a_ratio() {
        assert_eq!(parse("p99_us=1.5").map(|limit| (limit.figure.name, limit.ratio)), Ok(("p99_us", 1.5)));
        for (text, why) in [
            ("p99_us", "FIGURE=RATIO"),
            ("p99_us=fast", "number above 0"),
            ("p99_us=-1", "number above 0"),
            ("p98_us=1", "p99_us"),
        ] {
            assert!(parse(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn limits_are_held_missed_or_cannot_be_told() {
        let reports = [(Side::Base, report("b", "floor", 10, 2.0)), (Side::Other, report("b", "tidegate", 10, 3.0))];
        let comparisons = compare(&reports).unwrap();
        let passed = |above: &[&str], below: &[&str]| {
            let limits = |texts: &[&str]| texts.iter().map(|text| parse(text).unwrap()).collect::<Vec<_>>();
            check(&comparisons, &limits(above), &limits(below)).passed()
        };
        assert!(passed(&["cpu_us_per_delivery=1.5"], &["cpu_us_per_delivery=1.5"]));
        assert!(!passed(&["cpu_us_per_delivery=1.49"], &[]));
        assert!(!passed(&[], &["cpu_us_per_delivery=1.51"]));
        assert!(!passed(&["p99_us=100"], &[]), "nobody measured it");
    }

    #[test]
    fn a_figure_that_one_side_lacks_misses_the_limit() {
        let mut other = report("b", "tidegate", 10, 3.0);
        other.figures.set(&crate::report::figures::CPU_US_PER_DELIVERY, None);
        let reports = [(Side::Base, report("b", "floor", 10, 2.0)), (Side::Other, other)];
        let checks = check(&compare(&reports).unwrap(), &[parse("cpu_us_per_delivery=9").unwrap()], &[]);
        assert_eq!(
            checks.iter().map(|check| check.measured.as_str()).collect::<Vec<_>>(),
            ["measured on one side only"]
        );
        assert!(!checks.passed());
    }
}
