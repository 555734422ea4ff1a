//! What channels keep and the log of it, together: whatever changes the one is noted in the other, in the same order.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::log::queue::{Filling, Ticket};
use super::log::record::{Place, Record, Terms as RecordTerms};
use super::log::{Histories, Log, LogError, LogSettings, Opened, copies};
use super::streams::copy::StreamCopy;
use super::streams::{Appended, Moment};
use super::{EmbeddedBroker, State};
use crate::broker::{Answer, BrokerError, HistoryFuture, Published, Version};
use crate::dispatch::Dispatcher;
use crate::history::{HistoryQuery, Position, Retention};
use crate::publication::{Channel, Publication};
use crate::stats::{BrokerStats, add};

/// Streams that are looked at for what is too old with each publish: more than a publish can add.
const EXPIRED_AT_ONCE: usize = 4;

/// On which terms something is kept.
pub(super) struct Terms {
    pub(super) retention: Retention,
    pub(super) idempotency_key: Option<String>,
    pub(super) version: Option<Version>,
    pub(super) received: Instant,
}

/// What became of a publication that was to be kept.
pub(super) struct Kept {
    pub(super) published: Published,
    /// It is not kept and goes to nobody: it repeats an earlier one, or is older than one.
    pub(super) is_suppressed: bool,
    /// When it is safe.
    pub(super) ticket: Option<Ticket>,
    /// Where there is no log to do it.
    pub(super) deliver_now: Option<Arc<Publication>>,
}

/// Puts back what the log has, and starts to write it.
pub(super) fn open(
    state: &Arc<Mutex<State>>,
    dispatcher: &Dispatcher,
    stats: &BrokerStats,
    settings: LogSettings,
    history_memory: usize,
) -> Result<Log, LogError> {
    let mut opened = Opened::read(settings, Arc::clone(&stats.log))?;
    {
        let streams = &mut lock(state).streams;
        let copies = opened.copies(|| streams.new_epoch())?;
        copies.into_iter().for_each(|copy| streams.restore(copy));
        add(&stats.log.evicted, streams.evict(history_memory) as u64);
        stats.log.history_bytes.store(streams.bytes() as u64, Relaxed);
    }
    opened.start(dispatcher.clone(), Arc::clone(state) as Arc<dyn Histories>)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Histories for Mutex<State> {
    fn channels(&self) -> Vec<Channel> {
        lock(self).streams.channels()
    }

    fn copy(&self, channel: &Channel) -> Option<StreamCopy> {
        lock(self).streams.copy(channel, Instant::now())
    }

    fn encoded_bytes(&self) -> usize {
        lock(self).streams.encoded_bytes()
    }
}

impl EmbeddedBroker {
    /// The batch that is being filled, where there is a log that takes something.
    fn filling(&self) -> Result<Option<Filling<'_>>, BrokerError> {
        let Some(log) = &self.log else { return Ok(None) };
        let filling = log.queue.filling();
        self.admit(&filling)?;
        Ok(Some(filling))
    }

    /// Counts what is refused.
    fn admit(&self, filling: &Filling<'_>) -> Result<(), BrokerError> {
        filling.admit().inspect_err(|_| add(&self.stats.log.refused, 1))
    }

    /// Keeps a publication, which gets its place from `publication`.
    pub(super) fn keep(
        &self,
        state: &mut State,
        channel: &Channel,
        terms: Terms,
        publication: impl FnOnce(u64, Arc<str>) -> Arc<Publication>,
    ) -> Result<Kept, BrokerError> {
        let Terms { retention, idempotency_key, version, received } = terms;
        let mut filling = self.filling()?;
        let moment = Moment { now: received, batch: filling.as_ref().map_or(0, Filling::number) };
        let streams = &mut state.streams;
        streams.expire(received, EXPIRED_AT_ONCE);
        let mut kept = None;
        let make = |offset, epoch| Arc::clone(kept.insert(publication(offset, epoch)));
        let condition = (idempotency_key.as_deref(), version.as_ref());
        let published = match streams.append(channel, retention, condition, moment, make) {
            Appended::Kept(published) => published,
            Appended::Suppressed(published, batch) => {
                // It has prolonged the life of the position all the same.
                if let (Some(log), Some(filling)) = (&self.log, &mut filling)
                    && let Some((Position { offset, epoch }, until)) = streams.prolonged(channel, retention.meta_ttl)
                {
                    let place = Place { channel, epoch: &epoch, offset };
                    filling.put(&Record::Position(place, log.clock.unix_ms(until)));
                }
                let ticket = filling.as_ref().and_then(|filling| filling.ticket(batch));
                return Ok(Kept { published, is_suppressed: true, ticket, deliver_now: None });
            }
        };
        if streams.bytes() > self.history_memory {
            add(&self.stats.log.evicted, streams.evict(self.history_memory) as u64);
        }
        self.stats.log.history_bytes.store(streams.bytes() as u64, Relaxed);
        let (Some(log), Some(filling), Some(publication)) = (&self.log, &mut filling, &kept) else {
            return Ok(Kept { published, is_suppressed: false, ticket: None, deliver_now: kept });
        };
        let terms = RecordTerms {
            unix_ms: log.clock.unix_ms(received),
            retention,
            idempotency_key: idempotency_key.as_deref(),
            version: version.as_ref().map(Into::into),
        };
        let extra = copies::extra(publication);
        filling.put(&Record::Publish(copies::entry(publication, &extra), terms));
        filling.deliver(Arc::clone(publication));
        Ok(Kept { published, is_suppressed: false, ticket: filling.ticket(moment.batch), deliver_now: None })
    }

    /// Has a publication that is not kept delivered behind those of its channel that wait for the log. Gives it back
    /// where there is none, and where the disk takes nothing: those that wait come later then, whenever that is.
    pub(super) fn pass(
        &self,
        state: &mut State,
        publication: Arc<Publication>,
    ) -> Result<Option<Arc<Publication>>, BrokerError> {
        let Some(log) = &self.log else { return Ok(Some(publication)) };
        let batch = state.streams.batch(&publication.channel);
        if batch == 0 {
            return Ok(Some(publication));
        }
        let mut filling = log.queue.filling();
        if filling.is_safe(batch) || filling.is_failing() {
            return Ok(Some(publication));
        }
        self.admit(&filling)?;
        state.streams.wait_for(&publication.channel, filling.number());
        filling.pass(publication);
        Ok(None)
    }

    /// Reads; answers when what was read is safe.
    pub(super) fn read(&self, channel: &Channel, query: HistoryQuery) -> HistoryFuture {
        let mut state = lock(&self.state);
        let read = state.streams.read(channel, query, Instant::now());
        let Some(log) = &self.log else { return Box::pin(std::future::ready(Ok(read.history))) };
        let mut filling = log.queue.filling();
        // Where the log takes nothing, the position is only remembered for a shorter time after a restart.
        if let Some(until) = read.prolonged.filter(|_| filling.admit().is_ok()) {
            let Position { offset, epoch } = &read.history.top;
            filling.put(&Record::Position(Place { channel, epoch, offset: *offset }, log.clock.unix_ms(until)));
        }
        let ticket = filling.ticket(read.batch);
        drop(filling);
        drop(state);
        Box::pin(async move {
            if let Some(ticket) = ticket {
                ticket.wait().await?;
            }
            Ok(read.history)
        })
    }

    /// Forgets a channel's publications; answers when that is safe.
    pub(super) fn remove(&self, channel: &Channel) -> Answer<()> {
        let mut state = lock(&self.state);
        let mut filling = match self.filling() {
            Ok(filling) => filling,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let batch = filling.as_ref().map_or(0, Filling::number);
        let position = state.streams.remove(channel, batch);
        let ticket = position.zip(filling.as_mut()).and_then(|(Position { offset, epoch }, filling)| {
            filling.put(&Record::Remove(Place { channel, epoch: &epoch, offset }));
            filling.ticket(batch)
        });
        drop(filling);
        drop(state);
        Box::pin(async move {
            match ticket {
                Some(ticket) => ticket.wait().await,
                None => Ok(()),
            }
        })
    }
}
