//! Axes: where a value lies between the ends, and which values get a tick.

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Evenly, with zero on it, so that lengths can be compared.
    Linear,
    /// By ratio; for values above zero.
    Log,
    /// By what is left to 1, so that 90 %, 99 % and 99.9 % are equally far apart; for quantiles.
    Nines,
}

/// An axis over some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    kind: Kind,
    /// The ends, in the unit of [`Kind::spread`].
    low: f64,
    high: f64,
}

/// A quantile nearer to 1 than that lies where this one does.
const NEAREST_TO_ONE: f64 = 1e-9;

impl Kind {
    /// The value on a line that is divided evenly.
    fn spread(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(f64::MIN_POSITIVE).log10(),
            Self::Nines => -(1.0 - value).max(NEAREST_TO_ONE).log10(),
        }
    }
}

impl Scale {
    /// An axis that all values fit on; `None` without a value that it can show.
    pub(crate) fn over(kind: Kind, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let shown = |value: &f64| value.is_finite() && (kind != Kind::Log || *value > 0.0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(shown) {
            let at = kind.spread(value);
            (low, high) = (low.min(at), high.max(at));
        }
        if low > high {
            return None;
        }
        let (low, high) = match kind {
            Kind::Linear => {
                let (low, high) = (low.min(0.0), high.max(0.0));
                let high = if low < high { high } else { 1.0 };
                let step = step(high - low);
                ((low / step).floor() * step, (high / step).ceil() * step)
            }
            // To the nearest of 1, 2 and 5 times a power of ten.
            Kind::Log => {
                let (low, high) = (round_to_tick(low, f64::floor), round_to_tick(high, f64::ceil));
                (low, if low < high { high } else { low + 1.0 })
            }
            Kind::Nines => (0.0, high.max(1.0)),
        };
        Some(Self { kind, low, high })
    }

    /// Where a value lies: 0 at the low end, 1 at the high end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        ((self.kind.spread(value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Values that get a tick, from low to high, at most about a dozen.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        match self.kind {
            Kind::Linear => {
                let step = step(self.high - self.low);
                let (from, to) = ((self.low / step).round() as i64, (self.high / step).round() as i64);
                (from..=to).map(|number| number as f64 * step).collect()
            }
            Kind::Log => {
                // All of 1, 2, 5 on up to three decades, powers of ten on more, every so-manieth on very many.
                let decades = self.high - self.low;
                let digits: &[f64] = if decades <= 3.1 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let every = (decades / 8.0).ceil().max(1.0) as usize;
                let powers = (self.low.floor() as i32..=self.high.ceil() as i32).step_by(every);
                let all = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
                let on_axis = |value: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(&value.log10());
                all.filter(on_axis).collect()
            }
            Kind::Nines => {
                let nines = (1..=self.high.floor() as i32).map(|nines| 1.0 - 10f64.powi(-nines));
                std::iter::once(0.5).chain(nines).collect()
            }
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides a length into four to ten parts.
fn step(length: f64) -> f64 {
    let raw = length / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= raw * 0.999).unwrap_or(10.0);
    digit * power
}

/// A logarithm moved down or up to that of 1, 2 or 5 times a power of ten.
fn round_to_tick(log: f64, direction: fn(f64) -> f64) -> f64 {
    let candidates = [-1.0, 0.0, 1.0].into_iter().flat_map(|by| {
        let power = log.floor() + by;
        [0.0, 2f64.log10(), 5f64.log10()].map(|digit| power + digit)
    });
    // Within rounding, a value on a tick stays there.
    let down = direction(0.5) < 0.5;
    let fits = candidates.filter(|at| if down { *at <= log + 1e-9 } else { *at >= log - 1e-9 });
    let nearest = fits.min_by(|a, b| (a - log).abs().total_cmp(&(b - log).abs()));
    nearest.unwrap_or(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs().max(1.0))
    }

    #[test]
    fn an_even_axis_has_zero_and_round_ticks_around_its_values() {
        let scale = Scale::over(Kind::Linear, [130.0, 870.0]).unwrap();
        assert!(near(&scale.ticks(), &[0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]), "{:?}", scale.ticks());
        assert!((scale.place(0.0)).abs() < 1e-9 && (scale.place(500.0) - 0.5).abs() < 1e-9);
        let below = Scale::over(Kind::Linear, [-3.0, 4.0]).unwrap();
        assert!(near(&below.ticks(), &[-4.0, -2.0, 0.0, 2.0, 4.0]), "{:?}", below.ticks());
    }

    #[test]
    fn an_axis_over_one_value_or_over_zeros_still_has_a_length() {
        for kind in [Kind::Linear, Kind::Log, Kind::Nines] {
            for value in [0.0, 0.7] {
                let Some(scale) = Scale::over(kind, [value]) else {
                    assert!(kind == Kind::Log && value == 0.0);
                    continue;
                };
                assert!(scale.place(value).is_finite() && scale.high > scale.low, "{kind:?} {value}");
                assert!(!scale.ticks().is_empty(), "{kind:?} {value}");
            }
        }
    }

    #[test]
    fn no_values_make_no_axis() {
        assert_eq!(Scale::over(Kind::Linear, []), None);
        assert_eq!(Scale::over(Kind::Linear, [f64::NAN, f64::INFINITY]), None);
        assert_eq!(Scale::over(Kind::Log, [0.0, -1.0]), None);
    }

    #[test]
    fn a_logarithmic_axis_begins_and_ends_on_ticks() {
        let narrow = Scale::over(Kind::Log, [300.0, 4_000.0]).unwrap();
        assert!(near(&narrow.ticks(), &[200.0, 500.0, 1_000.0, 2_000.0, 5_000.0]), "{:?}", narrow.ticks());
        let wide = Scale::over(Kind::Log, [1.0, 100_000.0]).unwrap();
        assert!(near(&wide.ticks(), &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]), "{:?}", wide.ticks());
        assert!((wide.place(1_000.0) - 0.6).abs() < 1e-9);
        assert!(Scale::over(Kind::Log, [1e-300, 1e300]).unwrap().ticks().len() <= 12);
    }

    #[test]
    fn each_nine_is_equally_far_from_the_next_and_1_is_on_the_axis() {
        let scale = Scale::over(Kind::Nines, [0.0, 0.9, 0.999, 0.9999]).unwrap();
        assert!(near(&scale.ticks(), &[0.5, 0.9, 0.99, 0.999, 0.9999]), "{:?}", scale.ticks());
        assert!((scale.place(0.99) - 2.0 * scale.place(0.9)).abs() < 1e-9);
        assert!((scale.place(1.0) - 1.0).abs() < 1e-9);
    }
}
