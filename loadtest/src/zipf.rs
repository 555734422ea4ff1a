//! Popularity: the channel of rank r is r to the power of s times rarer than the first (Zipf's law).

/// A distribution over channels, the most popular first.
#[derive(Debug)]
pub(crate) struct Zipf {
    /// The share of all draws that go to this channel or one before it.
    cumulative: Vec<f64>,
    exponent: f64,
}

impl Zipf {
    /// `channels` channels, at least one; an exponent of 0 makes all of them alike, 1 is the classic law. Takes 8 B a
    /// channel.
    pub(crate) fn new(channels: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=channels.max(1))
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Self { cumulative, exponent }
    }

    /// What it was made with.
    pub(crate) fn exponent(&self) -> f64 {
        self.exponent
    }

    /// How many channels there are.
    pub(crate) fn channels(&self) -> u32 {
        self.cumulative.len() as u32
    }

    /// The channel at a place in `0.0..1.0` of the distribution.
    pub(crate) fn at(&self, place: f64) -> u32 {
        let channel = self.cumulative.partition_point(|share| *share <= place);
        channel.min(self.cumulative.len() - 1) as u32
    }
}

/// The place of the so-manieth of many that are to be spread as evenly as the distribution allows, however many there
/// will be: multiples of the golden ratio, modulo 1.
pub(crate) fn spread(number: u32) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    (f64::from(number) * GOLDEN).fract()
}

/// The place of the so-manieth independent draw, the same in every run: the finalizer of splitmix64 (Steele, Lea and
/// Flood, 2014), whose upper 53 bits fill a double's mantissa.
pub(crate) fn draw(number: u64) -> f64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(zipf: &Zipf, places: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut counts = vec![0.0; zipf.channels() as usize];
        places.for_each(|place| counts[zipf.at(place) as usize] += 1.0);
        counts
    }

    #[test]
    fn draws_follow_the_law() {
        let zipf = Zipf::new(100, 1.0);
        let total = 1_000_000u64;
        let counts = counts(&zipf, (0..total).map(draw));
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 3, 10, 100] {
            let wanted = total as f64 / f64::from(rank) / harmonic;
            let found = counts[rank as usize - 1];
            // Six standard deviations of a binomial count.
            assert!((found - wanted).abs() < 6.0 * wanted.sqrt(), "rank {rank}: {found}, not {wanted}");
        }
    }

    #[test]
    fn a_spread_follows_the_law_closer_than_chance_would() {
        let zipf = Zipf::new(1000, 1.0);
        let counts = counts(&zipf, (0..10_000).map(spread));
        let harmonic: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in 1..=1000u32 {
            let wanted = 10_000.0 / f64::from(rank) / harmonic;
            assert!((counts[rank as usize - 1] - wanted).abs() <= 3.0, "rank {rank}");
        }
    }

    #[test]
    fn an_exponent_of_nought_makes_all_channels_alike() {
        let zipf = Zipf::new(10, 0.0);
        let counts = counts(&zipf, (0..1000).map(|n| f64::from(n) / 1000.0));
        assert!(counts.iter().all(|count| (99.0..=101.0).contains(count)), "{counts:?}");
    }

    #[test]
    fn every_place_has_a_channel() {
        let zipf = Zipf::new(3, 2.0);
        assert_eq!((zipf.at(0.0), zipf.at(0.999_999_999), zipf.at(1.0)), (0, 2, 2));
        assert_eq!(Zipf::new(0, 1.0).at(0.5), 0);
        assert!((0..100_000).map(draw).all(|place| (0.0..1.0).contains(&place)));
    }
}
