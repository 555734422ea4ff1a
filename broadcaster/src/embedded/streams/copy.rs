//! A channel's history as a whole: taken out for a snapshot, put in after a restart.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{Stream, Streams};
use crate::broker::Version;
use crate::publication::{Channel, Publication};

/// All that is kept of a channel.
#[derive(Debug)]
pub(in crate::embedded) struct StreamCopy {
    pub(in crate::embedded) channel: Channel,
    pub(in crate::embedded) epoch: Arc<str>,
    pub(in crate::embedded) top: u64,
    /// In the order of their offsets.
    pub(in crate::embedded) publications: VecDeque<Arc<Publication>>,
    pub(in crate::embedded) publications_until: Instant,
    pub(in crate::embedded) until: Instant,
    pub(in crate::embedded) version: Version,
    /// Until when, the key, the offset that it came to; the oldest first.
    pub(in crate::embedded) answered: VecDeque<(Instant, String, u64)>,
}

impl Streams {
    /// Every channel that something is kept of.
    pub(in crate::embedded) fn channels(&self) -> Vec<Channel> {
        self.streams.keys().map(Arc::clone).collect()
    }

    /// What is kept of a channel and not too old.
    pub(in crate::embedded) fn copy(&self, channel: &Channel, now: Instant) -> Option<StreamCopy> {
        let stream = self.streams.get(channel).filter(|stream| now < stream.until)?;
        let publications = if now < stream.publications_until { stream.publications.clone() } else { VecDeque::new() };
        Some(StreamCopy {
            channel: Channel::clone(channel),
            epoch: Arc::clone(&stream.epoch),
            top: stream.top,
            publications,
            publications_until: stream.publications_until,
            until: stream.until,
            version: stream.version.clone(),
            answered: stream.answered.iter().filter(|(until, ..)| *until > now).cloned().collect(),
        })
    }

    /// Puts back what was kept of a channel. What was there of it is replaced.
    pub(in crate::embedded) fn restore(&mut self, copy: StreamCopy) {
        let StreamCopy { channel, epoch, top, publications, publications_until, until, version, answered } = copy;
        publications.iter().for_each(|publication| self.usage.add(publication));
        let mut stream = Stream {
            epoch,
            top,
            publications,
            publications_until,
            until,
            entered: until,
            logged_until: until,
            batch: 0,
            version,
            answered,
        };
        stream.entered = stream.next();
        self.due.insert((stream.entered, Channel::clone(&channel)));
        if let Some(mut replaced) = self.streams.insert(Channel::clone(&channel), stream) {
            self.due.remove(&(replaced.entered, channel));
            replaced.clear(&mut self.usage);
        }
    }
}
