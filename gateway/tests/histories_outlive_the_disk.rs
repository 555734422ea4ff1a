//! A disk that is full, or that fails: what cannot be kept is refused, the rest goes on, and nothing that was acknowledged
//! is lost when the disk is well again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support_process;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::process::Signal;
use support_process::kept::{history, settings, start};
use support_process::node::{Node, Setup};
use support_process::strace::FailingSyncs;
use support_process::{DEADLINE, Directory, eventually};

/// Publishes a number, and answers whether that was acknowledged.
fn publish(node: &Node, number: u64) -> bool {
    node.api("publish", &format!(r#"{{"channel":"kept:a","data":{number}}}"#))["error"].is_null()
}

fn numbers(node: &Node) -> Vec<u64> {
    history(node, "kept:a").1.into_iter().map(|(_, number)| number).collect()
}

/// The files of the log, with their sizes.
fn segments(log: &Directory) -> BTreeMap<PathBuf, u64> {
    let files = std::fs::read_dir(&log.0).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    files.map(|file| (file.path(), file.metadata().unwrap().len())).collect()
}

/// Ends a node without warning, and starts one on the same log.
fn restart(mut node: Node, log: &Directory, more: &str) -> Node {
    node.signal(Signal::KILL);
    node.wait(DEADLINE);
    start(log, more)
}

#[test]
fn what_a_failed_sync_may_have_lost_is_written_again_before_anybody_hears_of_it() {
    let (log, always) = (Directory::new(), "fsync = \"always\"");
    let node = start(&log, always);
    assert!(publish(&node, 1));
    let before = segments(&log);

    let failing = FailingSyncs::of(node.id());
    assert!(!publish(&node, 2), "it is not on the disk");
    let (status, detail) = node.wait_for_check(DEADLINE, "broker", "degraded");
    assert!(status == 200 && detail.contains("cannot be written"), "{detail}");
    assert!(!publish(&node, 3));
    let told = node.api("history", r#"{"channel":"kept:a","limit":-1}"#);
    assert_eq!(told["error"]["code"], 100, "what is not safe is not told: {told}");
    assert!(node.metrics().sum("tidegate_history_log_errors_total", &[]) > 0);
    drop(failing);

    node.wait_for_check(DEADLINE, "broker", "ok");
    assert!(publish(&node, 4));
    // The second was under way, and may be written all the same. The third was refused at once.
    let found = history(&node, "kept:a");
    assert_eq!(found.1, [(1, 1), (2, 2), (3, 4)]);
    let after = segments(&log);
    assert!(
        before.iter().all(|file| after.get(file.0) == Some(file.1)),
        "{before:?} {after:?}: nothing is left behind"
    );
    assert!(after.len() > before.len(), "{after:?}: it is in a file of its own");
    let node = restart(node, &log, always);
    assert_eq!(history(&node, "kept:a"), found, "once each, in the same numbering");
}

#[test]
fn a_sync_beside_the_writer_that_fails_has_everything_written_again() {
    let (log, often) = (Directory::new(), "fsync = \"interval\"\nfsync_interval = \"50ms\"");
    let node = start(&log, often);
    assert!(publish(&node, 1));
    let synced = || node.metrics().sum("tidegate_history_log_fsync_duration_seconds_count", &[]) > 0;
    eventually("the first one is on the disk", || synced().then_some(()));
    let before = segments(&log);

    let failing = FailingSyncs::of(node.id());
    assert!(publish(&node, 2), "the kernel has it");
    node.wait_for_check(DEADLINE, "broker", "degraded");
    assert!(!publish(&node, 3), "the disk does not take what it was given");
    assert_eq!(numbers(&node), [1, 2]);
    drop(failing);

    node.wait_for_check(DEADLINE, "broker", "ok");
    assert!(publish(&node, 4));
    let found = history(&node, "kept:a");
    assert_eq!(found.1, [(1, 1), (2, 2), (3, 4)]);
    let left = segments(&log);
    assert!(
        before.keys().all(|file| !left.contains_key(file)),
        "{left:?}: what may have lost something is not read again"
    );
    let node = restart(node, &log, often);
    assert_eq!(history(&node, "kept:a"), found, "once each, in the same numbering");
}

#[test]
fn a_full_disk_refuses_what_is_to_be_kept_and_the_node_goes_on() {
    for fsync in ["always", "interval", "never"] {
        let log = Directory::new();
        let setup = || Setup::new().settings(&settings(&log, &format!("fsync = {fsync:?}")));
        let mut node = setup().survives_file_limit().start();
        assert!(publish(&node, 1));
        node.limit_files(Some(0));
        assert!(!publish(&node, 2), "{fsync}: it cannot be kept");
        assert!(!publish(&node, 3), "{fsync}");
        let (status, detail) = node.wait_for_check(DEADLINE, "broker", "degraded");
        assert!(status == 200 && detail.contains("cannot be written"), "{detail}");
        let plain = node.api("publish", r#"{"channel":"news","data":1}"#);
        assert!(plain["error"].is_null(), "what is not kept goes on: {plain}");
        assert!(node.metrics().sum("tidegate_history_log_errors_total", &[]) > 0);
        assert!(node.metrics().sum("tidegate_history_log_refused_total", &[]) > 0);
        assert_eq!(node.all_logged("the history's log cannot be written").len(), 1, "told once");

        node.limit_files(None);
        node.wait_for_check(DEADLINE, "broker", "ok");
        assert!(publish(&node, 4), "{fsync}");
        // The second was under way when the disk was full: it was refused, and may be written all the same.
        let (epoch, found) = history(&node, "kept:a");
        let numbers: Vec<_> = found.iter().map(|(_, number)| *number).collect();
        assert!(numbers == [1, 2, 4] || numbers == [1, 4], "{fsync}: {numbers:?}");
        node.signal(Signal::KILL);
        node.wait(DEADLINE);
        let node = setup().start();
        assert_eq!(history(&node, "kept:a"), (epoch, found), "{fsync}");
    }
}
