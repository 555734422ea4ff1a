//! Durations (`25s`, `1m30s`, `500ms`) and sizes (`65536`, `64KiB`) as people write them.

use std::fmt::Write as _;
use std::time::Duration;

/// The units of a duration with their length in nanoseconds, longest first. `us` is also read as `µs`.
const DURATION_UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The units of a size with their number of bytes, largest first. The decimal ones are only read.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// The longest duration that a setting takes: 100 years. Deadlines stay far from the clock's end.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads a duration: one or more numbers, each with a unit (`h`, `m`, `s`, `ms`, `us`, `ns`), as in
/// `1m30s` or `1.5s`; a bare `0` is zero.
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err("a duration can't be negative".to_owned());
    }
    let mut total: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("a duration needs a unit: write {number}s or {number}ms, or 1m30s"));
        }
        let unit = if unit == "µs" { "us" } else { unit };
        let Some((_, nanos)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("no duration has the unit {unit:?}: there are h, m, s, ms, us and ns, as in 1m30s"));
        };
        let part = decimal(number, *nanos).ok_or_else(|| format!("{number:?} is no number: write 25s or 1m30s"))?;
        total = total.saturating_add(part);
        rest = tail;
    }
    if text.is_empty() {
        return Err("a duration is missing: write 25s or 1m30s".to_owned());
    }
    let seconds = u64::try_from(total / 1_000_000_000).unwrap_or(u64::MAX);
    let nanos = u32::try_from(total % 1_000_000_000).unwrap_or(0);
    let duration = Duration::new(seconds, nanos);
    if duration > LONGEST { Err("a duration is at most 100 years".to_owned()) } else { Ok(duration) }
}

/// Multiplies a decimal number by `scale` (at most that of an hour in ns), exactly; digits below one are cut off.
/// 20 digits before the point hold every u64, and stay far below what a u128 holds.
fn decimal(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole * scale;
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().ok()?;
        value += digits * scale / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    }
    Some(value)
}

/// Writes a duration so that [`parse_duration`] reads the same back: `1m30s`, `500ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in DURATION_UNITS {
        let count = rest / nanos;
        rest %= nanos;
        if count > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, "{count}{unit}");
        }
    }
    text
}

/// Reads a size: a number of bytes, or a number with a unit (`B`, `KiB`, `MiB`, `GiB`, or the decimal `KB`, `MB`, `GB`).
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err("a size can't be negative".to_owned());
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let scale = if unit.is_empty() {
        1
    } else {
        let found = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        found.ok_or_else(|| format!("no size has the unit {unit:?}: write bytes, or 64KiB, 1MiB, 2GiB"))?.1
    };
    let bytes =
        decimal(number, scale.into()).ok_or_else(|| format!("{text:?} is no size: write bytes, or 64KiB, 1MiB"))?;
    u64::try_from(bytes).map_err(|_| "a size is less than 2^64 bytes".to_owned())
}

/// Writes a size so that [`parse_size`] reads the same back: in the largest binary unit that divides it.
pub fn format_size(bytes: u64) -> String {
    let whole = SIZE_UNITS.iter().take(3).find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale));
    whole.map_or_else(|| bytes.to_string(), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

/// Serde for a [`Duration`] field: a string as [`parse_duration`] reads it.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads the field.
    ///
    /// # Errors
    /// As [`super::parse_duration`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }

    /// Writes the field.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0..LONGEST.as_nanos(), bytes: u64) {
            let seconds = u64::try_from(nanos / 1_000_000_000).unwrap();
            let duration = Duration::new(seconds, u32::try_from(nanos % 1_000_000_000).unwrap());
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_ends_the_process(text in "[-0-9.hmsunµKMGTiB ]{0,40}|.{0,20}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }

    #[test]
    fn durations_are_read_as_written() {
        let cases = [
            ("25s", Duration::from_secs(25)),
            ("1m30s", Duration::from_secs(90)),
            ("500ms", Duration::from_millis(500)),
            ("1000ms", Duration::from_secs(1)),
            ("1.5s", Duration::from_millis(1500)),
            ("720h", Duration::from_secs(720 * 3600)),
            ("250us", Duration::from_micros(250)),
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
            assert_eq!(parse_duration(&format_duration(expected)), Ok(expected), "{text} written and read again");
        }
    }

    #[test]
    fn a_bad_duration_is_told_how_to_write_it() {
        let cases = [
            ("25", "a duration needs a unit: write 25s or 25ms, or 1m30s"),
            ("1d", "no duration has the unit \"d\": there are h, m, s, ms, us and ns, as in 1m30s"),
            ("-1s", "a duration can't be negative"),
            ("", "a duration is missing: write 25s or 1m30s"),
            ("1..5s", "\"1..5\" is no number: write 25s or 1m30s"),
            ("s", "\"\" is no number: write 25s or 1m30s"),
            ("99999999999999999h", "a duration is at most 100 years"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_written() {
        let cases = [("65536", 65536), ("64KiB", 65536), ("64 kib", 65536), ("1.5MiB", 1_572_864), ("1MB", 1_000_000)];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
            assert_eq!(parse_size(&format_size(expected)), Ok(expected), "{text} written and read again");
        }
        assert_eq!(format_size(1_048_576), "1MiB");
        assert_eq!(format_size(0), "0");
    }

    #[test]
    fn a_bad_size_is_told_how_to_write_it() {
        let cases = [
            ("1XB", "no size has the unit \"XB\": write bytes, or 64KiB, 1MiB, 2GiB"),
            ("-1", "a size can't be negative"),
            ("big", "no size has the unit \"big\": write bytes, or 64KiB, 1MiB, 2GiB"),
            ("", "\"\" is no size: write bytes, or 64KiB, 1MiB"),
            ("999999999999GiB", "a size is less than 2^64 bytes"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), Err(expected.to_owned()), "{text}");
        }
    }
}
