//! What the Redis broker needs to know, with the defaults.

use std::time::Duration;

use bytes::Bytes;
use fred::types::config::{Config, Server, ServerConfig};

/// Where Redis is and how to deal with it.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://[user[:password]@]host[:port][/db]`, or only `host[:port]`. User and password are percent-encoded.
    pub url: String,
    /// The user; takes precedence over the URL's.
    pub user: Option<String>,
    /// The password; takes precedence over the URL's.
    pub password: Option<String>,
    /// The database; takes precedence over the URL's. Publish and subscribe know no databases; it matters to what keeps
    /// keys.
    pub db: Option<u8>,
    /// What stands before a channel's name in Redis. Default `push:`.
    pub prefix: String,
    /// How long connecting may take. Default 1 s.
    pub connect_timeout: Duration,
    /// How long an answer may take. Default 4 s.
    pub io_timeout: Duration,
    /// The longest payload that is accepted, in bytes. Default 1 MiB.
    pub max_payload: usize,
    /// The delay before the first attempt to reconnect, cut by up to half at random. Default 100 ms.
    pub reconnect_first: Duration,
    /// The delay up to which it doubles. Default 5 s.
    pub reconnect_longest: Duration,
    /// After how long without anything read a PING is sent. Default 5 s; without an answer the connection is given up
    /// [`RedisSettings::io_timeout`] later.
    pub probe_interval: Duration,
    /// How long a channel stays subscribed after its last subscriber. Default 1 s.
    pub grace: Duration,
    /// The number of channels in one SUBSCRIBE or UNSUBSCRIBE. Default 512.
    pub subscribe_batch: usize,
    /// The number of publishes that may wait; more are refused. Default 8192.
    pub max_queued_publishes: usize,
    /// How long the clients of a node count as present after it was last heard of. Default 60 s; whole seconds.
    pub presence_ttl: Duration,
    /// How often a node says of a channel with presence that it lives; well below [`RedisSettings::presence_ttl`]. Default 27 s.
    pub presence_update_interval: Duration,
}

impl RedisSettings {
    /// The defaults for this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user: None,
            password: None,
            db: None,
            prefix: "push:".to_owned(),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
            max_payload: 1024 * 1024,
            reconnect_first: Duration::from_millis(100),
            reconnect_longest: Duration::from_secs(5),
            probe_interval: Duration::from_secs(5),
            grace: Duration::from_secs(1),
            subscribe_batch: 512,
            max_queued_publishes: 8192,
            presence_ttl: Duration::from_secs(60),
            presence_update_interval: Duration::from_secs(27),
        }
    }

    /// A channel's name in Redis.
    pub(crate) fn key(&self, channel: &str) -> Bytes {
        format!("{}{channel}", self.prefix).into()
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The address cannot be read.
    #[error("the Redis address is not of the form redis://[user[:password]@]host[:port][/db]: {0}")]
    Address(String),
    /// The address asks for something that is not supported.
    #[error("Redis addresses with {0}: are not supported yet, only redis:")]
    Scheme(String),
    /// A number that must not be zero is.
    #[error("{0} must not be zero")]
    Zero(&'static str),
}

/// One Redis server and who we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: Option<u8>,
}

impl Endpoint {
    /// The server that the settings name, after a check of the settings.
    pub(crate) fn new(settings: &RedisSettings) -> Result<Self, SettingsError> {
        let zero = [
            ("connect_timeout", settings.connect_timeout.is_zero()),
            ("io_timeout", settings.io_timeout.is_zero()),
            ("probe_interval", settings.probe_interval.is_zero()),
            ("reconnect_first", settings.reconnect_first.is_zero()),
            ("presence_ttl", settings.presence_ttl.is_zero()),
            ("presence_update_interval", settings.presence_update_interval.is_zero()),
            ("max_payload", settings.max_payload == 0),
            ("subscribe_batch", settings.subscribe_batch == 0),
            ("max_queued_publishes", settings.max_queued_publishes == 0),
        ];
        if let Some((name, _)) = zero.into_iter().find(|(_, zero)| *zero) {
            return Err(SettingsError::Zero(name));
        }
        let url = match settings.url.split_once("://") {
            Some(("redis", _)) => settings.url.clone(),
            Some((scheme, _)) => return Err(SettingsError::Scheme(scheme.to_owned())),
            None => format!("redis://{}", settings.url),
        };
        // The error's details could quote the password, its kind cannot.
        let config = Config::from_url_centralized(&url)
            .map_err(|error| SettingsError::Address(error.kind().to_str().to_owned()))?;
        let ServerConfig::Centralized { server: Server { host, port, .. } } = config.server else {
            return Err(SettingsError::Address("it names more than one server".to_owned()));
        };
        Ok(Self {
            host: host.to_string(),
            port,
            user: settings.user.clone().or(config.username),
            password: settings.password.clone().or(config.password),
            db: settings.db.or(config.database),
        })
    }
}

impl std::fmt::Display for Endpoint {
    /// The address without credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint, SettingsError> {
        Endpoint::new(&RedisSettings::new(url))
    }

    #[test]
    fn an_address_may_hold_everything_or_only_a_host() {
        let full = endpoint("redis://me:p%40ss@cache.example:7000/3").unwrap();
        assert_eq!(full.to_string(), "cache.example:7000");
        assert_eq!((full.user.as_deref(), full.password.as_deref(), full.db), (Some("me"), Some("p@ss"), Some(3)));
        let short = endpoint("cache.example").unwrap();
        assert_eq!((short.to_string().as_str(), short.user, short.db), ("cache.example:6379", None, None));
        assert_eq!(endpoint("127.0.0.1:7000").unwrap().port, 7000);
        assert_eq!(endpoint("redis://:secret@localhost").unwrap().password.as_deref(), Some("secret"));
    }

    #[test]
    fn settings_of_their_own_take_precedence_over_the_address() {
        let mut settings = RedisSettings::new("redis://me:old@localhost/1");
        settings.password = Some("new".to_owned());
        settings.db = Some(2);
        let endpoint = Endpoint::new(&settings).unwrap();
        assert_eq!((endpoint.user.as_deref(), endpoint.password.as_deref()), (Some("me"), Some("new")));
        assert_eq!(endpoint.db, Some(2));
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_says_why() {
        assert_eq!(endpoint("rediss://localhost"), Err(SettingsError::Scheme("rediss".to_owned())));
        assert!(matches!(endpoint("redis://localhost:notaport"), Err(SettingsError::Address(_))));
        let mut settings = RedisSettings::new("localhost");
        settings.subscribe_batch = 0;
        assert_eq!(Endpoint::new(&settings), Err(SettingsError::Zero("subscribe_batch")));
    }
}
