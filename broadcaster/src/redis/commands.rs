//! The task that sends commands: publishes, and calls of the functions.
//!
//! Commands wait in one bounded queue, so their order is that of the calls. The task takes all that wait and sends
//! them as one pipeline; while Redis answers, the next ones gather. The connection is fred's; keeping it is this
//! task's: fred would let commands wait for a reconnect, and here a command without a connection fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, ServerConfig, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::functions::{self, Function, Loaded};
use super::health::Health;
use super::settings::{Endpoint, RedisSettings};
use crate::broker::{Answer, BrokerError};
use crate::stats::{BrokerStats, add};

/// The largest number of commands in one pipeline.
const MAX_PIPELINE: usize = 1024;

/// The payload bytes that may wait, whatever their number.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// A command. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// PUBLISH of a payload, as it is.
    Publish { channel: Bytes, payload: Bytes },
    /// A function with its only key.
    Function { function: Function, key: Bytes, args: Vec<Bytes> },
}

impl Call {
    /// What the command counts for while it waits.
    fn weight(&self) -> usize {
        match self {
            Self::Publish { payload, .. } => payload.len(),
            Self::Function { args, .. } => args.iter().map(Bytes::len).sum(),
        }
    }

    fn is_publish(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Function { function: Function::Publish, .. })
    }
}

/// One command on its way.
#[derive(Debug)]
struct Job {
    call: Call,
    called: Instant,
    answer: oneshot::Sender<Result<Value, BrokerError>>,
}

/// The end that takes commands. Never blocks.
#[derive(Debug)]
pub(crate) struct Publisher {
    queue: mpsc::Sender<Job>,
    queued_bytes: Arc<AtomicUsize>,
    health: Arc<Health>,
    stats: Arc<BrokerStats>,
}

/// The end that talks to Redis.
#[derive(Debug)]
pub(crate) struct PublisherTask {
    settings: Arc<RedisSettings>,
    endpoint: Endpoint,
    queue: mpsc::Receiver<Job>,
    queued_bytes: Arc<AtomicUsize>,
    health: Arc<Health>,
    stats: Arc<BrokerStats>,
}

/// Both ends.
pub(crate) fn publisher(
    settings: Arc<RedisSettings>,
    endpoint: Endpoint,
    health: Arc<Health>,
    stats: Arc<BrokerStats>,
) -> (Publisher, PublisherTask) {
    let (sender, receiver) = mpsc::channel(settings.max_queued_publishes);
    let queued_bytes = Arc::<AtomicUsize>::default();
    let publisher = Publisher {
        queue: sender,
        queued_bytes: Arc::clone(&queued_bytes),
        health: Arc::clone(&health),
        stats: Arc::clone(&stats),
    };
    (publisher, PublisherTask { settings, endpoint, queue: receiver, queued_bytes, health, stats })
}

impl Publisher {
    /// Whether there is no connection now.
    pub(crate) fn is_down(&self) -> bool {
        self.health.down().is_some()
    }

    /// Queues a command; what Redis answers.
    pub(crate) fn call(&self, call: Call) -> Answer<Value> {
        let publishes = call.is_publish();
        match self.enqueue(call) {
            Ok(answer) => {
                Box::pin(
                    async move { answer.await.unwrap_or_else(|_| Err(BrokerError::Disconnected("shut down".into()))) },
                )
            }
            Err(error) => {
                add(&self.stats.publish_errors, u64::from(publishes));
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }

    fn enqueue(&self, call: Call) -> Result<oneshot::Receiver<Result<Value, BrokerError>>, BrokerError> {
        if let Some(reason) = self.health.down() {
            return Err(BrokerError::Disconnected(reason));
        }
        let bytes = call.weight();
        let (answer, answered) = oneshot::channel();
        let overloaded = || BrokerError::Overloaded(self.queue.max_capacity() - self.queue.capacity());
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(overloaded());
        }
        let job = Job { call, called: Instant::now(), answer };
        self.queue.try_send(job).map_err(|error| {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => overloaded(),
                mpsc::error::TrySendError::Closed(_) => BrokerError::Disconnected("shut down".into()),
            }
        })?;
        Ok(answered)
    }
}

impl PublisherTask {
    /// Runs until told to stop, or until nobody is left who could. What is queued by then is still published.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut backoff = Backoff::new(self.settings.reconnect_first, self.settings.reconnect_longest);
        loop {
            let session = tokio::select! {
                session = connect(&self.endpoint, &self.settings) => session,
                () = refuse_all(&mut self.queue, &self.queued_bytes, &self.health, &self.stats) => return,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let reason = match session {
                Ok((client, mut task)) => {
                    let reason = match functions::load(&client).await {
                        Ok(loaded) => {
                            self.health.restore();
                            tracing::info!(endpoint = %self.endpoint, "connected to Redis for publishing");
                            self.serve(&client, loaded, &mut task, &mut stop).await
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
            if self.health.down().as_deref() != Some(&reason) {
                tracing::warn!(endpoint = %self.endpoint, reason, "no connection to Redis for publishing; trying again");
            }
            self.health.degrade(&reason);
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = refuse_all(&mut self.queue, &self.queued_bytes, &self.health, &self.stats) => return,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Sends what comes until the connection is lost (and answers why) or the task is to stop.
    async fn serve(
        &mut self,
        client: &Client,
        mut loaded: Loaded,
        task: &mut ConnectHandle,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<String> {
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
                _ = stop.wait_for(|stop| *stop), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            }
            let bytes = jobs.iter().map(|job| job.call.weight()).sum();
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
                Err(error) => return Some(self.fail(&mut again, &error)),
            };
            if let Err(reason) = self.send(client, &loaded, &mut again, false).await {
                return Some(reason);
            }
        }
    }

    /// Sends these in one pipeline. Answers those that found no function, if they are to be tried `again`. An error is about
    /// the connection, which then is of no use any more.
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
            add(&self.stats.publish_errors, u64::from(job.call.is_publish()));
            let _ = job.answer.send(Err(BrokerError::Refused(Arc::clone(reason))));
        }
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = client.pipeline();
        for job in jobs.iter() {
            // It only queues the command in the pipeline.
            let queued: Result<Value, Error> = match (job.call.clone(), loaded) {
                (Call::Publish { channel, payload }, _) => {
                    pipeline.custom(command("PUBLISH"), vec![Value::Bytes(channel), Value::Bytes(payload)]).await
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
                return Err(self.fail(jobs, &error));
            }
        }
        let io_timeout = self.settings.io_timeout;
        let results = match timeout(io_timeout, pipeline.try_all::<Value>()).await {
            Ok(results) if results.len() == jobs.len() => results,
            // The pipeline failed as a whole.
            Ok(results) => {
                let error = results.into_iter().find_map(Result::err);
                return Err(self.fail(jobs, &error.unwrap_or_else(|| Error::new(ErrorKind::Protocol, "no answer"))));
            }
            Err(_) => return Err(self.fail(jobs, &Error::new(ErrorKind::Timeout, "no answer in time"))),
        };
        let (mut lost, mut missing) = (None, Vec::new());
        for (job, result) in jobs.drain(..).zip(results) {
            let answer = match result {
                Ok(value) => {
                    if job.call.is_publish() {
                        add(&self.stats.publish_ok, 1);
                        self.stats.publish_latency.record(job.called.elapsed());
                    }
                    Ok(value)
                }
                Err(error) if again && functions::is_missing(&error) => {
                    missing.push(job);
                    continue;
                }
                Err(error) => {
                    add(&self.stats.publish_errors, u64::from(job.call.is_publish()));
                    let answer = self.broker_error(&error);
                    if !matches!(answer, BrokerError::Refused(_)) {
                        lost = Some(error.to_string());
                    }
                    Err(answer)
                }
            };
            // Whoever asked need not wait for the answer.
            let _ = job.answer.send(answer);
        }
        match lost {
            None => Ok(missing),
            Some(reason) => {
                // The connection is of no use: these will find none.
                let error = Error::new(ErrorKind::Canceled, reason.clone());
                self.fail(&mut missing, &error);
                Err(reason)
            }
        }
    }

    /// Answers every job with the same error, and puts it into words.
    fn fail(&self, jobs: &mut Vec<Job>, error: &Error) -> String {
        add(&self.stats.publish_errors, jobs.iter().filter(|job| job.call.is_publish()).count() as u64);
        for job in jobs.drain(..) {
            let _ = job.answer.send(Err(self.broker_error(error)));
        }
        error.to_string()
    }

    fn broker_error(&self, error: &Error) -> BrokerError {
        match error.kind() {
            ErrorKind::Timeout => BrokerError::Timeout(self.settings.io_timeout),
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Routing
            | ErrorKind::Protocol
            | ErrorKind::Backpressure => BrokerError::Disconnected(error.to_string().into()),
            _ => BrokerError::Refused(error.details().into()),
        }
    }
}

/// Refuses what is queued while there is no connection. Ends when nobody can queue anything any more.
async fn refuse_all(queue: &mut mpsc::Receiver<Job>, queued_bytes: &AtomicUsize, health: &Health, stats: &BrokerStats) {
    while let Some(job) = queue.recv().await {
        queued_bytes.fetch_sub(job.call.weight(), Ordering::Relaxed);
        add(&stats.publish_errors, u64::from(job.call.is_publish()));
        let reason = health.down().unwrap_or_else(|| "connecting".into());
        let _ = job.answer.send(Err(BrokerError::Disconnected(reason)));
    }
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

/// A client with one connection, which ends with its connection: no reconnect policy, one attempt per command.
async fn connect(endpoint: &Endpoint, settings: &RedisSettings) -> Result<(Client, ConnectHandle), Error> {
    let config = Config {
        server: ServerConfig::new_centralized(endpoint.host.clone(), endpoint.port),
        username: endpoint.user.clone(),
        password: endpoint.password.clone(),
        database: endpoint.db,
        fail_fast: true,
        ..Config::default()
    };
    let client = Builder::from_config(config)
        .set_performance_config(PerformanceConfig {
            default_command_timeout: settings.io_timeout,
            ..PerformanceConfig::default()
        })
        .set_connection_config(ConnectionConfig {
            connection_timeout: settings.connect_timeout,
            internal_command_timeout: settings.io_timeout,
            max_command_attempts: 1,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(settings.io_timeout),
                interval: settings.io_timeout / 4,
            },
            ..ConnectionConfig::default()
        })
        .build()?;
    let task = client.connect();
    if let Err(error) = client.wait_for_connect().await {
        task.abort();
        return Err(error);
    }
    Ok((client, task))
}

async fn close(client: &Client, task: ConnectHandle, settings: &RedisSettings) {
    if timeout(settings.io_timeout, client.quit()).await.is_err() {
        tracing::debug!("Redis did not answer QUIT in time");
    }
    task.abort();
}
