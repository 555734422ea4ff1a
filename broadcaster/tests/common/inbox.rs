//! A shard that only collects what a broker tells it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_broadcaster::{BrokerError, Event, Inboxes, Publication, ShardInbox};
use tokio::sync::Notify;

/// How long a test waits for anything before it fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An inbox with a door: closed, it reports no room, and still takes what is pushed.
#[derive(Debug, Default)]
pub struct Collector {
    events: Mutex<VecDeque<Event>>,
    pushed: Notify,
    closed: AtomicBool,
    opened: Notify,
    resumed: AtomicUsize,
}

impl Collector {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// How often the broker has said that it was away. Most tests do not look at that.
    pub fn resumed(&self) -> usize {
        self.resumed.load(Ordering::SeqCst)
    }

    /// The events so far, which are taken out.
    pub fn take(&self) -> Vec<Event> {
        self.events.lock().unwrap().drain(..).collect()
    }

    /// The next event.
    pub async fn next(&self) -> Event {
        let wait = async {
            loop {
                let pushed = self.pushed.notified();
                if let Some(event) = self.events.lock().unwrap().pop_front() {
                    return event;
                }
                pushed.await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("no event within the deadline")
    }

    /// The next `n` publications. Any other event in between fails the test.
    pub async fn publications(&self, n: usize) -> Vec<Arc<Publication>> {
        let mut all = Vec::with_capacity(n);
        while all.len() < n {
            match self.next().await {
                Event::Publications(batch) => all.extend(batch),
                other => panic!("expected publications, got {other:?} after {} of {n}", all.len()),
            }
        }
        assert_eq!(all.len(), n, "more publications than expected");
        all
    }

    /// The next event, which must be the answer to a subscribe.
    pub async fn answer(&self) -> (String, Result<(), BrokerError>) {
        match self.next().await {
            Event::Subscribed { channel, result } => (channel.to_string(), result),
            other => panic!("expected the answer to a subscribe, got {other:?}"),
        }
    }
}

impl ShardInbox for Collector {
    fn push(&self, event: Event) {
        if matches!(event, Event::Resumed) {
            self.resumed.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.events.lock().unwrap().push_back(event);
        self.pushed.notify_one();
    }

    fn has_room(&self) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            loop {
                let opened = self.opened.notified();
                if self.has_room() {
                    return;
                }
                opened.await;
            }
        })
    }
}

/// So many shards, and what a broker needs of them.
pub fn shards(n: usize) -> (Vec<Arc<Collector>>, Inboxes) {
    let collectors: Vec<_> = (0..n).map(|_| Collector::new()).collect();
    let inboxes = collectors.iter().map(|c| Arc::clone(c) as Arc<dyn ShardInbox>).collect();
    (collectors, inboxes)
}
