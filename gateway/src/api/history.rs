//! `history` and `history_remove`.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_broadcaster::{Channel, Content, HistoryQuery, Publication};
use tidegate_protocol::code::ErrorCode;
use tidegate_protocol::message::ClientInfo;

use super::error::ApiError;
use super::{Api, Policy};

/// A place in a channel's history, as the API writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Since {
    /// The last publication that is known.
    #[serde(default)]
    pub offset: u64,
    /// Which numbering; empty or absent: any.
    #[serde(default)]
    pub epoch: String,
}

/// Parameters of `history`, and of `history_remove`, which looks at the channel alone.
#[derive(Debug, Deserialize)]
pub struct HistoryRequest {
    /// Of which channel.
    #[serde(default)]
    pub channel: String,
    /// The most publications: 0 (or absent) is the position alone, a negative number all.
    #[serde(default)]
    pub limit: i64,
    /// Only what comes behind this place; in reverse, before it.
    pub since: Option<Since>,
    /// The newest first.
    #[serde(default)]
    pub reverse: bool,
}

/// Result of `history`.
#[derive(Debug, Serialize)]
pub struct HistoryResult {
    publications: Vec<Entry>,
    epoch: String,
    offset: u64,
}

/// A publication.
#[derive(Debug, Serialize)]
struct Entry {
    /// JSON data, as it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    /// Any other data.
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
    offset: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
}

impl From<&Publication> for Entry {
    fn from(publication: &Publication) -> Self {
        let data = &publication.payload.data;
        let json = (publication.payload.kind == Content::Json).then(|| serde_json::from_slice(data).ok()).flatten();
        Self {
            b64data: json.is_none().then(|| BASE64.encode(data)),
            data: json,
            info: publication.info.as_deref().cloned(),
            offset: publication.offset,
            tags: publication.tags.clone(),
        }
    }
}

impl Api {
    pub(super) async fn history(&self, request: HistoryRequest) -> Result<HistoryResult, ApiError> {
        let (channel, policy) = self.with_history(&request.channel)?;
        let since = request.since.as_ref();
        if request.reverse && since.is_some_and(|since| since.offset == 0) {
            return Err(ApiError::bad_request("nothing lies before offset 0: leave since out, or reverse"));
        }
        let query = HistoryQuery {
            since: since.map(|since| since.offset),
            limit: u32::try_from(request.limit).unwrap_or(u32::MAX),
            reverse: request.reverse,
            meta_ttl: policy.meta_ttl,
        };
        let history = self.broker.history(&channel, query).await.map_err(|error| self.broker_failed(&error))?;
        if since.is_some_and(|since| !since.epoch.is_empty() && *since.epoch != *history.top.epoch) {
            return Err(ErrorCode::UnrecoverablePosition.into());
        }
        Ok(HistoryResult {
            publications: history.publications.iter().map(|publication| Entry::from(&**publication)).collect(),
            epoch: history.top.epoch.to_string(),
            offset: history.top.offset,
        })
    }

    pub(super) async fn remove_history(&self, request: HistoryRequest) -> Result<(), ApiError> {
        let (channel, _) = self.with_history(&request.channel)?;
        self.broker.remove_history(&channel).await.map_err(|error| self.broker_failed(&error))
    }

    /// A channel that keeps a history: 108 where its namespace keeps none.
    fn with_history(&self, channel: &str) -> Result<(Channel, Policy), ApiError> {
        let policy = (self.policy)(channel)?;
        if policy.retention.is_none() {
            return Err(ErrorCode::NotAvailable.into());
        }
        Ok((channel.into(), policy))
    }
}
