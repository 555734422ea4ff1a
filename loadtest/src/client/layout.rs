//! Which session subscribes to which channels.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::settings::Sessions;
use crate::zipf::{self, Zipf};

/// Channels, numbered from 0, and how sessions are spread over them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Shape", into = "Shape")]
pub(crate) struct Layout {
    /// Channels in all.
    channels: u32,
    /// Channels of each session.
    subscriptions: u32,
    /// Draws each session's only channel by popularity.
    zipf: Option<Arc<Zipf>>,
}

/// What a layout is made from; goes to other processes in its place.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Shape {
    channels: u32,
    subscriptions: u32,
    /// The exponent of the channels' popularity.
    exponent: Option<f64>,
}

impl From<Shape> for Layout {
    fn from(shape: Shape) -> Self {
        match shape.exponent {
            Some(exponent) => Self::popular(Arc::new(Zipf::new(shape.channels, exponent))),
            None => Self::even(shape.channels, shape.subscriptions),
        }
    }
}

impl From<Layout> for Shape {
    fn from(layout: Layout) -> Self {
        let exponent = layout.zipf.map(|zipf| zipf.exponent());
        Self { channels: layout.channels, subscriptions: layout.subscriptions, exponent }
    }
}

impl Layout {
    /// Session i subscribes to `subscriptions` channels from number `i * subscriptions` on, modulo `channels`. So one
    /// channel is shared by all, as many channels as subscriptions are shared by all, and as many channels as all
    /// subscriptions together have one subscriber each. No channel comes twice: there are at least as many channels as
    /// a session has subscriptions.
    pub(crate) fn even(channels: u32, subscriptions: u32) -> Self {
        let subscriptions = subscriptions.max(1);
        Self { channels: channels.max(subscriptions), subscriptions, zipf: None }
    }

    /// Each of so many sessions has channels of its own.
    pub(crate) fn own(sessions: u32, subscriptions: u32) -> Self {
        Self::even(sessions.saturating_mul(subscriptions.max(1)), subscriptions)
    }

    /// The channels of sessions that only exist: of their own, or shared.
    pub(crate) fn of_idle(sessions: &Sessions) -> Self {
        if sessions.own_channels {
            Self::own(sessions.sessions, sessions.subscriptions)
        } else {
            Self::even(sessions.channels, sessions.subscriptions)
        }
    }

    /// The channels' popularity, where sessions are spread by it.
    pub(crate) fn popularity(&self) -> Option<&Arc<Zipf>> {
        self.zipf.as_ref()
    }

    /// Each session subscribes to one channel, by the channels' popularity.
    pub(crate) fn popular(zipf: Arc<Zipf>) -> Self {
        Self { channels: zipf.channels(), subscriptions: 1, zipf: Some(zipf) }
    }

    /// Channels in all, at least 1.
    pub(crate) fn channels(&self) -> u32 {
        self.channels
    }

    /// Channels of each session, at least 1.
    pub(crate) fn subscriptions(&self) -> u32 {
        self.subscriptions
    }

    /// The first channel of a session.
    pub(crate) fn first(&self, session: u32) -> u32 {
        match &self.zipf {
            Some(zipf) => zipf.at(zipf::spread(session)),
            None => (u64::from(session) * u64::from(self.subscriptions) % u64::from(self.channels)) as u32,
        }
    }

    /// All channels of a session whose first is this.
    pub(crate) fn channels_from(&self, first: u32) -> impl Iterator<Item = u32> {
        let channels = u64::from(self.channels);
        (0..self.subscriptions).map(move |place| ((u64::from(first) + u64::from(place)) % channels) as u32)
    }

    /// How many of the first `sessions` sessions subscribe to each channel.
    pub(crate) fn subscribers(&self, sessions: u32) -> Vec<u32> {
        let channels = u64::from(self.channels);
        if self.zipf.is_some() {
            let mut counts = vec![0; self.channels as usize];
            (0..sessions).for_each(|session| counts[self.first(session) as usize] += 1);
            return counts;
        }
        let all = u64::from(sessions) * u64::from(self.subscriptions);
        (0..channels).map(|channel| (all / channels + u64::from(channel < all % channels)) as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The subscribers of each channel, counted session by session.
    fn counted(layout: &Layout, sessions: u32) -> Vec<u32> {
        let mut counts = vec![0; layout.channels() as usize];
        for session in 0..sessions {
            let channels: Vec<u32> = layout.channels_from(layout.first(session)).collect();
            let distinct: std::collections::BTreeSet<_> = channels.iter().collect();
            assert_eq!(distinct.len(), channels.len(), "a session subscribes to no channel twice");
            channels.iter().for_each(|channel| counts[*channel as usize] += 1);
        }
        counts
    }

    #[test]
    fn the_formula_for_subscribers_is_what_counting_gives() {
        for (channels, subscriptions, sessions) in
            [(1, 1, 10), (10, 1, 7), (3, 1, 10), (4, 4, 9), (30, 3, 10), (7, 3, 11)]
        {
            let layout = Layout::even(channels, subscriptions);
            assert_eq!(layout.subscribers(sessions), counted(&layout, sessions), "{channels} {subscriptions}");
        }
        let layout = Layout::popular(Arc::new(Zipf::new(50, 1.0)));
        assert_eq!(layout.subscribers(1000), counted(&layout, 1000));
    }

    #[test]
    fn another_process_has_the_same_layout() {
        for layout in [Layout::even(7, 3), Layout::popular(Arc::new(Zipf::new(50, 1.2)))] {
            let json = serde_json::to_string(&layout).unwrap();
            let there: Layout = serde_json::from_str(&json).unwrap();
            assert_eq!(there.subscribers(1000), layout.subscribers(1000), "{json}");
        }
    }

    #[test]
    fn shared_and_own_channels_are_cases_of_one_rule() {
        let shared = Layout::even(3, 3);
        assert_eq!(shared.subscribers(8), [8, 8, 8]);
        let own = Layout::own(8, 3);
        assert_eq!(own.subscribers(8), [1; 24]);
    }
}
