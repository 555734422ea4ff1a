//! Which charts a scenario's reports make.

use super::markup::{microseconds, percent, short};
use super::plot::{Axis, Chart, Mark, Series};
use super::scale::Kind;
use crate::report::Report;
use crate::report::compare::group::{Comparison, Group, Scenario, Size, size};
use crate::report::figures::{self, Figure};
use crate::report::timeline::Point;

/// A line has at most so many points; more would not be seen.
const MAX_POINTS: usize = 400;

/// A rate is taken over at least so many seconds: samples come closer together while sessions connect.
const SHORTEST: f64 = 0.2;

/// The same for CPU time, which the kernel may count in ticks of 10 ms.
const SHORTEST_CPU: f64 = 1.0;

/// From this ratio of the largest to the smallest on, sizes are on a logarithmic axis.
const WIDE: f64 = 50.0;

/// The figures that a series of sizes shows, each with what its shape means.
static OVER_SIZE: &[(&Figure, &str)] = &[
    (&figures::CPU_US_PER_DELIVERY, LEVEL),
    (&figures::BYTES_PER_SESSION, LEVEL),
    (&figures::KERNEL_BYTES_PER_SESSION, LEVEL),
    (&figures::CONNECT_CPU_US, LEVEL),
    (&figures::IDLE_CPU_PERCENT_PER_10000, LEVEL),
    (&figures::SERVER_RSS_BYTES, STRAIGHT),
    (&figures::CONNECT_SECONDS, STRAIGHT),
    (&figures::DELIVERIES_PER_SECOND, ""),
    (&figures::P99_US, ""),
];
const STRAIGHT: &str = "A straight line means that the cost grows linearly.";
const LEVEL: &str = "A level line means that the whole cost grows linearly.";

/// What is drawn of runs of one size, in the order of the page.
pub(crate) fn of_runs(comparison: &Comparison<'_>) -> Vec<Chart> {
    let lines = Lines::of(comparison);
    vec![
        latency(&lines),
        throughput(&lines),
        processor(&lines),
        sessions(&lines),
        memory(&lines),
        memory_over_sessions(&lines),
    ]
}

/// The runs of a comparison, each with the name and the colour of its group.
struct Lines<'a> {
    runs: Vec<(&'a str, usize, &'a Report)>,
}

impl<'a> Lines<'a> {
    fn of(comparison: &'a Comparison<'a>) -> Self {
        let of_group = |(colour, group): (usize, &'a Group<'a>)| {
            group.reports.iter().map(move |report| (group.name.as_str(), colour, *report))
        };
        Self { runs: comparison.groups.iter().enumerate().flat_map(of_group).collect() }
    }

    /// A line for each run, of what `points` finds in its report.
    fn map<I: IntoIterator<Item = (f64, f64)>>(&self, points: impl Fn(&'a Report) -> I) -> Vec<Series> {
        let line = |(name, colour, report): &(&str, usize, &'a Report)| Series::line(name, *colour, points(report));
        self.runs.iter().map(line).collect()
    }

    /// A line for each run, of its timeline.
    fn timeline<I: IntoIterator<Item = (f64, f64)>>(&self, points: impl Fn(Vec<Point>) -> I) -> Vec<Series> {
        self.map(|report| points(thinned(&report.timeline)))
    }
}

/// Every so-manieth point and the last, so that there are at most [`MAX_POINTS`].
fn thinned(timeline: &[Point]) -> Vec<Point> {
    let every = timeline.len().div_ceil(MAX_POINTS).max(1);
    let last = timeline.len().saturating_sub(1);
    timeline.iter().enumerate().filter(|(number, _)| number % every == 0 || *number == last).map(|(_, p)| *p).collect()
}

fn latency(lines: &Lines<'_>) -> Chart {
    Chart {
        title: "Latency by percentile".to_owned(),
        about: "From the time when a message was due to its reading. Each step to the right leaves a tenth as many \
                messages."
            .to_owned(),
        x: Axis { label: "messages that were at most as late".to_owned(), kind: Kind::Nines, tick: percent },
        y: Axis { label: "latency".to_owned(), kind: Kind::Log, tick: microseconds },
        series: lines.map(curve),
    }
}

/// The latency curve. All messages (quantile 1) would be infinitely far to the right: they go as far beyond the last
/// finite point as that is from the one before.
fn curve(report: &Report) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = report.percentiles.iter().copied().filter(|point| point.0 < 1.0).collect();
    let mut curve = finite.clone();
    if let (Some(last), Some(all)) = (finite.last(), report.percentiles.last().filter(|point| point.0 >= 1.0)) {
        let before = finite.len().checked_sub(2).map_or(0.0, |at| finite[at].0);
        let left = (1.0 - last.0) * ((1.0 - last.0) / (1.0 - before)).clamp(0.1, 1.0);
        curve.push((1.0 - left, all.1));
    }
    curve
}

fn time_axis() -> Axis {
    Axis { label: "time, s".to_owned(), kind: Kind::Linear, tick: short }
}

/// How much of a running count came per second, between points that are at least so many seconds apart.
fn rate(points: &[Point], shortest: f64, count: impl Fn(&Point) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut counts = points.iter().filter_map(|point| Some((point.t, count(point)?)));
    let Some(mut last) = counts.next() else { return Vec::new() };
    let mut rates = Vec::new();
    for (t, counted) in counts.filter(|(t, _)| t.is_finite()) {
        let seconds = t - last.0;
        if seconds >= shortest {
            rates.push((t, (counted - last.1).max(0.0) / seconds));
            last = (t, counted);
        }
    }
    rates
}

fn throughput(lines: &Lines<'_>) -> Chart {
    let series = lines.timeline(|points| rate(&points, SHORTEST, |point| Some(point.delivered as f64)));
    Chart {
        title: "Throughput over time".to_owned(),
        about: "Deliveries to all sessions per second.".to_owned(),
        x: time_axis(),
        y: Axis { label: "deliveries per second".to_owned(), kind: Kind::Linear, tick: short },
        series: without_empty(series),
    }
}

fn processor(lines: &Lines<'_>) -> Chart {
    let percent_of_core = |points: Vec<Point>| {
        let rate = rate(&points, SHORTEST_CPU, |point| point.server_cpu_seconds);
        rate.into_iter().map(|(t, seconds)| (t, seconds * 100.0))
    };
    Chart {
        title: "Server CPU over time".to_owned(),
        about: "User and system time of the server's process; 100 % is one core.".to_owned(),
        x: time_axis(),
        y: Axis { label: "CPU, % of a core".to_owned(), kind: Kind::Linear, tick: short },
        series: lines.timeline(percent_of_core),
    }
}

fn sessions(lines: &Lines<'_>) -> Chart {
    let series = lines.timeline(|points| points.into_iter().map(|point| (point.t, point.sessions as f64)));
    Chart {
        title: "Sessions over time".to_owned(),
        about: "Sessions that are connected and subscribed.".to_owned(),
        x: time_axis(),
        y: Axis { label: "sessions".to_owned(), kind: Kind::Linear, tick: short },
        series: without_empty(series),
    }
}

fn memory(lines: &Lines<'_>) -> Chart {
    let of = |bytes: fn(&Point) -> Option<u64>| {
        lines.timeline(move |points| {
            points.into_iter().filter_map(move |point| Some((point.t, mebibytes(bytes(&point)?))))
        })
    };
    let mut series = of(|point| point.server_rss_bytes);
    series.extend(of(|point| point.socket_memory_bytes).into_iter().map(|line| Series {
        name: format!("{}, socket buffers", line.name),
        dashed: true,
        ..line
    }));
    Chart {
        title: "Memory over time".to_owned(),
        about: "Resident memory of the server's process; dashed, the machine's TCP buffers in the kernel.".to_owned(),
        x: time_axis(),
        y: Axis { label: "memory, MiB".to_owned(), kind: Kind::Linear, tick: short },
        series,
    }
}

fn memory_over_sessions(lines: &Lines<'_>) -> Chart {
    let point = |point: Point| Some((point.sessions as f64, mebibytes(point.server_rss_bytes?)));
    let series = lines.timeline(|points| growing(points).into_iter().filter_map(point));
    // Without a change in the number of sessions there is nothing to see.
    let varies = |line: &Series| line.points.windows(2).any(|pair| (pair[0].x - pair[1].x).abs() >= 1.0);
    Chart {
        title: "Memory over connections".to_owned(),
        about: "Resident memory of the server's process while sessions connect: the slope is what a session takes."
            .to_owned(),
        x: Axis { label: "sessions".to_owned(), kind: Kind::Linear, tick: short },
        y: Axis { label: "server memory, MiB".to_owned(), kind: Kind::Linear, tick: short },
        series: series.into_iter().filter(varies).collect(),
    }
}

/// The points without the end of the run, when all sessions go and the memory says nothing any more.
fn growing(mut points: Vec<Point>) -> Vec<Point> {
    let most = points.iter().map(|point| point.sessions).max();
    let last = points.iter().rposition(|point| Some(point.sessions) == most);
    points.truncate(last.map_or(0, |last| last + 1));
    points
}

/// Lines that are more than zeros.
fn without_empty(series: Vec<Series>) -> Vec<Series> {
    series.into_iter().filter(|line| line.points.iter().any(|mark| mark.y > 0.0)).collect()
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A chart per figure over the number of sessions, or of channels, if the reports are a series of sizes.
pub(crate) fn over_size(scenario: &Scenario<'_>) -> Vec<Chart> {
    let sizes: Vec<_> =
        scenario.sizes.iter().filter_map(|at| Some(size(at.groups.first()?.reports.first()?))).collect();
    let differ = |of: fn(&Size) -> Option<u64>| {
        let all: Vec<u64> = sizes.iter().filter_map(of).collect();
        let (low, high) = (all.iter().min().copied()?, all.iter().max().copied()?);
        (low < high).then_some((low as f64, high as f64))
    };
    let (name, of, (low, high)): (_, fn(&Report) -> Option<u64>, _) = if let Some(ends) = differ(|size| size.0) {
        ("sessions", |report| size(report).0, ends)
    } else if let Some(ends) = differ(|size| size.1) {
        ("channels", |report| size(report).1, ends)
    } else {
        return Vec::new();
    };
    let x = Axis {
        label: name.to_owned(),
        kind: if low > 0.0 && high / low >= WIDE { Kind::Log } else { Kind::Linear },
        tick: short,
    };
    let chart = |(figure, shape): &(&'static Figure, &str)| {
        let groups = scenario.sizes.first().map_or(0, |comparison| comparison.groups.len());
        let line = |number: usize| {
            let at_size = scenario.sizes.iter().filter_map(|comparison| comparison.groups.get(number));
            let points = at_size.filter_map(|group| mark(group, figure, of)).collect();
            let name = scenario.sizes[0].groups[number].name.clone();
            Series { name, colour: number, dashed: false, points, dots: true }
        };
        Chart {
            title: format!("{} over {name}", capitalised(figure.title)),
            about: format!("{} {shape}", figure.about).trim_end().to_owned(),
            x: x.clone(),
            y: Axis { label: unit_label(figure), kind: Kind::Linear, tick: tick_of(figure) },
            series: (0..groups).map(line).collect(),
        }
    };
    OVER_SIZE.iter().map(chart).collect()
}

fn mark(group: &Group<'_>, figure: &Figure, of: fn(&Report) -> Option<u64>) -> Option<Mark> {
    let x = of(group.reports.first()?)? as f64;
    let spread = group.spread(figure.name)?;
    let scale = per_tick(figure);
    Some(Mark { x, y: spread.median / scale, range: Some((spread.min / scale, spread.max / scale)) })
}

/// Bytes of a whole process are charted in MiB.
fn per_tick(figure: &Figure) -> f64 {
    if std::ptr::eq(figure, &raw const figures::SERVER_RSS_BYTES) { f64::from(1 << 20) } else { 1.0 }
}

fn unit_label(figure: &Figure) -> String {
    match figure.unit {
        figures::Unit::Microseconds => "time".to_owned(),
        figures::Unit::Bytes if per_tick(figure) > 1.0 => "memory, MiB".to_owned(),
        figures::Unit::Bytes => "bytes".to_owned(),
        figures::Unit::Percent => "% of a core".to_owned(),
        figures::Unit::PerSecond => "per second".to_owned(),
        unit => unit.sign().to_owned(),
    }
}

fn tick_of(figure: &Figure) -> fn(f64) -> String {
    if figure.unit == figures::Unit::Microseconds { microseconds } else { short }
}

fn capitalised(title: &str) -> String {
    let mut characters = title.trim().chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::group::tests::report;
    use crate::report::compare::group::{Side, scenarios};

    fn point(t: f64, sessions: u64, delivered: u64) -> Point {
        Point { t, sessions, delivered, server_rss_bytes: Some(sessions << 20), ..Point::default() }
    }

    #[test]
    fn a_rate_is_what_came_between_two_points_that_are_far_enough_apart() {
        let points = [point(0.0, 1, 0), point(0.5, 1, 100), point(2.5, 1, 300), point(2.501, 1, 9_000)];
        assert_eq!(rate(&points, SHORTEST, |point| Some(point.delivered as f64)), [(0.5, 200.0), (2.5, 100.0)]);
    }

    #[test]
    fn memory_over_connections_ends_when_the_sessions_go() {
        let points = [(0.0, 0), (1.0, 9), (2.0, 5), (3.0, 9), (4.0, 3), (5.0, 0)].map(|(t, n)| point(t, n, 0)).to_vec();
        assert_eq!(growing(points.clone()), points[..4]);
        assert!(growing(Vec::new()).is_empty());
    }

    #[test]
    fn a_long_timeline_is_thinned_to_what_can_be_seen_with_its_end() {
        let points: Vec<Point> = (0..2_000u32).map(|t| point(f64::from(t), 1, 0)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MAX_POINTS + 1 && thin.len() > MAX_POINTS / 2);
        assert_eq!(thin.last(), points.last());
        assert_eq!(thinned(&points[..3]), points[..3]);
    }

    #[test]
    fn the_maximum_is_on_the_latency_curve_beyond_its_last_finite_point() {
        let mut report = report("b", "a", 1, 1.0);
        report.percentiles = vec![(0.0, 1.0), (0.5, 2.0), (0.75, 3.0), (1.0, 9.0)];
        let curve = curve(&report);
        let (before, last) = (curve[curve.len() - 2], curve[curve.len() - 1]);
        assert_eq!((before, last.1), ((0.75, 3.0), 9.0));
        assert!((last.0 - 0.875).abs() < 1e-9, "{last:?}");
        report.percentiles.clear();
        assert!(super::curve(&report).is_empty());
    }

    #[test]
    fn a_series_of_sizes_makes_a_line_per_label_over_sessions() {
        let mut reports = Vec::new();
        for sessions in [1_000, 5_000, 10_000] {
            for (label, cpu) in [("floor", 8.0), ("tidegate", 9.0), ("tidegate", 10.0)] {
                reports.push((Side::Either, report("b", label, sessions, cpu)));
            }
        }
        let scenarios = scenarios(&reports);
        let charts = over_size(&scenarios[0]);
        let chart = charts.iter().find(|chart| chart.title == "Server CPU per delivery over sessions").unwrap();
        let xs: Vec<f64> = chart.series[1].points.iter().map(|mark| mark.x).collect();
        assert_eq!((chart.series.len(), xs), (2, vec![1_000.0, 5_000.0, 10_000.0]));
        assert_eq!(chart.series[1].points[0], Mark { x: 1_000.0, y: 9.5, range: Some((9.0, 10.0)) });
    }

    #[test]
    fn one_size_makes_no_chart_over_sizes() {
        let reports = [(Side::Either, report("b", "a", 5, 1.0))];
        assert!(over_size(&scenarios(&reports)[0]).is_empty());
    }
}
