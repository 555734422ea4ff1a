//! The threads of one process that hold sessions: each takes its share of a command, and their tallies are added up.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;

use super::command::Command;
use super::tally::Tally;
use super::target::Target;
use super::worker::{Order, Worker};
use super::{Counters, PATIENCE};
use crate::error::{Context, Error, Result};

/// Threads that hold sessions. Dropping it closes them all.
#[derive(Debug)]
pub(super) struct Threads(Vec<Handle>);

#[derive(Debug)]
struct Handle {
    orders: Option<SyncSender<Order>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts them; no session yet.
    pub(super) fn start(target: Target, threads: u32, counters: &Arc<Counters>) -> Result<Self> {
        let target = Arc::new(target);
        (0..threads.max(1)).map(|number| Handle::start(number, &target, counters)).collect::<Result<Vec<_>>>().map(Self)
    }

    /// Has every thread carry out its share, and waits for all of them. What they counted comes back for
    /// [`Command::Collect`].
    pub(super) fn run(&self, command: &Command) -> Result<Option<Tally>> {
        let threads = self.0.len() as u32;
        let (answer, answers): (SyncSender<Option<Tally>>, Receiver<Option<Tally>>) = sync_channel(self.0.len());
        for (number, thread) in (0..).zip(&self.0) {
            thread.send(Order { command: command.share(number, threads), answer: answer.clone() })?;
        }
        let mut sum: Option<Tally> = None;
        for _ in &self.0 {
            let tally = answers
                .recv_timeout(PATIENCE)
                .map_err(|_| Error::Run("a client thread does not answer; run with fewer sessions".to_owned()))?;
            Tally::gather(&mut sum, tally);
        }
        Ok(sum)
    }
}

impl Handle {
    fn start(number: u32, target: &Arc<Target>, counters: &Arc<Counters>) -> Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context(|| "cannot create an eventfd".to_owned())?;
        let wake = Arc::new(wake);
        let (orders, receiver) = sync_channel(16);
        let worker = Worker::new(Arc::clone(target), Arc::clone(counters), Arc::clone(&wake), receiver)?;
        let thread = std::thread::Builder::new()
            .name(format!("client-{number}"))
            .spawn(move || worker.run())
            .context(|| "cannot start a client thread".to_owned())?;
        Ok(Self { orders: Some(orders), wake, thread: Some(thread) })
    }

    fn send(&self, order: Order) -> Result<()> {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if !sent {
            return Err(Error::Run("a client thread has died; its message is above".to_owned()));
        }
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // The counter cannot overflow with 16 orders, and a worker that is gone needs no waking.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for handle in &mut self.0 {
            handle.orders = None;
            handle.wake();
        }
        for handle in &mut self.0 {
            if let Some(thread) = handle.thread.take() {
                // A worker's panic has been printed by its thread.
                let _ = thread.join();
            }
        }
    }
}
