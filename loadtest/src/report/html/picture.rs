//! The charts over sizes as one picture, for a document that cannot hold a page.
//!
//! It has its own colours and, like the page, loads nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::charts;
use super::markup::escape;
use super::plot::{Chart, HEIGHT, WIDTH, class};
use crate::error::{Context, Error, Result};
use crate::report::Report;
use crate::report::compare::group::{Scenario, Side, scenarios};

/// Charts beside each other.
const COLUMNS: usize = 2;
/// Room between them, and around all.
const GAP: f64 = 28.0;
/// Height of a scenario's name, and of a chart's title.
const HEADING: f64 = 34.0;
const TITLE: f64 = 22.0;

/// Writes the picture of these reports.
///
/// # Errors
/// No series of sizes among them, or a file that cannot be written.
pub(super) fn save(reports: &[(Side, Report)], file: &Path) -> Result<()> {
    let svg = render(&scenarios(reports)).ok_or_else(|| {
        Error::Usage(
            "nothing to draw: --svg wants reports of a scenario with several numbers of sessions or channels"
                .to_owned(),
        )
    })?;
    std::fs::write(file, svg).context(|| format!("cannot write {}", file.display()))
}

/// `None` if no scenario has a series.
fn render(scenarios: &[Scenario<'_>]) -> Option<String> {
    let (mut body, mut bottom) = (String::new(), GAP);
    let mut lines = BTreeMap::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        let charts = charts::over_size(scenario);
        let drawn: Vec<(&Chart, String)> = charts
            .iter()
            .enumerate()
            .filter_map(|(at, chart)| Some((chart, chart.drawing(&format!("p{number}c{at}"))?)))
            .collect();
        if drawn.is_empty() {
            continue;
        }
        for series in drawn.iter().flat_map(|(chart, _)| &chart.series) {
            lines.entry(series.colour).or_insert_with(|| series.name.clone());
        }
        let _ = write!(
            body,
            "<text class=\"heading\" x=\"{GAP}\" y=\"{:.0}\">{}</text>",
            bottom + 16.0,
            escape(scenario.name)
        );
        bottom += HEADING;
        for row in drawn.chunks(COLUMNS) {
            for (column, (chart, drawing)) in row.iter().enumerate() {
                let x = GAP + column as f64 * (WIDTH + GAP);
                let _ = write!(
                    body,
                    "<text class=\"title\" x=\"{:.0}\" y=\"{:.0}\">{}</text>\
                     <svg x=\"{x:.0}\" y=\"{:.0}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">{drawing}</svg>",
                    x + 4.0,
                    bottom + 14.0,
                    escape(&chart.title),
                    bottom + TITLE,
                );
            }
            bottom += TITLE + HEIGHT + GAP;
        }
    }
    if body.is_empty() {
        return None;
    }
    // One line needs no legend: it is what the document speaks of.
    if lines.len() > 1 {
        let mut x = GAP;
        for (colour, name) in &lines {
            let name = escape(name);
            let _ = write!(
                body,
                "<path class=\"line {}\" d=\"M{x:.0} {bottom:.0}h24\"/><text class=\"label\" x=\"{:.0}\" y=\"{:.0}\">{name}</text>",
                class(*colour, false),
                x + 30.0,
                bottom + 4.0,
            );
            x += 60.0 + name.chars().count() as f64 * 8.0;
        }
        bottom += GAP;
    }
    let width = GAP + COLUMNS as f64 * (WIDTH + GAP);
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {bottom:.0}\"><style>{}\
         svg text.heading {{ font-size: 20px; font-weight: 600; fill: var(--text); }}\
         svg text.title {{ font-size: 14px; font-weight: 600; fill: var(--text); }}</style>\
         <rect width=\"100%\" height=\"100%\" style=\"fill: var(--page)\"/>{body}</svg>\n",
        include_str!("style.css"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::group::tests::report;

    fn series(labels: &[&str]) -> Vec<(Side, Report)> {
        let sizes = [1_000, 5_000, 19_000];
        sizes
            .iter()
            .flat_map(|size| labels.iter().map(|label| (Side::Either, report("<s>", label, *size, 8.0))))
            .collect()
    }

    #[test]
    fn a_picture_has_a_chart_per_figure_and_text_stays_text() {
        let svg = render(&scenarios(&series(&["a"]))).unwrap();
        assert!(svg.contains("Server CPU per delivery over sessions") && svg.contains("&lt;s&gt;"), "{svg}");
        assert!(!svg.contains("<s>") && svg.matches("<svg").count() == svg.matches("</svg>").count());
        let count = |text: &str| svg.matches(text).count();
        let titles = count("class=\"title\"");
        assert_eq!(count("class=\"label\" x="), titles, "a label upwards for each chart, and no legend");
    }

    #[test]
    fn several_lines_have_a_legend_and_one_size_no_picture() {
        let svg = render(&scenarios(&series(&["mine", "other"]))).unwrap();
        assert!(svg.contains(">mine</text>") && svg.contains(">other</text>"), "{svg}");
        assert!(render(&scenarios(&series(&["a"])[..1])).is_none());
    }
}
