//! A disk that fails, as a process sees it: strace answers its system calls with errors.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// While the value lives, every sync of a file fails with EIO in one process. Nothing else changes: what is written is
/// read back, as it is from a kernel that has not dropped it yet.
pub struct FailingSyncs(Child);

impl FailingSyncs {
    /// Begins with the process of this number, and returns when it has begun.
    pub fn of(process: u32) -> Self {
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
            .args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &process.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed (tests/install tools)");
        let mut said = String::new();
        let mut lines = BufReader::new(strace.stderr.take().unwrap());
        // Its first line is that it is attached, to all threads, or why it cannot be.
        lines.read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "strace may not trace here: {said}");
        // It says more of the threads that come and go, and must not be held up with it.
        std::thread::spawn(move || lines.lines().for_each(drop));
        Self(strace)
    }
}

impl Drop for FailingSyncs {
    fn drop(&mut self) {
        // It lets the process go, and ends.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
