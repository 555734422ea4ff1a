//! The kinds of scenario, and which settings mean something to each.

use serde::{Deserialize, Serialize};

/// What a scenario does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Holds sessions; memory and CPU of what only exists.
    Idle,
    /// Holds sessions over several servers, broadcasts to all of them and kills a server.
    Hold,
    /// Every message goes to all subscribers of a channel.
    Broadcast,
    /// Every session has channels of its own.
    Unicast,
    /// Channels of different popularity.
    Mixed,
    /// Everybody connects at once.
    Storm,
    /// Sessions come and go while messages are published.
    Churn,
    /// Some sessions do not read, or read slowly.
    Slow,
    /// A flooded channel beside small ones.
    Hot,
    /// A broadcast to the server and to the floor, in turns.
    CompareFloor,
}

/// Every kind.
pub(crate) const ALL: [Kind; 10] = [
    Kind::Idle,
    Kind::Hold,
    Kind::Broadcast,
    Kind::Unicast,
    Kind::Mixed,
    Kind::Storm,
    Kind::Churn,
    Kind::Slow,
    Kind::Hot,
    Kind::CompareFloor,
];

/// Settings of who connects where, which all kinds take.
const CONNECTING: &[&str] = &[
    "wire",
    "path",
    "server",
    "server_pid",
    "sessions",
    "channel",
    "threads",
    "processes",
    "connect_rate",
    "in_flight",
    "sources",
    "connect_timeout",
];

/// Settings of how messages are published, which all kinds take that do.
const PUBLISHING: &[&str] =
    &["publish", "redis", "redis_prefix", "api_url", "api_key", "publish_url", "payload", "payload_format", "grace"];

/// Settings of when messages are published, which all kinds take that publish at a rate.
const RATE: &[&str] = &["rate", "seconds", "warm_up"];

/// Bounds of what is delivered at a rate or in a burst.
const DELIVERING: &[&str] = &["max_p50_us", "max_p99_us", "max_cpu_us_per_delivery", "min_deliveries_per_second"];

/// The search for the highest rate.
const SEARCHING: &[&str] = &["find_max_rate", "max_rate", "min_rate_held"];

impl Kind {
    /// The kind's name in a file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Hold => "hold",
            Self::Broadcast => "broadcast",
            Self::Unicast => "unicast",
            Self::Mixed => "mixed",
            Self::Storm => "storm",
            Self::Churn => "churn",
            Self::Slow => "slow",
            Self::Hot => "hot",
            Self::CompareFloor => "compare-floor",
        }
    }

    /// Whether it publishes messages.
    pub(crate) fn publishes(self) -> bool {
        !matches!(self, Self::Idle | Self::Storm)
    }

    /// Whether it publishes at a rate, for a time.
    pub(crate) fn has_rate(self) -> bool {
        self.publishes() && self != Self::Hold
    }

    /// The keys that mean something to this kind, in groups.
    fn keys(self) -> Vec<&'static [&'static str]> {
        let mut keys = vec![CONNECTING];
        if self.publishes() {
            keys.push(PUBLISHING);
        }
        if self.has_rate() {
            keys.push(RATE);
        }
        keys.extend(match self {
            Self::Idle => vec![
                &["base", "pause", "channels", "subscriptions", "own_channels"] as &[_],
                &["max_bytes_per_session", "max_connect_cpu_us", "max_idle_cpu_percent"],
            ],
            Self::Hold => vec![
                &["pause", "hold", "broadcasts", "kill"] as &[_],
                &["max_bytes_per_session", "max_user_bytes", "max_connect_cpu_us", "max_idle_cpu_percent"],
            ],
            Self::Broadcast => vec![&["channels", "subscriptions", "burst"] as &[_], DELIVERING, SEARCHING],
            Self::Unicast => vec![&["subscriptions", "burst"] as &[_], DELIVERING, SEARCHING],
            Self::Mixed => vec![&["channels", "zipf", "burst"] as &[_], DELIVERING, SEARCHING],
            Self::Storm => vec![
                &["channels", "subscriptions", "own_channels"] as &[_],
                &["max_refused", "max_connect_cpu_us", "max_connect_seconds"],
            ],
            Self::Churn => vec![&["channels", "subscriptions", "churn", "max_refused"] as &[_], DELIVERING],
            Self::Slow => vec![
                &["stalled", "read_rate", "receive_buffer", "metrics"] as &[_],
                &["require_code", "max_p99_shift_ms", "max_bytes_per_stalled"],
            ],
            Self::Hot => vec![&["small_channels", "flood_rate", "max_p99_us", "max_p99_shift_ms"] as &[_]],
            Self::CompareFloor => {
                vec![&["burst", "rounds", "max_ratio", "max_burst_ratio", "min_deliveries_per_second"] as &[_]]
            }
        });
        keys
    }

    /// Whether a setting means something to this kind.
    pub(crate) fn takes(self, key: &str) -> bool {
        self.keys().iter().any(|group| group.contains(&key))
    }

    /// The kinds to which a setting means something.
    pub(crate) fn that_take(key: &str) -> Vec<&'static str> {
        ALL.iter().filter(|kind| kind.takes(key)).map(|kind| kind.name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Bounds, Messages, Server, Sessions};

    #[test]
    fn every_setting_means_something_to_some_kind_and_no_kind_takes_what_is_no_setting() {
        let all = [Server::KEYS, Sessions::KEYS, Messages::KEYS, Bounds::KEYS].concat();
        for key in &all {
            assert!(!Kind::that_take(key).is_empty(), "{key} means nothing to any kind");
        }
        for kind in ALL {
            for key in kind.keys().concat() {
                assert!(all.contains(&key), "{kind:?} takes {key}, which is no setting");
            }
        }
    }

    #[test]
    fn a_kinds_name_is_the_one_in_files() {
        for kind in ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
