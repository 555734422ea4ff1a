//! The task that sends commands to one server.
//!
//! It takes all commands that wait and sends them as one pipeline; while Redis answers, the next ones gather. The
//! connection is fred's; keeping it is this task's: fred would let commands wait for a reconnect, and here a command
//! without a connection fails at once.

use std::sync::Arc;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::{ConnectHandle, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::client::{close, command, connect};
use super::commands::{Call, Job, broker_error};
use super::functions::{self, Loaded};
use super::health::Health;
use super::redirection::Redirection;
use super::settings::{Endpoint, RedisSettings};
use super::topology::{Lane, Topology};
use crate::broker::BrokerError;
use crate::stats::{BrokerStats, add};

/// The largest number of commands in one pipeline.
pub(super) const MAX_PIPELINE: usize = 1024;

/// What became of a command of a cluster, in the order in which the server said it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has been answered. `well`: the server has executed it.
    Done { slot: u16, number: u64, well: bool },
    /// The server has sent it elsewhere or put it off; it has not been executed. `asked`: the server to ask, where it
    /// has named one that is known.
    Back { job: Job, asked: Option<Lane> },
}

/// Sends commands to the server of one lane.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) settings: Arc<RedisSettings>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) lane: Lane,
    pub(crate) queue: mpsc::Receiver<Job>,
    /// Who wants to know what became of commands; only a cluster has somebody who does.
    pub(crate) outcomes: Option<mpsc::Sender<Outcome>>,
    pub(crate) health: Arc<Health>,
    pub(crate) stats: Arc<BrokerStats>,
}

impl Pipeline {
    /// Runs until told to stop, or until nobody is left who could. What is queued by then is still sent.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let topology = Arc::clone(&self.topology);
        let lane = self.lane;
        let mut backoff = Backoff::new(self.settings.reconnect_first, self.settings.reconnect_longest);
        loop {
            let server = topology.server(|layout| layout.server(lane).cloned());
            let Some(server) = self.refuse_until(server, &mut stop).await else { return };
            let settings = Arc::clone(&self.settings);
            let Some(session) = self.refuse_until(connect(&server, &settings), &mut stop).await else { return };
            let reason = match session {
                Ok((client, mut task)) => {
                    let reason = match functions::load(&client).await {
                        Ok(loaded) => {
                            self.health.restore();
                            tracing::info!(endpoint = %server, "connected to Redis for publishing");
                            self.serve(&server, &client, loaded, &mut task, &mut stop).await
                        }
                        Err(error) => Some(error.to_string()),
                    };
                    let Some(reason) = reason else {
                        close(&client, task, &self.settings).await;
                        return;
                    };
                    task.abort();
                    backoff.reset();
                    reason
                }
                Err(error) => error.to_string(),
            };
            let why = format!("{server}: {reason}");
            if self.health.down().as_deref() != Some(&why) {
                tracing::warn!(endpoint = %server, reason, "no connection to Redis for publishing; trying again");
            }
            self.health.degrade(&why);
            let pause = async {
                topology.look().await;
                sleep(backoff.next()).await;
            };
            if self.refuse_until(pause, &mut stop).await.is_none() {
                return;
            }
        }
    }

    /// Refuses what is queued while there is no connection, until `work` is done. None: the task is to stop, or nobody
    /// can queue anything any more.
    async fn refuse_until<T>(&mut self, work: impl Future<Output = T>, stop: &mut watch::Receiver<bool>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let job = tokio::select! {
                done = &mut work => return Some(done),
                job = self.queue.recv() => job?,
                _ = stop.wait_for(|stop| *stop) => return None,
            };
            let reason = self.health.down().unwrap_or_else(|| "connecting".into());
            self.answer(job, Err(BrokerError::Disconnected(reason))).await;
        }
    }

    /// Sends what comes until the connection is lost (and answers why) or the task is to stop.
    async fn serve(
        &mut self,
        server: &Endpoint,
        client: &Client,
        mut loaded: Loaded,
        task: &mut ConnectHandle,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<String> {
        let (topology, lane) = (Arc::clone(&self.topology), self.lane);
        let replaced = topology.ends(|layout| layout.server(lane) == Some(server));
        tokio::pin!(replaced);
        let mut jobs = Vec::new();
        loop {
            tokio::select! {
                n = self.queue.recv_many(&mut jobs, MAX_PIPELINE) => {
                    if n == 0 {
                        return None;
                    }
                }
                ended = &mut *task => {
                    return Some(match ended {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(())) => "Redis closed the connection".to_owned(),
                        Err(_) => "the connection's task ended".to_owned(),
                    });
                }
                () = &mut replaced => return Some("it is not the server to publish to any more".to_owned()),
                _ = stop.wait_for(|stop| *stop), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            }
            let mut again = match self.send(client, &loaded, &mut jobs, true).await {
                Ok(again) => again,
                Err(reason) => return Some(reason),
            };
            if again.is_empty() {
                continue;
            }
            // All calls of functions in the pipeline found none, so their order is as it was.
            loaded = match functions::load(client).await {
                Ok(loaded) => loaded,
                Err(error) => return Some(self.fail(&mut again, &error).await),
            };
            if let Err(reason) = self.send(client, &loaded, &mut again, false).await {
                return Some(reason);
            }
        }
    }

    /// Sends these in one pipeline. Answers those that found no function, if they are to be tried `again`. An error is
    /// about the connection, which then is of no use any more.
    async fn send(
        &self,
        client: &Client,
        loaded: &Loaded,
        jobs: &mut Vec<Job>,
        again: bool,
    ) -> Result<Vec<Job>, String> {
        // What cannot be called is answered, and takes no part.
        for job in
            jobs.extract_if(.., |job| matches!((&job.call, loaded), (Call::Function { .. }, Loaded::Unavailable(_))))
        {
            let Loaded::Unavailable(reason) = loaded else { continue };
            self.answer(job, Err(BrokerError::Refused(Arc::clone(reason)))).await;
        }
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let publish = if self.settings.sharded { "SPUBLISH" } else { "PUBLISH" };
        let pipeline = client.pipeline();
        for job in jobs.iter() {
            // It only queues the command in the pipeline.
            if job.asking {
                let queued: Result<Value, Error> = pipeline.custom(command("ASKING"), Vec::<Value>::new()).await;
                if let Err(error) = queued {
                    return Err(self.fail(jobs, &error).await);
                }
            }
            let queued: Result<Value, Error> = match (job.call.clone(), loaded) {
                (Call::Publish { channel, payload }, _) => {
                    pipeline.custom(command(publish), vec![Value::Bytes(channel), Value::Bytes(payload)]).await
                }
                (Call::Function { function, key, args }, loaded) => match loaded.call(function) {
                    Ok((name, what)) => {
                        let head = [Value::from(what), Value::from(1), Value::Bytes(key)];
                        let all = head.into_iter().chain(args.into_iter().map(Value::Bytes)).collect();
                        pipeline.custom(command(name), all).await
                    }
                    Err(reason) => Err(Error::new(ErrorKind::Unknown, reason.to_string())),
                },
            };
            if let Err(error) = queued {
                return Err(self.fail(jobs, &error).await);
            }
        }
        let io_timeout = self.settings.io_timeout;
        let expected = jobs.len() + jobs.iter().filter(|job| job.asking).count();
        let results = match timeout(io_timeout, pipeline.try_all::<Value>()).await {
            Ok(results) if results.len() == expected => results,
            // The pipeline failed as a whole.
            Ok(results) => {
                let error = results.into_iter().find_map(Result::err);
                let error = error.unwrap_or_else(|| Error::new(ErrorKind::Protocol, "no answer"));
                return Err(self.fail(jobs, &error).await);
            }
            Err(_) => return Err(self.fail(jobs, &Error::new(ErrorKind::Timeout, "no answer in time")).await),
        };
        let (mut lost, mut missing) = (None, Vec::new());
        let mut results = results.into_iter();
        for job in jobs.drain(..) {
            if job.asking {
                results.next();
            }
            let Some(result) = results.next() else { continue };
            let error = match result {
                Ok(value) => {
                    self.answer(job, Ok(value)).await;
                    continue;
                }
                Err(error) => error,
            };
            if again && functions::is_missing(&error) {
                missing.push(job);
                continue;
            }
            if let Some(outcomes) = &self.outcomes
                && let Some(redirection) = Redirection::parse(error.details())
            {
                add(&self.stats.redirections, 1);
                if redirection.is_lasting {
                    self.topology.ask();
                }
                let asked = redirection.ask.and_then(|(host, port)| self.topology.layout().lane_of(host, port));
                // Nobody is there any more when the broker is being dropped.
                let _ = outcomes.send(Outcome::Back { job, asked }).await;
                continue;
            }
            let answer = broker_error(&error, &self.settings);
            if !matches!(answer, BrokerError::Refused(_)) {
                lost = Some(error.to_string());
            }
            self.answer(job, Err(answer)).await;
        }
        match lost {
            None => Ok(missing),
            Some(reason) => {
                // The connection is of no use: these will find none.
                let error = Error::new(ErrorKind::Canceled, reason.clone());
                self.fail(&mut missing, &error).await;
                Err(reason)
            }
        }
    }

    async fn answer(&self, job: Job, answer: Result<Value, BrokerError>) {
        let done = Outcome::Done { slot: job.slot, number: job.number, well: answer.is_ok() };
        job.answer(answer, &self.stats);
        if let Some(outcomes) = &self.outcomes {
            let _ = outcomes.send(done).await;
        }
    }

    /// Answers every job with the same error, and puts it into words.
    async fn fail(&self, jobs: &mut Vec<Job>, error: &Error) -> String {
        for job in jobs.drain(..) {
            self.answer(job, Err(broker_error(error, &self.settings))).await;
        }
        error.to_string()
    }
}
