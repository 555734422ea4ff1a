//! Which reports belong together, and their medians.
//!
//! A comparison has the reports of one scenario. A group has those of one side and label: repeats, of which medians
//! are taken. A series (the same label with different numbers of sessions or channels) makes a comparison for each
//! size, if every group has the same sizes.

use std::collections::{BTreeMap, BTreeSet};

use super::settings;
use crate::error::{Error, Result};
use crate::report::Report;
use crate::report::figures::{self, Better, Figure};
use crate::report::format::grouped;
use crate::stats::median;

/// Where a report stood in the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Before `--`.
    Base,
    /// Behind `--`.
    Other,
    /// There was none: labels decide.
    Either,
}

/// A figure over the repeats of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The middle value.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

/// Repeats of one measurement.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// The label, made unique within the comparison.
    pub(crate) name: String,
    /// The repeats, at least one.
    pub(crate) reports: Vec<&'a Report>,
}

/// The groups of one scenario, or of one size of it; the first is the base.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    /// The scenario, with the size if the reports are a series.
    pub(crate) title: String,
    /// The base and what is compared with it.
    pub(crate) groups: Vec<Group<'a>>,
    /// What makes the ratios doubtful, a line each.
    pub(crate) warnings: Vec<String>,
}

/// A difference smaller than this share of the base says nothing, even where the ranges do not overlap.
const LITTLE: f64 = 0.01;

/// What a ratio says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Better than the base, in every repeat.
    Better,
    /// Worse than the base, in every repeat.
    Worse,
    /// The ranges of the repeats overlap, or the medians are within [`LITTLE`].
    Open,
    /// Every repeat of both had the same value.
    Same,
    /// No direction of the figure is better.
    None,
}

impl Group<'_> {
    /// A figure over the repeats that have it.
    pub(crate) fn spread(&self, name: &str) -> Option<Spread> {
        let values: Vec<f64> = self.reports.iter().filter_map(|report| report.figures.named(name)).collect();
        Some(Spread {
            median: median(values.iter().copied())?,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

impl Spread {
    /// This median over that of the base; the same is 1, even if it is the same nothing. Infinite over nothing.
    pub(crate) fn ratio(&self, base: &Self) -> f64 {
        if self.median.total_cmp(&base.median).is_eq() { 1.0 } else { self.median / base.median }
    }

    /// Which of the two is better.
    pub(crate) fn verdict(&self, base: &Self, better: Better) -> Verdict {
        let lower_wins = match better {
            Better::Neither => return Verdict::None,
            Better::Lower => true,
            Better::Higher => false,
        };
        let values = [self.min, self.max, base.min, base.max];
        if values.iter().all(|value| value.total_cmp(&self.median).is_eq()) {
            Verdict::Same
        } else if (self.min <= base.max && base.min <= self.max) || (self.ratio(base) - 1.0).abs() < LITTLE {
            Verdict::Open
        } else if (self.median < base.median) == lower_wins {
            Verdict::Better
        } else {
            Verdict::Worse
        }
    }
}

impl Comparison<'_> {
    /// Every figure that any group has: known ones in the order of the table of figures, then the others.
    pub(crate) fn figures(&self) -> Vec<&str> {
        let reports = self.groups.iter().flat_map(|group| &group.reports);
        let all: BTreeSet<&str> = reports.flat_map(|report| report.figures.names()).collect();
        let known = figures::ALL.iter().map(|figure| figure.name).filter(|name| all.contains(name));
        known.chain(all.iter().copied().filter(|name| Figure::named(name).is_none())).collect()
    }

    /// Whether any group has more than one report.
    pub(crate) fn has_repeats(&self) -> bool {
        self.groups.iter().any(|group| group.reports.len() > 1)
    }
}

/// A measurement's size: sessions and channels, where they are told.
pub(crate) type Size = (Option<u64>, Option<u64>);

/// How many sessions and channels a run had.
pub(crate) fn size(report: &Report) -> Size {
    let whole = |figure| report.figures.get(figure).map(|value| value as u64);
    (whole(&figures::SESSIONS), whole(&figures::CHANNELS))
}

/// All comparisons of a scenario.
#[derive(Debug)]
pub(crate) struct Scenario<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// One for each size, all with the same names of groups, and at least one.
    pub(crate) sizes: Vec<Comparison<'a>>,
    /// Whether the first group was given as the base, or may be taken for it.
    has_base: bool,
}

/// Puts together what belongs together, in the order of the reports. A scenario may have a single group.
pub(crate) fn scenarios(reports: &[(Side, Report)]) -> Vec<Scenario<'_>> {
    let names = distinct(reports.iter().map(|(_, report)| report.scenario.as_str()));
    names.into_iter().map(|name| scenario(name, reports)).collect()
}

fn scenario<'a>(scenario: &'a str, reports: &'a [(Side, Report)]) -> Scenario<'a> {
    let of: Vec<_> = reports.iter().filter(|(_, report)| report.scenario == scenario).collect();
    let keys = distinct(of.iter().map(|(side, report)| (*side, report.label.as_str())));
    let mut sizes = Vec::new();
    for (size, members) in by_size(&of, &keys) {
        let group = |key: &(Side, &str)| Group {
            name: name(*key, &keys),
            reports: members.iter().filter(|(side, r)| (*side, r.label.as_str()) == *key).map(|(_, r)| r).collect(),
        };
        let groups: Vec<Group<'_>> = keys.iter().map(group).collect();
        let title = size.map_or(scenario.to_owned(), |size| format!("{scenario}, {size}"));
        let warnings = settings::warnings(&groups);
        sizes.push(Comparison { title, groups, warnings });
    }
    Scenario { name: scenario, sizes, has_base: keys.first().is_some_and(|(side, _)| *side != Side::Other) }
}

/// The comparisons of all scenarios that have a base and something to compare with it.
///
/// # Errors
/// No such scenario.
pub(crate) fn compare(reports: &[(Side, Report)]) -> Result<Vec<Comparison<'_>>> {
    let (of_both, alone): (Vec<_>, Vec<_>) =
        scenarios(reports).into_iter().partition(|scenario| scenario.has_base && scenario.sizes[0].groups.len() > 1);
    let alone: Vec<_> = alone.iter().map(|scenario| scenario.name).collect();
    let mut comparisons: Vec<_> = of_both.into_iter().flat_map(|scenario| scenario.sizes).collect();
    if comparisons.is_empty() {
        return Err(Error::Usage(format!(
            "nothing to compare in {}: give reports of the same scenario with two labels (--label), or put the others \
             behind --",
            alone.join(", ")
        )));
    }
    if let Some(last) = comparisons.last_mut()
        && !alone.is_empty()
    {
        last.warnings.push(format!("left out, for want of a base or of something to compare: {}", alone.join(", ")));
    }
    Ok(comparisons)
}

/// The reports of one size; the size in words, if there are several.
type OfSize<'a> = (Option<String>, Vec<&'a (Side, Report)>);

/// The reports by size, with the size in words, if there are several sizes and every group has all of them; otherwise
/// all of them as they are.
fn by_size<'a>(of: &[&'a (Side, Report)], keys: &[(Side, &str)]) -> Vec<OfSize<'a>> {
    let mut sizes: BTreeMap<(Side, &str), BTreeSet<Size>> = BTreeMap::new();
    for (side, report) in of {
        sizes.entry((*side, report.label.as_str())).or_default().insert(size(report));
    }
    let first = sizes.get(&keys[0]).cloned().unwrap_or_default();
    if first.len() < 2 || sizes.values().any(|of_group| *of_group != first) {
        return vec![(None, of.to_vec())];
    }
    let words = |count: Option<u64>, what: &str| count.map(|n| format!("{} {what}", grouped(n as f64, 0)));
    first
        .iter()
        .map(|wanted| {
            let (sessions, channels) = (words(wanted.0, "sessions"), words(wanted.1, "channels"));
            let title = [sessions, channels].into_iter().flatten().collect::<Vec<_>>().join(", ");
            (Some(title), of.iter().copied().filter(|(_, report)| size(report) == *wanted).collect())
        })
        .collect()
}

/// A name for a group that no other has.
fn name((side, label): (Side, &str), keys: &[(Side, &str)]) -> String {
    let unique = keys.iter().filter(|(_, other)| *other == label).count() == 1;
    match (label, side) {
        ("", Side::Base) => "base".to_owned(),
        ("", Side::Other) => "other".to_owned(),
        ("", Side::Either) => "(no label)".to_owned(),
        (label, Side::Base) if !unique => format!("{label} (base)"),
        (label, _) => label.to_owned(),
    }
}

/// Each value once, in the order of their first appearance.
fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::figures::{CPU_US_PER_DELIVERY, SESSIONS};
    use crate::report::{About, Findings};

    /// A report with a CPU time per delivery.
    pub(crate) fn report(scenario: &str, label: &str, sessions: u32, cpu: f64) -> Report {
        let mut findings = Findings::default();
        findings.figures.set(&SESSIONS, f64::from(sessions));
        findings.figures.set(&CPU_US_PER_DELIVERY, cpu);
        let about = About {
            scenario: scenario.to_owned(),
            kind: "broadcast",
            label: label.to_owned(),
            settings: serde_json::json!({ "messages": { "payload": 128, "sessions": sessions } }),
            started: std::time::SystemTime::UNIX_EPOCH,
        };
        Report::new(about, findings)
    }

    fn either(reports: Vec<Report>) -> Vec<(Side, Report)> {
        reports.into_iter().map(|report| (Side::Either, report)).collect()
    }

    #[test]
    fn the_first_label_is_the_base_and_repeats_become_a_median_with_its_range() {
        let reports = either(vec![
            report("broadcast", "floor", 10, 9.0),
            report("broadcast", "tidegate", 10, 9.9),
            report("broadcast", "floor", 10, 8.0),
            report("broadcast", "floor", 10, 8.5),
            report("broadcast", "tidegate", 10, 9.5),
        ]);
        let comparisons = compare(&reports).unwrap();
        assert_eq!(comparisons.len(), 1);
        let [floor, tidegate] = &comparisons[0].groups[..] else { panic!("{comparisons:?}") };
        assert_eq!((floor.name.as_str(), tidegate.name.as_str()), ("floor", "tidegate"));
        let (base, other) =
            (floor.spread("cpu_us_per_delivery").unwrap(), tidegate.spread("cpu_us_per_delivery").unwrap());
        assert_eq!(base, Spread { median: 8.5, min: 8.0, max: 9.0 });
        assert!((other.ratio(&base) - 9.7 / 8.5).abs() < 1e-9);
        assert_eq!(other.verdict(&base, Better::Lower), Verdict::Worse);
        assert_eq!(base.verdict(&other, Better::Lower), Verdict::Better);
        assert_eq!(other.verdict(&base, Better::Higher), Verdict::Better);
        assert_eq!(other.verdict(&base, Better::Neither), Verdict::None);
    }

    #[test]
    fn ranges_that_overlap_leave_it_open_which_is_better() {
        let (a, b) = (Spread { median: 1.0, min: 0.5, max: 2.0 }, Spread { median: 1.9, min: 1.8, max: 3.0 });
        assert_eq!(b.verdict(&a, Better::Lower), Verdict::Open);
    }

    #[test]
    fn a_difference_of_less_than_a_hundredth_leaves_it_open_and_none_is_the_same() {
        let of = |value| Spread { median: value, min: value, max: value };
        assert_eq!(of(100.5).verdict(&of(100.0), Better::Higher), Verdict::Open);
        assert_eq!(of(102.0).verdict(&of(100.0), Better::Higher), Verdict::Better);
        assert_eq!(of(0.0).verdict(&of(0.0), Better::Lower), Verdict::Same);
    }

    #[test]
    fn the_ratio_of_nothing_to_nothing_is_one_and_to_something_infinite() {
        let of = |value| Spread { median: value, min: value, max: value };
        assert!((of(0.0).ratio(&of(0.0)) - 1.0).abs() < 1e-9);
        assert!(of(5.0).ratio(&of(0.0)).is_infinite());
        assert_eq!(of(5.0).verdict(&of(0.0), Better::Lower), Verdict::Worse);
    }

    #[test]
    fn the_same_label_on_both_sides_is_told_apart() {
        let reports = [(Side::Base, report("b", "tidegate", 10, 2.0)), (Side::Other, report("b", "tidegate", 10, 1.0))];
        let comparisons = compare(&reports).unwrap();
        let names: Vec<_> = comparisons[0].groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["tidegate (base)", "tidegate"]);
    }

    #[test]
    fn a_series_is_compared_size_by_size() {
        let mut reports = Vec::new();
        for sessions in [5_000, 1_000] {
            reports.push(report("idle", "a", sessions, 1.0));
            reports.push(report("idle", "b", sessions, 2.0));
        }
        let reports = either(reports);
        let titles: Vec<_> = compare(&reports).unwrap().into_iter().map(|comparison| comparison.title).collect();
        assert_eq!(titles, ["idle, 1,000 sessions", "idle, 5,000 sessions"]);
    }

    #[test]
    fn sizes_that_only_one_side_has_are_compared_with_a_warning() {
        let reports = either(vec![report("idle", "a", 1_000, 1.0), report("idle", "b", 5_000, 1.0)]);
        let comparisons = compare(&reports).unwrap();
        assert_eq!(comparisons.len(), 1);
        assert!(comparisons[0].warnings.iter().any(|line| line.contains("sessions")), "{comparisons:?}");
    }

    #[test]
    fn nothing_to_compare_is_said_with_what_would_help() {
        let error = compare(&either(vec![report("idle", "a", 1, 1.0), report("hot", "b", 1, 1.0)])).unwrap_err();
        assert!(error.to_string().contains("idle, hot") && error.to_string().contains("--label"), "{error}");
    }
}
