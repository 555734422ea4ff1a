//! The server API: how a backend publishes and asks over HTTP.
//!
//! `POST {prefix}/<method>` with a JSON object, answered as `{"result": ...}` or `{"error": {"code", "message"}}`;
//! the shapes are those of Centrifugo's API, so that its server libraries work. `docs/server-api.md` is the user's page.
//!
//! - [`routes`]: the axum router, reading of bodies, the two request forms (one method per path, and lines of method and params);
//! - [`auth`]: who may call;
//! - [`method`]: which methods exist; [`request`]: their parameters; [`error`]: what goes wrong;
//! - [`execute`]: publish, broadcast, info, channels; [`history`]: what channels keep;
//!   [`presence`]: who is in them; [`batch`]: many of them in one request;
//! - [`idempotency`]: a publish that is sent again is not published again;
//! - [`pattern`]: channel patterns with `*` and `?`;
//! - [`view`]: what the API asks the node; [`stats`]: what it counts.

pub mod auth;
pub mod batch;
pub mod error;
pub mod execute;
pub mod history;
pub mod idempotency;
pub mod method;
pub mod pattern;
pub mod presence;
pub mod request;
pub mod routes;
pub mod stats;
pub mod view;

use std::sync::Arc;
use std::time::Duration;

use tidegate_broadcaster::{Broker, Retention};

pub use auth::Auth;
pub use error::ApiError;
pub use idempotency::{Idempotency, IdempotencySettings};
pub use pattern::Pattern;
pub use routes::router;
pub use stats::ApiStats;
pub use view::{ChannelCounts, NodeInfo, NodeView, ViewError};

/// What a channel's namespace says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// What the channel keeps; `None`: nothing.
    pub retention: Option<Retention>,
    /// How long its position is remembered.
    pub meta_ttl: Duration,
    /// Publications may be sent as deltas.
    pub delta: bool,
    /// The channel remembers who is in it.
    pub presence: bool,
}

/// What holds for a channel of this name; an error where the name is empty or too long, or its namespace unknown.
pub type ChannelPolicy = Arc<dyn Fn(&str) -> Result<Policy, ApiError> + Send + Sync>;

/// Bounds of the API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Where it lives, `/api` by default; a path that [`crate::http::site::check_prefix`] accepts.
    pub prefix: String,
    /// The largest request body in bytes; above it the answer is 413.
    pub max_body: usize,
    /// How long a body may take to arrive; after it the answer is 408.
    pub body_timeout: Duration,
    /// How many publishes of one broadcast, or commands of one parallel batch, are under way at once.
    pub parallel: usize,
    /// The most clients in an answer to `presence`; a channel with more is refused.
    pub presence_limit: u32,
    /// Errors as HTTP statuses for every request, not only for those that ask for it.
    pub transport_errors: bool,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            prefix: "/api".to_owned(),
            max_body: 10 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            parallel: 1024,
            presence_limit: 5000,
            transport_errors: false,
        }
    }
}

/// Everything that the API works with.
pub struct Api {
    /// Bounds.
    pub settings: ApiSettings,
    /// Who may call.
    pub auth: Auth,
    /// Where publishes go.
    pub broker: Arc<dyn Broker>,
    /// What is asked about the node.
    pub node: Arc<dyn NodeView>,
    /// Which channels there are, and what holds for them.
    pub policy: ChannelPolicy,
    /// Results of publishes with an idempotency key.
    pub idempotency: Idempotency,
    /// Counters.
    pub stats: Arc<ApiStats>,
}

#[cfg(test)]
pub(crate) mod tests;
