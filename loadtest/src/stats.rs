//! Latency percentiles and medians.

use hdrhistogram::Histogram;

/// The longest latency that is told apart: ten minutes.
const LONGEST_NS: u64 = 600_000_000_000;

/// An empty histogram of nanoseconds, exact to three digits from a microsecond on.
#[expect(clippy::unwrap_used, reason = "the bounds are constants that the constructor takes; a test builds one")]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LONGEST_NS, 3).unwrap()
}

/// Adds the second to the first, which has the same bounds.
pub(crate) fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    // Both come from `histogram`, so that no value can be out of range.
    let _ = into.add(from);
}

/// A histogram as the pairs of those values that were recorded and how often, which is all that it knows: for the way
/// between processes.
pub(crate) mod sparse {
    use hdrhistogram::Histogram;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(histogram: &Histogram<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_since_last_iteration())),
        )
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Histogram<u64>, D::Error> {
        let mut histogram = super::histogram();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            histogram.saturating_record_n(value, count);
        }
        Ok(histogram)
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    /// Values behind the percentiles.
    pub(crate) count: u64,
    /// Half of all took at most this long.
    pub(crate) p50_us: f64,
    /// 90 %.
    pub(crate) p90_us: f64,
    /// 99 %.
    pub(crate) p99_us: f64,
    /// 99.9 %.
    pub(crate) p999_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

impl Latency {
    /// Reads the percentiles off a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

/// The whole curve of a histogram of nanoseconds: quantile from 0 to 1, and microseconds. The steps get smaller towards
/// the end, where the interesting part is, five for each half of what is left; about a hundred points in all.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let points = histogram.iter_quantiles(5);
    points.map(|point| (point.quantile_iterated_to(), point.value_iterated_to() as f64 / 1e3)).collect()
}

/// The middle value, or the mean of the two middle ones; `None` without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_microseconds_within_a_thousandth() {
        let mut histogram = histogram();
        for value in 1..=1000u64 {
            histogram.record(value * 1_000_000).unwrap();
        }
        let latency = Latency::of(&histogram);
        assert_eq!(latency.count, 1000);
        assert!((latency.p50_us / 500_000.0 - 1.0).abs() < 0.002, "{latency:?}");
        assert!((latency.p99_us / 990_000.0 - 1.0).abs() < 0.002, "{latency:?}");
        assert!((latency.max_us / 1_000_000.0 - 1.0).abs() < 0.002, "{latency:?}");
    }

    #[test]
    fn the_curve_rises_to_the_maximum_with_more_points_towards_the_end() {
        let mut histogram = histogram();
        (1..=100_000u64).for_each(|value| histogram.record(value * 1_000).unwrap());
        let curve = curve(&histogram);
        assert!((50..200).contains(&curve.len()), "{}", curve.len());
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
        let last = curve[curve.len() - 1];
        assert!((last.0 - 1.0).abs() < 1e-9 && (last.1 / 100_000.0 - 1.0).abs() < 0.002, "{last:?}");
        assert!(curve.iter().filter(|point| point.0 > 0.99).count() > 10);
    }

    #[test]
    fn an_empty_histogram_has_no_count() {
        assert_eq!(Latency::of(&histogram()).count, 0);
        assert_eq!(curve(&histogram()), []);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
