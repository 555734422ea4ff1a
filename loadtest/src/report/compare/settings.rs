//! What makes reports hard to compare: different settings, different machines, runs that failed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::group::Group;

/// Settings that say where something is, how long to wait for it, or what is bounded, and not what is measured.
const CIRCUMSTANCES: &[&str] = &[
    "server",
    "server_pid",
    "path",
    "channel",
    "redis_prefix",
    "api_url",
    "publish_url",
    "metrics",
    "sources",
    "connect_timeout",
    "grace",
    "bounds",
];

/// A value's text is cut after so many characters.
const LONGEST_VALUE: usize = 60;

/// A line for each thing that differs between groups or within one.
pub(crate) fn warnings(groups: &[Group<'_>]) -> Vec<String> {
    let mut lines = Vec::new();
    // What each group has for a setting; a group that has it twice with different values has both.
    let mut values: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
    for (number, group) in groups.iter().enumerate() {
        for report in &group.reports {
            let mut flat = BTreeMap::new();
            flatten("", &report.settings, &mut flat);
            flat.insert("kind of scenario".to_owned(), report.kind.clone());
            let machine = &report.machine;
            flat.insert("machine".to_owned(), format!("{} cpus, Linux {}", machine.cpus, machine.kernel));
            for (path, value) in flat {
                values.entry(path).or_insert_with(|| vec![BTreeSet::new(); groups.len()])[number].insert(value);
            }
        }
    }
    for (path, by_group) in values {
        let told = by_group.iter().filter(|values| !values.is_empty());
        if told.collect::<BTreeSet<_>>().len() > 1 || by_group.iter().any(|values| values.len() > 1) {
            lines.push(format!("{path} differs: {}", who_has_what(groups, &by_group)));
        }
    }
    for group in groups {
        let failed = group.reports.iter().filter(|report| !report.passed).count();
        if failed > 0 {
            lines.push(format!("checks failed in {failed} of {} runs of {}", group.reports.len(), group.name));
        }
    }
    lines
}

/// `128 (floor, nchan), 256 and 512 (tidegate)`.
fn who_has_what(groups: &[Group<'_>], by_group: &[BTreeSet<String>]) -> String {
    let mut owners: Vec<(&BTreeSet<String>, Vec<&str>)> = Vec::new();
    for (group, values) in groups.iter().zip(by_group).filter(|(_, values)| !values.is_empty()) {
        match owners.iter_mut().find(|(known, _)| *known == values) {
            Some((_, names)) => names.push(&group.name),
            None => owners.push((values, vec![&group.name])),
        }
    }
    let words = owners.into_iter().map(|(values, names)| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        format!("{} ({})", values.join(" and "), names.join(", "))
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The leaves of a setting by their dotted paths, without circumstances and without what was not given.
fn flatten(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, value)| !is_circumstance(key, value)) {
                flatten(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, out);
            }
        }
        leaf => {
            let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
            out.insert(path.to_owned(), text.chars().take(LONGEST_VALUE).collect());
        }
    }
}

/// `server` is both a section, which matters, and an address, which does not.
fn is_circumstance(key: &str, value: &Value) -> bool {
    CIRCUMSTANCES.contains(&key) && !(value.is_object() && key != "bounds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::report::compare::group::tests::report;

    fn with(label: &str, settings: Value) -> Report {
        Report { settings, ..report("broadcast", label, 10, 1.0) }
    }

    fn lines(a: &Report, b: &Report) -> Vec<String> {
        warnings(&[a, b].map(|report| Group { name: report.label.clone(), reports: vec![report] }))
    }

    #[test]
    fn what_is_measured_is_compared_and_where_it_runs_is_not() {
        let a = with(
            "a",
            serde_json::json!({
                "server": { "server": "127.0.0.1:8000", "server_pid": 7, "wire": "ws-json" },
                "messages": { "payload": 128, "rate": 10.0 }, "bounds": { "max_p99_us": 5.0 },
            }),
        );
        let b = with(
            "b",
            serde_json::json!({
                "server": { "server": "127.0.0.1:9000", "server_pid": 8, "wire": "nchan" },
                "messages": { "payload": 1024, "rate": 10.0 }, "bounds": {},
            }),
        );
        assert_eq!(
            lines(&a, &b),
            ["messages.payload differs: 128 (a), 1024 (b)", "server.wire differs: ws-json (a), nchan (b)",]
        );
        assert!(lines(&a, &a).is_empty());
    }

    #[test]
    fn groups_with_the_same_value_are_named_together() {
        let of = |label, payload: u32| with(label, serde_json::json!({ "payload": payload }));
        let reports = [of("a", 128), of("b", 64), of("c", 128)];
        let groups = reports.each_ref().map(|report| Group { name: report.label.clone(), reports: vec![report] });
        assert_eq!(warnings(&groups), ["payload differs: 128 (a, c), 64 (b)"]);
    }

    #[test]
    fn a_setting_that_only_one_side_knows_is_no_difference() {
        let a = with("a", serde_json::json!({ "payload": 128 }));
        let b = with("b", serde_json::json!({ "payload": 128, "burst": null, "new_setting": 1 }));
        assert!(lines(&a, &b).is_empty());
    }

    #[test]
    fn repeats_that_differ_another_machine_and_failed_runs_are_said() {
        let (a, mut b) = (report("broadcast", "a", 10, 1.0), report("broadcast", "b", 20, 1.0));
        b.machine.cpus = a.machine.cpus + 1;
        b.passed = false;
        let groups =
            [Group { name: "a".to_owned(), reports: vec![&a] }, Group { name: "b".to_owned(), reports: vec![&a, &b] }];
        let text = warnings(&groups).join("\n");
        assert!(text.contains("messages.sessions differs: 10 (a), 10 and 20 (b)"), "{text}");
        assert!(text.contains("machine differs") && text.contains("checks failed in 1 of 2 runs of b"), "{text}");
    }
}
