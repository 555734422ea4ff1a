//! Channels: how their names are read, and the options of each namespace.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use tidegate_broadcaster::Retention;

use crate::config::units;

/// `channel`: names and namespaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelConfig {
    /// Longest channel name, in bytes.
    pub max_length: usize,
    /// A name that begins with this is private: subscribing takes a token. Empty is none.
    pub private_prefix: String,
    /// What stands between the namespace and the rest of a name. Empty is no namespaces.
    pub namespace_boundary: String,
    /// What stands before the list of users in a user-limited channel's name.
    pub user_boundary: String,
    /// What stands between two users in that list.
    pub user_separator: String,
    /// How long a channel's position is remembered, unless its namespace says otherwise.
    #[serde(with = "units::duration")]
    pub history_meta_ttl: Duration,
    /// Options of channels without a namespace.
    pub without_namespace: ChannelOptions,
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            max_length: 255,
            private_prefix: "$".to_owned(),
            namespace_boundary: ":".to_owned(),
            user_boundary: "#".to_owned(),
            user_separator: ",".to_owned(),
            history_meta_ttl: Duration::from_secs(720 * 3600),
            without_namespace: ChannelOptions::default(),
            namespaces: Vec::new(),
        }
    }
}

impl ChannelConfig {
    /// The options that hold for `channel`, with the part of its name that `channel_regex` is matched
    /// against (all behind the namespace); `None` when its namespace does not exist.
    ///
    /// A leading private prefix belongs neither to the namespace nor to that part.
    pub fn resolve<'c, 'n>(&'c self, channel: &'n str) -> Option<(&'c ChannelOptions, &'n str)> {
        let name = match self.private_prefix.as_str() {
            "" => channel,
            prefix => channel.strip_prefix(prefix).unwrap_or(channel),
        };
        let split = match self.namespace_boundary.as_str() {
            "" => None,
            boundary => name.split_once(boundary),
        };
        let Some((namespace, rest)) = split else {
            return Some((&self.without_namespace, name));
        };
        let found = self.namespaces.iter().find(|candidate| candidate.name == namespace)?;
        Some((&found.options, rest))
    }

    /// How long a position is remembered where these options hold.
    pub fn meta_ttl(&self, options: &ChannelOptions) -> Duration {
        let own = options.history_meta_ttl;
        if own.is_zero() { self.history_meta_ttl } else { own }.max(options.history_ttl)
    }

    /// What a channel keeps where these options hold; `None`: nothing.
    pub fn retention(&self, options: &ChannelOptions) -> Option<Retention> {
        let (size, ttl) = (options.history_size, options.history_ttl);
        (size > 0 && !ttl.is_zero()).then(|| Retention { size, ttl, meta_ttl: self.meta_ttl(options) })
    }
}

/// One entry of `channel.namespaces`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Namespace {
    /// What stands before the boundary in the names of its channels.
    pub name: String,
    /// Its options.
    #[serde(flatten)]
    pub options: ChannelOptions,
}

/// What clients may do in a channel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelOptions {
    /// Every client with a user id may subscribe.
    pub allow_subscribe_for_client: bool,
    /// With it, anonymous clients as well.
    pub allow_subscribe_for_anonymous: bool,
    /// Every client with a user id may publish.
    pub allow_publish_for_client: bool,
    /// With either of its companions, anonymous clients as well.
    pub allow_publish_for_anonymous: bool,
    /// A client may publish while it is subscribed.
    pub allow_publish_for_subscriber: bool,
    /// Only channels whose name (behind the namespace) matches exist; `None` (an empty string) is every one.
    #[serde(with = "optional_regex")]
    pub channel_regex: Option<ChannelRegex>,
    /// What a publication's data must be.
    pub publication_data_format: DataFormat,
    /// Clients may ask for publications with certain tags only.
    pub allow_tags_filter: bool,
    /// What becomes of publications that a slow session has not taken.
    pub queue_policy: QueuePolicy,
    /// A channel remembers who is in it.
    pub presence: bool,
    /// A channel tells who comes and goes to subscribers who ask for it.
    pub join_leave: bool,
    /// To all of them.
    pub force_push_join_leave: bool,
    /// Every client with a user id may ask who is in a channel, and be told who comes and goes.
    pub allow_presence_for_client: bool,
    /// A client may while it is subscribed.
    pub allow_presence_for_subscriber: bool,
    /// With either of the two, anonymous clients as well.
    pub allow_presence_for_anonymous: bool,
    /// Publications that a channel keeps; 0 is none.
    pub history_size: u32,
    /// How long they are kept after the last one; zero is no history.
    #[serde(with = "units::duration")]
    pub history_ttl: Duration,
    /// How long the position is remembered; zero is `channel.history_meta_ttl`.
    #[serde(with = "units::duration")]
    pub history_meta_ttl: Duration,
    /// Every subscription's position is watched.
    pub force_positioning: bool,
    /// It is watched where the client asks for it.
    pub allow_positioning: bool,
    /// Every subscription can recover what it missed.
    pub force_recovery: bool,
    /// It can where the client asks for it.
    pub allow_recovery: bool,
    /// What is recovered.
    pub force_recovery_mode: RecoveryMode,
    /// In the mode `cache`, every subscription recovers, whether the client asks for it or not.
    pub auto_cache_recover: bool,
    /// Kinds of deltas that clients may ask for: `fossil`, or none.
    pub allowed_delta_types: Vec<String>,
    /// Publications may be sent as deltas, whether their publisher says so or not.
    pub delta_publish: bool,
    /// Every client with a user id may ask for history.
    pub allow_history_for_client: bool,
    /// A client may ask while it is subscribed.
    pub allow_history_for_subscriber: bool,
    /// With either of the two, anonymous clients as well.
    pub allow_history_for_anonymous: bool,
}

impl ChannelOptions {
    /// Whether subscriptions are the same under other options. What counts anew with each publication or question makes no
    /// difference.
    pub fn subscribes_alike(&self, other: &Self) -> bool {
        let given_once = |options: &Self| Self {
            allow_publish_for_client: false,
            allow_publish_for_anonymous: false,
            allow_publish_for_subscriber: false,
            publication_data_format: DataFormat::default(),
            // Whether something is kept makes a difference, and how much does not.
            history_size: u32::from(options.history_size > 0 && !options.history_ttl.is_zero()),
            history_ttl: Duration::ZERO,
            history_meta_ttl: Duration::ZERO,
            delta_publish: false,
            ..options.clone()
        };
        self == other || given_once(self) == given_once(other)
    }
}

/// The kind of delta that there is.
pub const DELTA_FOSSIL: &str = "fossil";

/// What becomes of publications that a slow session has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum QueuePolicy {
    /// They wait; a session with more than `client.queue_max_size` is closed with 3008.
    #[default]
    #[serde(rename = "", alias = "disconnect")]
    Disconnect,
    /// They wait; beyond that size the oldest are dropped.
    #[serde(rename = "drop_oldest")]
    DropOldest,
    /// The newest of each channel waits, and takes the place of the one before it.
    #[serde(rename = "latest")]
    Latest,
}

/// What a subscription recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RecoveryMode {
    /// All that it missed.
    #[default]
    #[serde(rename = "", alias = "stream")]
    Stream,
    /// The newest publication.
    #[serde(rename = "cache")]
    Cache,
}

/// What the data of a publication must be; a publish with other data gets error 107.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DataFormat {
    /// Anything but nothing: empty data is refused.
    #[default]
    #[serde(rename = "")]
    NotEmpty,
    /// Valid JSON.
    #[serde(rename = "json")]
    Json,
    /// Any bytes, or none.
    #[serde(rename = "binary")]
    Binary,
}

/// A compiled regular expression, equal to another one with the same source.
#[derive(Debug, Clone)]
pub struct ChannelRegex(regex_lite::Regex);

impl ChannelRegex {
    /// Compiles.
    ///
    /// # Errors
    /// What is wrong with the expression, for a person.
    pub fn new(source: &str) -> Result<Self, String> {
        regex_lite::Regex::new(source).map(Self).map_err(|error| error.to_string())
    }

    /// Whether it matches somewhere in `text`; anchor it with `^` and `$` for all of it.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for ChannelRegex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// Serde for a regular expression that may be missing, written as an empty string.
mod optional_regex {
    use super::{ChannelRegex, Deserialize, Deserializer, Error, Serializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ChannelRegex>, D::Error> {
        let source = String::deserialize(deserializer)?;
        if source.is_empty() { Ok(None) } else { ChannelRegex::new(&source).map(Some).map_err(D::Error::custom) }
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<ChannelRegex>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_ref().map_or("", ChannelRegex::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_another_one_where_it_would_be_given_something_else() {
        let options =
            ChannelOptions { history_size: 10, history_ttl: Duration::from_secs(1), ..ChannelOptions::default() };
        let alike = |other: &ChannelOptions| options.subscribes_alike(other);
        assert!(alike(&ChannelOptions { history_size: 20, allow_publish_for_client: true, ..options.clone() }));
        assert!(!alike(&ChannelOptions { history_size: 0, ..options.clone() }), "nothing is kept any more");
        assert!(!alike(&ChannelOptions { force_recovery: true, ..options.clone() }));
        assert!(!alike(&ChannelOptions { allow_subscribe_for_client: true, ..options.clone() }));
        assert!(!alike(&ChannelOptions { queue_policy: QueuePolicy::Latest, ..options.clone() }));
    }

    #[test]
    fn a_channel_finds_the_options_of_its_namespace() {
        let mut config = ChannelConfig::default();
        let options = ChannelOptions { allow_subscribe_for_client: true, ..ChannelOptions::default() };
        config.namespaces = vec![Namespace { name: "chat".to_owned(), options: options.clone() }];

        assert_eq!(config.resolve("chat:lobby"), Some((&options, "lobby")));
        assert_eq!(config.resolve("$chat:lobby"), Some((&options, "lobby")), "the private prefix is no part of it");
        assert_eq!(config.resolve("chat:a:b"), Some((&options, "a:b")), "the first boundary counts");
        assert_eq!(config.resolve("news"), Some((&ChannelOptions::default(), "news")));
        assert_eq!(config.resolve("games:1"), None, "an unknown namespace");

        config.namespace_boundary = String::new();
        assert_eq!(config.resolve("games:1"), Some((&ChannelOptions::default(), "games:1")), "no namespaces at all");
    }
}
