//! A client process: carries out what the coordinator asks for until its standard input is closed.

use std::io::{Stdout, stdin, stdout};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::super::threads::Threads;
use super::super::{Counters, Counts, TICK};
use super::frame::{self, Report, Request};
use crate::error::{Context, Error, Result};

/// How often counts are reported while nothing changes; while they change, every [`TICK`].
const CALM: Duration = Duration::from_millis(200);

/// Serves one coordinator.
///
/// # Errors
/// A request that makes no sense, or a coordinator that does not listen any more. What cannot be carried out is
/// reported to the coordinator, and no error here.
pub(crate) fn run() -> Result<()> {
    let mut input = stdin().lock();
    let mut next = || frame::read::<Request>(&mut input).context(|| "cannot read the coordinator's request".to_owned());
    let Some(request) = next()? else { return Ok(()) };
    let Request::Start { target, threads } = request else {
        return Err(Error::Usage("worker: is started by another tidegate-loadtest, with --processes".to_owned()));
    };
    let counters = Arc::new(Counters::default());
    let output = Output(Mutex::new((stdout(), Counts::default())));
    let threads = match Threads::start(target, threads, &counters) {
        Ok(threads) => threads,
        Err(error) => return output.answer(&counters, &Report::Failed(error.to_string())),
    };
    output.answer(&counters, &Report::Done(None))?;

    let (_running, stopped) = sync_channel::<()>(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Moved in, so that the thread ends when the other end is dropped.
            let stopped = stopped;
            let mut pause = TICK;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                match output.counts(&counters) {
                    Ok(changed) => pause = if changed { TICK } else { (pause * 2).min(CALM) },
                    // The coordinator is gone; the other thread sees it as well.
                    Err(_) => return,
                }
            }
        });
        // Dropped at the end of this scope's closure, whichever way it ends.
        let _running = _running;
        while let Some(request) = next()? {
            let report = match request {
                Request::Start { .. } => Report::Failed("it has been started before".to_owned()),
                Request::Run(command) => match threads.run(&command) {
                    Ok(tally) => Report::Done(tally.map(Box::new)),
                    Err(error) => Report::Failed(error.to_string()),
                },
            };
            output.answer(&counters, &report)?;
        }
        Ok(())
    })
}

/// Standard output, and the counts that were last reported.
struct Output(Mutex<(Stdout, Counts)>);

impl Output {
    /// Reports the counts if they have changed; says whether they have.
    fn counts(&self, counters: &Counters) -> Result<bool> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdout, last) = &mut *output;
        let counts = counters.read();
        if counts == *last {
            return Ok(false);
        }
        *last = counts;
        frame::write(stdout, &Report::Counts(counts)).context(|| "cannot report to the coordinator".to_owned())?;
        Ok(true)
    }

    /// Answers a request. The counts come first, so that whoever has the answer has them.
    fn answer(&self, counters: &Counters, report: &Report) -> Result<()> {
        self.counts(counters)?;
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frame::write(&mut output.0, report).context(|| "cannot answer the coordinator".to_owned())
    }
}
