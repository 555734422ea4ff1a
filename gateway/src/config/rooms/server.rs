//! Listeners and what is served on them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::units;

/// `http_server`: the listeners of clients and of operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServer {
    /// IP address of the clients' listener; `None` (written as an empty string) is all IPv4 interfaces.
    #[serde(with = "address")]
    pub address: Option<IpAddr>,
    /// Port of the clients' listener; 0 takes any free one.
    pub port: u16,
    /// IP address of the operators' listener; `None` (written as an empty string) is loopback.
    #[serde(with = "address")]
    pub internal_address: Option<IpAddr>,
    /// Port of the operators' listener; 0 takes any free one.
    pub internal_port: u16,
}

impl Default for HttpServer {
    fn default() -> Self {
        Self { address: None, port: 8000, internal_address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), internal_port: 9000 }
    }
}

impl HttpServer {
    /// Where clients connect.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), self.port)
    }

    /// Where operators and their tools connect.
    pub fn internal_listen(&self) -> SocketAddr {
        SocketAddr::new(self.internal_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), self.internal_port)
    }
}

/// `tcp_server`: the listener for clients that speak Protobuf on raw TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpServer {
    /// No raw TCP listener.
    pub disabled: bool,
    /// IP address; `None` (written as an empty string) is all IPv4 interfaces.
    #[serde(with = "address")]
    pub address: Option<IpAddr>,
    /// Port; 0 takes any free one.
    pub port: u16,
}

impl Default for TcpServer {
    fn default() -> Self {
        Self { disabled: false, address: None, port: 8001 }
    }
}

impl TcpServer {
    /// Where clients connect; `None` when disabled.
    pub fn listen(&self) -> Option<SocketAddr> {
        let address = self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        (!self.disabled).then_some(SocketAddr::new(address, self.port))
    }
}

/// `websocket`: the WebSocket transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocket {
    /// No WebSocket endpoint.
    pub disabled: bool,
    /// Path of the endpoint.
    pub handler_prefix: String,
    /// Longest message from a client, in bytes; a longer one ends the session (close code 1009).
    pub message_size_limit: usize,
    /// How long messages may wait, so that one write takes several; zero writes at the end of each turn.
    #[serde(with = "units::duration")]
    pub flush_interval: Duration,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            disabled: false,
            handler_prefix: "/connection/websocket".to_owned(),
            message_size_limit: 65536,
            flush_interval: Duration::ZERO,
        }
    }
}

/// `http_api`: the server API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpApi {
    /// No server API.
    pub disabled: bool,
    /// Path before the method: `/api` serves `/api/publish`.
    pub handler_prefix: String,
    /// The key that requests carry in `X-API-Key`; with an empty one every request gets 401.
    pub key: String,
    /// No key is asked for.
    pub insecure: bool,
    /// Serve the API on the clients' port; otherwise only on the operators'.
    pub external: bool,
}

impl fmt::Debug for HttpApi {
    /// Leaves the key out, so that no log shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HttpApi");
        shown.field("disabled", &self.disabled).field("handler_prefix", &self.handler_prefix);
        shown.field("insecure", &self.insecure).field("external", &self.external).finish_non_exhaustive()
    }
}

impl Default for HttpApi {
    fn default() -> Self {
        Self { disabled: false, handler_prefix: "/api".to_owned(), key: String::new(), insecure: false, external: true }
    }
}

/// `health`: the health endpoints on the operators' port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Serve them.
    pub enabled: bool,
    /// Path before `/live`, `/ready` and `/startup`.
    pub handler_prefix: String,
}

impl Default for Health {
    fn default() -> Self {
        Self { enabled: true, handler_prefix: "/health".to_owned() }
    }
}

/// `prometheus`: the metrics page on the operators' port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prometheus {
    /// Serve it.
    pub enabled: bool,
    /// Its path.
    pub handler_prefix: String,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self { enabled: true, handler_prefix: "/metrics".to_owned() }
    }
}

/// `demo`: the demo page at `/` of the clients' port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Demo {
    /// Serve it; `--dev` turns it on.
    pub enabled: bool,
}

/// Serde for a listener's address: an IP address or an empty string; `localhost` is read as 127.0.0.1.
mod address {
    use std::net::{IpAddr, Ipv4Addr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(None),
            "localhost" => Ok(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            None => serializer.serialize_str(""),
            Some(address) => serializer.collect_str(address),
        }
    }
}
