//! The JSON report of a run, version 1: one file per run, written by a run, read by comparisons and pages.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::checks::Checks;
use super::figures::Figures;
use super::redact;
use super::timeline::Point;
use crate::error::{Context, Error, Result};

/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// A report larger than this is none of ours: 2,000 points of a timeline take 400 KB.
const MAX_BYTES: u64 = 32 << 20;

/// What a run was and what it found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// This program with its release, `tidegate-loadtest 0.1.0`.
    pub(crate) tool: String,
    /// Version of this format.
    pub(crate) version: u32,
    /// The scenario's name.
    pub(crate) scenario: String,
    /// Which kind of scenario it is.
    pub(crate) kind: String,
    /// What was measured, in the words of who ran it; reports with the same scenario and label are repeats.
    #[serde(default)]
    pub(crate) label: String,
    /// When the run began, RFC 3339 in UTC.
    pub(crate) started: String,
    /// The arguments, without secrets.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Every setting, without secrets.
    pub(crate) settings: serde_json::Value,
    /// What was measured, by name.
    pub(crate) figures: Figures,
    /// The latency curve: quantile from 0 to 1, and microseconds.
    #[serde(default)]
    pub(crate) percentiles: Vec<(f64, f64)>,
    /// How the run went, at most [`super::timeline::MAX_POINTS`] points.
    #[serde(default)]
    pub(crate) timeline: Vec<Point>,
    /// Anything else that a person should know, a line each.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// What was to be held.
    #[serde(default)]
    pub(crate) checks: Checks,
    /// Whether all of it was.
    pub(crate) passed: bool,
}

/// The machine of the load generator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Processors that this process may use.
    pub(crate) cpus: usize,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Memory, 0 if unknown.
    #[serde(default)]
    pub(crate) memory_bytes: u64,
}

/// What a run is called and how it was started.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// The scenario's name.
    pub(crate) scenario: String,
    /// Which kind of scenario it is.
    pub(crate) kind: &'static str,
    /// What is measured.
    pub(crate) label: String,
    /// Every setting, without secrets.
    pub(crate) settings: serde_json::Value,
    /// When the run began.
    pub(crate) started: SystemTime,
}

/// What a scenario found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    /// The figures; the table for a person is made of them.
    pub(crate) figures: Figures,
    /// The latency curve, quantile and microseconds; empty without latencies.
    pub(crate) percentiles: Vec<(f64, f64)>,
    /// How the run went.
    pub(crate) timeline: Vec<Point>,
    /// Anything else that a person should know, a line each.
    pub(crate) notes: Vec<String>,
    /// What was to be held.
    pub(crate) checks: Checks,
}

impl Report {
    /// The report of a run on this machine.
    pub(crate) fn new(about: About, findings: Findings) -> Self {
        Self {
            tool: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            version: VERSION,
            scenario: about.scenario,
            kind: about.kind.to_owned(),
            label: about.label,
            started: humantime::format_rfc3339_seconds(about.started).to_string(),
            command: redact::command(std::env::args_os()),
            machine: Machine::this(),
            settings: redact::settings(about.settings),
            passed: findings.checks.passed(),
            figures: findings.figures,
            percentiles: findings.percentiles,
            timeline: findings.timeline,
            notes: findings.notes,
            checks: findings.checks,
        }
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        write(file, self)
    }
    /// Reads one from a file.
    ///
    /// # Errors
    /// A file that cannot be read, is no report, or is of a newer version than this program knows.
    pub(crate) fn load(file: &Path) -> Result<Self> {
        use std::io::Read;
        let what = || format!("cannot read {}", file.display());
        let mut json = Vec::new();
        std::fs::File::open(file).context(what)?.take(MAX_BYTES + 1).read_to_end(&mut json).context(what)?;
        if json.len() as u64 > MAX_BYTES {
            return Err(Error::Usage(format!("{}: larger than any report (32 MiB)", file.display())));
        }
        Self::parse(&json).map_err(|problem| Error::Usage(format!("{}: {problem}", file.display())))
    }
    /// Reads one; the error says what is wrong with it, without a file's name.
    pub(crate) fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Header {
            tool: String,
            version: u32,
        }
        let name = env!("CARGO_PKG_NAME");
        let none = |why: &dyn std::fmt::Display| format!("no report of {name} (its --json writes them): {why}");
        let header: Header = serde_json::from_slice(json).map_err(|error| none(&error))?;
        if header.tool.split(' ').next() != Some(name) {
            return Err(none(&format!("it was written by {:?}", header.tool)));
        }
        if header.version > VERSION {
            return Err(format!(
                "a report of version {}, and this program reads up to {VERSION}: take the {name} that wrote it ({}), \
                 or a newer one",
                header.version, header.tool
            ));
        }
        serde_json::from_slice(json).map_err(|error| format!("a damaged report: {error}"))
    }
}

/// Writes a value to a file as JSON.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write(file: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value)
        .map_err(std::io::Error::from)
        .context(|| "cannot encode the report".to_owned())?;
    std::fs::write(file, json + "\n").context(|| format!("cannot write {}", file.display()))
}

impl Machine {
    fn this() -> Self {
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            memory_bytes: memory.and_then(|text| crate::probe::field_kib(&text, "MemTotal:")).unwrap_or(0) * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figures::{LOST, P50_US};

    fn report() -> Report {
        let mut findings = Findings { percentiles: vec![(0.5, 12.5), (1.0, 99.0)], ..Findings::default() };
        findings.figures.set(&P50_US, 12.5);
        findings.figures.set(&LOST, 0.0);
        findings.timeline.push(Point { t: 0.25, sessions: 3, ..Point::default() });
        findings.notes.push("a note".to_owned());
        findings.checks.push("messages", "none lost".to_owned(), false, "1 lost".to_owned());
        let about = About {
            scenario: "broadcast".to_owned(),
            kind: "broadcast",
            label: "tidegate".to_owned(),
            settings: serde_json::json!({ "payload": 128 }),
            started: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000),
        };
        Report::new(about, findings)
    }

    fn file(name: &str, content: &[u8]) -> std::path::PathBuf {
        let file = std::env::temp_dir().join(format!("tidegate-loadtest-{}-{name}", std::process::id()));
        std::fs::write(&file, content).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let (report, file) = (report(), file("same.json", b""));
        report.save(&file).unwrap();
        assert_eq!(Report::load(&file).unwrap(), report);
        std::fs::remove_file(file).unwrap();
        assert_eq!(report.started, "2027-01-15T08:00:00Z");
        assert!(!report.passed && report.machine.cpus > 0 && report.machine.memory_bytes > 1 << 20);
    }

    #[test]
    fn the_keys_of_version_1_stay_as_they_are() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["figures"]["p50_us"], 12.5);
        assert_eq!(json["percentiles"][0], serde_json::json!([0.5, 12.5]));
        assert_eq!(json["timeline"][0]["t"], 0.25);
        assert_eq!(json["checks"][0]["passed"], false);
        for key in ["tool", "scenario", "kind", "label", "started", "command", "machine", "settings", "notes", "passed"]
        {
            assert!(json.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_report_of_a_newer_version_is_refused_by_name_even_if_its_other_keys_have_changed() {
        let file = file("newer.json", br#"{"tool":"tidegate-loadtest 9.0.0","version":2,"figures":[]}"#);
        let error = Report::load(&file).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains("newer.json") && error.contains("version 2") && error.contains("9.0.0"), "{error}");
    }

    #[test]
    fn what_is_no_report_is_refused_by_name() {
        for (name, content, why) in [
            ("text.json", &b"hello"[..], "no report of"),
            ("other.json", br#"{"tool":"another","version":1}"#, "written by \"another\""),
            ("half.json", br#"{"tool":"tidegate-loadtest 0.1.0","version":1}"#, "a damaged report: missing field"),
        ] {
            let file = file(name, content);
            let error = Report::load(&file).unwrap_err().to_string();
            std::fs::remove_file(&file).unwrap();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        let missing = Report::load(Path::new("/nonexistent/a.json")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/a.json"), "{missing}");
    }
}
