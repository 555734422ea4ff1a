//! Numbers for a person.

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

/// Bytes, from a mebibyte on in mebibytes.
pub(crate) fn bytes(bytes: f64) -> String {
    const MEBIBYTE: f64 = 1_048_576.0;
    if bytes.abs() >= MEBIBYTE {
        format!("{} MiB", grouped(bytes / MEBIBYTE, 1))
    } else {
        format!("{} B", grouped(bytes, 0))
    }
}

/// A number of unknown size.
pub(crate) fn plain(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 { grouped(value, 0) } else { format!("{value:.3}") }
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
    fn times_and_sizes_take_the_unit_that_suits_them() {
        assert_eq!(duration_us(9_999.0), "9,999 us");
        assert_eq!(duration_us(10_000.0), "10.0 ms");
        assert_eq!(duration_us(1_500_000.0), "1.50 s");
        assert_eq!((plain(0.0), plain(1.5), plain(1234.5)), ("0".to_owned(), "1.500".to_owned(), "1,234".to_owned()));
        assert_eq!(bytes(357_000.0), "357,000 B");
        assert_eq!(bytes(1_048_576.0), "1.0 MiB");
        assert_eq!(bytes(-20.0 * 1_048_576.0), "-20.0 MiB");
    }
}
