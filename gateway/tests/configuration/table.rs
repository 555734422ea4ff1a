//! The table of keys, what is printed from it, and the documentation.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tidegate::config::keys::{Status, table, variable_of};
use tidegate::config::settings::Settings;
use tidegate::config::source::FileLayer;
use tidegate::config::{Config, Namespace, print};

use crate::{Directory, loaded};

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
    leaves("channel.namespaces[]", &serde_json::to_value(Namespace::default()).unwrap(), &mut in_types);
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
fn check_config_shows_what_is_set_and_every_key_but_no_secret() {
    let text = "[http_api]\nkey = \"s3cret\"\n[engine]\ntype = \"redis\"\n[engine.redis]\naddress = \"redis://u:s3cret@r:1\"\npassword = \"s3cret\"\n";
    let loaded = loaded("tidegate.toml", text);
    let debug = format!("{loaded:?} {:?}", loaded.config);
    assert!(!debug.contains("s3cret"), "{debug}");
    let shown = print::check_config(&loaded);
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(
        shown.contains("http_api.key = \"***\" (") && shown.contains("engine.redis.address = [\"redis://***@r:1\"] (")
    );
    for key in table().iter() {
        assert!(shown.contains(&format!("\n  {} = ", key.path)), "{} is missing", key.path);
    }
    assert!(shown.contains(
        "\n  client.connection_limit = 500000 [differs: 500000 instead of none] Client connections of this node; "
    ));
    assert!(
        shown.contains("\n  client.concurrency = 0 [never: commands of one session always take effect in order]\n")
    );
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
        ("http_api.handler_prefix", "\"/api\""),
        ("shutdown.timeout", "\"30s\""),
    ];
    for (path, default) in expected {
        let key = table().find(path).unwrap();
        assert_eq!((key.status, key.default.to_string().as_str()), (expected_status(path), default), "{path}");
    }
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

fn expected_status(path: &str) -> Status {
    match path {
        "client.ping_interval" => Status::Differs("pings can't be turned off: no -1"),
        "client.pong_timeout" => Status::Differs("the check can't be turned off: no -1"),
        _ => Status::Same,
    }
}

/// Runs the command in a directory, with nothing in the environment.
fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.env_clear().current_dir(directory).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_commands_print_and_exit_as_documented() {
    let directory = Directory::new();
    let (code, defaults, _) = run(&directory.0, &["default-config"]);
    assert_eq!((code, defaults.as_str()), (Some(0), print::default_config().as_str()));

    let directory = directory.with("tidegate.toml", "shards = 3\n");
    let (code, shown, complaints) = run(&directory.0, &["check-config", "--listen", ":8123"]);
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    assert!(shown.contains("\n  shards = 3 (tidegate.toml:1)\n"), "{shown}");
    assert!(shown.contains("\n  http_server.port = 8123 (--listen)\n"), "{shown}");
    assert!(shown.ends_with("The configuration is in order.\n"), "{shown}");

    let directory = directory.with("tidegate.toml", "shard = 3\n[client]\nconcurrency = 1\n");
    let (code, shown, complaints) = run(&directory.0, &["check-config"]);
    assert_eq!((code, shown.as_str()), (Some(2), ""));
    assert!(complaints.contains("warning: tidegate.toml:3: client.concurrency has no effect"), "{complaints}");
    assert!(
        complaints.contains("error: tidegate.toml:1: shard: there is no such key; did you mean shards?"),
        "{complaints}"
    );
}
