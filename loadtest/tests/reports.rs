//! Reports on disk: compared by the program as scripts use it.
#![expect(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::path::PathBuf;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate-loadtest");

/// A report on disk.
fn report(name: &str, label: &str, cpu: f64) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}.json"));
    let json = serde_json::json!({
        "tool": "tidegate-loadtest 0.1.0", "version": 1, "scenario": "broadcast", "kind": "broadcast", "label": label,
        "started": "2027-01-15T08:00:00Z", "command": [], "machine": { "cpus": 2, "kernel": "6.18" },
        "settings": { "payload": 128 }, "figures": { "cpu_us_per_delivery": cpu, "sessions": 100 }, "passed": true,
    });
    std::fs::write(&file, json.to_string()).unwrap();
    file
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

#[test]
fn a_script_can_hold_a_ratio_over_medians() {
    let files: Vec<String> =
        [("f1", "floor", 8.0), ("f2", "floor", 9.0), ("f3", "floor", 30.0), ("t1", "tidegate", 9.9)]
            .map(|(name, label, cpu)| report(name, label, cpu).display().to_string())
            .to_vec();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    // The medians are 9.0 and 9.9, whatever the third floor run says.
    let held = run(&[&["compare", "--fail-above", "cpu_us_per_delivery=1.11"], &files[..]].concat());
    assert_eq!(held.status.code(), Some(0), "{}", String::from_utf8_lossy(&held.stderr));
    let (base, other) = files.split_at(3);
    let missed = run(&[&["compare", "--fail-above", "cpu_us_per_delivery=1.09"], base, &["--"], other].concat());
    let text = String::from_utf8_lossy(&missed.stdout).into_owned();
    assert_eq!(missed.status.code(), Some(1), "{text}");
    assert!(text.contains("FAILED") && text.contains("tidegate over floor: 1.100x (wanted <= 1.09x)"), "{text}");
}

#[test]
fn a_file_that_is_no_report_is_exit_status_2_with_its_name() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report-none.json");
    std::fs::write(&file, "{}").unwrap();
    let output = run(&["compare", &file.display().to_string(), &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("report-none.json: no report of tidegate-loadtest"), "{text}");
}

#[test]
fn a_flag_behind_the_dashes_is_explained() {
    let file = report("flag", "a", 1.0).display().to_string();
    let output = run(&["compare", &file, "--", &file, "--json", "c.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--json stands behind --: flags go before it"));
}

#[test]
fn a_page_is_made_of_reports_and_needs_a_name() {
    let files = [report("p1", "floor", 8.0), report("p2", "tidegate", 9.0)].map(|file| file.display().to_string());
    let page = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("reports.html");
    let output = run(&["report", &files[0], &files[1], "--html", &page.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("1.12×") && html.trim_end().ends_with("</html>"));
    let unnamed = run(&["report", &files[0]]);
    assert_eq!(unnamed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unnamed.stderr).contains("--html FILE"));
}
