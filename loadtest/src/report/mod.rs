//! The result of a run: a table for a person, JSON for a program, and whether every bound was held.
//!
//! - [`figures`]: the one table of figures, with unit and direction, and the figures of a run
//! - [`document`]: the JSON report, version 1, and reading it again
//! - [`timeline`]: how a run went
//! - [`checks`]: bounds, and whether they were held
//! - [`compare`]: reports side by side
//! - [`html`]: reports as one page with charts
//! - [`redact`]: command line and settings without secrets
//! - [`mod@format`]: numbers for a person

pub(crate) mod checks;
pub(crate) mod compare;
pub(crate) mod document;
pub(crate) mod figures;
pub(crate) mod format;
pub(crate) mod html;
mod redact;
#[allow(dead_code, reason = "for comparisons and for scenarios that fill the timeline")]
pub(crate) mod timeline;

use std::io::Write;

use clap::Args;
use serde::Serialize;

pub(crate) use self::checks::Checks;
use self::compare::group::Side;
pub(crate) use self::document::{About, Findings, Report};
use crate::error::Result;
use crate::terminal;

/// Where a run's result goes, and what the run is called.
#[derive(Debug, Clone, Args)]
pub(crate) struct Outputs {
    /// Write everything that was measured to this file, as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<std::path::PathBuf>,
    /// Write a page with tables and charts to this file, as one HTML file that opens without a network.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) html: Option<std::path::PathBuf>,
    /// What is measured, for comparisons: reports with the same scenario and label count as repeats.
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) label: String,
}

/// Prints a report, and writes it to the files that were named.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn publish(report: Report, outputs: &Outputs) -> Result<()> {
    // A closed standard output must not keep the files from being written.
    let _ = std::io::stdout().write_all(text(&report).as_bytes());
    if let Some(file) = &outputs.json {
        report.save(file)?;
    }
    outputs.html.as_deref().map_or(Ok(()), |page| html::save(&[(Side::Either, report)], page))
}

/// A report as text: the table of its figures, its notes, its checks.
fn text(report: &Report) -> String {
    let mut title = report.scenario.clone();
    if !report.label.is_empty() {
        title = format!("{title}, {}", report.label);
    }
    let mut rows = vec![vec!["figure".to_owned(), "value".to_owned()]];
    rows.extend(report.figures.rows());
    let mut text = format!("\n{title}\n\n{}", terminal::table(&rows));
    for note in &report.notes {
        text.push_str(&format!("\n{note}"));
    }
    text + &terminal::checks(&report.checks)
}

/// Settings as JSON; a value that cannot be encoded shows as null.
pub(crate) fn to_json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}
