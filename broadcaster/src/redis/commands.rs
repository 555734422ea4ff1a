//! The task that publishes.
//!
//! Publishes wait in one bounded queue, so their order is that of the calls. The task takes all that wait and sends
//! them as one pipeline; while Redis answers, the next ones gather. The connection is fred's; keeping it is this
//! task's: fred would let commands wait for a reconnect, and here a publish without a connection fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, ServerConfig, UnresponsiveConfig};
use fred::types::{Builder, ConnectHandle, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::health::Health;
use super::settings::{Endpoint, RedisSettings};
use crate::broker::{BrokerError, PublishFuture, Published};
use crate::stats::{BrokerStats, add};

/// The largest number of publishes in one pipeline.
const MAX_PIPELINE: usize = 1024;

/// The payload bytes that may wait, whatever their number.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// One publish on its way.
#[derive(Debug)]
struct Job {
    channel: String,
    payload: Bytes,
    called: Instant,
    answer: oneshot::Sender<Result<Published, BrokerError>>,
}

/// The end that takes publishes. Never blocks.
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
    /// Queues a publish to a Redis channel.
    pub(crate) fn publish(&self, channel: String, payload: Bytes) -> PublishFuture {
        match self.enqueue(channel, payload) {
            Ok(answer) => {
                Box::pin(
                    async move { answer.await.unwrap_or_else(|_| Err(BrokerError::Disconnected("shut down".into()))) },
                )
            }
            Err(error) => {
                add(&self.stats.publish_errors, 1);
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }

    fn enqueue(
        &self,
        channel: String,
        payload: Bytes,
    ) -> Result<oneshot::Receiver<Result<Published, BrokerError>>, BrokerError> {
        if let Some(reason) = self.health.down() {
            return Err(BrokerError::Disconnected(reason));
        }
        let bytes = payload.len();
        let (answer, answered) = oneshot::channel();
        let overloaded = || BrokerError::Overloaded(self.queue.max_capacity() - self.queue.capacity());
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(overloaded());
        }
        let job = Job { channel, payload, called: Instant::now(), answer };
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
                    self.health.restore();
                    tracing::info!(endpoint = %self.endpoint, "connected to Redis for publishing");
                    let reason = self.serve(&client, &mut task, &mut stop).await;
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

    /// Publishes what comes until the connection is lost (and answers why) or the task is to stop.
    async fn serve(
        &mut self,
        client: &Client,
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
            if let Err(reason) = self.publish(client, &mut jobs).await {
                return Some(reason);
            }
        }
    }

    /// Publishes these in one pipeline. An error is about the connection, which then is of no use any more.
    async fn publish(&self, client: &Client, jobs: &mut Vec<Job>) -> Result<(), String> {
        let pipeline = client.pipeline();
        for job in jobs.iter_mut() {
            self.queued_bytes.fetch_sub(job.payload.len(), Ordering::Relaxed);
            let (channel, payload) = (std::mem::take(&mut job.channel), std::mem::take(&mut job.payload));
            // It only queues the command in the pipeline.
            let queued: Result<Value, Error> = pipeline.publish(channel, Value::Bytes(payload)).await;
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
        let mut lost = None;
        for (job, result) in jobs.drain(..).zip(results) {
            let answer = match result {
                Ok(_) => {
                    add(&self.stats.publish_ok, 1);
                    self.stats.publish_latency.record(job.called.elapsed());
                    Ok(Published::default())
                }
                Err(error) => {
                    add(&self.stats.publish_errors, 1);
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
        lost.map_or(Ok(()), Err)
    }

    /// Answers every job with the same error, and puts it into words.
    fn fail(&self, jobs: &mut Vec<Job>, error: &Error) -> String {
        add(&self.stats.publish_errors, jobs.len() as u64);
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
        queued_bytes.fetch_sub(job.payload.len(), Ordering::Relaxed);
        add(&stats.publish_errors, 1);
        let reason = health.down().unwrap_or_else(|| "connecting".into());
        let _ = job.answer.send(Err(BrokerError::Disconnected(reason)));
    }
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
