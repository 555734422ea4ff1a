//! Reports as one HTML page that opens without a network: no script, no font, no image from elsewhere.
//!
//! - [`charts`]: which charts the reports make
//! - [`plot`], [`scale`]: line charts as SVG
//! - [`table`]: figures with bars, checks, runs
//! - [`picture`]: the charts over sizes alone, as one SVG
//! - [`markup`]: escaping, numbers
//! - `style.css`: light, dark and print

mod charts;
mod markup;
mod picture;
mod plot;
mod scale;
mod table;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use self::markup::escape;
use self::plot::Chart;
use super::Report;
use super::compare::group::{Scenario, Side, scenarios};
use super::format::grouped;
use crate::error::{Context, Error, Result};

/// Nothing is loaded and nothing runs, whatever a report says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Reports, as --json writes them; the same scenario and label are repeats, another label is compared with the
    /// first, other numbers of sessions or channels make a series. --html names the page.
    #[arg(required = true, value_name = "FILE.json")]
    files: Vec<PathBuf>,
    /// Where the charts of a series go, as one SVG picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Makes a page, a picture or both of reports.
///
/// # Errors
/// A file that cannot be read or is no report, an output that cannot be written or has nothing to show, or none named.
pub(crate) fn run(args: &ReportArgs, page: Option<&Path>) -> Result<()> {
    if page.is_none() && args.svg.is_none() {
        return Err(Error::Usage(
            "say where the page goes (--html FILE), or the picture of a series (--svg FILE)".to_owned(),
        ));
    }
    let reports = args.files.iter().map(|file| Ok((Side::Either, Report::load(file)?))).collect::<Result<Vec<_>>>()?;
    if let Some(file) = &args.svg {
        picture::save(&reports, file)?;
    }
    page.map_or(Ok(()), |page| save(&reports, page))
}

/// Writes the page of these reports.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn save(reports: &[(Side, Report)], page: &Path) -> Result<()> {
    std::fs::write(page, render(reports)).context(|| format!("cannot write {}", page.display()))
}

fn render(reports: &[(Side, Report)]) -> String {
    let scenarios = scenarios(reports);
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>Load test: {}</title><style>{}</style></head><body><header><h1>Load test</h1><p>{}</p></header><main>",
        escape(&names.join(", ")),
        include_str!("style.css"),
        escape(&summary(reports)),
    );
    if scenarios.len() > 1 {
        html.push_str("<nav><ul>");
        for (number, scenario) in scenarios.iter().enumerate() {
            let _ = write!(html, "<li><a href=\"#s{number}\">{}</a>", escape(scenario.name));
        }
        html.push_str("</ul></nav>");
    }
    for (number, scenario) in scenarios.iter().enumerate() {
        section(&mut html, number, scenario);
    }
    html.push_str(
        "</main><footer><p>Latency runs from the time when a message was due to its reading, so that a server that falls \
         behind shows it. Repeats are shown by their median, with the range of the runs. Written by tidegate-loadtest.</p>\
         </footer></body></html>\n",
    );
    html
}

/// How many runs, of what, when, where.
fn summary(reports: &[(Side, Report)]) -> String {
    let mut started: Vec<&str> = reports.iter().map(|(_, report)| report.started.as_str()).collect();
    started.sort_unstable();
    let when = match (started.first(), started.last()) {
        (Some(first), Some(last)) if first != last => format!(", {first} to {last}"),
        (Some(first), _) => format!(", {first}"),
        _ => String::new(),
    };
    let machine = match reports {
        [(_, first), rest @ ..] if rest.iter().all(|(_, report)| report.machine == first.machine) => {
            format!(", on {} processors with Linux {}", first.machine.cpus, first.machine.kernel)
        }
        _ => String::new(),
    };
    let failed = reports.iter().filter(|(_, report)| !report.passed).count();
    let verdict = match failed {
        0 => "every check held".to_owned(),
        count => format!("checks failed in {count} of {}", reports.len()),
    };
    let runs = if reports.len() == 1 { "run" } else { "runs" };
    format!("{} {runs}{when}{machine}; {verdict}", grouped(reports.len() as f64, 0))
}

fn section(html: &mut String, number: usize, scenario: &Scenario<'_>) {
    let _ = write!(html, "<section id=\"s{number}\"><h2>{}</h2>", escape(scenario.name));
    draw(html, &charts::over_size(scenario), &format!("s{number}"));
    let series = scenario.sizes.len() > 1;
    for (at, comparison) in scenario.sizes.iter().enumerate() {
        if series {
            let size = comparison.title.strip_prefix(scenario.name).unwrap_or_default().trim_start_matches(", ");
            let _ = write!(html, "<details class=\"size\"><summary>{}</summary>", escape(size));
        }
        if !comparison.warnings.is_empty() {
            html.push_str("<ul class=\"warnings\">");
            for warning in &comparison.warnings {
                let _ = write!(html, "<li>{}", escape(warning));
            }
            html.push_str("</ul>");
        }
        html.push_str(&table::figures(comparison));
        draw(html, &charts::of_runs(comparison), &format!("s{number}z{at}"));
        if series {
            html.push_str("</details>");
        }
    }
    let runs: Vec<(String, &Report)> = scenario
        .sizes
        .iter()
        .flat_map(|comparison| &comparison.groups)
        .flat_map(|group| group.reports.iter().map(|report| (group.name.clone(), *report)))
        .collect();
    html.push_str(&table::checks(&runs));
    html.push_str(&table::runs(&runs));
    html.push_str("</section>");
}

/// The charts that have something to draw; `id` is unique within the page.
fn draw(html: &mut String, charts: &[Chart], id: &str) {
    let numbered = charts.iter().enumerate();
    let drawn: Vec<String> = numbered.filter_map(|(at, chart)| chart.render(&format!("{id}c{at}"))).collect();
    if !drawn.is_empty() {
        let _ = write!(html, "<div class=\"charts\">{}</div>", drawn.concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::group::tests::report;
    use crate::report::timeline::Point;

    const HOSTILE: &str = "</title><script>x</script>\"'&<img src=x>";

    fn hostile() -> Report {
        let mut report = report(HOSTILE, HOSTILE, 10, 5.0);
        report.settings = serde_json::json!({ HOSTILE: HOSTILE });
        report.command = vec![HOSTILE.to_owned()];
        report.notes = vec![HOSTILE.to_owned()];
        report.started = HOSTILE.to_owned();
        report.tool = HOSTILE.to_owned();
        report.machine.kernel = HOSTILE.to_owned();
        report.checks.push(HOSTILE, HOSTILE.to_owned(), false, HOSTILE.to_owned());
        report.figures = serde_json::from_value(serde_json::json!({ HOSTILE: 1.0, "p50_us": 3.0 })).unwrap();
        report.percentiles = vec![(0.5, 3.0), (0.9, 5.0), (1.0, 8.0)];
        report.timeline =
            (0..9u32).map(|t| Point { t: f64::from(t), sessions: u64::from(t), ..Point::default() }).collect();
        report
    }

    #[test]
    fn no_text_of_a_report_becomes_markup() {
        let other = Report { label: "other".to_owned(), ..hostile() };
        for reports in [vec![(Side::Either, hostile())], vec![(Side::Either, hostile()), (Side::Either, other)]] {
            let html = render(&reports);
            assert!(!html.contains("<script") && !html.contains("<img") && !html.contains(HOSTILE), "{html}");
            assert_eq!(html.matches("</title>").count(), 1 + html.matches("role=\"img\"").count());
            assert!(html.matches("&lt;script&gt;").count() > 8, "every text is there");
        }
    }

    #[test]
    fn a_page_loads_nothing() {
        let html = render(&[(Side::Either, hostile())]);
        for foreign in ["http://", "https://", "url(", "@import", " src=", "<link"] {
            let outside = html.replace("&lt;img src=x&gt;", "");
            assert!(!outside.contains(foreign), "{foreign}");
        }
        assert!(html.contains(POLICY));
    }

    #[test]
    fn reports_without_anything_to_show_make_a_page() {
        let mut empty = report("idle", "", 0, 0.0);
        empty.figures = crate::report::figures::Figures::default();
        let html = render(&[(Side::Either, empty)]);
        assert!(html.contains("No figures were measured") && !html.contains("<figure"), "{html}");
    }
}
