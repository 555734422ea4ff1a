//! What is read from where, and what wins.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate::config::settings::Settings;
use tidegate::config::source::{FileLayer, add_variables};
use tidegate::config::{Config, DataFormat, EngineType, Flag, LogLevel, Sources, load};

use crate::{Directory, loaded, variables};

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

proptest! {
    #[test]
    fn no_file_and_no_variable_ends_the_process(
        extension in "toml|yaml|json",
        text in "(\\[{0,2}[a-z_.]{1,12}\\]{0,2}|[a-z_.]{1,9} ?[=:] ?([0-9-]{1,4}|\"[a-z:/ ]{0,6}\"|\\[[0-9]?\\]|\\{\\}|)|[{}\\[\\]\",:]|\n){0,12}",
        name in "TIDEGATE_(CLIENT|CHANNEL_NAMESPACES|SHARDS|ENGINE_REDIS_ADDRESS|[A-Z_]{0,9})",
        value in "\\[?\\{?\"?[a-z0-9:/.-]{0,8}\"?\\}?\\]?",
    ) {
        let mut settings = Settings::new(false);
        let file: Arc<str> = format!("t.{extension}").into();
        if let Ok(layer) = FileLayer::parse(&file, &text) {
            settings.add(&layer.tree, &|path| layer.origin(path));
        }
        add_variables(&mut settings, &[(name, value)]);
        prop_assert!(settings.to_config().is_ok());
    }
}
