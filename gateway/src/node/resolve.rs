//! From the configuration to what each part needs.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_broadcaster::interest::MAX_SHARDS;
use tidegate_broadcaster::redis::{RedisSettings, Servers};
use tidegate_broadcaster::{Fsync, LogSettings};
use tidegate_protocol::limits::Limits;

use super::NodeError;
use crate::admission::{Admission, Caps};
use crate::config::{Config, FsyncPolicy};
use crate::http::site::check_prefix;
use crate::monitor::{Monitor, Usage, system_limit};
use crate::operator::Paths;
use crate::origin::Origins;
use crate::pressure::{PressureStats, Thresholds};
use crate::session::settings::{ChannelRules, Settings, Timing, ticks};
use crate::shard::Setup;
use crate::shard::inbox::Inbox;
use crate::shard::stats::ShardStats;

/// Descriptors that are not client connections: listeners, epoll sets, Redis (a cluster's come on top), the operators'
/// port, log and configuration files.
const OTHER_DESCRIPTORS: u64 = 200;

/// How long the peer of a closing connection has to close too (the protocol's servers wait five seconds).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of shards: `shards`, or one for each processor.
pub fn shards(config: &Config) -> usize {
    let wanted = match config.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    };
    wanted.min(MAX_SHARDS)
}

/// The bounds on connections: never more than there are descriptors for.
///
/// # Errors
/// Where not even a few descriptors are to be had.
pub fn caps(config: &Config) -> Result<Caps, NodeError> {
    let descriptors = raise_descriptor_limit();
    let redis = &config.engine.redis;
    let masters = if redis.cluster_address.is_empty() { 0 } else { redis.cluster_max_masters };
    let cluster = (masters * (shards(config) + 1)) as u64;
    let possible = descriptors.saturating_sub(OTHER_DESCRIPTORS + cluster);
    if possible == 0 {
        let message = format!("{descriptors} file descriptors are too few; raise the limit (ulimit -n, LimitNOFILE)");
        return Err(NodeError::Config(message));
    }
    let client = &config.client;
    let wanted = if client.connection_limit == 0 { u64::MAX } else { client.connection_limit as u64 };
    if wanted > possible {
        tracing::warn!(
            "client.connection_limit is {}, but this process may open only {descriptors} files: at most {possible} \
             connections will be let in; raise the limit of open files (ulimit -n, LimitNOFILE) to have more",
            client.connection_limit
        );
    }
    Ok(Caps {
        connections: wanted.min(possible).try_into().unwrap_or(usize::MAX),
        per_address: client.address_connection_limit.try_into().unwrap_or(u32::MAX),
        rate: client.connection_rate_limit,
        handshakes: client.handshake_limit,
    })
}

/// Raises the soft limit on descriptors to the hard one, and answers what it is now.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
    .unwrap_or(u64::MAX)
}

/// What a shard needs to know.
pub fn setup(config: &Config, settings: &Arc<Settings>, id: u8, start: Instant, start_unix_ms: i64) -> Setup {
    Setup {
        id,
        settings: Arc::clone(settings),
        websocket_path: (!config.websocket.disabled).then(|| config.websocket.handler_prefix.clone()),
        origins: Arc::new(Origins::new(&config.client.allowed_origins)),
        flush_interval: config.websocket.flush_interval,
        start,
        start_unix_ms,
    }
}

/// What sessions are allowed.
pub fn settings(config: &Config) -> Settings {
    let client = &config.client;
    Settings {
        insecure: client.insecure,
        allow_anonymous: client.allow_anonymous_connect_without_token,
        channel_limit: client.channel_limit,
        queue_max_size: client.queue_max_size,
        history_limit: client.history_max_publication_limit,
        presence_limit: client.presence_max_clients,
        recovery_limit: client.recovery_max_publication_limit,
        position_check: (!client.channel_position_check_delay.is_zero())
            .then(|| ticks(client.channel_position_check_delay)),
        include_server_time: client.connect_include_server_time,
        version: version(),
        limits: Limits {
            message_size: config.websocket.message_size_limit,
            channel_length: config.channel.max_length,
            ..Limits::default()
        },
        timing: Timing {
            ping_interval: (!client.ping_interval.is_zero()).then(|| ticks(client.ping_interval)),
            pong_timeout: ticks(client.pong_timeout),
            stale_close_delay: ticks(client.stale_close_delay),
            handshake_timeout: ticks(client.handshake_timeout),
            idle_timeout: (!client.idle_timeout.is_zero()).then(|| ticks(client.idle_timeout)),
            lag_threshold: ticks(client.lag_threshold),
            close_timeout: ticks(CLOSE_TIMEOUT),
        },
        channels: ChannelRules(config.channel.clone()),
    }
}

/// What clients and the API see as the version.
pub fn version() -> String {
    concat!("Tidegate ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// `node.name`, else the machine's name with the port.
pub fn node_name(config: &Config) -> String {
    if !config.node.name.is_empty() {
        return config.node.name.clone();
    }
    let name = rustix::system::uname();
    format!("{}_{}", name.nodename().to_string_lossy(), config.http_server.port)
}

/// The Redis broker's settings.
///
/// # Errors
/// Where several addresses are given: one is what this version can use.
pub fn redis(config: &Config) -> Result<RedisSettings, NodeError> {
    let redis = &config.engine.redis;
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let servers = if !redis.cluster_address.is_empty() {
        Servers::Cluster { seeds: redis.cluster_address.clone() }
    } else if !redis.sentinel_address.is_empty() {
        Servers::Sentinel {
            sentinels: redis.sentinel_address.clone(),
            master: redis.sentinel_master_name.clone(),
            user: given(&redis.sentinel_user),
            password: given(&redis.sentinel_password),
        }
    } else if let [address] = redis.address.as_slice() {
        Servers::One(address.clone())
    } else {
        let count = redis.address.len();
        let message = format!("engine.redis.address has {count} addresses; give one (several, as shards, come later)");
        return Err(NodeError::Config(message));
    };
    Ok(RedisSettings {
        user: given(&redis.user),
        password: given(&redis.password),
        db: (redis.db > 0).then_some(redis.db),
        sharded: redis.sharded_pub_sub,
        topology_interval: redis.topology_interval,
        max_masters: redis.cluster_max_masters,
        prefix: config.redis_publish.prefix.clone(),
        connect_timeout: redis.connect_timeout,
        io_timeout: redis.io_timeout,
        max_payload: config.redis_publish.max_payload,
        max_time_lag: Some(config.client.channel_position_max_time_lag).filter(|most| !most.is_zero()),
        presence_ttl: redis.presence_ttl,
        presence_update_interval: config.client.presence_update_interval,
        ..RedisSettings::with_servers(servers)
    })
}

/// The embedded broker's log, where it has one.
pub fn log(config: &Config) -> Option<LogSettings> {
    let embedded = &config.embedded;
    let fsync = match embedded.fsync {
        FsyncPolicy::Always => Fsync::Always,
        FsyncPolicy::Interval => Fsync::Interval(embedded.fsync_interval),
        FsyncPolicy::Never => Fsync::Never,
    };
    (!embedded.path.is_empty()).then(|| LogSettings {
        fsync,
        segment_size: embedded.segment_size,
        compaction_ratio: embedded.compaction_ratio,
        max_pending: embedded.max_pending,
        ..LogSettings::new(&embedded.path)
    })
}

/// Where the operators' pages are.
///
/// # Errors
/// A prefix that is no path.
pub fn operator_paths(config: &Config) -> Result<Paths, NodeError> {
    let path = |key: &str, enabled: bool, path: &str| {
        let checked = check_prefix(path)
            .map_err(|expected| NodeError::Config(format!("{key} is {path:?}, which is not {expected}")));
        checked.map(|()| enabled.then(|| path.to_owned()))
    };
    let (metrics, health) = (&config.prometheus, &config.health);
    Ok(Paths {
        metrics: path("prometheus.handler_prefix", metrics.enabled, &metrics.handler_prefix)?,
        health: path("health.handler_prefix", health.enabled, &health.handler_prefix)?,
    })
}

/// The memory monitor.
///
/// # Errors
/// Where no limit is set and the system does not tell its own.
pub fn monitor(
    config: &Config,
    admission: &Arc<Admission>,
    inboxes: &Arc<[Arc<Inbox<TcpStream>>]>,
    shards: &Arc<[Arc<ShardStats>]>,
    stats: &Arc<PressureStats>,
) -> Result<Monitor, NodeError> {
    let memory = &config.memory;
    let limit = match memory.limit {
        0 => system_limit()?,
        limit => limit,
    };
    let usage = match memory.usage_file.as_str() {
        "" => Usage::Process,
        file => Usage::File(file.into()),
    };
    Ok(Monitor {
        usage,
        limit,
        thresholds: Thresholds {
            refuse_at: memory.refuse_at,
            evict_from: memory.evict_from,
            evict_to: memory.evict_to,
        },
        admission: Arc::clone(admission),
        inboxes: Arc::clone(inboxes),
        shards: Arc::clone(shards),
        stats: Arc::clone(stats),
    })
}
