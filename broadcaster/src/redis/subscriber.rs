//! The task that keeps a subscriber connection to Redis: it connects, hands the connection to a [`Link`], and starts
//! over when that is lost. Beside it, it gives up on subscribes that wait too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::channels::Channels;
use super::connection::connect;
use super::health::Health;
use super::link::Link;
use super::settings::{Endpoint, RedisSettings};
use crate::broker::BrokerError;
use crate::dispatch::Dispatcher;
use crate::inbox::Event;
use crate::stats::{BrokerStats, add};

/// How exactly the time-out of a subscribe is kept.
const EXPIRY_STEP: Duration = Duration::from_millis(100);

/// What the subscriber task works with.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) settings: Arc<RedisSettings>,
    pub(crate) endpoint: Endpoint,
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
    pub(crate) subscriber: Subscriber,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Receiver {
    /// Keeps the connection, until the broker is shut down or dropped. Needs a tokio runtime with I/O and time.
    pub async fn run(self) {
        self.subscriber.run(self.stop).await;
    }
}

impl Subscriber {
    /// Runs until told to stop, or until nobody is left who could.
    async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep_connected() => {}
            () = self.expire_waits() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.channels.disconnected();
        self.health.degrade("shut down");
    }

    async fn keep_connected(&self) {
        let mut backoff = Backoff::new(self.settings.reconnect_first, self.settings.reconnect_longest);
        let mut connected_before = false;
        loop {
            match connect(&self.endpoint, &self.settings).await {
                Ok(stream) => {
                    add(&self.stats.reconnects, u64::from(connected_before));
                    connected_before = true;
                    let connected = Instant::now();
                    let mut link = Link::new(self, stream);
                    let lost = link.run().await;
                    self.lost(&lost.to_string(), link.heard());
                    if link.is_restored() {
                        backoff.reset();
                        // A connection that was good for a while is made anew at once: each moment is part of the gap.
                        if connected.elapsed() >= self.settings.reconnect_longest {
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
            sleep(backoff.next()).await;
        }
    }

    /// The connection is lost. Messages may have been missed since it was last heard.
    fn lost(&self, reason: &str, heard: Instant) {
        self.health.degrade(reason);
        let channels = self.channels.disconnected();
        let confirmed = self.confirmed.swap(0, Ordering::Relaxed);
        self.stats.subscribed_channels.fetch_sub(confirmed, Ordering::Relaxed);
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| {
            add(&self.stats.gaps, 1);
            heard
        });
        tracing::warn!(reason, channels, "the subscriber connection to Redis is lost; messages may be missed");
    }

    /// Everything that was wanted when the connection was made is confirmed.
    pub(crate) fn restored(&self) {
        self.health.restore();
        let channels = self.confirmed.load(Ordering::Relaxed);
        match self.gap.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => tracing::info!(endpoint = %self.endpoint, channels, "subscribed to Redis"),
            Some(since) => {
                // 64 bits: a wider number is logged as text.
                let gap_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                add(&self.stats.gap_ms, gap_ms);
                tracing::warn!(
                    endpoint = %self.endpoint,
                    channels,
                    gap_ms,
                    "subscribed to Redis again; messages published in the gap are missed"
                );
                self.dispatcher.tell_all(&Event::Resumed);
            }
        }
    }

    /// Tells shards whose subscribes Redis has not confirmed in time.
    async fn expire_waits(&self) {
        loop {
            while !self.channels.has_waits() {
                self.channels.waits.notified().await;
            }
            sleep(EXPIRY_STEP.min(self.settings.io_timeout)).await;
            let Some(before) = Instant::now().checked_sub(self.settings.io_timeout) else { continue };
            let expired = self.channels.expire(before);
            add(&self.stats.subscribe_timeouts, expired.len() as u64);
            for (channel, shard) in expired {
                let result = Err(BrokerError::Timeout(self.settings.io_timeout));
                self.dispatcher.tell(shard, Event::Subscribed { channel, result });
            }
        }
    }
}
