//! The tables of the page: figures of one label, figures of several side by side with bars, checks, runs.

use std::fmt::Write;

use super::markup::{escape, value};
use super::plot::COLOURS;
use crate::report::Report;
use crate::report::compare::group::{Comparison, Spread, Verdict};
use crate::report::compare::show::{mark, range, ratio};
use crate::report::figures::{self, Better, Figure};

/// The figures of a comparison: one label as a list, several with bars and ratios.
pub(crate) fn figures(comparison: &Comparison<'_>) -> String {
    let names = comparison.figures();
    if names.is_empty() {
        return "<p class=\"about\">No figures were measured.</p>".to_owned();
    }
    if comparison.groups.len() < 2 {
        return list(comparison, &names);
    }
    // Bars for what is better or worse; the rest, and what is zero everywhere, is told in a smaller table.
    let tells = |name: &&str| {
        let directed = Figure::named(name).is_some_and(|figure| figure.better != Better::Neither);
        directed && spreads(comparison, name).flatten().any(|spread| spread.max != 0.0)
    };
    let (compared, rest): (Vec<&str>, Vec<&str>) = names.into_iter().partition(tells);
    bars(comparison, &compared) + &plain(comparison, &rest)
}

fn spreads<'a>(comparison: &'a Comparison<'_>, name: &'a str) -> impl Iterator<Item = Option<Spread>> + 'a {
    comparison.groups.iter().map(move |group| group.spread(name))
}

fn shown(name: &str, spread: Option<Spread>) -> String {
    spread.map_or("–".to_owned(), |spread| value(&figures::show(name, spread.median)))
}

/// The range of repeats, if they differ.
fn shown_range(name: &str, spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| value(&range(name, &spread).replace("..", " – ")))
}

fn list(comparison: &Comparison<'_>, names: &[&str]) -> String {
    let repeats = comparison.has_repeats();
    let head =
        if repeats { "<th class=\"number\">median<th class=\"number\">range" } else { "<th class=\"number\">value" };
    let mut html = format!(
        "<div class=\"scroll\"><table class=\"figures\"><thead><tr><th>figure{head}<th class=\"about\">meaning<tbody>"
    );
    for name in names {
        let spread = comparison.groups[0].spread(name);
        let _ = write!(html, "<tr><th scope=\"row\">{}<td class=\"number\">{}", title(name), shown(name, spread));
        if repeats {
            let _ = write!(html, "<td class=\"number range\">{}", shown_range(name, spread));
        }
        let about = Figure::named(name).map_or("", |figure| figure.about);
        let _ = write!(html, "<td class=\"about\">{}", escape(about));
    }
    html + "</table></div>"
}

/// A title; parts of another figure are indented.
fn title(name: &str) -> String {
    let title = figures::title(name);
    let class = if title.starts_with(' ') { " class=\"part\"" } else { "" };
    format!("<span{class}>{}</span>", escape(title.trim()))
}

fn bars(comparison: &Comparison<'_>, names: &[&str]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let base_name = escape(&comparison.groups[0].name);
    let repeats = comparison.has_repeats();
    let mut html = format!(
        "<div class=\"scroll\"><table class=\"bars\"><thead><tr><th>figure<th>label<th aria-hidden=\"true\" class=\"bar\">\
         <th class=\"number\">{}{}<th class=\"number over\">over {base_name}<th>",
        if repeats { "median" } else { "value" },
        if repeats { "<th class=\"number\">range" } else { "" },
    );
    for name in names {
        let figure = Figure::named(name);
        let better = figure.map_or(Better::Neither, |figure| figure.better);
        let direction = match better {
            Better::Lower => "less is better",
            Better::Higher => "more is better",
            Better::Neither => "",
        };
        let base = comparison.groups[0].spread(name);
        let largest = spreads(comparison, name).flatten().map(|spread| spread.max).fold(0.0, f64::max);
        let _ = write!(
            html,
            "<tbody><tr><th scope=\"rowgroup\" rowspan=\"{}\" title=\"{}\">{}<small>{direction}</small>",
            comparison.groups.len(),
            escape(figure.map_or("", |figure| figure.about)),
            title(name),
        );
        for (number, group) in comparison.groups.iter().enumerate() {
            let spread = group.spread(name);
            let label = escape(&group.name);
            let row = if number > 0 { "<tr>" } else { "" };
            let _ = write!(
                html,
                "{row}<th scope=\"row\" class=\"of\" title=\"{label}\">{label}<td class=\"bar\" aria-hidden=\"true\">{}<td class=\"number\">{}",
                spread.map_or_else(String::new, |spread| bar(number, &spread, largest)),
                shown(name, spread),
            );
            if repeats {
                let _ = write!(html, "<td class=\"number range\">{}", shown_range(name, spread));
            }
            let both = spread.zip(base).filter(|_| number > 0);
            let over = both.map_or_else(String::new, |(spread, base)| ratio(spread.ratio(&base)).replace('x', "×"));
            let verdict = both.map_or(Verdict::None, |(spread, base)| spread.verdict(&base, better));
            let _ = write!(html, "<td class=\"number\">{over}<td>{}", verdict_mark(verdict));
        }
    }
    html + "</table></div>"
}

/// A word with a class, and what the short signs mean.
fn verdict_mark(verdict: Verdict) -> String {
    let about = match verdict {
        Verdict::None => return String::new(),
        Verdict::Better | Verdict::Worse => return format!("<span class=\"{0}\">{0}</span>", mark(verdict)),
        Verdict::Open => "the runs do not tell: their ranges overlap, or differ by less than 1 %",
        Verdict::Same => "the same in every run",
    };
    format!("<abbr title=\"{about}\">{}</abbr>", mark(verdict))
}

/// A bar to the median with a line over the range, in hundredths of the largest value.
fn bar(number: usize, spread: &Spread, largest: f64) -> String {
    let part = |value: f64| if largest > 0.0 { (value / largest * 100.0).clamp(0.0, 100.0) } else { 0.0 };
    let mut svg = format!(
        "<svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"fill c{}\" width=\"{:.2}\" height=\"10\"/>",
        number % COLOURS,
        part(spread.median),
    );
    if spread.min < spread.max {
        let (low, high) = (part(spread.min), part(spread.max));
        let _ = write!(svg, "<path class=\"range\" d=\"M{low:.2} 5H{high:.2}M{low:.2} 2.5v5M{high:.2} 2.5v5\"/>");
    }
    svg + "</svg>"
}

/// Figures that are asked for or the same, side by side.
fn plain(comparison: &Comparison<'_>, names: &[&str]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let mut html = "<details><summary>Circumstances, and what is zero everywhere</summary><div class=\"scroll\">\
                    <table class=\"figures\"><thead><tr><th>figure"
        .to_owned();
    for group in &comparison.groups {
        let _ = write!(html, "<th class=\"number\">{}", escape(&group.name));
    }
    html.push_str("<tbody>");
    for name in names {
        let _ = write!(html, "<tr><th scope=\"row\">{}", title(name));
        for spread in spreads(comparison, name) {
            let _ = write!(html, "<td class=\"number\">{}", shown(name, spread));
        }
    }
    html + "</table></div></details>"
}

/// Every check of every run, the missed ones first.
pub(crate) fn checks(runs: &[(String, &Report)]) -> String {
    let mut all: Vec<_> =
        runs.iter().flat_map(|(name, run)| run.checks.iter().map(move |check| (name, check))).collect();
    if all.is_empty() {
        return String::new();
    }
    all.sort_by_key(|(_, check)| check.passed);
    let missed = all.iter().filter(|(_, check)| !check.passed).count();
    let summary = if missed == 0 {
        format!("Checks: all {} held", all.len())
    } else {
        format!("Checks: {missed} of {} missed", all.len())
    };
    let open = if missed > 0 { " open" } else { "" };
    let mut html = format!(
        "<details{open}><summary>{summary}</summary><div class=\"scroll\"><table><thead><tr><th>run<th>check<th>wanted<th>measured<th><tbody>"
    );
    for (name, check) in all {
        let verdict =
            if check.passed { "<span class=\"better\">held</span>" } else { "<span class=\"worse\">missed</span>" };
        let cells = [name, &check.what, &check.bound, &check.measured].map(|text| escape(text));
        let _ = write!(html, "<tr><td>{}<td>{verdict}", cells.join("<td>"));
    }
    html + "</table></div></details>"
}

/// When, where and how each run was made, with its notes.
pub(crate) fn runs(runs: &[(String, &Report)]) -> String {
    let mut html = "<details><summary>Runs</summary>".to_owned();
    for (name, run) in runs {
        let machine = &run.machine;
        let memory = match machine.memory_bytes {
            0 => String::new(),
            bytes => format!(", {:.1} GiB of memory", bytes as f64 / f64::from(1 << 30)),
        };
        let _ = write!(
            html,
            "<h4>{}, {}</h4><p>{}; {} processors{memory}, Linux {}</p><pre class=\"command\">{}</pre>",
            escape(name),
            escape(&run.started),
            escape(&run.tool),
            machine.cpus,
            escape(&machine.kernel),
            escape(&run.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
        );
        for note in &run.notes {
            let _ = write!(html, "<p>{}</p>", escape(note));
        }
        let settings = serde_json::to_string_pretty(&run.settings).unwrap_or_default();
        let lines: Vec<String> = settings.lines().map(escape).collect();
        let _ = write!(html, "<details><summary>Settings</summary><pre>{}</pre></details>", lines.join("\n"));
    }
    html + "</details>"
}

/// A word of a command line that can be pasted into a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::group::tests::report;
    use crate::report::compare::group::{Side, scenarios};

    #[test]
    fn one_label_is_a_list_and_two_have_bars_and_a_ratio() {
        let alone = [(Side::Either, report("b", "tidegate", 10, 9.0))];
        let html = figures(&scenarios(&alone)[0].sizes[0]);
        assert!(html.contains("9.000&nbsp;µs") && !html.contains("<svg"), "{html}");
        let both = [(Side::Either, report("b", "floor", 10, 8.0)), (Side::Either, report("b", "tidegate", 10, 9.0))];
        let html = figures(&scenarios(&both)[0].sizes[0]);
        assert!(html.contains("1.12×") && html.contains("<span class=\"worse\">worse</span>"), "{html}");
        assert!(html.contains("width=\"88.89\"") && html.contains("width=\"100.00\""), "{html}");
    }

    #[test]
    fn a_missed_check_comes_first_and_is_open() {
        let mut run = report("b", "a", 1, 1.0);
        run.checks.push("fine", "yes".to_owned(), true, "yes".to_owned());
        run.checks.push("<bad>", "yes".to_owned(), false, "no".to_owned());
        let html = checks(&[("a".to_owned(), &run)]);
        assert!(html.contains("<details open>") && html.contains("1 of 2 missed"), "{html}");
        assert!(html.find("&lt;bad&gt;").unwrap() < html.find("fine").unwrap(), "{html}");
    }

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("--rate=10"), "--rate=10");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
