//! What a subscriber connection has received, on its way to the shards.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::channels::{Confirmed, Dropped};
use super::subscriber::Subscriber;
use crate::broker::BrokerError;
use crate::dispatch::Burst;
use crate::envelope::{self, Place};
use crate::inbox::Event;
use crate::interest::ShardSet;
use crate::publication::{Channel, Payload, Publication};
use crate::stats::add;

/// At most one warning about oversized payloads in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

impl Subscriber {
    /// Routes a message to the shards that want it.
    pub(super) fn route(&self, burst: &mut Burst<'_>, channel: &[u8], payload: Bytes, received: Instant) {
        let name = channel
            .strip_prefix(self.settings.prefix.as_bytes())
            .and_then(|name| simdutf8::basic::from_utf8(name).ok());
        let Some(name) = name else {
            // Only names that were subscribed come back; this one was not.
            add(&self.stats.malformed, 1);
            return;
        };
        if payload.len() > envelope::max_message(&payload, self.settings.max_payload) {
            return self.oversized(channel, payload.len() as u64);
        }
        burst.route(name, |channel| match envelope::decode(payload) {
            Ok(content) => Some(Publication {
                channel,
                kind: content.kind,
                payload: Payload::new(content.data),
                delta: content.place.as_ref().is_some_and(|place| place.delta),
                is_late: content.place.as_ref().is_some_and(|place| self.is_late(place)),
                offset: content.place.as_ref().map_or(0, |place| place.offset),
                epoch: content.place.map_or_else(|| Arc::clone(&self.epoch), |place| place.epoch),
                info: content.info.map(Arc::new),
                tags: content.tags,
                received,
            }),
            Err(error) => {
                add(&self.stats.malformed, 1);
                tracing::debug!(%channel, %error, "a message was dropped");
                None
            }
        });
    }

    /// Whether Redis took the message longer ago than a subscription with a position may lag behind.
    fn is_late(&self, place: &Place) -> bool {
        self.settings.max_time_lag.is_some_and(|most| {
            let taken = UNIX_EPOCH + Duration::from_millis(place.unix_ms);
            // One from the future is not late: the clocks differ.
            SystemTime::now().duration_since(taken).is_ok_and(|age| age > most)
        })
    }

    /// A message is skipped because of its size.
    pub(super) fn oversized(&self, channel: &[u8], length: u64) {
        add(&self.stats.oversized, 1);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::warn!(
                channel = %String::from_utf8_lossy(channel),
                length,
                limit = self.settings.max_payload,
                dropped_so_far = self.stats.oversized.load(Ordering::Relaxed),
                "a message was dropped because its payload is too long"
            );
        }
    }

    /// A channel is live. Answers the shards that were told.
    pub(super) fn confirmed(&self, channel: &Channel) -> ShardSet {
        add(&self.confirmed, 1);
        add(&self.stats.subscribed_channels, 1);
        let Confirmed { waited, resumed } = self.channels.confirmed(channel, Instant::now());
        for shard in resumed.iter() {
            self.dispatcher.tell(shard, Event::ChannelResumed(Channel::clone(channel)));
        }
        self.tell(waited, channel, &Ok(()));
        waited.union(resumed)
    }

    /// So many confirmed channels are not confirmed any more.
    pub(super) fn unconfirmed(&self, channels: usize) {
        self.confirmed.fetch_sub(channels as u64, Ordering::Relaxed);
        self.stats.subscribed_channels.fetch_sub(channels as u64, Ordering::Relaxed);
    }

    /// The server has let a live channel go by itself: its slot has another master now.
    pub(super) fn dropped(&self, channel: &[u8]) {
        let name = channel
            .strip_prefix(self.settings.prefix.as_bytes())
            .and_then(|name| simdutf8::basic::from_utf8(name).ok());
        let Some(channel) = name.map(Channel::from) else { return };
        let dropped = self.channels.dropped(&channel);
        if dropped != Dropped::Unknown {
            self.unconfirmed(1);
            add(&self.stats.channels_moved, 1);
        }
        if dropped == Dropped::Wanted {
            self.connections.park(&channel);
        }
    }

    /// The server cannot take the subscription now, because the channel's slot is not (quite) its own.
    pub(super) fn redirected(&self, channel: &Channel) {
        add(&self.stats.redirections, 1);
        if self.channels.put_off(channel) == Dropped::Wanted {
            self.connections.park(channel);
        }
    }

    /// A channel is refused. Answers the shards that were told.
    pub(super) fn refused(&self, channel: &Channel, error: &str) -> ShardSet {
        add(&self.stats.subscribe_refused, 1);
        tracing::warn!(%channel, error, "Redis refuses to subscribe a channel");
        let told = self.channels.refused(channel);
        self.tell(told, channel, &Err(BrokerError::Refused(error.into())));
        told
    }

    fn tell(&self, shards: ShardSet, channel: &Channel, result: &Result<(), BrokerError>) {
        for shard in shards.iter() {
            let event = Event::Subscribed { channel: Channel::clone(channel), result: result.clone() };
            self.dispatcher.tell(shard, event);
        }
    }
}
