//! What the integration tests share: a node inside the test's process, and clients that reach it through real sockets.
//!
//! - here: the node, deadlines, and how counters are read;
//! - [`client`]: a client of the protocol, over WebSocket (JSON or Protobuf) or raw TCP;
//! - [`frame`]: WebSocket frames as a client writes and reads them, broken ones included;
//! - [`http`]: HTTP/1.1 by hand.
//!
//! Nothing here sleeps to let something happen: [`eventually`] looks again until a deadline, and every read has one.

pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod http;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::config::{ChannelOptions, Config};
use tidegate::node::Node;
use tidegate::shard::stats::{Dropped, ShardStats};
use tidegate_broadcaster::{PublishFuture, PublishRequest};
use tidegate_protocol::code::DisconnectCode;

use http::Answer;

/// How long anything may take before a test fails: generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The key of the server API.
pub(crate) const API_KEY: &str = "a key for tests";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Waits for `future`, and fails with `what` at the deadline.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Looks again and again until `condition` holds; fails with what `state` says at the deadline.
pub(crate) async fn eventually<T: std::fmt::Debug>(what: &str, state: impl Fn() -> T, condition: impl Fn(&T) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = state();
        if condition(&now) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}; it is {now:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A node on free ports of the loopback interface, with the embedded broker.
pub(crate) struct TestNode {
    node: Node,
}

impl TestNode {
    /// Starts a node that lets everybody in, subscribe and publish, with two shards; `change` makes it another one.
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.http_server.address = Some(LOOPBACK);
        config.http_server.port = 0;
        config.http_server.internal_address = Some(LOOPBACK);
        config.http_server.internal_port = 0;
        config.tcp_server.address = Some(LOOPBACK);
        config.tcp_server.port = 0;
        config.shards = 2;
        config.client.allow_anonymous_connect_without_token = true;
        config.channel.without_namespace = open();
        config.http_api.key = API_KEY.to_owned();
        config.shutdown.drain = Duration::ZERO;
        // On a busy machine a test may outlast the usual interval; those that want pings say so.
        config.client.ping_interval = Duration::from_secs(600);
        // The machine's memory is no business of these tests.
        config.memory.limit = 1 << 50;
        change(&mut config);
        let node = Node::start(&config).await.expect("a node on free ports starts");
        Self { node }
    }

    /// A node as [`TestNode::start`] makes it, unchanged.
    pub(crate) async fn ordinary() -> Self {
        Self::start(|_| {}).await
    }

    /// Where WebSocket and HTTP clients connect.
    pub(crate) fn http(&self) -> SocketAddr {
        self.node.http_address()
    }

    /// Where raw TCP clients connect.
    pub(crate) fn tcp(&self) -> SocketAddr {
        self.node.tcp_address().expect("the raw TCP listener is on")
    }

    /// The operators' port.
    pub(crate) fn operator(&self) -> SocketAddr {
        self.node.operator_address()
    }

    /// The node itself.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// A counter or gauge, summed over the shards.
    pub(crate) fn count(&self, of: impl Fn(&ShardStats) -> u64) -> u64 {
        self.node.shards().iter().map(|shard| of(shard)).sum()
    }

    /// How many connections were closed with this code.
    pub(crate) fn disconnects(&self, code: DisconnectCode) -> u64 {
        self.count(|shard| shard.disconnects[code.index()].get())
    }

    /// How many deliveries were given up for this reason.
    pub(crate) fn dropped(&self, reason: Dropped) -> u64 {
        self.count(|shard| shard.dropped[reason as usize].get())
    }

    /// Holds that every delivery has been accounted for and nothing waits: offered = delivered + conflated + dropped, and no
    /// byte is in any queue.
    pub(crate) async fn settled(&self) {
        let state = || {
            let dropped: u64 = Dropped::ALL.iter().map(|reason| self.dropped(*reason)).sum();
            let waiting = self.count(|shard| shard.pending.get() + shard.queue_bytes.get() + shard.inbox_bytes.get());
            let given_up = dropped + self.count(|shard| shard.conflated.get());
            (self.count(|shard| shard.offered.get()), self.count(|shard| shard.delivered.get()), given_up, waiting)
        };
        eventually(
            "(offered, delivered, given up, waiting) balance",
            state,
            |(offered, delivered, given_up, waiting)| *offered == delivered + given_up && *waiting == 0,
        )
        .await;
    }

    /// Publishes without waiting for the broker's answer.
    pub(crate) fn publish_at_once(&self, channel: &str, data: impl Into<Bytes>) -> PublishFuture {
        let request = PublishRequest { channel: channel.into(), data: data.into(), ..PublishRequest::default() };
        self.node.broker().publish(request)
    }

    /// Publishes as a backend does.
    pub(crate) async fn publish(&self, channel: &str, data: impl Into<Bytes>) {
        within("the broker's answer", self.publish_at_once(channel, data)).await.expect("the broker takes it");
    }

    /// A page of the operators' port.
    pub(crate) async fn operators_page(&self, path: &str) -> Answer {
        http::get(self.operator(), path).await
    }

    /// One value of the metrics page, by its series with labels; `None` where there is no such series.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let page = self.operators_page("/metrics").await.body;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().expect("a metric's value is a number"))
    }

    /// How many connections were refused for this reason.
    pub(crate) async fn refused(&self, reason: &str) -> f64 {
        let series = format!("tidegate_connections_refused_total{{reason=\"{reason}\"}}");
        self.metric(&series).await.expect("every reason has a series")
    }

    /// The node, to be stopped by the test itself.
    pub(crate) fn into_node(self) -> Node {
        self.node
    }

    /// Drops the clients, holds that nothing of them is left, and stops the node.
    pub(crate) async fn end<T>(self, clients: T) {
        drop(clients);
        let gauges = |shard: &ShardStats| {
            let connections: u64 = shard.connections.iter().map(|wire| wire.get()).sum();
            let rest = [&shard.handshaking, &shard.sessions, &shard.subscriptions, &shard.channels];
            connections + rest.iter().map(|gauge| gauge.get()).sum::<u64>()
        };
        eventually("nothing is left of anybody", || self.count(gauges), |left| *left == 0).await;
        self.settled().await;
        let connections = || self.node.admission().connections();
        eventually("every place is free again", connections, |connections| *connections == 0).await;
        within("the node stops", self.node.stop()).await;
    }
}

/// Channels in which everybody may do everything.
pub(crate) fn open() -> ChannelOptions {
    ChannelOptions {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        ..ChannelOptions::default()
    }
}
