//! Client connections: who may connect, heartbeats and limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::units;

/// `client`: what holds for every client connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// Origins that browsers may come from, as patterns with `*`; empty lets only requests without `Origin` in.
    pub allowed_origins: Vec<String>,
    /// Lets everybody connect, subscribe and publish.
    pub insecure: bool,
    /// Lets clients without a token connect, as the anonymous user.
    pub allow_anonymous_connect_without_token: bool,
    /// Time between pings to a client.
    #[serde(with = "units::duration")]
    pub ping_interval: Duration,
    /// A client that does not answer a ping for so long is closed with 3012; less than the interval.
    #[serde(with = "units::duration")]
    pub pong_timeout: Duration,
    /// A connection without a successful connect command for so long is closed with 3502.
    #[serde(with = "units::duration")]
    pub stale_close_delay: Duration,
    /// Subscriptions of one session.
    pub channel_limit: usize,
    /// Bytes that may wait for one session; beyond them it is closed with 3008.
    pub queue_max_size: usize,
    /// Client connections of this node; 0 is as many as the limit of open files allows.
    pub connection_limit: usize,
    /// New connections a second; 0 is no limit.
    pub connection_rate_limit: u32,
    /// The connect reply carries the node's time.
    pub connect_include_server_time: bool,
    /// A connection on which nothing at all arrives for so long is closed; zero is never.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// A session whose pong takes longer is counted as lagging.
    #[serde(with = "units::duration")]
    pub lag_threshold: Duration,
    /// The HTTP upgrade, or the first bytes on raw TCP, must be complete within this time.
    #[serde(with = "units::duration")]
    pub handshake_timeout: Duration,
    /// Handshakes under way at once.
    pub handshake_limit: usize,
    /// Connections from one IP address; 0 is no limit.
    pub address_connection_limit: usize,
    /// Time between two comparisons of a channel's position with the broker's; zero is never.
    #[serde(with = "units::duration")]
    pub channel_position_check_delay: Duration,
    /// The age above which a publication from Redis counts as a gap; zero: its age is not looked at.
    #[serde(with = "units::duration")]
    pub channel_position_max_time_lag: Duration,
    /// How often a node tells Redis of a channel with presence that it lives.
    #[serde(with = "units::duration")]
    pub presence_update_interval: Duration,
    /// Clients in one answer to a presence command.
    pub presence_max_clients: u32,
    /// Publications in one answer to a history command.
    pub history_max_publication_limit: u32,
    /// Publications in one recovery.
    pub recovery_max_publication_limit: u32,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            insecure: false,
            allow_anonymous_connect_without_token: false,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            stale_close_delay: Duration::from_secs(10),
            channel_limit: 128,
            queue_max_size: 1 << 20,
            connection_limit: 500_000,
            connection_rate_limit: 0,
            connect_include_server_time: false,
            idle_timeout: Duration::from_secs(60),
            lag_threshold: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            handshake_limit: 16_384,
            address_connection_limit: 0,
            channel_position_check_delay: Duration::from_secs(40),
            channel_position_max_time_lag: Duration::ZERO,
            presence_update_interval: Duration::from_secs(27),
            presence_max_clients: 5000,
            history_max_publication_limit: 300,
            recovery_max_publication_limit: 300,
        }
    }
}
