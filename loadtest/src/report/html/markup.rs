//! Text as HTML, and the ticks' numbers.

use crate::report::format::grouped;

/// Text that comes from a report or an argument, for anywhere in an HTML page: between tags or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Invisible ones could turn the text around or end the document for some readers.
            '\t' | '\n' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                out.push('\u{fffd}')
            }
            c => out.push(c),
        }
    }
    out
}

/// A value as a person reads it in a page: with the sign for micro, which terminals may not have.
pub(crate) fn value(shown: &str) -> String {
    // A number and its unit stay on one line.
    escape(shown).replace(" us", " µs").replace(' ', "&nbsp;")
}

/// A tick's number, short: 15k, 5.2M.
pub(crate) fn short(value: f64) -> String {
    let (scaled, sign) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = if scaled.abs() >= 100.0 || scaled.fract() == 0.0 { 0 } else { 3 };
    let text = grouped(scaled, decimals);
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{sign}")
}

/// A tick of microseconds.
pub(crate) fn microseconds(us: f64) -> String {
    if us == 0.0 {
        "0".to_owned()
    } else if us >= 1e6 {
        format!("{} s", short(us / 1e6))
    } else if us >= 1e3 {
        format!("{} ms", short(us / 1e3))
    } else {
        format!("{} µs", short(us))
    }
}

/// A tick of a quantile: 99.9 %.
pub(crate) fn percent(quantile: f64) -> String {
    let text = format!("{:.7}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(
            escape(r#"<script>alert("1")</script> & 'x'"#),
            "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;"
        );
        assert_eq!(escape("a\u{202e}b\0c\nd"), "a\u{fffd}b\u{fffd}c d");
    }

    #[test]
    fn ticks_are_short() {
        for (value, text) in [(0.0, "0"), (0.25, "0.25"), (2_000.0, "2,000"), (15_000.0, "15k"), (5_200_000.0, "5.2M")]
        {
            assert_eq!(short(value), text);
        }
        for (us, text) in [(0.0, "0"), (200.0, "200 µs"), (5_000.0, "5 ms"), (20_000_000.0, "20 s")] {
            assert_eq!(microseconds(us), text);
        }
        for (quantile, text) in [(0.5, "50 %"), (0.9, "90 %"), (0.999, "99.9 %"), (0.99999, "99.999 %")] {
            assert_eq!(percent(quantile), text);
        }
    }

    #[test]
    fn values_keep_their_unit_beside_them() {
        assert_eq!(value("461 us"), "461&nbsp;µs");
        assert_eq!(value("7,975 us – 10.5 ms"), "7,975&nbsp;µs&nbsp;–&nbsp;10.5&nbsp;ms");
        assert_eq!(value("1,234 B"), "1,234&nbsp;B");
    }
}
