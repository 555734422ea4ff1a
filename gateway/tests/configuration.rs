//! The configuration: what is read, in which order, and what each error says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::config::keys::{Status, table, variable_of};
use tidegate::config::settings::Settings;
use tidegate::config::source::FileLayer;
use tidegate::config::{Config, DataFormat, EngineType, Flag, Loaded, LogLevel, Sources, load, print};

/// A directory of this test's own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn with(self, name: &str, text: &str) -> Self {
        std::fs::write(self.0.join(name), text).unwrap();
        self
    }

    fn sources(&self) -> Sources {
        Sources { directory: self.0.clone(), ..Sources::default() }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What is wrong with a file of this name and text; paths are cut down to the file's name.
fn problems_of(name: &str, text: &str) -> Vec<String> {
    let directory = Directory::new().with(name, text);
    let prefix = format!("{}/", directory.0.display());
    let sources = Sources { file: Some(directory.0.join(name)), ..Sources::default() };
    let problems = load(&sources).expect_err("a problem").problems;
    problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

fn loaded(name: &str, text: &str) -> Loaded {
    let directory = Directory::new().with(name, text);
    load(&directory.sources()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn nothing_set_gives_the_defaults() {
    let directory = Directory::new();
    let loaded = load(&directory.sources()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.file, None);
    assert_eq!(loaded.config.http_server.listen().to_string(), "0.0.0.0:8000");
    assert_eq!(loaded.config.http_server.internal_listen().to_string(), "127.0.0.1:9000");
    assert_eq!(loaded.config.tcp_server.listen().unwrap().to_string(), "0.0.0.0:8001");
}

#[test]
fn the_key_table_and_the_types_list_the_same_keys() {
    fn leaves(path: &str, value: &serde_json::Value, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    leaves(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, out);
                }
            }
            _ => out.push(path.to_owned()),
        }
    }
    let mut in_types = Vec::new();
    leaves("", &serde_json::to_value(Config::default()).unwrap(), &mut in_types);
    leaves(
        "channel.namespaces[]",
        &serde_json::to_value(tidegate::config::Namespace::default()).unwrap(),
        &mut in_types,
    );
    in_types.retain(|path| path != "channel.namespaces");
    in_types.sort();
    let mut in_table: Vec<String> =
        table().iter().filter(|key| key.status.is_implemented()).map(|key| key.path.clone()).collect();
    in_table.sort();
    assert_eq!(in_table, in_types);
}

#[test]
fn every_key_stands_once_in_the_table_and_every_variable_means_one_key() {
    let mut paths: Vec<&str> = table().iter().map(|key| key.path.as_str()).collect();
    paths.sort_unstable();
    let doubled: Vec<_> = paths.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert_eq!(doubled, Vec::<&[&str]>::new());
    for key in table().iter().filter(|key| !key.path.contains("[]")) {
        assert_eq!(table().of_variable(&variable_of(&key.path)), Some(key.path.as_str()));
    }
}

#[test]
fn every_default_is_a_value_that_its_key_takes() {
    for key in table().iter().filter(|key| key.status.is_implemented() && key.name() != "name") {
        assert_eq!(key.kind.read(&key.default), Ok(key.default.clone()), "{}", key.path);
        assert!(!key.what.is_empty(), "{} has no explanation", key.path);
    }
    for key in table().iter().filter(|key| !key.status.is_implemented()) {
        assert!(!key.default.is_null(), "{}: the default in the table is no JSON", key.path);
    }
}

#[test]
fn default_config_holds_every_key_and_loading_it_changes_nothing() {
    let text = print::default_config();
    let layer = FileLayer::parse(&Arc::from("default.toml"), &text).unwrap();
    let mut settings = Settings::new(false);
    settings.add(&layer.tree, &|path| layer.origin(path));
    assert_eq!(settings.problems, []);
    let set: Vec<&str> = settings.iter().map(|(path, _)| path).collect();
    for key in table().iter().filter(|key| key.status.is_implemented() && !key.path.contains("[]")) {
        assert!(set.contains(&key.path.as_str()), "{} is missing", key.path);
        assert!(text.contains(&format!("# {}\n{} = ", key.what, key.name())), "{} has no comment", key.path);
    }
    assert_eq!(settings.to_config().unwrap(), Config::default());
    assert_eq!(loaded("tidegate.toml", &text).config, Config::default());
}

#[test]
fn the_formats_say_the_same() {
    let toml = "shards = 2\n[client]\nallowed_origins = [\"https://a.example\"]\nping_interval = \"30s\"\n\
                [[channel.namespaces]]\nname = \"chat\"\nallow_subscribe_for_client = true\n";
    let yaml = "shards: 2\nclient:\n  allowed_origins: [\"https://a.example\"]\n  ping_interval: 30s\n\
                channel:\n  namespaces:\n    - name: chat\n      allow_subscribe_for_client: true\n";
    let json = r#"{"shards": 2, "client": {"allowed_origins": ["https://a.example"], "ping_interval": "30s"},
                  "channel": {"namespaces": [{"name": "chat", "allow_subscribe_for_client": true}]}}"#;
    let from_toml = loaded("tidegate.toml", toml).config;
    assert_eq!(from_toml.shards, 2);
    assert_eq!(from_toml.client.ping_interval, Duration::from_secs(30));
    let (options, _) = from_toml.channel.resolve("chat:1").unwrap();
    assert!(options.allow_subscribe_for_client && !options.allow_publish_for_client);
    assert_eq!(loaded("tidegate.yaml", yaml).config, from_toml);
    assert_eq!(loaded("tidegate.yml", yaml).config, from_toml);
    assert_eq!(loaded("tidegate.json", json).config, from_toml);
}

#[test]
fn an_empty_file_sets_nothing() {
    for (name, text) in [("tidegate.toml", ""), ("tidegate.yaml", "client:\n"), ("tidegate.json", "{}")] {
        assert_eq!(loaded(name, text).config, Config::default(), "{name}");
    }
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let directory = Directory::new().with(
        "tidegate.toml",
        "shards = 1\n[http_server]\nport = 1\n[log]\nlevel = \"warn\"\n[[channel.namespaces]]\nname = \"old\"\n",
    );
    let sources = Sources {
        variables: variables(&[
            ("TIDEGATE_SHARDS", "2"),
            ("TIDEGATE_HTTP_SERVER_PORT", "2"),
            ("TIDEGATE_CLIENT_ALLOWED_ORIGINS", r#"["https://a.example", "https://b.example"]"#),
            ("TIDEGATE_CLIENT_INSECURE", "true"),
            ("TIDEGATE_ENGINE_TYPE", "redis"),
            ("TIDEGATE_ENGINE_REDIS_ADDRESS", "cache:6379"),
            ("TIDEGATE_MEMORY_LIMIT", "1GiB"),
            ("TIDEGATE_CHANNEL_NAMESPACES", r#"[{"name": "new", "publication_data_format": "binary"}]"#),
            ("TIDEGATE_CHANNEL_WITHOUT_NAMESPACE", r#"{"allow_publish_for_client": true}"#),
            ("TIDEGATE_NODE_NAME", ""),
            ("HOME", "/"),
        ]),
        flags: vec![Flag { flag: "--shards", path: "shards", value: 3.into() }],
        ..directory.sources()
    };
    let config = load(&sources).unwrap_or_else(|problems| panic!("{problems}")).config;
    assert_eq!((config.shards, config.http_server.port, config.log.level), (3, 2, LogLevel::Warn));
    assert_eq!(config.client.allowed_origins, ["https://a.example", "https://b.example"]);
    assert!(config.client.insecure && config.channel.without_namespace.allow_publish_for_client);
    assert_eq!((config.engine.kind, config.memory.limit), (EngineType::Redis, 1 << 30));
    assert_eq!(config.engine.redis.address, ["redis://cache:6379"]);
    assert_eq!(config.channel.namespaces.len(), 1, "a list replaces the one before");
    assert_eq!(config.channel.namespaces[0].name, "new");
    assert_eq!(config.channel.namespaces[0].options.publication_data_format, DataFormat::Binary);
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_none_of_ours() {
    let sources = Sources {
        variables: variables(&[
            ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
            ("TIDEGATE_SERVICE_PORT", "8000"),
            ("TIDEGATE_SERVICE_PORT_HTTP", "8000"),
            ("TIDEGATE_PORT", "tcp://10.0.0.1:8000"),
            ("TIDEGATE_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("TIDEGATE_HTTP_SERVER_PORT", "tcp://10.0.0.1:8000"),
        ]),
        ..Directory::new().sources()
    };
    assert_eq!(load(&sources).unwrap().config, Config::default());
}

#[test]
fn dev_lets_everybody_in_on_loopback_only() {
    let sources = Sources { dev: true, ..Directory::new().sources() };
    let loaded = load(&sources).unwrap();
    let config = &loaded.config;
    assert!(config.http_server.listen().ip().is_loopback() && config.http_server.internal_listen().ip().is_loopback());
    assert!(config.tcp_server.listen().unwrap().ip().is_loopback());
    assert!(config.client.allow_anonymous_connect_without_token && config.demo.enabled);
    assert_eq!(config.client.allowed_origins, ["*"]);
    let options = &config.channel.without_namespace;
    assert!(options.allow_subscribe_for_client && options.allow_subscribe_for_anonymous);
    assert!(options.allow_publish_for_client && options.allow_publish_for_anonymous);
    assert_eq!((config.engine.kind, config.shutdown.drain), (EngineType::Memory, Duration::from_secs(1)));
    assert!(loaded.made_up_key && config.http_api.key.len() == 32);
    assert_ne!(load(&sources).unwrap().config.http_api.key, config.http_api.key, "each start has its own key");
}

#[test]
fn what_is_set_wins_over_dev() {
    let directory = Directory::new().with(
        "tidegate.toml",
        "[http_server]\naddress = \"\"\n[client]\nallowed_origins = [\"https://a.example\"]\n[shutdown]\ndrain = \"5s\"\n\
         [channel.without_namespace]\nallow_publish_for_client = false\nallow_publish_for_anonymous = false\n",
    );
    let sources = Sources {
        dev: true,
        variables: variables(&[("TIDEGATE_HTTP_API_KEY", "mine")]),
        flags: vec![
            Flag { flag: "--redis", path: "engine.type", value: "redis".into() },
            Flag { flag: "--redis", path: "engine.redis.address", value: serde_json::json!(["redis://r:1"]) },
        ],
        ..directory.sources()
    };
    let loaded = load(&sources).unwrap();
    assert!(loaded.config.http_server.listen().ip().is_unspecified());
    assert_eq!(loaded.config.client.allowed_origins, ["https://a.example"]);
    assert!(!loaded.config.channel.without_namespace.allow_publish_for_client);
    assert!(
        loaded.config.channel.without_namespace.allow_subscribe_for_client,
        "what is not set stays as --dev has it"
    );
    assert_eq!(loaded.config.shutdown.drain, Duration::from_secs(5));
    assert_eq!((loaded.config.engine.kind, loaded.config.http_api.key.as_str()), (EngineType::Redis, "mine"));
    assert!(!loaded.made_up_key);
}

#[test]
fn unset_times_follow_those_that_are_set() {
    let config = loaded("tidegate.toml", "[shutdown]\ntimeout = \"10s\"\n[client]\nping_interval = \"1m\"\n").config;
    assert_eq!(config.shutdown.drain, Duration::from_secs(10));
    assert_eq!(config.client.idle_timeout, Duration::from_secs(120));
}

#[test]
fn each_error_names_its_place_the_key_the_value_and_what_would_do() {
    // A file, and the only thing that is wrong with it.
    let cases = [
        ("shards = -1", "t.toml:1: shards = -1: expected a whole number from 0 to 1024"),
        (
            "[http_server]\nport = \"abc\"",
            "t.toml:2: http_server.port = \"abc\": expected a port: a number from 0 (any free one) to 65535",
        ),
        (
            "[http_server]\nport = 70000",
            "t.toml:2: http_server.port = 70000: expected a port: a number from 0 (any free one) to 65535",
        ),
        (
            "[http_server]\naddress = \"all\"",
            "t.toml:2: http_server.address = \"all\": expected an IP address, as 127.0.0.1, 0.0.0.0 or ::1",
        ),
        ("[client]\ninsecure = \"maybe\"", "t.toml:2: client.insecure = \"maybe\": expected true or false"),
        (
            "[client]\nping_interval = 25",
            "t.toml:2: client.ping_interval = 25: a duration needs a unit: write 25s or 25ms, or 1m30s",
        ),
        ("[client]\nping_interval = -1", "t.toml:2: client.ping_interval = -1: a duration can't be negative"),
        (
            "[client]\nping_interval = \"1ms\"",
            "t.toml:2: client.ping_interval = \"1ms\": expected a duration from 1s to 24h",
        ),
        (
            "[client]\nqueue_max_size = \"1XB\"",
            "t.toml:2: client.queue_max_size = \"1XB\": no size has the unit \"XB\": write bytes, or 64KiB, 1MiB, 2GiB",
        ),
        ("[client]\nqueue_max_size = 10", "t.toml:2: client.queue_max_size = 10: expected a size from 1KiB to 1GiB"),
        (
            "[client]\nallowed_origins = 5",
            "t.toml:2: client.allowed_origins = 5: expected a list of texts, as [\"https://example.com\"]",
        ),
        (
            "[log]\nlevel = \"loud\"",
            "t.toml:2: log.level = \"loud\": expected one of \"trace\", \"debug\", \"info\", \"warn\", \"error\", \"none\"",
        ),
        (
            "[memory]\nrefuse_at = 80",
            "t.toml:2: memory.refuse_at = 80: expected a share of the memory limit: above 0 and at most 1, as 0.85",
        ),
        (
            "[http_api]\nhandler_prefix = \"api\"",
            "t.toml:2: http_api.handler_prefix = \"api\": expected a path that begins with a slash and names something, as /connection/websocket",
        ),
        ("[http_api]\nkey = [\"secret\"]", "t.toml:2: http_api.key: expected a text"),
        ("client = 5", "t.toml:1: client: expected a table of keys"),
        ("[channel]\nnamespaces = { name = \"a\" }", "t.toml:2: channel.namespaces: expected a list of tables"),
        ("[channel]\nnamespaces = [\"chat\"]", "t.toml:2: channel.namespaces[0]: expected a table of keys"),
        // Keys.
        (
            "[client]\nping_intervall = \"5s\"",
            "t.toml:2: client.ping_intervall: there is no such key; did you mean client.ping_interval?",
        ),
        (
            "allowed_origins = []",
            "t.toml:1: allowed_origins: there is no such key; did you mean client.allowed_origins?",
        ),
        (
            "token_hmac_secret_key = \"x\"",
            "t.toml:1: token_hmac_secret_key: there is no such key; did you mean client.token.hmac_secret_key?",
        ),
        (
            "[[channel.namespaces]]\nname = \"ab\"\nalow_subscribe_for_client = true",
            "t.toml:3: channel.namespaces[0].alow_subscribe_for_client: there is no such key; did you mean channel.namespaces[].allow_subscribe_for_client?",
        ),
        ("[zebra]\nx = 1", "t.toml:1: zebra: there is no such key; `tidegate check-config` lists them all"),
        // Features that are not built.
        (
            "[client.token]\nhmac_secret_key = \"s3cret\"",
            "t.toml:2: client.token.hmac_secret_key: users and tokens (JWT) are not built yet; remove the key, or start with --skip-unsupported to do without it",
        ),
        (
            "[channel.without_namespace]\nhistory_size = 10",
            "t.toml:2: channel.without_namespace.history_size = 10: history and recovery are not built yet; remove the key, or start with --skip-unsupported to do without it",
        ),
        // Channels.
        (
            "[[channel.namespaces]]\nname = \"a b\"",
            "t.toml:2: channel.namespaces[0].name = \"a b\": expected a name of two or more letters, digits, '-', '_' or '.' (^[-a-zA-Z0-9_.]{2,}$)",
        ),
        (
            "[[channel.namespaces]]",
            "t.toml:1: channel.namespaces[0].name: is missing: every namespace needs a name, as name = \"chat\"",
        ),
        (
            "[[channel.namespaces]]\nname = \"ab\"\n[[channel.namespaces]]\nname = \"ab\"",
            "t.toml:4: channel.namespaces[1].name = \"ab\": is the name of channel.namespaces[0] already; give each namespace its own",
        ),
        (
            "[channel]\nnamespace_boundary = \".\"\n[[channel.namespaces]]\nname = \"a.b\"",
            "t.toml:4: channel.namespaces[0].name = \"a.b\": holds channel.namespace_boundary = \".\", so that no channel would be found in it; take another name or boundary",
        ),
        (
            "[channel.without_namespace]\nchannel_regex = \"[a\"",
            "t.toml:2: channel.without_namespace.channel_regex = \"[a\": no regular expression that Tidegate understands (",
        ),
        // Redis.
        (
            "[engine.redis]\naddress = [\"redis://a:1\", \"redis://:pw@b:1\"]",
            "t.toml:2: engine.redis.address = [\"redis://a:1\",\"redis://***@b:1\"]: expected exactly one address, as [\"redis://127.0.0.1:6379\"]: spreading channels over several Redis servers is not built yet",
        ),
        (
            "[engine.redis]\naddress = \"rediss://a:1\"",
            "t.toml:2: engine.redis.address = \"rediss://a:1\": TLS to Redis is not built yet: use redis://host:port",
        ),
        ("[engine]\ntype = \"nats\"", "t.toml:2: engine.type = \"nats\": expected one of \"memory\", \"redis\""),
        // Between keys.
        (
            "[client]\npong_timeout = \"30s\"",
            "t.toml:2: client.pong_timeout = \"30s\": must be less than client.ping_interval = \"25s\" (default); a pong has to come before the next ping",
        ),
        (
            "[client]\nping_interval = \"5s\"",
            "t.toml:2: client.ping_interval = \"5s\": must be more than client.pong_timeout = \"8s\" (default); a pong has to come before the next ping",
        ),
        (
            "[client]\nidle_timeout = \"20s\"",
            "t.toml:2: client.idle_timeout = \"20s\": must be more than client.ping_interval = \"25s\" (default); healthy sessions would be closed between two pongs: set 34s or more, or 0s for never",
        ),
        (
            "[memory]\nrefuse_at = 0.9",
            "t.toml:2: memory.refuse_at = 0.9: must be at most memory.evict_from = 0.85 (default); sessions would be closed while new ones are let in",
        ),
        (
            "[memory]\nevict_to = 0.85",
            "t.toml:2: memory.evict_to = 0.85: must be less than memory.evict_from = 0.85 (default); eviction has to go on until something is won",
        ),
        (
            "[shutdown]\ndrain = \"1m\"",
            "t.toml:2: shutdown.drain = \"1m\": must be at most shutdown.timeout = \"30s\" (default); the timeout cuts off what the drain has not reached",
        ),
        (
            "[tcp_server]\nport = 8000",
            "t.toml:2: tcp_server.port = 8000: must be other than http_server.port = 8000 (default); every listener needs a port of its own",
        ),
        (
            "[http_server]\nport = 9000",
            "t.toml:2: http_server.port = 9000: must be other than http_server.internal_port = 9000 (default); every listener needs a port of its own",
        ),
        (
            "[http_api]\nhandler_prefix = \"/connection/websocket/\"",
            "t.toml:2: http_api.handler_prefix = \"/connection/websocket\": must be other than websocket.handler_prefix = \"/connection/websocket\" (default); every endpoint needs a path of its own",
        ),
        (
            "[health]\nhandler_prefix = \"/metrics\"",
            "t.toml:2: health.handler_prefix = \"/metrics\": must be other than prometheus.handler_prefix = \"/metrics\" (default); every endpoint needs a path of its own",
        ),
        // Files.
        ("[client\n", "t.toml:1: this is no valid TOML: "),
        ("a = 1\na = 2\n", "t.toml:2: this is no valid TOML: "),
    ];
    for (text, expected) in cases {
        let problems = problems_of("t.toml", text);
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
        let is_whole = !expected.ends_with(['(', ' ']);
        let fits = if is_whole { problems[0] == expected } else { problems[0].starts_with(expected) };
        assert!(fits, "{text}\n  gave     {}\n  expected {expected}", problems[0]);
    }
    assert!(problems_of("t.json", "{\n\"a\": }")[0].starts_with("t.json:2: this is no valid JSON: "));
    assert!(problems_of("t.yaml", "a: 1\nb: [\n")[0].contains(": this is no valid YAML: "));
    assert_eq!(problems_of("t.ini", ""), ["t.ini: the extension must be .toml, .yaml, .yml or .json"]);
    assert_eq!(problems_of("t.json", "[]"), ["t.json: expected a table of keys"]);
    let missing = load(&Sources { file: Some(PathBuf::from("no-such.toml")), ..Sources::default() }).unwrap_err();
    assert!(missing.to_string().starts_with("no-such.toml: can't open the file: "), "{missing}");
}

#[test]
fn errors_of_variables_and_flags_name_them() {
    let cases = [
        ("TIDEGATE_SHARDS", "many", "TIDEGATE_SHARDS: shards = \"many\": expected a whole number from 0 to 1024"),
        (
            "TIDEGATE_CLIENT_CHANNEL_LIMT",
            "3",
            "TIDEGATE_CLIENT_CHANNEL_LIMT: no key has this variable; did you mean TIDEGATE_CLIENT_CHANNEL_LIMIT for client.channel_limit?",
        ),
        ("TIDEGATE_ZEBRA", "3", "TIDEGATE_ZEBRA: no key has this variable; `tidegate check-config` lists all keys"),
        ("TIDEGATE_CLIENT", "{", "TIDEGATE_CLIENT: client: expected JSON, as {\"key\": true} or [\"a\", \"b\"]: "),
    ];
    for (name, value, expected) in cases {
        let sources = Sources { variables: variables(&[(name, value)]), ..Directory::new().sources() };
        let problems = load(&sources).unwrap_err();
        assert!(problems.to_string().starts_with(expected), "{problems}");
    }
    let flags = vec![Flag { flag: "--redis", path: "engine.redis.address", value: "http://r".into() }];
    let problems = load(&Sources { flags, ..Directory::new().sources() }).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "--redis: engine.redis.address = \"http://r\": expected an address as redis://host:port"
    );
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text =
        "[memory]\nevict_to = 0.9\n[client]\nping_intervall = 1\npong_timeout = \"x\"\n[http_server]\nport = -1\n";
    let problems = problems_of("t.toml", text);
    let places: Vec<&str> = problems.iter().map(|problem| &problem[..8]).collect();
    assert_eq!(places, ["t.toml:2", "t.toml:4", "t.toml:5", "t.toml:7"], "{problems:#?}");
}

#[test]
fn skip_unsupported_turns_errors_into_notices() {
    let text = "[client.token]\nhmac_secret_key = \"s3cret\"\n[sse]\nenabled = true\n";
    assert_eq!(problems_of("t.toml", text).len(), 2);
    let directory = Directory::new().with("tidegate.toml", text);
    let loaded = load(&Sources { skip_unsupported: true, ..directory.sources() }).unwrap();
    let notices = loaded.notices().join("\n").replace(&format!("{}/", directory.0.display()), "");
    assert!(notices.contains(
        "tidegate.toml:2: client.token.hmac_secret_key is left out: users and tokens (JWT) are not built yet"
    ));
    assert!(notices.contains("tidegate.toml:4: sse.enabled is left out: only WebSocket and raw TCP are built yet"));
    assert!(!notices.contains("s3cret"));
}

#[test]
fn notices_tell_what_has_no_effect() {
    let cases = [
        (
            "[client]\nconcurrency = 8",
            "tidegate.toml:2: client.concurrency has no effect: commands of one session always take effect in order",
        ),
        ("[engine.redis]\ndb = 3", "tidegate.toml:2: engine.redis.db has no effect: engine.type is \"memory\""),
        ("", "http_api.key is empty: every request to the server API gets 401"),
        ("[client]\ninsecure = true", "client.insecure is on: everybody may connect, subscribe and publish"),
        (
            "[[channel.namespaces]]\nname = \"ab\"\nallow_subscribe_for_anonymous = true",
            "channel.namespaces[0].allow_subscribe_for_anonymous has no effect without allow_subscribe_for_client",
        ),
        (
            "[channel.without_namespace]\nallow_publish_for_anonymous = true",
            "channel.without_namespace.allow_publish_for_anonymous has no effect without allow_publish_for_client or allow_publish_for_subscriber",
        ),
    ];
    for (text, expected) in cases {
        let notices = loaded("tidegate.toml", text).notices().join("\n");
        assert!(notices.lines().any(|notice| notice.ends_with(expected)), "{text}: {notices}");
    }
}

#[test]
fn check_config_shows_what_is_set_and_every_key_but_no_secret() {
    let text = "[http_api]\nkey = \"s3cret\"\n[engine]\ntype = \"redis\"\n[engine.redis]\naddress = \"redis://u:s3cret@r:1\"\npassword = \"s3cret\"\n";
    let shown = print::check_config(&loaded("tidegate.toml", text));
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(
        shown.contains("http_api.key = \"***\" (") && shown.contains("engine.redis.address = [\"redis://***@r:1\"] (")
    );
    for key in table().iter() {
        assert!(shown.contains(&format!("\n  {} = ", key.path)), "{} is missing", key.path);
    }
    assert!(shown.contains("client.connection_limit = 500000: differs: 500000 instead of none"));
    assert!(shown.contains("client.concurrency = 0: never: commands of one session always take effect in order"));
}

#[test]
fn the_defaults_that_the_incumbent_shares_are_its_own() {
    // From the incumbent's documentation; the table must not drift from them unnoticed.
    let expected = [
        ("http_server.port", "8000"),
        ("client.ping_interval", "\"25s\""),
        ("client.pong_timeout", "\"8s\""),
        ("client.stale_close_delay", "\"10s\""),
        ("client.channel_limit", "128"),
        ("client.queue_max_size", "1048576"),
        ("channel.max_length", "255"),
        ("channel.private_prefix", "\"$\""),
        ("channel.namespace_boundary", "\":\""),
        ("channel.user_boundary", "\"#\""),
        ("channel.user_separator", "\",\""),
        ("engine.type", "\"memory\""),
        ("engine.redis.connect_timeout", "\"1s\""),
        ("engine.redis.io_timeout", "\"4s\""),
        ("websocket.handler_prefix", "\"/connection/websocket\""),
        ("websocket.message_size_limit", "65536"),
        ("websocket.write_timeout", "\"1s\""),
        ("http_api.handler_prefix", "\"/api\""),
        ("shutdown.timeout", "\"30s\""),
    ];
    for (path, default) in expected {
        let key = table().find(path).unwrap();
        assert_eq!((key.status, key.default.to_string().as_str()), (expected_status(path), default), "{path}");
    }
}

fn expected_status(path: &str) -> Status {
    match path {
        "client.ping_interval" => Status::Differs("pings can't be turned off: no -1"),
        "client.pong_timeout" => Status::Differs("the check can't be turned off: no -1"),
        _ => Status::Same,
    }
}

#[test]
fn a_configuration_of_the_incumbent_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/centrifugo.json");
    let loaded =
        load(&Sources { file: Some(path), ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"));
    let config = &loaded.config;
    assert_eq!((config.engine.kind, config.engine.redis.db), (EngineType::Redis, 2));
    assert_eq!(config.engine.redis.address, ["redis://redis.internal:6379"]);
    assert_eq!(config.http_server.internal_listen().to_string(), "127.0.0.1:9000", "an empty one is not set");
    assert_eq!(config.client.allowed_origins, ["https://app.example.com", "https://*.example.org"]);
    assert_eq!(config.client.ping_interval, Duration::from_secs(20));
    let (options, rest) = config.channel.resolve("chat:lobby-1").unwrap();
    assert!(options.allow_publish_for_subscriber && options.channel_regex.as_ref().unwrap().is_match(rest));
    assert!(config.channel.resolve("news:sport").unwrap().0.allow_subscribe_for_anonymous);
    assert_eq!(config.shutdown.drain, Duration::from_secs(20), "follows the timeout");
    let notices = loaded.notices().join("\n");
    assert!(
        notices.contains("client.concurrency has no effect")
            && notices.contains("websocket.read_buffer_size has no effect")
    );
}

/// Run with `UPDATE_DOCS=1` to write the table anew.
#[test]
fn the_documentation_lists_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = print::MARKERS;
    let (before, rest) = text.split_once(begin).expect("the first marker");
    let (_, after) = rest.split_once(end).expect("the second marker");
    let expected = format!("{before}{begin}\n\n{}\n{end}{after}", print::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    for key in table().iter().filter(|key| key.status.is_implemented()) {
        assert!(text.contains(&format!("| `{}` | ", key.name())), "{} is not in docs/configuration.md", key.path);
    }
    let advice = "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test -p tidegate --test configuration";
    assert!(text == expected, "{advice}");
}
