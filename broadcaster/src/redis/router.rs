//! The task between those who publish and the servers of a cluster: each command goes to the server of its slot.
//!
//! Commands of one channel keep their order wherever its slot goes, and none is executed twice: what a server sends
//! back has had no effect there, and is tried again where [`super::held`] says. fred's own client of clusters repeats
//! such commands one by one, while others go on: it is not used here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::commands::Job;
use super::health::Health;
use super::held::{Held, Released};
use super::pipeline::{MAX_PIPELINE, Outcome};
use super::settings::RedisSettings;
use super::topology::{Lane, Topology};
use crate::broker::BrokerError;
use crate::stats::BrokerStats;

/// How often it is looked whether held commands may be sent, if nothing happens before.
const STEP: Duration = Duration::from_millis(5);

/// A lane's queue, and whether its server is connected.
#[derive(Debug)]
pub(crate) struct LaneQueue {
    pub(crate) queue: mpsc::Sender<Job>,
    pub(crate) health: Arc<Health>,
}

/// Gives commands to the lanes of their slots.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) settings: Arc<RedisSettings>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) queue: mpsc::Receiver<Job>,
    pub(crate) lanes: Vec<LaneQueue>,
    pub(crate) outcomes: mpsc::Receiver<Outcome>,
    pub(crate) held: Held<Job>,
    pub(crate) stats: Arc<BrokerStats>,
    /// Ends the lanes' tasks when this one has ended.
    pub(crate) stop_lanes: watch::Sender<bool>,
}

impl Router {
    /// Runs until told to stop, or until nobody is left who could. What is queued by then is still sent and answered.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut jobs = Vec::new();
        let mut is_open = true;
        while is_open || !self.held.is_idle() {
            tokio::select! {
                // What came back has to be known before anything else is sent.
                biased;
                Some(outcome) = self.outcomes.recv() => self.take(outcome),
                n = self.queue.recv_many(&mut jobs, MAX_PIPELINE), if is_open => {
                    is_open = n > 0;
                    jobs.drain(..).for_each(|job| self.give(job));
                }
                () = sleep(STEP), if self.held.len() > 0 => {}
                _ = stop.wait_for(|stop| *stop), if !self.queue.is_closed() => self.queue.close(),
                else => break,
            }
            while let Ok(outcome) = self.outcomes.try_recv() {
                self.take(outcome);
            }
            if self.held.len() > 0 {
                self.release();
            }
        }
        self.stop_lanes.send_replace(true);
    }

    /// A new command: it goes on its way, or has to wait.
    fn give(&mut self, mut job: Job) {
        job.number = self.held.number();
        let lane = self.topology.layout().lane(job.slot);
        match lane {
            Some(lane) if self.held.may_go(job.slot, Some(lane)) => self.send(lane, job),
            // Slots that move leave room for the commands of the others.
            _ if self.held.len() >= self.settings.max_queued_publishes / 2 => {
                job.answer(Err(BrokerError::Overloaded(self.held.len())), &self.stats);
            }
            _ => self.held.hold(job.slot, job.number, job),
        }
    }

    fn send(&mut self, lane: Lane, job: Job) {
        let Some(queue) = self.lanes.get(usize::from(lane)).map(|lane| &lane.queue) else { return };
        // A lane's queue has room for all that may wait, and its task ends only after this one.
        if let Err(error) = queue.try_send(job) {
            let job = error.into_inner();
            let (slot, number) = (job.slot, job.number);
            job.answer(Err(BrokerError::Disconnected("shut down".into())), &self.stats);
            self.held.done(slot, number, false);
        }
    }

    fn take(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done { slot, number, well } => {
                for job in self.held.done(slot, number, well) {
                    let reason = "the cluster was changing: a later command about the channel came first";
                    job.answer(Err(BrokerError::Refused(reason.into())), &self.stats);
                }
            }
            Outcome::Back { job, asked } => {
                self.held.come_back(job.slot, job.number, job, asked, Instant::now());
            }
        }
    }

    /// Gives up what has waited too long, and sends what can be sent.
    fn release(&mut self) {
        let io_timeout = self.settings.io_timeout;
        for job in self.held.expire(|job| job.called.elapsed() >= io_timeout) {
            job.answer(Err(BrokerError::Timeout(io_timeout)), &self.stats);
        }
        let layout = self.topology.layout();
        let is_up = |lane: Lane| self.lanes.get(usize::from(lane)).is_some_and(|lane| lane.health.is_up());
        for Released { mut job, lane, asking } in self.held.release(Instant::now(), |slot| layout.lane(slot), is_up) {
            job.asking = asking;
            self.send(lane, job);
        }
    }
}
