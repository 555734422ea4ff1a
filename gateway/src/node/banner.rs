//! What `--dev` tells the person at the terminal.

use std::fmt::Write;

use super::Node;
use crate::config::Config;
use crate::config::EngineType;

/// How a backend publishes on the configured Redis, up to the channel and the data; `None` with the embedded broker,
/// and with Sentinels, which have to be asked where it is.
pub fn redis_publish(config: &Config) -> Option<String> {
    let redis = &config.engine.redis;
    if config.engine.kind != EngineType::Redis || !redis.sentinel_address.is_empty() {
        return None;
    }
    let (cli, address, command) = match redis.cluster_address.first() {
        Some(node) if redis.sharded_pub_sub => ("redis-cli -c", node, "SPUBLISH"),
        Some(node) => ("redis-cli -c", node, "PUBLISH"),
        None => ("redis-cli", redis.address.first()?, "PUBLISH"),
    };
    let address = address.strip_prefix("redis://").unwrap_or(address);
    Some(match address.rsplit_once('@') {
        // A password does not belong on a screen, nor into a shell's history.
        Some((_, host)) => format!("{cli} -u redis://$REDIS_USER:$REDIS_PASSWORD@{host} {command}"),
        None => format!("{cli} -u redis://{address} {command}"),
    })
}

/// Where the node listens, its API key, and three things to try.
pub fn text(config: &Config, node: &Node) -> String {
    let http = node.http_address();
    let key = &config.http_api.key;
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // A String takes every write.
        let _ = writeln!(text, "  {label:<12} {value}");
    };
    line("WebSocket", &format!("ws://{http}{}", config.websocket.handler_prefix));
    if let Some(tcp) = node.tcp_address() {
        line("raw TCP", &tcp.to_string());
    }
    line("API", &format!("http://{http}{}", config.http_api.handler_prefix));
    line("operators", &format!("http://{}/metrics and /health/ready", node.operator_address()));
    line("broker", node.broker().name());
    line("API key", key);
    text.push_str("\nTry it:\n");
    let mut step = |what: &str, command: &str| {
        let _ = writeln!(text, "  {what:<12} {command}");
    };
    step("see", &format!("http://{http}/"));
    // wscat does not speak the client protocol, and its pings least of all: it is pinged by WebSocket's own frames.
    step(
        "connect",
        &format!(
            r#"npx --yes wscat -c 'ws://{http}{}?cf_ws_frame_ping_pong=true' -x $'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{"channel":"news"}}}}' -w 60"#,
            config.websocket.handler_prefix
        ),
    );
    let publish = match redis_publish(config) {
        Some(command) => format!(r#"{command} {}news '{{"hello":"world"}}'"#, config.redis_publish.prefix),
        None => format!(
            r#"curl -H 'X-API-Key: {key}' -d '{{"channel":"news","data":{{"hello":"world"}}}}' http://{http}{}/publish"#,
            config.http_api.handler_prefix
        ),
    };
    step("publish", &publish);
    text
}
