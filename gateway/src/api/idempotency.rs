//! A publish that is sent again is answered with the first one's result, not published again.
//!
//! Results are kept per channel and key for a time. Two requests with one key at once publish
//! once: the second waits for the first. A publish that failed is forgotten, so that a retry tries again.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidegate_broadcaster::BrokerError;
use tokio::sync::OnceCell;

use super::request::PublishResult;
use super::stats::ApiStats;

/// Bounds of the memory of results.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencySettings {
    /// How long a result is kept.
    pub keep: Duration,
    /// How many results are kept; with more, the oldest goes first, and is counted.
    pub max_keys: usize,
    /// How many bytes a key may have. With `max_keys` and the longest channel name this bounds the
    /// memory: about (`max_key_bytes` + 255 + 200) x `max_keys`, 45 MB in the worst case by default,
    /// 16 MB with keys like UUIDs.
    pub max_key_bytes: usize,
}

impl Default for IdempotencySettings {
    fn default() -> Self {
        Self { keep: Duration::from_secs(300), max_keys: 65_536, max_key_bytes: 256 }
    }
}

/// The result of one publish, once it is there.
type Slot = Arc<OnceCell<PublishResult>>;

/// Channel and key.
type Name = Arc<(Box<str>, Box<str>)>;

/// The memory of results.
#[derive(Debug)]
pub struct Idempotency {
    /// Bounds.
    pub settings: IdempotencySettings,
    known: Mutex<Known>,
    stats: Arc<ApiStats>,
}

#[derive(Debug, Default)]
struct Known {
    slots: HashMap<Name, Slot, foldhash::fast::RandomState>,
    /// Every name of `slots` with the time it goes, oldest first: all are kept equally long.
    order: VecDeque<(Instant, Name)>,
}

impl Idempotency {
    /// An empty memory.
    pub fn new(settings: IdempotencySettings, stats: Arc<ApiStats>) -> Self {
        Self { settings, known: Mutex::default(), stats }
    }

    /// Answers from memory, or lets `publish` do it and remembers the result.
    ///
    /// `publish` runs in a task of its own: a caller that gives up and tries again with the same
    /// key must find the result of what it started.
    ///
    /// # Errors
    /// What `publish` fails with, or [`BrokerError::Refused`] should its task have died.
    pub async fn once<F>(
        &self,
        channel: &str,
        key: &str,
        now: Instant,
        publish: impl FnOnce() -> F + Send + 'static,
    ) -> Result<PublishResult, BrokerError>
    where
        F: Future<Output = Result<PublishResult, BrokerError>> + Send,
    {
        let slot = self.slot(channel, key, now);
        if let Some(result) = slot.get() {
            self.stats.replayed.fetch_add(1, Relaxed);
            return Ok(result.clone());
        }
        let stats = self.stats.clone();
        let task = tokio::spawn(async move {
            let mut published = false;
            let result = slot
                .get_or_try_init(|| {
                    published = true;
                    publish()
                })
                .await
                .cloned();
            if !published && result.is_ok() {
                stats.replayed.fetch_add(1, Relaxed);
            }
            result
        });
        task.await.unwrap_or_else(|error| Err(BrokerError::Refused(format!("the publish died: {error}").into())))
    }

    /// The slot of a channel and key: the one that is known, or a new one.
    fn slot(&self, channel: &str, key: &str, now: Instant) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while known.order.front().is_some_and(|(until, _)| *until <= now) {
            known.forget_oldest();
        }
        let name = Arc::new((channel.into(), key.into()));
        if let Some(slot) = known.slots.get(&name) {
            return slot.clone();
        }
        if known.order.len() >= self.settings.max_keys {
            known.forget_oldest();
            self.stats.keys_evicted.fetch_add(1, Relaxed);
        }
        let slot = Slot::default();
        known.slots.insert(name.clone(), slot.clone());
        known.order.push_back((now + self.settings.keep, name));
        self.stats.keys.store(known.order.len() as u64, Relaxed);
        slot
    }
}

impl Known {
    fn forget_oldest(&mut self) {
        if let Some((_, name)) = self.order.pop_front() {
            self.slots.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use tokio::sync::oneshot;

    use super::*;

    fn memory(max_keys: usize) -> Idempotency {
        Idempotency::new(IdempotencySettings { max_keys, ..IdempotencySettings::default() }, Arc::default())
    }

    /// Publishes and says how many publishes there were until then.
    async fn publish(memory: &Idempotency, channel: &str, key: &str, now: Instant, count: &Arc<AtomicU64>) -> u64 {
        let count = count.clone();
        let publish =
            || async move { Ok(PublishResult { offset: count.fetch_add(1, Relaxed) + 1, ..Default::default() }) };
        memory.once(channel, key, now, publish).await.unwrap().offset
    }

    #[tokio::test]
    async fn a_key_publishes_once_per_channel_until_its_time_is_over() {
        let (memory, count, now) = (memory(10), Arc::default(), Instant::now());
        assert_eq!(publish(&memory, "a", "k", now, &count).await, 1);
        assert_eq!(publish(&memory, "a", "k", now + Duration::from_secs(299), &count).await, 1);
        assert_eq!(publish(&memory, "b", "k", now, &count).await, 2);
        assert_eq!(publish(&memory, "a", "l", now, &count).await, 3);
        assert_eq!(publish(&memory, "a", "k", now + Duration::from_secs(300), &count).await, 4);
        assert_eq!(memory.stats.replayed.load(Relaxed), 1);
        assert_eq!(memory.stats.keys.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn the_oldest_key_goes_when_there_is_no_room_and_is_counted() {
        let (memory, count, now) = (memory(2), Arc::default(), Instant::now());
        for (key, expected) in [("k", 1), ("l", 2), ("m", 3), ("l", 2), ("k", 4)] {
            assert_eq!(publish(&memory, "a", key, now, &count).await, expected);
        }
        assert_eq!(memory.stats.keys_evicted.load(Relaxed), 2);
        let known = memory.known.lock().unwrap();
        assert_eq!((known.slots.len(), known.order.len()), (2, 2));
    }

    #[tokio::test]
    async fn a_failed_publish_is_tried_again() {
        let (memory, now) = (memory(10), Instant::now());
        let refused = BrokerError::Refused("no".into());
        let failing = refused.clone();
        let failed = memory.once("a", "k", now, || async { Err(failing) }).await;
        assert_eq!(failed, Err(refused));
        assert_eq!(publish(&memory, "a", "k", now, &Arc::default()).await, 1);
    }

    #[tokio::test]
    async fn a_publish_goes_on_when_its_caller_gives_up_and_a_retry_gets_its_result() {
        let (memory, now) = (memory(10), Instant::now());
        let (started, has_started) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let slow = || async move {
            started.send(()).unwrap();
            Ok(PublishResult { offset: answered.await.unwrap(), ..Default::default() })
        };
        tokio::select! {
            _ = memory.once("a", "k", now, slow) => panic!("there is no answer yet"),
            started = has_started => started.unwrap(),
        }
        let again = memory.once("a", "k", now, || async { panic!("published twice") });
        let (result, ()) = tokio::join!(again, async { answer.send(7).unwrap() });
        assert_eq!(result.unwrap().offset, 7);
        assert_eq!(memory.stats.replayed.load(Relaxed), 1);
    }
}
