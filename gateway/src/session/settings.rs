//! What sessions are allowed, resolved from the configuration once.

use std::time::Duration;

use tidegate_broadcaster::{Attendance, Retention};
use tidegate_protocol::code::ErrorCode;
use tidegate_protocol::limits::Limits;

use crate::config::{ChannelConfig, ChannelOptions};
use crate::hub::Traits;
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
    /// `client.history_max_publication_limit`.
    pub history_limit: u32,
    /// `client.presence_max_clients`.
    pub presence_limit: u32,
    /// `client.recovery_max_publication_limit`.
    pub recovery_limit: u32,
    /// `client.channel_position_check_delay`, in ticks; `None`: off.
    pub position_check: Option<Tick>,
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

/// How channel names are read, and the options of each namespace.
#[derive(Debug, Clone, Default)]
pub struct ChannelRules(pub ChannelConfig);

impl ChannelRules {
    /// The options of the channel's namespace, if the name is in order.
    ///
    /// # Errors
    /// 102 where the namespace does not exist, 107 where the name is too long (in bytes), not the
    /// namespace's `channel_regex`, or not ASCII where there is no such expression.
    pub fn options(&self, channel: &str) -> Result<&ChannelOptions, ErrorCode> {
        self.check_length(channel)?;
        let (options, name) = self.0.resolve(channel).ok_or(ErrorCode::UnknownChannel)?;
        let fits = options.channel_regex.as_ref().map_or(channel.is_ascii(), |regex| regex.is_match(name));
        if fits { Ok(options) } else { Err(ErrorCode::BadRequest) }
    }

    /// What a channel has of its namespace.
    pub fn traits(&self, channel: &str) -> Traits {
        let of = |options: &ChannelOptions| Traits {
            policy: options.queue_policy,
            attendance: Attendance { presence: options.presence, announce: options.join_leave },
        };
        self.options(channel).map(of).unwrap_or_default()
    }

    /// Whether subscriptions to the channel are the same under other rules.
    pub fn subscribes_alike(&self, other: &Self, channel: &str) -> bool {
        match (self.options(channel), other.options(channel)) {
            (Ok(own), Ok(theirs)) => {
                own.subscribes_alike(theirs)
                    && (self.is_private(channel), self.is_user_limited(channel))
                        == (other.is_private(channel), other.is_user_limited(channel))
            }
            (own, theirs) => own.is_err() && theirs.is_err(),
        }
    }

    /// What a channel keeps; `None`: nothing, or there is no such channel.
    pub fn retention(&self, channel: &str) -> Option<Retention> {
        self.options(channel).ok().and_then(|options| self.0.retention(options))
    }

    /// How long a channel's position is remembered.
    pub fn meta_ttl(&self, channel: &str) -> Duration {
        self.options(channel).map_or(self.0.history_meta_ttl, |options| self.0.meta_ttl(options))
    }

    /// Whether the name is not too long: 107.
    ///
    /// # Errors
    /// As it says.
    pub fn check_length(&self, channel: &str) -> Result<(), ErrorCode> {
        if channel.len() > self.0.max_length { Err(ErrorCode::BadRequest) } else { Ok(()) }
    }

    /// Whether only a token lets a client in: the name begins with the private prefix.
    pub fn is_private(&self, channel: &str) -> bool {
        !self.0.private_prefix.is_empty() && channel.starts_with(&self.0.private_prefix)
    }

    /// Whether the name lists the users that may subscribe.
    pub fn is_user_limited(&self, channel: &str) -> bool {
        !self.0.user_boundary.is_empty() && channel.contains(&self.0.user_boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ChannelRegex, Namespace};

    fn rules() -> ChannelRules {
        let news = ChannelOptions { allow_publish_for_client: true, ..ChannelOptions::default() };
        let digits =
            ChannelOptions { channel_regex: ChannelRegex::new("^[0-9é]+$").ok(), ..ChannelOptions::default() };
        ChannelRules(ChannelConfig {
            max_length: 20,
            namespaces: vec![
                Namespace { name: "news".into(), options: news },
                Namespace { name: "digits".into(), options: digits },
            ],
            ..ChannelConfig::default()
        })
    }

    #[test]
    fn a_name_selects_its_namespace() {
        let rules = rules();
        assert_eq!(rules.options("plain"), Ok(&rules.0.without_namespace));
        assert_eq!(rules.options("news:today"), Ok(&rules.0.namespaces[0].options));
        assert_eq!(rules.options("$news:today"), Ok(&rules.0.namespaces[0].options));
        assert_eq!(rules.options("other:today"), Err(ErrorCode::UnknownChannel));
        assert_eq!(rules.options("123456789012345678901"), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn a_name_is_ascii_unless_an_expression_says_otherwise() {
        let rules = rules();
        assert_eq!(rules.options("naïve"), Err(ErrorCode::BadRequest));
        assert!(rules.options("digits:12é").is_ok());
        assert_eq!(rules.options("digits:abc"), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn ticks_round_up() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_secs(25)), 250);
        assert_eq!(ticks(Duration::MAX), Tick::MAX / 2);
    }
}
