//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::config::{Flag, Sources};

/// Real-time push gateway: Redis PUBLISH in, millions of WebSocket and TCP sessions out.
#[derive(Parser)]
#[command(name = "tidegate", version, about)]
pub struct Cli {
    /// What to do; without one, the node runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings.
    #[command(flatten)]
    pub options: Options,
}

/// What to do instead of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the node (as without any command).
    Run,
    /// Say what is set, what is wrong, and list every key.
    CheckConfig,
    /// Print every key with its default and a line on what it is for, as TOML.
    DefaultConfig,
}

/// The flags for the settings that one types; they win over variables and file. Not `Debug`: it holds a key.
#[derive(Clone, Default, Args)]
pub struct Options {
    /// Configuration file: TOML, YAML or JSON by its extension. Without it, tidegate.toml, .yaml or .json in the working directory, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// For trying out: loopback only, anonymous clients, any origin, a made-up API key, the demo page.
    #[arg(long, global = true)]
    pub dev: bool,
    /// Take messages from this Redis: `redis://[user[:password]@]host[:port][/db]`.
    #[arg(long, global = true, value_name = "URL")]
    pub redis: Option<String>,
    /// Where clients connect over HTTP: address and port, or a port alone.
    #[arg(long, global = true, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub listen: Option<Listen>,
    /// Where clients connect over raw TCP.
    #[arg(long, global = true, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub tcp_listen: Option<Listen>,
    /// Where operators find metrics and health.
    #[arg(long, global = true, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub operator_listen: Option<Listen>,
    /// Number of shards; 0 is one per core.
    #[arg(long, global = true, value_name = "N")]
    pub shards: Option<u64>,
    /// The key of the server API.
    #[arg(long, global = true, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Leave out settings of features that are not built yet, with a warning instead of an error.
    #[arg(long, global = true)]
    pub skip_unsupported: bool,
}

/// Where to listen: an address, or the key's own, and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address, unless only a port was given.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// Reads `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`, `:8000` or `8000`.
fn listen_address(text: &str) -> Result<Listen, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen { address: Some(address.ip()), port: address.port() });
    }
    let (address, port) = match text.strip_prefix("localhost:") {
        Some(port) => (Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port),
        None => (None, text.strip_prefix(':').unwrap_or(text)),
    };
    match port.parse() {
        Ok(port) => Ok(Listen { address, port }),
        Err(_) => Err("expected an IP address and a port, as 127.0.0.1:8000 or [::1]:8000, or a port alone".to_owned()),
    }
}

impl Options {
    /// The sources of settings that these flags and the process's surroundings make up.
    pub fn sources(&self) -> Sources {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        Sources {
            file: self.config.clone(),
            directory: PathBuf::new(),
            variables: variables.collect(),
            flags: self.flags(),
            dev: self.dev,
            skip_unsupported: self.skip_unsupported,
        }
    }

    /// What the flags set.
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut add = |flag, path, value: Value| flags.push(Flag { flag, path, value });
        if let Some(url) = &self.redis {
            add("--redis", "engine.type", "redis".into());
            add("--redis", "engine.redis.address", json!([url]));
        }
        let listeners = [
            ("--listen", "http_server.address", "http_server.port", self.listen),
            ("--tcp-listen", "tcp_server.address", "tcp_server.port", self.tcp_listen),
            ("--operator-listen", "http_server.internal_address", "http_server.internal_port", self.operator_listen),
        ];
        for (flag, address_path, port_path, listen) in listeners {
            let Some(Listen { address, port }) = listen else { continue };
            if let Some(address) = address {
                add(flag, address_path, address.to_string().into());
            }
            add(flag, port_path, port.into());
        }
        if let Some(shards) = self.shards {
            add("--shards", "shards", shards.into());
        }
        if let Some(key) = &self.api_key {
            add("--api-key", "http_api.key", key.as_str().into());
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_place_to_listen_is_an_address_and_a_port_or_a_port_alone() {
        let some = |address: &str, port| Ok(Listen { address: Some(address.parse().unwrap()), port });
        assert_eq!(listen_address("127.0.0.1:8000"), some("127.0.0.1", 8000));
        assert_eq!(listen_address("[::1]:0"), some("::1", 0));
        assert_eq!(listen_address("localhost:1"), some("127.0.0.1", 1));
        assert_eq!(listen_address(":8000"), Ok(Listen { address: None, port: 8000 }));
        assert_eq!(listen_address("8000"), Ok(Listen { address: None, port: 8000 }));
        for bad in ["", "example.com:80", "127.0.0.1", "127.0.0.1:99999", ":"] {
            assert!(listen_address(bad).unwrap_err().starts_with("expected an IP address and a port"), "{bad}");
        }
    }

    #[test]
    fn flags_may_stand_before_and_behind_the_command() {
        for words in [["tidegate", "--dev", "check-config"], ["tidegate", "check-config", "--dev"]] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.command, Some(Command::CheckConfig));
            assert!(cli.options.dev);
        }
    }

    #[test]
    fn every_flag_sets_its_keys() {
        let words = "tidegate --redis redis://r:1 --listen 1.2.3.4:5 --tcp-listen :6 --operator-listen [::1]:7 --shards 2 --api-key k";
        let flags = Cli::try_parse_from(words.split(' ')).unwrap().options.flags();
        let set: Vec<String> = flags.iter().map(|flag| format!("{} {} {}", flag.flag, flag.path, flag.value)).collect();
        let expected = [
            "--redis engine.type \"redis\"",
            "--redis engine.redis.address [\"redis://r:1\"]",
            "--listen http_server.address \"1.2.3.4\"",
            "--listen http_server.port 5",
            "--tcp-listen tcp_server.port 6",
            "--operator-listen http_server.internal_address \"::1\"",
            "--operator-listen http_server.internal_port 7",
            "--shards shards 2",
            "--api-key http_api.key \"k\"",
        ];
        assert_eq!(set, expected);
    }
}
