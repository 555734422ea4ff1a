//! Settings that are read again while the node runs.

use std::sync::Arc;

use super::Node;
use crate::config::reload::{changed_channels, need_restart};
use crate::config::{Config, Loaded, Problems};
use crate::session::settings::{ChannelRules, Settings};
use crate::shard::inbox::Message;

impl Node {
    /// What was read again: `channel` and all that is in it holds from now on, and the log names what takes a restart. Where the
    /// settings are wrong, the node goes on with those that it has.
    ///
    /// Subscriptions that would be others now are ended with code 2500; SDKs subscribe again.
    pub fn reload(&self, read: Result<Loaded, Problems>) {
        let loaded = match read {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.reloads.count(false);
                for problem in &problems.problems {
                    tracing::error!("{problem}");
                }
                let problems = problems.problems.len();
                tracing::error!(problems, "the settings were not reloaded: the node goes on with those that it has");
                return;
            }
        };
        for notice in loaded.notices() {
            tracing::warn!("{notice}");
        }
        let mut config = loaded.config;
        if loaded.made_up_key {
            config.http_api.key.clone_from(&self.config.http_api.key);
        }
        for path in need_restart(&self.config, &config) {
            tracing::warn!("{path} has another value now, which takes effect with the next start");
        }
        let changed = self.apply(&config);
        self.reloads.count(true);
        tracing::info!(?changed, "reloaded");
    }

    /// Gives new rules for channels to everybody who goes by them. Answers what has changed.
    fn apply(&self, config: &Config) -> Vec<String> {
        let before = Arc::clone(&self.settings.borrow());
        let changed = changed_channels(&before.channels.0, &config.channel);
        if changed.is_empty() {
            return changed;
        }
        let mut settings = Settings { channels: ChannelRules(config.channel.clone()), ..Settings::clone(&before) };
        settings.limits.channel_length = config.channel.max_length;
        let settings = Arc::new(settings);
        self.settings.send_replace(Arc::clone(&settings));
        for inbox in self.inboxes.iter() {
            inbox.send(Message::Reload(Arc::clone(&settings)));
        }
        changed
    }
}
