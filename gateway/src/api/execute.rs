//! The methods themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_broadcaster::{BrokerError, PublishRequest, Version};
use tidegate_protocol::code::ErrorCode;
use tracing::warn;

use super::batch::{self, InOrder};
use super::error::ApiError;
use super::history::HistoryResult;
use super::method::Method;
use super::presence::{PresenceResult, PresenceStatsResult};
use super::request::{Batch, Channels, Publish, PublishResult};
use super::stats::Outcome;
use super::view::NodeInfo;
use super::{Api, Pattern};

/// The most channels of one broadcast, and commands of one batch.
pub const MAX_ITEMS: usize = 100_000;

/// A method's result or error, as one member of an answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer<T> {
    /// It went well.
    Result(T),
    /// It did not.
    Error(ApiError),
}

impl<T> From<Result<T, ApiError>> for Answer<T> {
    fn from(result: Result<T, ApiError>) -> Self {
        match result {
            Ok(result) => Self::Result(result),
            Err(error) => Self::Error(error),
        }
    }
}

/// The result of any method.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Results {
    /// Of `publish`.
    Published(PublishResult),
    /// Of `broadcast`, in the order of its channels.
    Broadcast {
        /// One for each channel.
        responses: Vec<Answer<PublishResult>>,
    },
    /// Of `history`.
    History(HistoryResult),
    /// Of `presence`.
    Presence(PresenceResult),
    /// Of `presence_stats`.
    PresenceStats(PresenceStatsResult),
    /// Of a method whose success says nothing more.
    Done {},
    /// Of `info`.
    Info {
        /// The nodes; so far the one that was asked.
        nodes: [NodeInfo; 1],
    },
    /// Of `channels`.
    Channels {
        /// Channel to figures.
        channels: BTreeMap<String, ChannelInfo>,
    },
    /// Of `batch`, in the order of its commands.
    Batch {
        /// One for each command: `{method: result}` or `{"error": ...}`.
        replies: Vec<batch::Reply>,
    },
}

/// Figures of one channel.
#[derive(Debug, Serialize)]
pub struct ChannelInfo {
    /// Subscribers.
    pub num_clients: u64,
}

/// What is published, ready to go into any number of channels.
struct Content {
    data: Bytes,
    tags: BTreeMap<String, String>,
    idempotency_key: Option<String>,
    version: Option<Version>,
    skip_history: bool,
    delta: bool,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum CallError {
    /// The parameters are no JSON, or JSON of another shape.
    Malformed(serde_json::Error),
    /// The method failed.
    Failed(ApiError),
}

impl From<serde_json::Error> for CallError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error)
    }
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<CallError> for ApiError {
    /// Within a batch there is no HTTP status to tell the two apart.
    fn from(error: CallError) -> Self {
        match error {
            CallError::Malformed(error) => Self::bad_request(format!("the parameters do not fit: {error}")),
            CallError::Failed(error) => error,
        }
    }
}

impl Api {
    /// Calls a method with the JSON object `params`, which lies in `body`, and counts the call.
    ///
    /// # Errors
    /// The parameters are malformed, or the method failed.
    pub async fn call(&self, method: Method, params: &str, body: &Bytes) -> Result<Results, CallError> {
        let started = Instant::now();
        let result = match method {
            // Boxed: a batch calls again, and its state is larger than all the others'.
            Method::Batch => Box::pin(self.batch(params, body)).await,
            _ => self.call_simple(method, params, body).await,
        };
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(CallError::Malformed(_)) => Outcome::ClientError,
            Err(CallError::Failed(error)) => Outcome::of::<()>(&Err(error.clone())),
        };
        self.stats.count(method, outcome, started.elapsed());
        result
    }

    async fn call_simple(&self, method: Method, params: &str, body: &Bytes) -> Result<Results, CallError> {
        match method {
            Method::Publish => {
                let publish: Publish<'_> = parse(params)?;
                let content = self.content(&publish, body)?;
                let channel = publish.channel.as_deref().unwrap_or_default();
                Ok(Results::Published(self.publish(channel, &content).await?))
            }
            Method::Broadcast => Ok(self.broadcast(parse(params)?, body).await?),
            Method::History => Ok(Results::History(self.history(parse(params)?).await?)),
            Method::HistoryRemove => {
                self.remove_history(parse(params)?).await?;
                Ok(Results::Done {})
            }
            Method::Presence => Ok(Results::Presence(self.presence(parse(params)?).await?)),
            Method::PresenceStats => Ok(Results::PresenceStats(self.presence_stats(parse(params)?).await?)),
            Method::Info => {
                parse::<serde::de::IgnoredAny>(params)?;
                Ok(Results::Info { nodes: [self.node.info()] })
            }
            Method::Channels => Ok(self.channels(parse(params)?).await?),
            // A batch in a batch would make the bounds meaningless.
            Method::Batch => Err(ApiError::bad_request("a batch cannot hold a batch").into()),
        }
    }

    async fn batch(&self, params: &str, body: &Bytes) -> Result<Results, CallError> {
        let batch: Batch<'_> = parse(params)?;
        bounded(batch.commands.len(), "commands")?;
        Ok(Results::Batch { replies: batch::run(self, batch, body).await })
    }

    /// Calls a command of a batch. Like [`Api::call`], but a batch is refused.
    ///
    /// # Errors
    /// The parameters are malformed (107), or the method failed.
    pub async fn call_command(&self, method: Method, params: &str, body: &Bytes) -> Result<Results, ApiError> {
        let started = Instant::now();
        let result = self.call_simple(method, params, body).await.map_err(ApiError::from);
        self.stats.count(method, Outcome::of(&result), started.elapsed());
        result
    }

    async fn publish(&self, channel: &str, content: &Content) -> Result<PublishResult, ApiError> {
        let policy = (self.policy)(channel)?;
        let retention = policy.retention.filter(|_| !content.skip_history);
        // The broker knows keys where it keeps a history: for all nodes, and in one step with the publish.
        let known_there = retention.is_some();
        let request = PublishRequest {
            channel: channel.into(),
            data: content.data.clone(),
            info: None,
            tags: content.tags.clone(),
            delta: known_there && (content.delta || policy.delta),
            retention,
            idempotency_key: content.idempotency_key.clone().filter(|_| known_there),
            version: content.version.clone().filter(|_| known_there),
        };
        let result = match content.idempotency_key.as_deref().filter(|_| !known_there) {
            None => self.broker.publish(request).await.map(PublishResult::from),
            Some(key) => {
                let broker = Arc::clone(&self.broker);
                let publish = move || async move { broker.publish(request).await.map(PublishResult::from) };
                self.idempotency.once(channel, key, Instant::now(), publish).await
            }
        };
        result.map_err(|error| self.broker_failed(&error))
    }

    pub(super) fn broker_failed(&self, error: &BrokerError) -> ApiError {
        // At most one line a second: a broker that is away fails every publish, and says so in its metrics.
        if let Some(untold) = self.stats.failures.note(Instant::now()) {
            warn!(%error, broker = self.broker.name(), untold, "a call of the API failed");
        }
        error.clone().into()
    }

    async fn broadcast(&self, request: Publish<'_>, body: &Bytes) -> Result<Results, ApiError> {
        let content = &self.content(&request, body)?;
        let channels = request.channels.unwrap_or_default();
        if channels.is_empty() {
            return Err(ApiError::bad_request("channels is empty: name at least one channel"));
        }
        bounded(channels.len(), "channels")?;
        let mut responses = InOrder::new(self.settings.parallel);
        for channel in channels {
            responses.push(async move { Answer::from(self.publish(&channel, content).await) }).await;
        }
        Ok(Results::Broadcast { responses: responses.finish().await })
    }

    async fn channels(&self, request: Channels) -> Result<Results, ApiError> {
        let pattern = request.pattern.filter(|pattern| !pattern.is_empty());
        let pattern = pattern.map(|pattern| Pattern::new(&pattern)).transpose();
        let pattern = pattern.map_err(|error| ApiError::bad_request(error.to_string()))?;
        match self.node.channels(pattern).await {
            Ok(counts) => {
                let figures = counts.into_iter().map(|(channel, num_clients)| (channel, ChannelInfo { num_clients }));
                Ok(Results::Channels { channels: figures.collect() })
            }
            Err(error) => {
                warn!(%error, "the API could not list the channels");
                Err(ErrorCode::Internal.into())
            }
        }
    }

    fn content(&self, request: &Publish<'_>, body: &Bytes) -> Result<Content, ApiError> {
        let idempotency_key = request.idempotency_key.clone().filter(|key| !key.is_empty());
        let max = self.idempotency.settings.max_key_bytes;
        if let Some(key) = idempotency_key.as_deref().filter(|key| key.len() > max) {
            return Err(ApiError::bad_request(format!("idempotency_key has {} bytes; at most {max}", key.len())));
        }
        let tags = request.tags.clone().unwrap_or_default();
        let version = request.version.filter(|number| *number > 0);
        let version =
            version.map(|number| Version { number, epoch: request.version_epoch.clone().unwrap_or_default() });
        let skip_history = request.skip_history.unwrap_or_default();
        Ok(Content {
            data: request.payload(body)?,
            tags,
            idempotency_key,
            version,
            skip_history,
            delta: request.delta.unwrap_or_default(),
        })
    }
}

/// Reads parameters; none at all count as an empty object.
fn parse<'a, T: Deserialize<'a>>(params: &'a str) -> Result<T, serde_json::Error> {
    serde_json::from_str(if params.trim_ascii().is_empty() { "{}" } else { params })
}

fn bounded(items: usize, name: &str) -> Result<(), ApiError> {
    if items > MAX_ITEMS {
        return Err(ApiError::bad_request(format!("{items} {name} in one request; at most {MAX_ITEMS}")));
    }
    Ok(())
}
