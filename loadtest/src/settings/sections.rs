//! Every setting, declared once: its flag, its key in a file, its default and its meaning.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::publisher::Backend;
use crate::stamp::Format;
use crate::wire::Wire;

/// Declares a section as two structs: a layer of flags or of a file, in which everything may be left out, and what a
/// run goes by. `given` settings have a default, `optional` ones have none.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident, $layer:ident
        {
            $($(#[doc = $doc:literal])* $([$($arg:tt)*])? $field:ident: $type:ty = $default:expr;)*
        }
        optional {
            $($(#[doc = $odoc:literal])* $([$($oarg:tt)*])? $ofield:ident: $otype:ty;)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Serialize)]
        pub(crate) struct $name {
            $($(#[doc = $doc])* pub(crate) $field: $type,)*
            $($(#[doc = $odoc])* #[serde(skip_serializing_if = "Option::is_none")] pub(crate) $ofield: Option<$otype>,)*
        }

        $(#[doc = $about])*
        #[derive(Debug, Clone, Default, clap::Args, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct $layer {
            $($(#[doc = $doc])* #[arg(long $(, $($arg)*)?)] pub(crate) $field: Option<$type>,)*
            $($(#[doc = $odoc])* #[arg(long $(, $($oarg)*)?)] pub(crate) $ofield: Option<$otype>,)*
        }

        impl $name {
            /// The keys of this section.
            #[cfg(test)]
            pub(crate) const KEYS: &[&str] = &[$(stringify!($field),)* $(stringify!($ofield),)*];

            /// The upper layer, where it says nothing the lower one, and where that says nothing the defaults.
            pub(crate) fn over(upper: $layer, lower: $layer) -> Self {
                Self {
                    $($field: upper.$field.or(lower.$field).unwrap_or_else(|| $default.into()),)*
                    $($ofield: upper.$ofield.or(lower.$ofield),)*
                }
            }
        }

        impl $layer {
            /// The keys that are given.
            pub(crate) fn given(&self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$field.is_some() { keys.push(stringify!($field)); })*
                $(if self.$ofield.is_some() { keys.push(stringify!($ofield)); })*
                keys
            }
        }
    };
}

section! {
    /// Which server, and how to speak to it.
    Server, ServerLayer
    {
        /// The server's address; given several times, sessions are spread over the servers [default: 127.0.0.1 and the
        /// wire's usual port].
        [value_name = "ADDR:PORT"] server: Vec<SocketAddr> = Vec::new();
        /// The server's process, for its CPU time, memory and context switches; given several times, their costs are
        /// added up [default: none].
        [value_name = "PID"] server_pid: Vec<u32> = Vec::new();
        /// Transport and encoding [default: ws-json].
        [value_enum] wire: Wire = Wire::WsJson;
    }
    optional {
        /// The WebSocket endpoint [default: /connection/websocket; for Nchan /sub, to which the channel's name is
        /// appended; for NATS /].
        path: String;
        /// The server's Prometheus port, which counts the sessions closed with --require-code: one that does not read
        /// may never see its close frame.
        [value_name = "ADDR:PORT"] metrics: SocketAddr;
    }
}

section! {
    /// Who listens.
    Sessions, SessionsLayer
    {
        /// Sessions; in `slow` those that read, in `hot` those of the flooded channel [default: 1000].
        sessions: u32 = 1000u32;
        /// The channel, or the beginning of the channels' names where there are several [default: loadtest].
        channel: String = "loadtest";
        /// Channels that the sessions are spread over [default: 1].
        channels: u32 = 1u32;
        /// Channels that each session subscribes to [default: 1].
        subscriptions: u32 = 1u32;
        /// Each session has channels of its own instead of the ones that all share.
        [num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL"]
        own_channels: bool = false;
        /// Client threads of each process [default: 1].
        threads: u32 = 1u32;
        /// Client processes, because one has only so many file descriptors; 0 for as many as the sessions need. With 1,
        /// the sessions are this process's own [default: 1].
        processes: u32 = 1u32;
        /// New connections per second, 0 for as fast as possible [default: 0].
        [value_name = "PER_SECOND"] connect_rate: u32 = 0u32;
        /// Sessions between connect and the subscribe's reply at most; 0 to begin all connections before any of them is
        /// served [default: 500].
        in_flight: u32 = 500u32;
        /// Loopback source addresses, 127.0.0.2 and up; 0 for one per 2,000 sessions [default: 0].
        sources: u32 = 0u32;
        /// Give up when no further session comes up for so many seconds [default: 20].
        [value_name = "SECONDS"] connect_timeout: u32 = 20u32;
        /// Sessions before the first reading of memory, which the second is compared with [default: 1000].
        base: u32 = 1000u32;
        /// Seconds before each reading of memory; in `hold` after each step as well [default: 10].
        [value_name = "SECONDS"] pause: u32 = 10u32;
        /// Seconds that sessions are held with heartbeats alone [default: 120].
        [value_name = "SECONDS"] hold: u32 = 120u32;
        /// Kill the last server's process (SIGKILL) at the end, and broadcast to the sessions of the others.
        [num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL"]
        kill: bool = false;
        /// Share of the sessions that is closed and reopened every second [default: 0.1].
        [value_name = "SHARE"] churn: f64 = 0.1;
        /// Sessions that stop reading, or read slowly, once they are subscribed [default: 10].
        stalled: u32 = 10u32;
        /// What those read all the same, in bytes per second; 0 for nothing [default: 0].
        [value_name = "BYTES"] read_rate: u64 = 0u64;
        /// Their SO_RCVBUF in bytes, so that the server feels them soon [default: 4096].
        [value_name = "BYTES"] receive_buffer: usize = 4096usize;
        /// Channels with one session each beside the flooded one [default: 100].
        small_channels: u32 = 100u32;
    }
    optional {}
}

section! {
    /// What is published, and how it gets to the server.
    Messages, MessagesLayer
    {
        /// Who takes the messages [default: redis].
        [value_enum] publish: Backend = Backend::Redis;
        /// The Redis that the server listens to [default: redis://127.0.0.1:6379].
        [value_name = "URL"] redis: Secret = "redis://127.0.0.1:6379";
        /// What stands before a channel's name in Redis [default: push:].
        redis_prefix: String = "push:";
        /// The HTTP API's root [default: http://127.0.0.1:8000/api].
        [value_name = "URL"] api_url: String = "http://127.0.0.1:8000/api";
        /// The HTTP API's key [default: none].
        [value_name = "KEY"] api_key: Secret = "";
        /// Bytes of a payload [default: 128].
        [value_name = "BYTES"] payload: usize = 128usize;
        /// What a payload is [default: object].
        [value_enum] payload_format: Format = Format::Object;
        /// Messages per second over all channels [default: 10].
        [value_name = "PER_SECOND"] rate: f64 = 10.0;
        /// How long to publish [default: 10].
        seconds: f64 = 10.0;
        /// How long to publish before a measurement at a rate, to warm up [default: 1].
        [value_name = "SECONDS"] warm_up: f64 = 1.0;
        /// Popularity of the channel of rank r is r to the power of minus this; 0 makes all alike [default: 1].
        [value_name = "EXPONENT"] zipf: f64 = 1.0;
        /// Messages per second to the flooded channel, 0 for as fast as they are taken [default: 10].
        [value_name = "PER_SECOND"] flood_rate: f64 = 10.0;
        /// What is still under way when nothing has arrived for so many seconds is lost [default: 3].
        [value_name = "SECONDS"] grace: u32 = 3u32;
        /// Messages to all sessions, one at a time [default: 5].
        [value_name = "MESSAGES"] broadcasts: u32 = 5u32;
        /// Times that both sides are measured; the report has the medians [default: 3].
        rounds: u32 = 3u32;
        /// Look for the highest rate that is held: nothing lost, the bounds kept, the publisher on time. Begins with
        /// --rate, which each step measures for --seconds.
        [num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL"]
        find_max_rate: bool = false;
    }
    optional {
        /// Where NATS, Nchan or MQTT messages go; NATS and MQTT take user:password@ [default: nats://127.0.0.1:4222,
        /// http://127.0.0.1:80/pub or mqtt://127.0.0.1:1883].
        [value_name = "URL"] publish_url: Secret;
        /// Publish so many messages as fast as they are taken, instead of at a rate.
        [value_name = "MESSAGES"] burst: u32;
        /// The highest rate that --find-max-rate tries [default: 64 times --rate].
        [value_name = "PER_SECOND"] max_rate: f64;
    }
}

section! {
    /// What has to be held; a run that misses one fails.
    Bounds, BoundsLayer
    {
        /// Sessions that may be refused while connecting [default: 0].
        [value_name = "COUNT"] max_refused: u32 = 0u32;
    }
    optional {
        /// Resident bytes of the server per session.
        [value_name = "BYTES"] max_bytes_per_session: f64;
        /// Growth of the resident memory of all servers and of the load generator since they held nothing.
        [value_name = "BYTES"] max_user_bytes: f64;
        /// Microseconds of server CPU per connect and subscribe.
        [value_name = "US"] max_connect_cpu_us: f64;
        /// Seconds until the last session is subscribed.
        [value_name = "SECONDS"] max_connect_seconds: f64;
        /// Server CPU while nothing is published, in percent of a core for 10,000 sessions.
        [value_name = "PERCENT"] max_idle_cpu_percent: f64;
        /// Median latency in microseconds.
        [value_name = "US"] max_p50_us: f64;
        /// 99th percentile of the latency in microseconds.
        [value_name = "US"] max_p99_us: f64;
        /// Microseconds of server CPU per delivery.
        [value_name = "US"] max_cpu_us_per_delivery: f64;
        /// Deliveries per second.
        [value_name = "COUNT"] min_deliveries_per_second: f64;
        /// The rate that --find-max-rate finds.
        [value_name = "PER_SECOND"] min_rate_held: f64;
        /// Every stalled session is closed with this code.
        [value_name = "CODE"] require_code: u16;
        /// Rise of the 99th percentile, in milliseconds, by what disturbs the measured sessions.
        [value_name = "MS"] max_p99_shift_ms: f64;
        /// Growth of the server's memory per stalled session.
        [value_name = "BYTES"] max_bytes_per_stalled: f64;
        /// CPU per delivery at a rate, server over floor.
        [value_name = "RATIO"] max_ratio: f64;
        /// CPU per delivery of a burst, server over floor.
        [value_name = "RATIO"] max_burst_ratio: f64;
    }
}

/// Text that holds a password or a key: it shows neither in a report nor in a message.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(not shown)")
    }
}
