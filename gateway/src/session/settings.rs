//! What sessions are allowed, resolved from the configuration once.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_protocol::code::ErrorCode;
use tidegate_protocol::limits::Limits;

use crate::shard::wheel::{TICK_MS, Tick};

/// Everything that the sessions of a node have in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `client.insecure`: nothing is checked.
    pub insecure: bool,
    /// `client.allow_anonymous_connect_without_token`.
    pub allow_anonymous: bool,
    /// `client.channel_limit`.
    pub channel_limit: usize,
    /// `client.queue_max_size`, in bytes.
    pub queue_max_size: usize,
    /// `client.connect_include_server_time`.
    pub include_server_time: bool,
    /// What clients see as the server's version.
    pub version: String,
    /// Frame and name limits.
    pub limits: Limits,
    /// Deadlines and intervals.
    pub timing: Timing,
    /// Channel names and what may be done in them.
    pub channels: ChannelRules,
}

/// Deadlines and intervals, in ticks of the wheel.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// `client.ping_interval`; `None`: no pings.
    pub ping_interval: Option<Tick>,
    /// `client.pong_timeout`.
    pub pong_timeout: Tick,
    /// `client.stale_close_delay`: how long a connection may stay unauthenticated.
    pub stale_close_delay: Tick,
    /// `client.handshake_timeout`: how long the HTTP request may take.
    pub handshake_timeout: Tick,
    /// `client.idle_timeout`; `None`: off.
    pub idle_timeout: Option<Tick>,
    /// `client.lag_threshold`: a pong later than this counts as lagging.
    pub lag_threshold: Tick,
    /// How long a closing connection waits for the peer to close too.
    pub close_timeout: Tick,
}

/// A duration in ticks: at least one, unless it is zero.
pub fn ticks(duration: Duration) -> Tick {
    duration.as_millis().div_ceil(u128::from(TICK_MS)).try_into().unwrap_or(Tick::MAX / 2)
}

/// What may be done in a namespace's channels. The names are those of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the configuration's documentation describes each")]
pub struct ChannelOptions {
    pub allow_subscribe_for_client: bool,
    pub allow_subscribe_for_anonymous: bool,
    pub allow_publish_for_client: bool,
    pub allow_publish_for_anonymous: bool,
    pub allow_publish_for_subscriber: bool,
    pub data_format: DataFormat,
}

/// `publication_data_format`: what a client may publish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DataFormat {
    /// Anything that its connection's format can carry.
    #[default]
    Any,
    /// Only JSON.
    Json,
    /// Anything, the empty payload included.
    Binary,
}

/// How channel names are read, and the options of each namespace.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the configuration's documentation describes each")]
pub struct ChannelRules {
    pub max_length: usize,
    pub private_prefix: String,
    pub namespace_boundary: String,
    pub user_boundary: String,
    pub without_namespace: ChannelOptions,
    pub namespaces: HashMap<String, ChannelOptions>,
}

impl ChannelRules {
    /// The options of the channel's namespace, if the name is in order: 107 where it is too long
    /// (in bytes) or not ASCII, 102 where the namespace does not exist.
    pub fn options(&self, channel: &str) -> Result<&ChannelOptions, ErrorCode> {
        self.check_name(channel)?;
        self.namespace(channel)
    }

    /// Whether the name is in order: 107 where it is too long (in bytes) or not ASCII.
    pub fn check_name(&self, channel: &str) -> Result<(), ErrorCode> {
        if channel.len() > self.max_length || !channel.is_ascii() {
            return Err(ErrorCode::BadRequest);
        }
        Ok(())
    }

    /// The options of the channel's namespace: 102 where it does not exist.
    pub fn namespace(&self, channel: &str) -> Result<&ChannelOptions, ErrorCode> {
        let name = match self.private_prefix.as_str() {
            "" => channel,
            prefix => channel.strip_prefix(prefix).unwrap_or(channel),
        };
        match name.split_once(&*self.namespace_boundary) {
            Some((namespace, _)) if !self.namespace_boundary.is_empty() => {
                self.namespaces.get(namespace).ok_or(ErrorCode::UnknownChannel)
            }
            _ => Ok(&self.without_namespace),
        }
    }

    /// Whether only a token lets a client in: the name begins with the private prefix.
    pub fn is_private(&self, channel: &str) -> bool {
        !self.private_prefix.is_empty() && channel.starts_with(&self.private_prefix)
    }

    /// Whether the name lists the users that may subscribe.
    pub fn is_user_limited(&self, channel: &str) -> bool {
        !self.user_boundary.is_empty() && channel.contains(&self.user_boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ChannelRules {
        let news = ChannelOptions { allow_publish_for_client: true, ..ChannelOptions::default() };
        ChannelRules {
            max_length: 20,
            private_prefix: "$".into(),
            namespace_boundary: ":".into(),
            user_boundary: "#".into(),
            without_namespace: ChannelOptions::default(),
            namespaces: HashMap::from([("news".into(), news)]),
        }
    }

    #[test]
    fn a_name_selects_its_namespace() {
        let rules = rules();
        assert_eq!(rules.options("plain"), Ok(&rules.without_namespace));
        assert_eq!(rules.options("news:today"), Ok(&rules.namespaces["news"]));
        assert_eq!(rules.options("$news:today"), Ok(&rules.namespaces["news"]));
        assert_eq!(rules.options("other:today"), Err(ErrorCode::UnknownChannel));
        assert_eq!(rules.options("naïve"), Err(ErrorCode::BadRequest));
        assert_eq!(rules.options("123456789012345678901"), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn an_empty_boundary_switches_namespaces_off() {
        let rules = ChannelRules { namespace_boundary: String::new(), ..rules() };
        assert_eq!(rules.options("other:today"), Ok(&rules.without_namespace));
    }

    #[test]
    fn ticks_round_up() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_secs(25)), 250);
        assert_eq!(ticks(Duration::MAX), Tick::MAX / 2);
    }
}
