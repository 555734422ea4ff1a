//! What differs between two configurations, and what a running node can do about it. Pure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use super::keys::to_tree;
use super::rooms::{ChannelConfig, Config};

/// How settings that were read again came out, for the metrics.
#[derive(Debug)]
pub struct ReloadStats {
    /// Times at which they were taken.
    pub applied: AtomicU64,
    /// Times at which they could not be read, and nothing changed.
    pub refused: AtomicU64,
    /// Whether the last time was one of the first kind, or there was none.
    pub is_well: AtomicBool,
}

impl Default for ReloadStats {
    fn default() -> Self {
        Self { applied: AtomicU64::new(0), refused: AtomicU64::new(0), is_well: AtomicBool::new(true) }
    }
}

impl ReloadStats {
    /// Counts one.
    pub fn count(&self, applied: bool) {
        let counter = if applied { &self.applied } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        self.is_well.store(applied, Ordering::Relaxed);
    }
}

/// The keys, apart from those of `channel`, that have other values in `new`: a running node keeps the old ones.
pub fn need_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    if let (Value::Object(old), Value::Object(new)) = (to_tree(old), to_tree(new)) {
        for (name, value) in old.iter().filter(|(name, _)| *name != "channel") {
            compare(name, value, new.get(name).unwrap_or(&Value::Null), &mut paths);
        }
    }
    paths
}

fn compare(path: &str, old: &Value, new: &Value, paths: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                compare(&format!("{path}.{name}"), value, new.get(name).unwrap_or(&Value::Null), paths);
            }
        }
        _ if old == new => {}
        _ => paths.push(path.to_owned()),
    }
}

/// What has changed of the channels, in words: `without_namespace`, the names of namespaces (`-` before those that are gone), and
/// `names` where names are read in another way.
pub fn changed_channels(old: &ChannelConfig, new: &ChannelConfig) -> Vec<String> {
    let mut changed = Vec::new();
    let of = |config: &ChannelConfig, name: &str| {
        config.namespaces.iter().find(|namespace| namespace.name == name).map(|namespace| namespace.options.clone())
    };
    if old.without_namespace != new.without_namespace {
        changed.push("without_namespace".to_owned());
    }
    for namespace in &new.namespaces {
        if of(old, &namespace.name).as_ref() != Some(&namespace.options) {
            changed.push(namespace.name.clone());
        }
    }
    for namespace in old.namespaces.iter().filter(|namespace| of(new, &namespace.name).is_none()) {
        changed.push(format!("-{}", namespace.name));
    }
    let without_options = |config: &ChannelConfig| ChannelConfig {
        without_namespace: Default::default(),
        namespaces: Vec::new(),
        ..config.clone()
    };
    if without_options(old) != without_options(new) {
        changed.push("names".to_owned());
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ChannelOptions, Namespace};

    #[test]
    fn what_takes_a_restart_is_named_by_its_keys() {
        let old = Config::default();
        let mut new = old.clone();
        assert!(need_restart(&old, &new).is_empty());
        new.channel.max_length = 10;
        assert!(need_restart(&old, &new).is_empty(), "channels do not take one");
        new.client.channel_limit += 1;
        new.engine.redis.address = vec!["redis://elsewhere".to_owned()];
        assert_eq!(need_restart(&old, &new), ["client.channel_limit", "engine.redis.address"]);
    }

    #[test]
    fn namespaces_that_changed_came_or_went_are_named() {
        let namespace = |name: &str, history_size| Namespace {
            name: name.to_owned(),
            options: ChannelOptions { history_size, ..ChannelOptions::default() },
        };
        let old = ChannelConfig {
            namespaces: vec![namespace("same", 1), namespace("other", 1), namespace("gone", 1)],
            ..ChannelConfig::default()
        };
        let new = ChannelConfig {
            namespaces: vec![namespace("new", 1), namespace("other", 2), namespace("same", 1)],
            max_length: 10,
            ..ChannelConfig::default()
        };
        assert_eq!(changed_channels(&old, &new), ["new", "other", "-gone", "names"]);
        assert!(changed_channels(&new, &new).is_empty());
    }
}
