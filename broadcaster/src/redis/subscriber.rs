//! The tasks that keep subscriber connections to Redis: each connects to its server, hands the connection to a
//! [`Link`], and starts over when that is lost. Beside them, one gives up on subscribes that wait too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::channels::Channels;
use super::connection::connect;
use super::connections::Connections;
use super::health::Health;
use super::link::{Link, Lost};
use super::settings::{Endpoint, RedisSettings};
use super::topology::{Layout, Topology};
use super::waits::Waits;
use crate::broker::BrokerError;
use crate::dispatch::Dispatcher;
use crate::inbox::Event;
use crate::stats::{BrokerStats, add};

/// How exactly the time-out of a subscribe is kept.
const EXPIRY_STEP: Duration = Duration::from_millis(100);

/// What the task of one subscriber connection works with.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) settings: Arc<RedisSettings>,
    pub(crate) topology: Arc<Topology>,
    /// Those of all the node's connections.
    pub(crate) connections: Arc<Connections>,
    /// The channels of this connection.
    pub(crate) channels: Arc<Channels>,
    /// How many of them are confirmed now.
    pub(crate) confirmed: AtomicU64,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) stats: Arc<BrokerStats>,
    pub(crate) health: Arc<Health>,
    /// The epoch of channels without history.
    pub(crate) epoch: Arc<str>,
    /// When an oversized payload was last warned of.
    pub(crate) warned: Mutex<Option<Instant>>,
    /// The gap that is open: since when messages may have been missed.
    pub(crate) gap: Mutex<Option<Instant>>,
}

/// Receives what Redis sends for a shard. Whoever starts a [`super::RedisBroker`] runs it, best on the shard's own
/// thread: there a message reaches the shard without a change of threads.
#[derive(Debug)]
#[must_use = "nothing is received until it runs"]
pub struct Receiver {
    /// One for each server that there may be.
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) expiry: Expiry,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Receiver {
    /// Keeps the connections, until the broker is shut down or dropped. Needs a tokio runtime with I/O and time.
    pub async fn run(self) {
        let Self { subscribers, expiry, mut stop } = self;
        let mut connections: FuturesUnordered<_> = subscribers.iter().map(Subscriber::keep_connected).collect();
        tokio::select! {
            _ = connections.next() => {}
            () = expiry.run() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop(connections);
        for subscriber in &subscribers {
            subscriber.channels.disconnected(false);
            subscriber.health.degrade("shut down");
        }
    }
}

impl Subscriber {
    async fn keep_connected(&self) {
        let mut backoff = Backoff::new(self.settings.reconnect_first, self.settings.reconnect_longest);
        let mut connected_before = false;
        loop {
            let server = self.server().await;
            match connect(&server, &self.settings).await {
                Ok(stream) => {
                    add(&self.stats.reconnects, u64::from(connected_before));
                    connected_before = true;
                    let connected = Instant::now();
                    let mut link = Link::new(self, &server, stream);
                    let lost = tokio::select! {
                        lost = link.run() => lost,
                        () = self.topology.ends(|layout| self.is_mine(layout, &server)) => Lost::Replaced,
                    };
                    self.lost(&server, &lost, link.heard(), link.is_restored());
                    if link.is_restored() {
                        backoff.reset();
                        // A connection that was good for a while is made anew at once: each moment is part of the gap.
                        if connected.elapsed() >= self.settings.reconnect_longest || matches!(lost, Lost::Replaced) {
                            self.topology.look().await;
                            continue;
                        }
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if self.health.down().as_deref() != Some(&error) {
                        tracing::warn!(%error, "Redis cannot be subscribed to; trying again");
                    }
                    self.health.degrade(&error);
                }
            }
            self.topology.look().await;
            sleep(backoff.next()).await;
        }
    }

    /// The server that this connection is for, once there is one. Without sharded pub/sub each server of a cluster has
    /// every message, and any will do.
    async fn server(&self) -> Endpoint {
        let choose = |layout: &Layout| match self.settings.sharded {
            true => layout.server(self.channels.id().lane).cloned(),
            false => layout.any().cloned(),
        };
        if let Some(server) = choose(&self.topology.layout()) {
            return server;
        }
        if self.settings.sharded {
            // Other servers have the channels, or will: the gap of each ends there.
            self.close_gap();
        }
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
        let server = self.topology.server(choose).await;
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.health.connect();
        server
    }

    fn is_mine(&self, layout: &Layout, server: &Endpoint) -> bool {
        match self.settings.sharded {
            true => layout.server(self.channels.id().lane) == Some(server),
            false => layout.servers().any(|other| other == server),
        }
    }

    /// The connection is lost. Messages may have been missed since it was last heard.
    fn lost(&self, server: &Endpoint, lost: &Lost, heard: Instant, was_restored: bool) {
        let reason = lost.to_string();
        self.health.degrade(&format!("{server}: {reason}"));
        self.stats.connections_up.fetch_sub(u64::from(was_restored), Ordering::Relaxed);
        // In a cluster a loss is about one server's channels, which may come back elsewhere and at different times.
        let channels = self.channels.disconnected(self.settings.sharded);
        if self.settings.sharded {
            self.connections.rehome();
        }
        let confirmed = self.confirmed.swap(0, Ordering::Relaxed);
        self.stats.subscribed_channels.fetch_sub(confirmed, Ordering::Relaxed);
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| {
            add(&self.stats.gaps[lost.reason() as usize], 1);
            heard
        });
        tracing::warn!(endpoint = %server, reason, channels, "the subscriber connection to Redis is lost; messages may be missed");
    }

    /// Everything that was wanted when the connection was made is confirmed.
    pub(crate) fn restored(&self, server: &Endpoint) {
        self.health.restore();
        add(&self.stats.connections_up, 1);
        let channels = self.confirmed.load(Ordering::Relaxed);
        match self.close_gap() {
            None => tracing::info!(endpoint = %server, channels, "subscribed to Redis"),
            Some(gap_ms) => {
                tracing::warn!(
                    endpoint = %server,
                    channels,
                    gap_ms,
                    "subscribed to Redis again; messages published in the gap are missed"
                );
                if !self.settings.sharded {
                    self.dispatcher.tell_all(&Event::Resumed);
                }
            }
        }
    }

    /// Answers how long the gap was in milliseconds, where there was one.
    fn close_gap(&self) -> Option<u64> {
        let since = self.gap.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        // 64 bits: a wider number is logged as text.
        let gap_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        add(&self.stats.gap_ms, gap_ms);
        Some(gap_ms)
    }
}

/// Gives up on a shard's subscribes that Redis has not confirmed in time.
#[derive(Debug)]
pub(crate) struct Expiry {
    pub(crate) settings: Arc<RedisSettings>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) waits: Arc<Waits>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) stats: Arc<BrokerStats>,
}

impl Expiry {
    async fn run(&self) {
        loop {
            while !self.waits.any() {
                self.waits.began.notified().await;
            }
            sleep(EXPIRY_STEP.min(self.settings.io_timeout)).await;
            let Some(before) = Instant::now().checked_sub(self.settings.io_timeout) else { continue };
            let expired = self.waits.expire(self.connections.map(), before);
            add(&self.stats.subscribe_timeouts, expired.len() as u64);
            for (channel, shard) in expired {
                let result = Err(BrokerError::Timeout(self.settings.io_timeout));
                self.dispatcher.tell(shard, Event::Subscribed { channel, result });
            }
        }
    }
}
