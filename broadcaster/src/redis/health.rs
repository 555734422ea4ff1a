//! Whether a connection to Redis is up, and since when it is not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::broker::BrokerHealth;

/// The health of one connection, written by its task and read by anyone.
#[derive(Debug)]
pub(crate) struct Health(Mutex<Option<(Instant, Arc<str>)>>);

impl Health {
    /// A connection that has not been made yet.
    pub(crate) fn connecting() -> Self {
        Self(Mutex::new(Some((Instant::now(), Arc::from("connecting for the first time")))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Arc<str>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is down; it counts as down since the first call after it was up.
    pub(crate) fn degrade(&self, reason: &str) {
        let mut down = self.lock();
        let since = down.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *down = Some((since, Arc::from(reason)));
    }

    /// A connection is wanted where none was.
    pub(crate) fn connect(&self) {
        *self.lock() = Self::connecting().0.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// The connection is up.
    pub(crate) fn restore(&self) {
        *self.lock() = None;
    }

    /// Whether the connection is up.
    pub(crate) fn is_up(&self) -> bool {
        self.lock().is_none()
    }

    /// Why the connection is down, where it is.
    pub(crate) fn down(&self) -> Option<Arc<str>> {
        self.lock().as_ref().map(|(_, reason)| Arc::clone(reason))
    }

    /// For the outside.
    pub(crate) fn get(&self) -> BrokerHealth {
        self.lock().as_ref().map_or(BrokerHealth::Healthy, |(since, reason)| BrokerHealth::Degraded {
            since: since.elapsed(),
            reason: Arc::clone(reason),
        })
    }
}
