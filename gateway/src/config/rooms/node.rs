//! The node itself: its name, logs, memory and end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::units;

/// `node`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The node's name in the API and in logs; empty is made from the host's name and the port.
    pub name: String,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important level that is logged.
    pub level: LogLevel,
    /// File to append to; empty is standard output.
    pub file: String,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything, with single messages.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happens to the node.
    #[default]
    Info,
    /// What somebody should look at.
    Warn,
    /// What does not work.
    Error,
    /// Nothing.
    None,
}

/// `memory`: when the node refuses and evicts. The shares are of the limit, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Memory that the process may use, in bytes; 0 is the cgroup's limit, or else the machine's memory.
    pub limit: u64,
    /// From this share on, new connections are refused.
    pub refuse_at: f64,
    /// From this share on, the costliest sessions are closed ...
    pub evict_from: f64,
    /// ... until this share is reached.
    pub evict_to: f64,
    /// A file with the number of bytes in use, read instead of asking the system: for tests and drills. Empty is
    /// the process's own memory.
    pub usage_file: String,
}

impl Default for Memory {
    fn default() -> Self {
        Self { limit: 0, refuse_at: 0.80, evict_from: 0.85, evict_to: 0.80, usage_file: String::new() }
    }
}

/// `shutdown`: how the node stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// The longest that stopping may take, with the drain; connections that are left then are cut off.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Time over which the sessions are closed, evenly. See [`Shutdown::drain_over`].
    #[serde(with = "units::duration")]
    pub drain: Duration,
}

impl Shutdown {
    /// The longest that stopping may take.
    pub fn whole(&self) -> Duration {
        self.timeout.max(self.drain)
    }

    /// The time over which sessions are told to go: `drain`, or less where it would leave the last ones no time to
    /// read it. They have a tenth of the whole, and 2 s at most.
    pub fn drain_over(&self) -> Duration {
        let whole = self.whole();
        self.drain.min(whole - (whole / 10).min(LAST_TO_GO))
    }
}

/// The time that the last sessions of a drain have, at most.
const LAST_TO_GO: Duration = Duration::from_secs(2);

impl Default for Shutdown {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), drain: Duration::from_secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sessions_of_a_drain_have_time_to_go() {
        let over = |timeout, drain| {
            let shutdown = Shutdown { timeout: Duration::from_secs(timeout), drain: Duration::from_secs(drain) };
            (shutdown.drain_over().as_millis(), shutdown.whole().as_secs())
        };
        assert_eq!(over(30, 30), (28_000, 30));
        assert_eq!(over(10, 10), (9_000, 10));
        assert_eq!(over(30, 1), (1_000, 30));
        assert_eq!(over(0, 0), (0, 0));
    }
}
