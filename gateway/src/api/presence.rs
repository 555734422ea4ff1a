//! `presence` and `presence_stats`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_broadcaster::Channel;
use tidegate_protocol::code::ErrorCode;
use tidegate_protocol::message::ClientInfo;

use super::Api;
use super::error::ApiError;

/// Parameters of both.
#[derive(Debug, Deserialize)]
pub struct PresenceRequest {
    /// Of which channel.
    #[serde(default)]
    pub channel: String,
}

/// Result of `presence`.
#[derive(Debug, Serialize)]
pub struct PresenceResult {
    /// By the clients' ids.
    presence: BTreeMap<String, ClientInfo>,
}

/// Result of `presence_stats`.
#[derive(Debug, Serialize)]
pub struct PresenceStatsResult {
    num_clients: u64,
    num_users: u64,
}

impl Api {
    pub(super) async fn presence(&self, request: PresenceRequest) -> Result<PresenceResult, ApiError> {
        let channel = self.with_presence(&request.channel)?;
        let most = self.settings.presence_limit;
        let presence = self.broker.presence(&channel, most).await.map_err(|error| self.broker_failed(&error))?;
        if presence.is_too_large() {
            let message = format!(
                "{} clients are in the channel; at most {most} are listed (client.presence_max_clients); presence_stats counts \
                 them",
                presence.clients
            );
            return Err(ApiError { code: ErrorCode::LimitExceeded, message: message.into() });
        }
        let members = presence.members.into_iter().map(Arc::unwrap_or_clone);
        Ok(PresenceResult { presence: members.map(|info| (info.client.clone(), info)).collect() })
    }

    pub(super) async fn presence_stats(&self, request: PresenceRequest) -> Result<PresenceStatsResult, ApiError> {
        let channel = self.with_presence(&request.channel)?;
        let stats = self.broker.presence_stats(&channel).await.map_err(|error| self.broker_failed(&error))?;
        Ok(PresenceStatsResult { num_clients: stats.clients, num_users: stats.users })
    }

    /// A channel that remembers who is in it: 108 where its namespace does not.
    fn with_presence(&self, channel: &str) -> Result<Channel, ApiError> {
        if (self.policy)(channel)?.presence { Ok(channel.into()) } else { Err(ErrorCode::NotAvailable.into()) }
    }
}
