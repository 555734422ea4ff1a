//! New settings while the node runs: subscriptions that would be others now are ended, and SDKs subscribe again.
//!
//! A channel's subscriptions are ended together, so that it never serves two kinds of them; and before anybody subscribes to it
//! under the new settings.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use tidegate_broadcaster::Channel;
use tidegate_protocol::code::ErrorCode;

use super::Shard;
use super::slab::Key;
use super::socket::Socket;
use crate::hub::{ChannelId, Waiter};
use crate::session::settings::Settings;

/// Channels looked at in one turn, and subscriptions ended, unless a single channel has more.
const AT_ONCE: usize = 256;

/// A reload in progress.
#[derive(Debug)]
pub(super) struct Reload {
    /// The settings that held before.
    before: Arc<Settings>,
    /// The channels below this one have been looked at.
    next: ChannelId,
    /// Those that are above it and have been looked at all the same, or were opened since.
    fresh: FxHashSet<ChannelId>,
}

impl Reload {
    /// The channel is what it would be under the settings of now.
    pub(super) fn note_fresh(&mut self, channel: ChannelId) {
        if channel >= self.next {
            self.fresh.insert(channel);
        }
    }
}

impl<S: Socket> Shard<S> {
    /// New settings hold from now on.
    pub(super) fn reload(&mut self, settings: Arc<Settings>) {
        // A channel that was opened two settings ago is compared with those first.
        while self.reload.is_some() {
            self.renew_some();
        }
        let before = std::mem::replace(&mut self.setup.settings, settings);
        self.reload = Some(Reload { before, next: 0, fresh: FxHashSet::default() });
    }

    /// Looks at some of the channels that were opened under the settings of before.
    pub(super) fn renew_some(&mut self) {
        let mut left = AT_ONCE;
        while left > 0 {
            let slots = self.hub.slots();
            let Some(reload) = self.reload.as_mut() else { return };
            let channel = reload.next;
            if channel >= slots {
                self.reload = None;
                return;
            }
            left = left.saturating_sub(1 + self.renew(channel));
            if let Some(reload) = self.reload.as_mut() {
                reload.fresh.remove(&channel);
                reload.next += 1;
            }
        }
    }

    /// Sees to it that a channel serves no subscriptions of before that would be others now. Answers how many it ended.
    pub(super) fn renew(&mut self, channel: ChannelId) -> usize {
        let Some(reload) = self.reload.as_mut() else { return 0 };
        let Some(name) = self.hub.name(channel).map(Channel::clone) else { return 0 };
        if channel < reload.next || reload.fresh.contains(&channel) {
            return 0;
        }
        reload.note_fresh(channel);
        let now = &self.setup.settings.channels;
        let traits = now.traits(&name);
        if reload.before.channels.subscribes_alike(now, &name) {
            self.hub.set_traits(channel, traits);
            return 0;
        }
        let waiting: Vec<(Key, u32)> = (self.hub.give_up_waiting(channel).into_iter())
            .map(|Waiter { session, command, .. }| (session, command))
            .chain(self.recoveries.forget(channel).into_iter().map(|reader| (reader.session, reader.command)))
            .collect();
        for (session, command) in waiting {
            // Temporary: SDKs ask again.
            self.stay_out(channel, session, command, ErrorCode::Internal);
            self.go_on(session);
        }
        let ended = self.expel(&name, channel);
        self.stats.renewed.add(ended as u64);
        self.hub.set_traits(channel, traits);
        self.release_if_unused(channel);
        ended
    }
}
