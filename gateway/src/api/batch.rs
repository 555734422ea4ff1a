//! Many commands in one request.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::Api;
use super::error::ApiError;
use super::execute::Results;
use super::method::Method;
use super::request::{Batch, Command};
use super::stats::Rejection;

/// What a command came to. In JSON `{"<method>": <result>}` or `{"error": {...}}`.
#[derive(Debug)]
pub struct Reply(Result<(Method, Results), ApiError>);

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match &self.0 {
            Ok((method, result)) => map.serialize_entry(method.name(), result)?,
            Err(error) => map.serialize_entry("error", error)?,
        }
        map.end()
    }
}

/// Runs the commands; the replies stand in the commands' order. One after the other, or, where
/// the batch says `parallel`, up to [`super::ApiSettings::parallel`] at once and in no defined order.
pub async fn run(api: &Api, batch: Batch<'_>, body: &Bytes) -> Vec<Reply> {
    let mut replies = InOrder::new(if batch.parallel == Some(true) { api.settings.parallel } else { 1 });
    for command in batch.commands {
        replies.push(reply(api, command, body)).await;
    }
    replies.finish().await
}

/// Futures of which a bounded number run at once, with their results in the order in which they were pushed.
pub struct InOrder<F: Future> {
    running: FuturesOrdered<F>,
    at_once: usize,
    done: Vec<F::Output>,
}

impl<F: Future> InOrder<F> {
    /// Runs up to `at_once` futures at once, at least one.
    pub fn new(at_once: usize) -> Self {
        Self { running: FuturesOrdered::new(), at_once: at_once.max(1), done: Vec::new() }
    }

    /// Adds a future; waits for the oldest where too many run.
    pub async fn push(&mut self, future: F) {
        while self.running.len() >= self.at_once
            && let Some(output) = self.running.next().await
        {
            self.done.push(output);
        }
        self.running.push_back(future);
    }

    /// Waits for the rest, and gives every result.
    pub async fn finish(mut self) -> Vec<F::Output> {
        while let Some(output) = self.running.next().await {
            self.done.push(output);
        }
        self.done
    }
}

async fn reply(api: &Api, command: Command<'_>, body: &Bytes) -> Reply {
    Reply(match named(api, command) {
        Ok((method, params)) => api.call_command(method, params.get(), body).await.map(|result| (method, result)),
        Err(error) => Err(error),
    })
}

fn named<'a>(api: &Api, command: Command<'a>) -> Result<(Method, &'a RawValue), ApiError> {
    let Some((name, params)) = command.call else {
        api.stats.reject(Rejection::Malformed);
        return Err(ApiError::bad_request("a command has exactly one member: {\"<method>\": {...}}"));
    };
    Ok((find_method(api, &name)?, params))
}

/// The method of this name; a name that is not served is counted.
///
/// # Errors
/// 104 or 108, with the name in the text.
pub fn find_method(api: &Api, name: &str) -> Result<Method, ApiError> {
    Method::from_name(name).map_err(|code| {
        api.stats.reject(Rejection::UnknownMethod);
        // A name from outside is cut, not repeated at any length.
        let name: String = name.chars().take(64).collect();
        ApiError { code, message: Cow::Owned(format!("{}: {name}", code.reason())) }
    })
}
