//! The floor as a child process, so that its CPU time is its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::error::{Context, Error, Result};

/// How long it may take to start.
const START: Duration = Duration::from_secs(10);

/// A floor that runs; it ends when this is dropped, or when this process dies.
#[derive(Debug)]
pub(crate) struct FloorProcess {
    child: Child,
    address: SocketAddr,
}

impl FloorProcess {
    /// Starts this program again as a floor on a free loopback port.
    ///
    /// # Errors
    /// A floor that does not come up; its own message is on standard error.
    pub(crate) fn start(redis: &str, prefix: &str, channel: &str) -> Result<Self> {
        let program = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
        let mut child = Command::new(program)
            .args(["floor", "--until-stdin-closes", "--listen", "127.0.0.1:0"])
            .args(["--redis", redis, "--redis-prefix", prefix, "--channel", channel])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(|| "cannot start the floor".to_owned())?;
        let (sender, first_line) = sync_channel(1);
        if let Some(stdout) = child.stdout.take() {
            // The thread ends with the first line or with the child.
            std::thread::spawn(move || {
                let mut line = String::new();
                if BufReader::new(stdout).read_line(&mut line).is_ok() {
                    let _ = sender.send(line);
                }
            });
        }
        let line = first_line.recv_timeout(START).unwrap_or_default();
        // From here on dropping the value ends the child.
        let mut floor = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        floor.address = line
            .trim()
            .strip_prefix("listening ")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| Error::Run("the floor did not start; its message is above".to_owned()))?;
        Ok(floor)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// For the probe.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        // It may be gone already; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
