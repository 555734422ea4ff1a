//! Line charts as SVG.
//!
//! Own code instead of the crate `plotters`: its SVG has colours and fonts written into every element, so that a page
//! could not restyle it for dark mode or print, and no titles for screen readers. Here every element has a class and
//! `style.css` has the colours.

use std::fmt::Write;

use super::markup::escape;
use super::scale::{Kind, Scale};

/// Size of the drawing in its own units; the page scales it.
pub(crate) const WIDTH: f64 = 600.0;
/// The same downwards.
pub(crate) const HEIGHT: f64 = 300.0;
/// Room for the axis labels and ticks.
const TOP: f64 = 30.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 42.0;
/// The stylesheet has so many colours of series.
pub(crate) const COLOURS: usize = 8;
/// Width of a character of the ticks' font, which is tabular.
const CHARACTER: f64 = 7.2;

/// An axis: what it shows, how it is divided, how its ticks are written.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    /// What it shows, with the unit where the ticks have none.
    pub(crate) label: String,
    /// How it is divided.
    pub(crate) kind: Kind,
    /// A tick's text.
    pub(crate) tick: fn(f64) -> String,
}

/// A point with its range, which is a line above and below it if there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    /// Where it is.
    pub(crate) x: f64,
    /// Its value.
    pub(crate) y: f64,
    /// Smallest and largest value over repeats.
    pub(crate) range: Option<(f64, f64)>,
}

/// A line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Shown in the legend; series of the same name share an entry.
    pub(crate) name: String,
    /// Which colour, modulo [`COLOURS`].
    pub(crate) colour: usize,
    /// Dashed, to tell two lines of a colour apart.
    pub(crate) dashed: bool,
    /// Points in order.
    pub(crate) points: Vec<Mark>,
    /// A dot at each point, for few of them.
    pub(crate) dots: bool,
}

/// A chart.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    /// Its heading.
    pub(crate) title: String,
    /// A sentence for who cannot see it, and below it for who can.
    pub(crate) about: String,
    /// To the right.
    pub(crate) x: Axis,
    /// Upwards.
    pub(crate) y: Axis,
    /// The lines.
    pub(crate) series: Vec<Series>,
}

impl Series {
    /// A line through points without ranges.
    pub(crate) fn line(name: &str, colour: usize, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y)| Mark { x, y, range: None }).collect();
        Self { name: name.to_owned(), colour, dashed: false, points, dots: false }
    }
}

impl Chart {
    /// The figure for a page; `None` if there is nothing to draw. `id` is unique within the page.
    pub(crate) fn render(&self, id: &str) -> Option<String> {
        let drawing = self.drawing(id)?;
        Some(format!(
            "<figure class=\"chart\"><figcaption>{}</figcaption><div class=\"plot\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-labelledby=\"{id}-t {id}-d\">{drawing}</svg></div>{}<p class=\"about\">{}</p></figure>",
            escape(&self.title),
            self.legend(),
            escape(&self.about)
        ))
    }

    /// What stands within the chart's `svg` element, [`WIDTH`] by [`HEIGHT`]; `None` if there is nothing to draw. `id` is
    /// unique within the document.
    pub(crate) fn drawing(&self, id: &str) -> Option<String> {
        let marks = || self.series.iter().flat_map(|series| &series.points);
        let x = Scale::over(self.x.kind, marks().map(|mark| mark.x))?;
        let reach = |mark: &Mark| [mark.y, mark.range.map_or(mark.y, |r| r.0), mark.range.map_or(mark.y, |r| r.1)];
        let y = Scale::over(self.y.kind, marks().flat_map(reach))?;
        let ticks: Vec<(f64, String)> = y.ticks().into_iter().map(|at| (at, (self.y.tick)(at))).collect();
        let longest = ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
        let frame = Frame { left: 14.0 + longest as f64 * CHARACTER, x, y };
        let mut svg = format!(
            "<title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
            escape(&self.title),
            escape(&self.describe())
        );
        frame.axes(&mut svg, self, &ticks);
        for series in &self.series {
            frame.series(&mut svg, series);
        }
        Some(svg)
    }

    /// What a chart says, in words: its sentence, and where each line begins and ends.
    fn describe(&self) -> String {
        let mut text = self.about.clone();
        for series in self.series.iter().filter(|series| !series.points.is_empty()).take(COLOURS) {
            let (first, last) = (series.points[0], series.points[series.points.len() - 1]);
            let at = |mark: Mark| format!("{} at {}", (self.y.tick)(mark.y), (self.x.tick)(mark.x));
            let _ = write!(text, " {}: from {} to {}.", series.name, at(first), at(last));
        }
        text
    }

    fn legend(&self) -> String {
        let mut entries: Vec<(&str, usize, bool)> = Vec::new();
        for series in self.series.iter().filter(|series| !series.points.is_empty()) {
            let entry = (series.name.as_str(), series.colour, series.dashed);
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        let mut html = "<ul class=\"legend\">".to_owned();
        for (name, colour, dashed) in entries {
            let class = class(colour, dashed);
            let _ = write!(
                html,
                "<li><svg viewBox=\"0 0 24 10\" aria-hidden=\"true\"><path class=\"line {class}\" d=\"M1 5H23\"/></svg>{}</li>",
                escape(name)
            );
        }
        html + "</ul>"
    }
}

/// Colours that come again are dotted.
pub(super) fn class(colour: usize, dashed: bool) -> String {
    let again = if colour >= COLOURS { " dotted" } else { "" };
    format!("c{}{again}{}", colour % COLOURS, if dashed { " dashed" } else { "" })
}

/// Where things go.
struct Frame {
    left: f64,
    x: Scale,
    y: Scale,
}

impl Frame {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (width, height) = (WIDTH - RIGHT - self.left, HEIGHT - TOP - BOTTOM);
        (self.left + self.x.place(x) * width, TOP + (1.0 - self.y.place(y)) * height)
    }

    fn axes(&self, svg: &mut String, chart: &Chart, ticks: &[(f64, String)]) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, text) in ticks {
            let y = self.at(0.0, *value).1;
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{:.1} {y:.1}H{right:.1}\"/><text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                self.left,
                self.left - 6.0,
                y + 4.5,
                escape(text),
            );
        }
        let mut free_from = 0.0;
        for value in self.x.ticks() {
            let (x, text) = (self.at(value, 0.0).0, (chart.x.tick)(value));
            let half = text.chars().count() as f64 * CHARACTER / 2.0;
            let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP:.1}V{bottom:.1}\"/>");
            // A text that would touch the one before it or the edge is left out; its line stays.
            if x - half >= free_from && x + half <= WIDTH {
                let y = bottom + 16.0;
                let _ = write!(svg, "<text class=\"tick middle\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(&text));
                free_from = x + half + CHARACTER;
            }
        }
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{:.1} {TOP:.1}V{bottom:.1}H{right:.1}\"/>\
             <text class=\"label\" x=\"4\" y=\"16\">{}</text>\
             <text class=\"label end\" x=\"{right:.1}\" y=\"{:.1}\">{}</text>",
            self.left,
            escape(&chart.y.label),
            HEIGHT - 6.0,
            escape(&chart.x.label),
        );
    }

    fn series(&self, svg: &mut String, series: &Series) {
        let class = class(series.colour, series.dashed);
        let mut path = String::new();
        let points = || series.points.iter().filter(|mark| mark.x.is_finite() && mark.y.is_finite());
        for (number, mark) in points().enumerate() {
            let (x, y) = self.at(mark.x, mark.y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if number == 0 { "M" } else { "L" });
        }
        let _ = write!(svg, "<path class=\"line {class}\" d=\"{path}\"/>");
        for mark in points() {
            if let Some((low, high)) = mark.range.filter(|(low, high)| low < high) {
                let ((x, top), bottom) = (self.at(mark.x, high), self.at(mark.x, low).1);
                let _ = write!(
                    svg,
                    "<path class=\"whisker {class}\" d=\"M{x:.1} {top:.1}V{bottom:.1}M{:.1} {top:.1}h8M{:.1} {bottom:.1}h8\"/>",
                    x - 4.0,
                    x - 4.0
                );
            }
            // A line through one point would not be seen.
            if series.dots || series.points.len() == 1 {
                let (x, y) = self.at(mark.x, mark.y);
                let _ = write!(svg, "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html::markup::{microseconds, short};

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let axis = |label: &str, kind, tick| Axis { label: label.to_owned(), kind, tick };
        Chart {
            title: "a <title>".to_owned(),
            about: "About it.".to_owned(),
            x: axis("sessions", Kind::Linear, short),
            y: axis("latency", Kind::Log, microseconds),
            series: vec![Series::line("run & one", 9, points)],
        }
    }

    #[test]
    fn nothing_to_draw_makes_no_chart() {
        assert_eq!(chart(vec![]).render("a"), None);
        assert_eq!(chart(vec![(1.0, 0.0)]).render("a"), None, "zero has no place on a logarithmic axis");
    }

    #[test]
    fn text_is_escaped_wherever_it_stands_and_the_colours_are_bounded() {
        let svg = chart(vec![(1.0, 10.0), (2.0, 1_000.0)]).render("a").unwrap();
        assert!(svg.contains("a &lt;title&gt;") && !svg.contains("a <title>"), "{svg}");
        assert!(svg.contains("run &amp; one") && svg.contains("class=\"line c1 dotted\""), "{svg}");
        assert!(svg.contains("aria-labelledby=\"a-t a-d\"") && svg.contains("10 µs at 1 to 1 ms at 2"), "{svg}");
    }

    #[test]
    fn every_point_lies_within_the_axes_whatever_the_values() {
        for points in [
            vec![(0.0, 1.0)],
            vec![(0.0, 1e-9), (1e12, 1e12)],
            vec![(5.0, 0.0), (6.0, 3.0)],
            vec![(f64::NAN, 1.0), (1.0, 2.0)],
        ] {
            let svg = chart(points).render("a").unwrap();
            let path = svg.split("class=\"line c1 dotted\" d=\"").nth(1).unwrap().split('"').next().unwrap();
            for pair in path.split(['M', 'L']).filter(|pair| !pair.is_empty()) {
                let (x, y) = pair.split_once(' ').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{path}");
            }
        }
    }

    #[test]
    fn a_single_point_has_a_dot_and_repeats_have_a_whisker() {
        let mut chart = chart(vec![(1.0, 10.0)]);
        chart.series[0].points[0].range = Some((5.0, 20.0));
        let svg = chart.render("a").unwrap();
        assert!(svg.contains("class=\"dot c1 dotted\"") && svg.contains("class=\"whisker c1 dotted\""), "{svg}");
    }
}
