//! What the tests of the real program share: nothing here runs inside the test's own process but clients.
//!
//! - [`node`]: the program `tidegate` as a process, with its log;
//! - [`redis`]: a `redis-server` of the test's own, and a client for it that shares no code with the gateway;
//! - [`client`]: clients of the gateway on WebSocket (JSON, Protobuf) and raw TCP;
//! - [`reader`]: a client that recovers what it has missed;
//! - [`kept`]: a node without Redis that keeps histories;
//! - [`strace`]: a disk that fails;
//! - [`http`]: requests, and the page of metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test that fails shows the node's log")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod client;
pub mod http;
pub mod kept;
pub mod node;
pub mod reader;
pub mod redis;
pub mod strace;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails. Far above what anything takes, also on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `look` gives something, and fails the test with `what` where it does not in time.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, look)
}

/// As [`eventually`], with a deadline that is part of the promise.
#[allow(clippy::disallowed_methods, reason = "the condition is in another process: there is nothing to wait on")]
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// A directory of this test's own, removed at the end.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Writes a file, so that a reader sees the old or the new content and nothing in between.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
