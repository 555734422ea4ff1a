//! Sessions in several processes of this program, because one process has only so many file descriptors.
//!
//! - this page: the coordinator's side, which starts them, hands them commands and adds up what they counted
//! - [`serve`]: a client process's side (the hidden subcommand `worker`)
//! - [`frame`]: what goes over the pipes
//!
//! A client process reads requests on its standard input, reports on its standard output, and ends when the former is
//! closed, which it is when the coordinator dies.

mod frame;
pub(crate) mod serve;

use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::frame::{Report, Request};
use super::command::Command;
use super::tally::Tally;
use super::target::Target;
use super::{Counters, Counts, Crew, PATIENCE, TICK};
use crate::clock;
use crate::error::{Context, Error, Result};

/// A process that closes its sessions may take so long to end; then it is killed.
const END: Duration = Duration::from_secs(30);

/// Client processes. Dropping it ends them, and with them their sessions.
#[derive(Debug)]
pub(super) struct Processes(Vec<Process>);

#[derive(Debug)]
struct Process {
    /// Its number, from 1, and its pid, for messages to a person.
    name: String,
    pid: u32,
    child: Mutex<Child>,
    /// A socket, because its writes have a time limit; closing it ends the process.
    requests: Option<UnixStream>,
    answers: Receiver<Answer>,
}

type Answer = std::result::Result<Option<Box<Tally>>, String>;

impl Processes {
    /// Starts them; no session yet.
    ///
    /// # Errors
    /// A process that cannot be started, or dies at once.
    pub(super) fn start(target: &Target, crew: Crew, counters: &Arc<Counters>) -> Result<Self> {
        let program = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
        let processes = Self(
            (0..crew.processes).map(|number| Process::start(&program, number, counters)).collect::<Result<Vec<_>>>()?,
        );
        processes
            .ask(|number| Request::Start { target: target.part(number, crew.processes), threads: crew.threads })?;
        Ok(processes)
    }

    /// Has every process carry out its share, and waits for all of them. What they counted comes back for
    /// [`Command::Collect`].
    pub(super) fn run(&self, command: &Command) -> Result<Option<Tally>> {
        let processes = self.0.len() as u32;
        self.ask(|number| Request::Run(command.share(number, processes)))
    }

    /// Their process ids.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.0.iter().map(|process| process.pid).collect()
    }

    /// # Errors
    /// Names a process that has died.
    pub(super) fn check(&self) -> Result<()> {
        self.0.iter().find_map(Process::death).map_or(Ok(()), Err)
    }

    fn ask(&self, request: impl Fn(u32) -> Request) -> Result<Option<Tally>> {
        for (number, process) in (0..).zip(&self.0) {
            process.send(&request(number))?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut sum = None;
        for process in &self.0 {
            let tally = process.answer(deadline)?;
            Tally::gather(&mut sum, tally.map(|tally| *tally));
        }
        Ok(sum)
    }
}

impl Process {
    fn start(program: &std::path::Path, number: u32, counters: &Arc<Counters>) -> Result<Self> {
        let start = || "cannot start a client process".to_owned();
        let (requests, theirs) = UnixStream::pair().context(start)?;
        requests.set_write_timeout(Some(PATIENCE)).context(start)?;
        let mut child = Program::new(program)
            .arg("worker")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()
            .context(start)?;
        let (sender, answers) = sync_channel(1);
        let reports = child.stdout.take();
        let pid = child.id();
        // From here on dropping the value ends the process.
        let process = Self {
            name: format!("client process {} (pid {pid})", number + 1),
            pid,
            child: Mutex::new(child),
            requests: Some(requests),
            answers,
        };
        let counters = Arc::clone(counters);
        if let Some(reports) = reports {
            // The thread ends when the process closes its end, at the latest with the process.
            std::thread::Builder::new()
                .name(format!("reports-{number}"))
                .spawn(move || listen(reports, &counters, &sender))
                .context(start)?;
        }
        Ok(process)
    }

    fn send(&self, request: &Request) -> Result<()> {
        let frame = frame::encode(request).context(|| format!("cannot speak to {}", self.name))?;
        let sent = self.requests.as_ref().map_or(Ok(()), |mut requests| requests.write_all(&frame));
        sent.map_err(|error| {
            self.death().unwrap_or_else(|| Error::Io { what: format!("cannot speak to {}", self.name), source: error })
        })
    }

    fn answer(&self, deadline: Instant) -> Result<Option<Box<Tally>>> {
        match self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(tally)) => Ok(tally),
            Ok(Err(text)) => Err(Error::Run(format!("{}: {text}", self.name))),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::Run(format!("{} does not answer; run with fewer sessions", self.name)))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    /// The error of a process whose reports have ended: it is dead or about to be.
    fn ended(&self) -> Error {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            if let Some(error) = self.death() {
                return error;
            }
            if Instant::now() >= deadline {
                return Error::Run(format!("{} has closed its output; its message is above", self.name));
            }
            clock::pause(TICK);
        }
    }

    /// The error of a process that has died; `None` while it lives.
    fn death(&self) -> Option<Error> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.try_wait().ok().flatten()?;
        Some(Error::Run(format!(
            "{} has died ({status}), and its sessions with it: its last words, if any, are above; a SIGKILL that nobody \
             sent means that memory ran out (dmesg tells)",
            self.name
        )))
    }
}

/// Takes a process's reports: counts are added to everybody's, answers are handed on.
fn listen(reports: ChildStdout, counters: &Counters, answers: &SyncSender<Answer>) {
    let mut reports = BufReader::new(reports);
    let mut known = Counts::default();
    // An error is as final as the end: the process is then found dead or is ended.
    while let Ok(Some(report)) = frame::read(&mut reports) {
        let answer = match report {
            Report::Counts(counts) => {
                counters.add(&counts.since(&known));
                known = counts;
                continue;
            }
            Report::Done(tally) => Ok(tally),
            Report::Failed(text) => Err(text),
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // All at once, so that they close their sessions at the same time.
        for process in &mut self.0 {
            process.requests = None;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.requests = None;
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + END;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                // It may be gone in this moment; either way it is waited for.
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            clock::pause(TICK);
        }
    }
}
