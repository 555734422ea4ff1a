//! Reports side by side: medians over repeats, spreads, ratios to a base.
//!
//! - [`group`]: which reports belong together, and their medians
//! - [`settings`]: what makes them hard to compare
//! - [`limits`]: ratios that must hold
//! - [`show`]: the result as text and as JSON

pub(crate) mod group;
pub(crate) mod limits;
mod settings;
pub(crate) mod show;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use self::group::Side;
use self::limits::Limit;
use super::{Outputs, Report};
use crate::error::{Error, Result};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareReportsArgs {
    /// Reports (written by --json) of the base; without `--`, all reports, and the first one's label is the base.
    #[arg(required = true, value_name = "BASE.json")]
    base: Vec<PathBuf>,
    /// Reports to compare with the base.
    #[arg(last = true, value_name = "OTHER.json")]
    others: Vec<PathBuf>,
    /// Fail (exit status 1) where a figure's ratio to the base is above this, as in cpu_us_per_delivery=1.15.
    #[arg(long, value_name = "FIGURE=RATIO", value_parser = limits::parse)]
    fail_above: Vec<Limit>,
    /// Fail (exit status 1) where a figure's ratio to the base is below this, as in deliveries_per_second=0.9.
    #[arg(long, value_name = "FIGURE=RATIO", value_parser = limits::parse)]
    fail_below: Vec<Limit>,
}

/// Compares, prints, writes the files that were named; true if every limit was held.
///
/// # Errors
/// A file that cannot be read or is no report, nothing to compare with, or a file that cannot be written.
pub(crate) fn run(args: &CompareReportsArgs, outputs: &Outputs) -> Result<bool> {
    if let Some(flag) = args.others.iter().find(|file| file.as_os_str().as_encoded_bytes().starts_with(b"--")) {
        return Err(Error::Usage(format!("{} stands behind --: flags go before it", flag.display())));
    }
    let side = |files: &[PathBuf], side: Side| -> Result<Vec<(Side, Report)>> {
        files.iter().map(|file| Ok((side, Report::load(file)?))).collect()
    };
    let reports = if args.others.is_empty() {
        side(&args.base, Side::Either)?
    } else {
        let mut reports = side(&args.base, Side::Base)?;
        reports.extend(side(&args.others, Side::Other)?);
        reports
    };
    let comparisons = group::compare(&reports)?;
    let checks = limits::check(&comparisons, &args.fail_above, &args.fail_below);
    // A closed standard output must not keep the file from being written.
    let _ = std::io::stdout().write_all(show::text(&comparisons, &checks).as_bytes());
    if let Some(file) = &outputs.json {
        super::document::write(file, &show::json(&comparisons, &checks))?;
    }
    if let Some(page) = &outputs.html {
        super::html::save(&reports, page)?;
    }
    Ok(checks.passed())
}
