//! What each mistake and each oddity says.

use std::path::PathBuf;

use tidegate::config::{Flag, Sources, load};

use crate::{Directory, loaded, problems_of, variables};

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
            "[channel.without_namespace]\nallow_user_limited_channels = true",
            "t.toml:2: channel.without_namespace.allow_user_limited_channels = true: users and tokens (JWT) are not built yet; remove the key, or start with --skip-unsupported to do without it",
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
        (
            "[channel.without_namespace]\nhistory_size = 1\nhistory_ttl = \"1m\"\nforce_recovery = true\nauto_cache_recover = true",
            "t.toml:5: channel.without_namespace.auto_cache_recover = true: must be false with channel.without_namespace.force_recovery_mode = \"\" (default); what everybody gets without asking is the newest publication: set force_recovery, and the mode to cache",
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
        (
            "[engine.redis]\ncluster_address = [\"redis://a:1\", \"rediss://b:1\"]",
            "t.toml:2: engine.redis.cluster_address = [\"redis://a:1\",\"rediss://b:1\"]: TLS to Redis is not built yet: use redis://host:port",
        ),
        (
            "[engine.redis]\naddress = \"r:1\"\ncluster_address = \"redis://:pw@a:1, b:2\"",
            "t.toml:3: engine.redis.cluster_address = [\"redis://***@a:1\",\"redis://b:2\"]: must be left out with engine.redis.address = [\"redis://r:1\"] (t.toml:2); there is one way to Redis: its address, a cluster's nodes, or Sentinels",
        ),
        (
            "[engine.redis]\ncluster_address = \"a\"\nsentinel_address = \"s\"\nsentinel_master_name = \"m\"",
            "t.toml:2: engine.redis.cluster_address = [\"redis://a\"]: must be left out with engine.redis.sentinel_address = [\"redis://s\"] (t.toml:3); there is one way to Redis: its address, a cluster's nodes, or Sentinels",
        ),
        (
            "[engine.redis]\nsentinel_address = [\"s:1\"]",
            "t.toml:2: engine.redis.sentinel_address = [\"redis://s:1\"]: must be set together with engine.redis.sentinel_master_name = \"\" (default); Sentinels are asked for a master by its name",
        ),
        (
            "[engine.redis]\nsentinel_master_name = \"m\"",
            "t.toml:2: engine.redis.sentinel_master_name = \"m\": must be set together with engine.redis.sentinel_address = [] (default); it takes Sentinels to find a master by its name",
        ),
        (
            "[engine.redis]\ncluster_address = [\"a\"]\ndb = 2",
            "t.toml:3: engine.redis.db = 2: must be 0 with engine.redis.cluster_address = [\"redis://a\"] (t.toml:2); a cluster has no other database",
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
