//! What the Redis broker needs to know, with the defaults.

use std::time::Duration;

use bytes::Bytes;
use fred::types::config::{Config, Server, ServerConfig};

use super::topology::MAX_LANES;

/// Where Redis listens unless told otherwise.
const REDIS_PORT: u16 = 6379;

/// Where a Sentinel does.
const SENTINEL_PORT: u16 = 26_379;

/// Where Redis is and how to deal with it.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where Redis is.
    pub servers: Servers,
    /// The user; takes precedence over the URL's.
    pub user: Option<String>,
    /// The password; takes precedence over the URL's.
    pub password: Option<String>,
    /// The database; takes precedence over the URL's. Publish and subscribe know no databases; it matters to what keeps
    /// keys.
    pub db: Option<u8>,
    /// Whether a cluster is subscribed to and published to with sharded pub/sub (`SSUBSCRIBE`, `SPUBLISH`). Without a
    /// cluster it does not count. Default true.
    pub sharded: bool,
    /// How often Sentinels or the cluster are asked for their servers though nothing speaks for a change, cut by up to
    /// half at random. Default 5 s.
    pub topology_interval: Duration,
    /// The largest number of masters of a cluster that are connected to, at most 255. Each has a connection for each
    /// shard and one for commands. Default 32.
    pub max_masters: usize,
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
    /// The age, by Redis' clock and this machine's, above which a publication of a history is late when it comes
    /// ([`crate::Publication::is_late`]). Default none: their age is not looked at.
    pub max_time_lag: Option<Duration>,
    /// How long the clients of a node count as present after it was last heard of. Default 60 s; whole seconds.
    pub presence_ttl: Duration,
    /// How often a node says of a channel with presence that it lives; well below [`RedisSettings::presence_ttl`]. Default 27 s.
    pub presence_update_interval: Duration,
}

/// Where Redis is. An address is `redis://[user[:password]@]host[:port][/db]`, or only `host[:port]`; user and password
/// are percent-encoded.
#[derive(Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    One(String),
    /// A cluster.
    Cluster {
        /// Addresses of some of its nodes: the first that knows all slots tells of all the others. User and password of
        /// the first count for every node. At least one.
        seeds: Vec<String>,
    },
    /// The master that Sentinels name.
    Sentinel {
        /// Addresses of the Sentinels, whose user and password are for the Sentinels themselves. At least one.
        sentinels: Vec<String>,
        /// The name under which they watch the master.
        master: String,
        /// The user for the Sentinels; takes precedence over the addresses'.
        user: Option<String>,
        /// The password for the Sentinels; takes precedence over the addresses'.
        password: Option<String>,
    },
}

impl std::fmt::Debug for Servers {
    /// Leaves the addresses out, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::One(_) => "One",
            Self::Cluster { .. } => "Cluster",
            Self::Sentinel { .. } => "Sentinel",
        })
    }
}

impl RedisSettings {
    /// The defaults for one server at this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self::with_servers(Servers::One(url.into()))
    }

    /// The defaults for these servers.
    pub fn with_servers(servers: Servers) -> Self {
        Self {
            servers,
            sharded: true,
            topology_interval: Duration::from_secs(5),
            max_masters: 32,
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
            max_time_lag: None,
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
    /// There is no address of a Sentinel or of a node of the cluster.
    #[error("no address is given of {0}")]
    NoAddress(&'static str),
    /// Sentinels are asked for a master by its name.
    #[error("the name of the master is missing that the Sentinels watch")]
    NoMasterName,
    /// More lanes than there are numbers for.
    #[error("max_masters is {0}; at most 255 are possible")]
    TooManyMasters(usize),
    /// A cluster has one database, number 0.
    #[error("a cluster has no databases but number 0, and {0} is asked for")]
    ClusterDatabase(u8),
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

/// Where to begin to look for servers, after a check of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    One(Endpoint),
    Cluster(Vec<Endpoint>),
    Sentinel {
        sentinels: Vec<Endpoint>,
        master: String,
        /// Who we are at the master; its host is not known yet.
        login: Endpoint,
    },
}

impl Start {
    /// Reads the addresses and checks the settings.
    pub(crate) fn new(settings: &RedisSettings) -> Result<Self, SettingsError> {
        check(settings)?;
        let login = Login { user: settings.user.clone(), password: settings.password.clone(), db: settings.db };
        match &settings.servers {
            Servers::One(url) => Ok(Self::One(Endpoint::read(url, &login)?)),
            Servers::Cluster { seeds } => {
                let first = seeds.first().ok_or(SettingsError::NoAddress("a node of the cluster"))?;
                let first = Endpoint::read(first, &login)?;
                if let Some(db) = first.db.filter(|db| *db > 0) {
                    return Err(SettingsError::ClusterDatabase(db));
                }
                let read = |url: &String| Endpoint::read(url, &login).map(|seed| first.at(seed.host, seed.port));
                Ok(Self::Cluster(seeds.iter().map(read).collect::<Result<_, _>>()?))
            }
            Servers::Sentinel { sentinels, master, user, password } => {
                if sentinels.is_empty() {
                    return Err(SettingsError::NoAddress("a Sentinel"));
                }
                if master.is_empty() {
                    return Err(SettingsError::NoMasterName);
                }
                let theirs = Login { user: user.clone(), password: password.clone(), db: None };
                let read = |url: &String| Endpoint::read_with_port(url, &theirs, SENTINEL_PORT);
                let login =
                    Endpoint { host: String::new(), port: 0, user: login.user, password: login.password, db: login.db };
                let sentinels = sentinels.iter().map(read).collect::<Result<_, _>>()?;
                Ok(Self::Sentinel { sentinels, master: master.clone(), login })
            }
        }
    }
}

/// Numbers that must be within their bounds.
fn check(settings: &RedisSettings) -> Result<(), SettingsError> {
    let zero = [
        ("connect_timeout", settings.connect_timeout.is_zero()),
        ("io_timeout", settings.io_timeout.is_zero()),
        ("probe_interval", settings.probe_interval.is_zero()),
        ("reconnect_first", settings.reconnect_first.is_zero()),
        ("topology_interval", settings.topology_interval.is_zero()),
        ("presence_ttl", settings.presence_ttl.is_zero()),
        ("presence_update_interval", settings.presence_update_interval.is_zero()),
        ("max_masters", settings.max_masters == 0),
        ("max_payload", settings.max_payload == 0),
        ("subscribe_batch", settings.subscribe_batch == 0),
        ("max_queued_publishes", settings.max_queued_publishes == 0),
    ];
    if let Some((name, _)) = zero.into_iter().find(|(_, zero)| *zero) {
        return Err(SettingsError::Zero(name));
    }
    if settings.max_masters > MAX_LANES {
        return Err(SettingsError::TooManyMasters(settings.max_masters));
    }
    Ok(())
}

/// What takes precedence over an address.
struct Login {
    user: Option<String>,
    password: Option<String>,
    db: Option<u8>,
}

impl Endpoint {
    fn read(url: &str, login: &Login) -> Result<Self, SettingsError> {
        Self::read_with_port(url, login, REDIS_PORT)
    }

    /// Reads an address that may leave out its port.
    fn read_with_port(address: &str, login: &Login, default_port: u16) -> Result<Self, SettingsError> {
        let url = match address.split_once("://") {
            Some(("redis", _)) => address.to_owned(),
            Some((scheme, _)) => return Err(SettingsError::Scheme(scheme.to_owned())),
            None => format!("redis://{address}"),
        };
        // The error's details could quote the password, its kind cannot.
        let config = Config::from_url_centralized(&url)
            .map_err(|error| SettingsError::Address(error.kind().to_str().to_owned()))?;
        let ServerConfig::Centralized { server: Server { host, port, .. } } = config.server else {
            return Err(SettingsError::Address("it names more than one server".to_owned()));
        };
        // fred puts Redis' own port where there is none.
        let names_port = url.ends_with(&format!(":{port}")) || url.contains(&format!(":{port}/"));
        Ok(Self {
            host: host.to_string(),
            port: if names_port { port } else { default_port },
            user: login.user.clone().or(config.username),
            password: login.password.clone().or(config.password),
            db: login.db.or(config.database),
        })
    }

    /// Another server, where we are who we are here.
    pub(crate) fn at(&self, host: String, port: u16) -> Self {
        Self { host, port, ..self.clone() }
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
        one(&RedisSettings::new(url))
    }

    fn one(settings: &RedisSettings) -> Result<Endpoint, SettingsError> {
        match Start::new(settings)? {
            Start::One(endpoint) => Ok(endpoint),
            other => panic!("{other:?}"),
        }
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
        let endpoint = one(&settings).unwrap();
        assert_eq!((endpoint.user.as_deref(), endpoint.password.as_deref()), (Some("me"), Some("new")));
        assert_eq!(endpoint.db, Some(2));
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_says_why() {
        assert_eq!(endpoint("rediss://localhost"), Err(SettingsError::Scheme("rediss".to_owned())));
        assert!(matches!(endpoint("redis://localhost:notaport"), Err(SettingsError::Address(_))));
        let mut settings = RedisSettings::new("localhost");
        settings.subscribe_batch = 0;
        assert_eq!(Start::new(&settings), Err(SettingsError::Zero("subscribe_batch")));
        let mut settings = RedisSettings::new("localhost");
        settings.max_masters = 256;
        assert_eq!(Start::new(&settings), Err(SettingsError::TooManyMasters(256)));
    }

    #[test]
    fn every_node_of_a_cluster_is_logged_in_to_as_the_first_seed() {
        let seeds = ["redis://me:secret@a", "b:7001"].map(str::to_owned).to_vec();
        let settings = |seeds| RedisSettings::with_servers(Servers::Cluster { seeds });
        let Ok(Start::Cluster(found)) = Start::new(&settings(seeds)) else { panic!("a cluster") };
        assert_eq!((found[1].to_string().as_str(), found[1].user.as_deref()), ("b:7001", Some("me")));
        assert_eq!(Start::new(&settings(vec![])), Err(SettingsError::NoAddress("a node of the cluster")));
        let database = vec!["redis://a/3".to_owned()];
        assert_eq!(Start::new(&settings(database)), Err(SettingsError::ClusterDatabase(3)));
    }

    #[test]
    fn sentinels_have_a_port_and_a_login_of_their_own() {
        let servers = |sentinels: &[&str], master: &str| Servers::Sentinel {
            sentinels: sentinels.iter().map(|&sentinel| sentinel.to_owned()).collect(),
            master: master.to_owned(),
            user: None,
            password: Some("theirs".to_owned()),
        };
        let mut settings = RedisSettings::with_servers(servers(&["a", "b:5000"], "mymaster"));
        settings.password = Some("ours".to_owned());
        let Ok(Start::Sentinel { sentinels, login, .. }) = Start::new(&settings) else { panic!("Sentinels") };
        assert_eq!((sentinels[0].to_string().as_str(), sentinels[1].port), ("a:26379", 5000));
        assert_eq!(sentinels[0].password.as_deref(), Some("theirs"));
        assert_eq!(login.password.as_deref(), Some("ours"));
        settings.servers = servers(&["a"], "");
        assert_eq!(Start::new(&settings), Err(SettingsError::NoMasterName));
        settings.servers = servers(&[], "mymaster");
        assert_eq!(Start::new(&settings), Err(SettingsError::NoAddress("a Sentinel")));
    }
}
