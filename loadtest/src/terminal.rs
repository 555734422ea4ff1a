//! What a person sees: progress on standard error, the result on standard output.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Checks;

/// How often a line is printed where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far the current step is: a bar on a terminal, a plain line every few seconds elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    state: RefCell<State>,
    terminal: bool,
    quiet: bool,
}

#[derive(Debug, Default)]
struct State {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    last_line: Option<Instant>,
    at: u64,
}

impl Progress {
    /// A display; a quiet one shows nothing.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { state: RefCell::default(), terminal: std::io::stderr().is_terminal(), quiet }
    }

    /// Begins a step.
    pub(crate) fn begin(&self, what: &str, total: u64) {
        if self.quiet {
            return;
        }
        let mut state = self.state.borrow_mut();
        *state = State { what: what.to_owned(), total, last_line: Some(Instant::now()), ..State::default() };
        if self.terminal {
            let style = ProgressStyle::with_template("{msg:24} [{bar:40}] {human_pos}/{human_len} {elapsed} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            state.bar =
                Some(ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(what.to_owned()));
        } else {
            self.line(&format!("{what} ..."));
        }
    }

    /// Says how far the step is.
    pub(crate) fn at(&self, position: u64) {
        if self.quiet {
            return;
        }
        let mut state = self.state.borrow_mut();
        state.at = position;
        if let Some(bar) = &state.bar {
            bar.set_position(position);
        } else if state.last_line.is_some_and(|last| last.elapsed() >= LINE_EVERY) {
            state.last_line = Some(Instant::now());
            self.line(&format!("{}: {position} of {}", state.what, state.total));
        }
    }

    /// Ends the step.
    pub(crate) fn end(&self) {
        if self.quiet {
            return;
        }
        let mut state = self.state.borrow_mut();
        let (what, at, total) = (std::mem::take(&mut state.what), state.at, state.total);
        match state.bar.take() {
            Some(bar) => bar.finish_and_clear(),
            None => self.line(&format!("{what}: {at} of {total}, done")),
        }
    }

    /// A line about the run.
    pub(crate) fn line(&self, text: &str) {
        if !self.quiet {
            // A closed standard error must not end a measurement.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// Rows of cells as aligned text, the first column to the left and the others to the right; the first row is the head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, &width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if number == 0 {
            let rule: usize = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
            text.push_str(&"-".repeat(rule));
            text.push('\n');
        }
    }
    text
}

/// A line for each check.
pub(crate) fn checks(checks: &Checks) -> String {
    let mut text = String::new();
    for check in checks.iter() {
        let verdict = if check.passed { "ok    " } else { "FAILED" };
        text.push_str(&format!("\n{verdict}  {}: {} (wanted {})", check.what, check.measured, check.bound));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let text = table(&[row("figure", "value"), row("a", "1"), row("longer name", "12,345")]);
        assert_eq!(text, "figure        value\n-------------------\na                 1\nlonger name  12,345\n");
    }
}
