//! What must hold between keys. Each rule speaks only when the keys it looks at could be read.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::rooms::{ChannelOptions, Config, DELTA_FOSSIL, EngineType, QueuePolicy, RecoveryMode, RedisEngine};
use super::settings::Settings;
use super::units::format_duration;

/// Fits the defaults to what is set: an unset `shutdown.drain` is no longer than `shutdown.timeout`, and an unset
/// `client.idle_timeout` no shorter than twice the ping interval.
pub fn derive(config: &mut Config, settings: &Settings) {
    if !settings.is_explicit("shutdown.drain") && config.shutdown.drain > config.shutdown.timeout {
        config.shutdown.drain = config.shutdown.timeout;
    }
    let long_enough = config.client.ping_interval * 2;
    if !settings.is_explicit("client.idle_timeout") && config.client.idle_timeout < long_enough {
        config.client.idle_timeout = long_enough;
    }
}

/// Checks; what is wrong goes to the settings' problems, what is odd to their notices.
pub fn check(config: &Config, settings: &mut Settings) {
    heartbeat(config, settings);
    memory(config, settings);
    shutdown(config, settings);
    listeners(config, settings);
    paths(config, settings);
    namespaces(config, settings);
    histories(config, settings);
    presence(config, settings);
    deltas(config, settings);
    redis(config, settings);
    oddities(config, settings);
}

/// Notes that `path` does not fit `other`, unless one of them could not be read.
fn clash(settings: &mut Settings, path: &str, other: &str, rule: &str, advice: &str) {
    if settings.has_failed(path) || settings.has_failed(other) {
        return;
    }
    // The key that somebody set is the one to blame.
    let (path, other, rule) = match (settings.is_explicit(path), settings.is_explicit(other)) {
        (false, true) => (other, path, inverse(rule)),
        _ => (path, other, rule),
    };
    let origin = settings.get(path).map(|setting| setting.origin.clone()).unwrap_or_default();
    let message = format!("must be {rule} {}; {advice}", settings.describe(other));
    settings.problem(origin, settings.assignment(path), message);
}

fn inverse(rule: &str) -> &str {
    match rule {
        "less than" => "more than",
        "at most" => "at least",
        "more than" => "less than",
        other => other,
    }
}

fn heartbeat(config: &Config, settings: &mut Settings) {
    let client = &config.client;
    if client.pong_timeout >= client.ping_interval {
        let advice = "a pong has to come before the next ping";
        clash(settings, "client.pong_timeout", "client.ping_interval", "less than", advice);
    } else if !client.idle_timeout.is_zero() && client.idle_timeout <= client.ping_interval + client.pong_timeout {
        let least = format_duration(client.ping_interval + client.pong_timeout + Duration::from_secs(1));
        let advice =
            format!("healthy sessions would be closed between two pongs: set {least} or more, or 0s for never");
        clash(settings, "client.idle_timeout", "client.ping_interval", "more than", &advice);
    }
}

fn memory(config: &Config, settings: &mut Settings) {
    let memory = &config.memory;
    if memory.refuse_at > memory.evict_from {
        let advice = "sessions would be closed while new ones are let in";
        clash(settings, "memory.refuse_at", "memory.evict_from", "at most", advice);
    }
    if memory.evict_to >= memory.evict_from {
        let advice = "eviction has to go on until something is won";
        clash(settings, "memory.evict_to", "memory.evict_from", "less than", advice);
    }
}

fn shutdown(config: &Config, settings: &mut Settings) {
    if config.shutdown.drain > config.shutdown.timeout {
        let advice = "the timeout cuts off what the drain has not reached";
        clash(settings, "shutdown.drain", "shutdown.timeout", "at most", advice);
    }
}

/// No two listeners on one address and port.
fn listeners(config: &Config, settings: &mut Settings) {
    let mut listeners = vec![
        ("http_server.port", config.http_server.listen()),
        ("http_server.internal_port", config.http_server.internal_listen()),
    ];
    listeners.extend(config.tcp_server.listen().map(|address| ("tcp_server.port", address)));
    let overlap = |one: &SocketAddr, other: &SocketAddr| {
        let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
        one.port() != 0 && one.port() == other.port() && same_ip
    };
    for (at, (path, address)) in listeners.iter().enumerate() {
        for (other_path, other) in &listeners[..at] {
            if overlap(address, other) {
                clash(settings, path, other_path, "other than", "every listener needs a port of its own");
            }
        }
    }
}

/// No two endpoints of one listener on one path.
fn paths(config: &Config, settings: &mut Settings) {
    let api_with_clients = !config.http_api.disabled && config.http_api.external;
    if api_with_clients
        && !config.websocket.disabled
        && config.http_api.handler_prefix == config.websocket.handler_prefix
    {
        let advice = "every endpoint needs a path of its own";
        clash(settings, "http_api.handler_prefix", "websocket.handler_prefix", "other than", advice);
    }
    let (health, metrics) = (&config.health.handler_prefix, &config.prometheus.handler_prefix);
    let below = metrics.strip_prefix(health.as_str());
    let taken = below.is_some_and(|below| matches!(below, "" | "/live" | "/ready" | "/startup"));
    if config.health.enabled && config.prometheus.enabled && taken {
        let advice = "every endpoint needs a path of its own";
        clash(settings, "prometheus.handler_prefix", "health.handler_prefix", "other than", advice);
    }
}

fn namespaces(config: &Config, settings: &mut Settings) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let boundary = config.channel.namespace_boundary.as_str();
    for (position, namespace) in config.channel.namespaces.iter().enumerate() {
        let path = format!("channel.namespaces[{position}].name");
        let origin = settings.get(&path).map(|setting| setting.origin.clone()).unwrap_or_default();
        let name = namespace.name.as_str();
        if name.is_empty() {
            let entry = format!("channel.namespaces[{position}]");
            if !settings.has_failed(&path) && !settings.has_failed(&entry) {
                let message = "is missing: every namespace needs a name, as name = \"chat\"".to_owned();
                settings.problem(settings.entry_origin("channel.namespaces", position), path, message);
            }
            continue;
        }
        if let Some(first) = seen.insert(name, position) {
            let message = format!("is the name of channel.namespaces[{first}] already; give each namespace its own");
            settings.problem(origin.clone(), format!("{path} = {name:?}"), message);
        }
        if !boundary.is_empty() && name.contains(boundary) {
            let message = format!(
                "holds channel.namespace_boundary = {boundary:?}, so that no channel would be found in it; \
                 take another name or boundary"
            );
            settings.problem(origin, format!("{path} = {name:?}"), message);
        }
    }
}

/// The options of each namespace, with the path of the table that they stand in.
fn all_options(config: &Config) -> impl Iterator<Item = (String, &ChannelOptions)> {
    let without = ("channel.without_namespace".to_owned(), &config.channel.without_namespace);
    let named = config.channel.namespaces.iter().enumerate();
    std::iter::once(without)
        .chain(named.map(|(at, namespace)| (format!("channel.namespaces[{at}]"), &namespace.options)))
}

/// Recovery takes a history, and a history takes both a size and a time.
fn histories(config: &Config, settings: &mut Settings) {
    for (path, options) in all_options(config) {
        let (size, ttl) = (options.history_size > 0, !options.history_ttl.is_zero());
        let half = match (size, ttl) {
            (true, false) => Some(("history_ttl", "history_size")),
            (false, true) => Some(("history_size", "history_ttl")),
            _ => None,
        };
        if let Some((missing, given)) = half {
            let (missing, given) = (format!("{path}.{missing}"), format!("{path}.{given}"));
            clash(settings, &given, &missing, "set together with", "without both of them there is no history");
        }
        let auto = format!("{path}.auto_cache_recover");
        let advice =
            "what everybody gets without asking is the newest publication: set force_recovery, and the mode to cache";
        if options.auto_cache_recover && !options.force_recovery {
            clash(settings, &auto, &format!("{path}.force_recovery"), "false with", advice);
        } else if options.auto_cache_recover && options.force_recovery_mode != RecoveryMode::Cache {
            clash(settings, &auto, &format!("{path}.force_recovery_mode"), "false with", advice);
        }
        let wants = [
            ("force_recovery", options.force_recovery),
            ("allow_recovery", options.allow_recovery),
            ("force_positioning", options.force_positioning),
            ("allow_positioning", options.allow_positioning),
            ("allowed_delta_types", !options.allowed_delta_types.is_empty()),
        ];
        for (wanting, _) in wants.into_iter().filter(|(_, wants)| *wants) {
            if options.queue_policy != QueuePolicy::Disconnect {
                let (wanting, policy) = (format!("{path}.{wanting}"), format!("{path}.queue_policy"));
                let advice = "who leaves publications out cannot say that none is missing";
                clash(settings, &wanting, &policy, "false with", advice);
            }
            if size || ttl {
                continue;
            }
            let (wanting, size) = (format!("{path}.{wanting}"), format!("{path}.history_size"));
            let advice = "what a client missed can only come from a history: set history_size and history_ttl";
            clash(settings, &wanting, &size, "false with", advice);
        }
    }
}

/// A node has to say that it lives before it is given up, and join_leave is what force_push_join_leave forces.
fn presence(config: &Config, settings: &mut Settings) {
    if config.client.presence_update_interval * 2 > config.engine.redis.presence_ttl {
        let advice = "a node that misses one update would be given up";
        let (interval, ttl) = ("client.presence_update_interval", "engine.redis.presence_ttl");
        clash(settings, interval, ttl, "at most half of", advice);
    }
    for (path, options) in all_options(config) {
        if options.force_push_join_leave && !options.join_leave {
            let (forces, forced) = (format!("{path}.force_push_join_leave"), format!("{path}.join_leave"));
            clash(settings, &forces, &forced, "false without", "there is nothing to push without it");
        }
    }
}

/// There is one kind of delta.
fn deltas(config: &Config, settings: &mut Settings) {
    for (path, options) in all_options(config) {
        let path = format!("{path}.allowed_delta_types");
        if options.allowed_delta_types.iter().any(|kind| kind != DELTA_FOSSIL) && !settings.has_failed(&path) {
            let origin = settings.get(&path).map(|setting| setting.origin.clone()).unwrap_or_default();
            let message = format!("holds a kind of delta that does not exist; there is {DELTA_FOSSIL:?}");
            settings.problem(origin, settings.assignment(&path), message);
        }
    }
}

/// One way to Redis, and what belongs to it.
fn redis(config: &Config, settings: &mut Settings) {
    let redis = &config.engine.redis;
    let (cluster, sentinel) = (!redis.cluster_address.is_empty(), !redis.sentinel_address.is_empty());
    let (address, cluster_address) = ("engine.redis.address", "engine.redis.cluster_address");
    let (sentinel_address, name) = ("engine.redis.sentinel_address", "engine.redis.sentinel_master_name");
    let advice = "there is one way to Redis: its address, a cluster's nodes, or Sentinels";
    // The default is no choice, even where a file repeats it.
    if redis.address != RedisEngine::default().address && (cluster || sentinel) {
        let other = if cluster { cluster_address } else { sentinel_address };
        clash(settings, other, address, "left out with", advice);
    }
    if cluster && sentinel {
        clash(settings, cluster_address, sentinel_address, "left out with", advice);
    }
    if sentinel && redis.sentinel_master_name.is_empty() {
        clash(settings, sentinel_address, name, "set together with", "Sentinels are asked for a master by its name");
    }
    if !sentinel && !redis.sentinel_master_name.is_empty() {
        clash(settings, name, sentinel_address, "set together with", "it takes Sentinels to find a master by its name");
    }
    if cluster && redis.db > 0 {
        clash(settings, "engine.redis.db", cluster_address, "0 with", "a cluster has no other database");
    }
}

/// What is allowed, and probably not meant.
fn oddities(config: &Config, settings: &mut Settings) {
    let mut notices = Vec::new();
    let defaults = RedisEngine::default();
    let redis = settings.iter().find(|(path, _)| path.starts_with("engine.redis."));
    let redis = redis.filter(|_| config.engine.redis != defaults);
    if let (EngineType::Memory, Some((path, setting))) = (config.engine.kind, redis) {
        notices.push(format!("{}: {path} has no effect: engine.type is \"memory\"", setting.origin));
    }
    if config.engine.kind != EngineType::Memory && !config.embedded.path.is_empty() {
        notices.push("embedded.path has no effect: engine.type is not \"memory\"".to_owned());
    }
    let api = &config.http_api;
    if !api.disabled && !api.insecure && api.key.is_empty() {
        notices.push("http_api.key is empty: every request to the server API gets 401".to_owned());
    }
    for (path, options) in all_options(config) {
        let may_ask = options.allow_history_for_client || options.allow_history_for_subscriber;
        if options.allow_history_for_anonymous && !may_ask {
            notices.push(format!(
                "{path}.allow_history_for_anonymous has no effect without allow_history_for_client or \
                 allow_history_for_subscriber"
            ));
        }
        if options.allow_presence_for_anonymous
            && !options.allow_presence_for_client
            && !options.allow_presence_for_subscriber
        {
            notices.push(format!(
                "{path}.allow_presence_for_anonymous has no effect without allow_presence_for_client or \
                 allow_presence_for_subscriber"
            ));
        }
        if options.allow_subscribe_for_anonymous && !options.allow_subscribe_for_client {
            notices
                .push(format!("{path}.allow_subscribe_for_anonymous has no effect without allow_subscribe_for_client"));
        }
        let may_publish = options.allow_publish_for_client || options.allow_publish_for_subscriber;
        if options.allow_publish_for_anonymous && !may_publish {
            notices.push(format!(
                "{path}.allow_publish_for_anonymous has no effect without allow_publish_for_client or \
                 allow_publish_for_subscriber"
            ));
        }
    }
    if config.client.insecure {
        notices.push("client.insecure is on: everybody may connect, subscribe and publish".to_owned());
    }
    settings.notices.extend(notices);
}
