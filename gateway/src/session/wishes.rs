//! What a subscription asks for beyond live publications, as far as its namespace lets it.

use std::time::Duration;

use tidegate_broadcaster::{HistoryQuery, Position};
use tidegate_protocol::filter::Filter;
use tidegate_protocol::message::SubscribeRequest;

use super::Session;
use super::settings::Settings;
use crate::config::{ChannelOptions, DELTA_FOSSIL, RecoveryMode};

/// `SubscribeRequest.flag`: rather an error (112) than a subscription that has missed something.
const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// A subscription that is more than a plain one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// Its position counts: it is told when it has missed something.
    pub positioned: bool,
    /// It may come back and recover. Such a one is always positioned.
    pub recoverable: bool,
    /// Where the client is, if it wants what it has missed.
    pub recover: Option<Position>,
    /// What it gets then.
    pub mode: RecoveryMode,
    /// Where that is not to be had, the subscribe fails with 112.
    pub reject_unrecovered: bool,
    /// The most publications of one recovery (`client.recovery_max_publication_limit`).
    pub limit: u32,
    /// How long the channel's position is remembered.
    pub meta_ttl: Duration,
    /// Which publications it gets; `None`: all.
    pub filter: Option<Box<Filter>>,
    /// It receives deltas. Such a one is always positioned, and has no filter.
    pub delta: bool,
    /// It is told who comes and goes.
    pub attending: bool,
}

impl Wishes {
    /// What the broker has to be asked for it.
    pub fn query(&self) -> HistoryQuery {
        match (&self.recover, self.mode) {
            (None, _) => HistoryQuery::top(self.meta_ttl),
            (Some(_), RecoveryMode::Cache) => HistoryQuery::newest(self.meta_ttl),
            (Some(from), RecoveryMode::Stream) => HistoryQuery::missed(from.offset, self.limit, self.meta_ttl),
        }
    }
}

impl Session {
    /// What the request asks for, and may. Wishes that are not allowed are passed over: the reply tells the truth. `None`: a
    /// plain subscription.
    pub(super) fn wishes(
        &self,
        request: &SubscribeRequest,
        filter: Option<Filter>,
        options: &ChannelOptions,
        settings: &Settings,
    ) -> Option<Box<Wishes>> {
        let channels = &settings.channels.0;
        let keeps = channels.retention(options).is_some();
        let reads = self.may_read_history(options, settings, true);
        let recoverable =
            keeps && (options.force_recovery || (request.recoverable && (options.allow_recovery || reads)));
        let delta = keeps
            && filter.is_none()
            && request.delta == DELTA_FOSSIL
            && options.allowed_delta_types.iter().any(|kind| kind == DELTA_FOSSIL);
        let positioned = recoverable
            || delta
            || keeps && (options.force_positioning || (request.positioned && (options.allow_positioning || reads)));
        let attending = options.join_leave
            && (options.force_push_join_leave
                || (request.join_leave && self.may_read_presence(options, settings, true)));
        (positioned || filter.is_some() || attending).then(|| {
            let recovers = request.recover || options.auto_cache_recover;
            let from = || Position { offset: request.offset, epoch: request.epoch.as_str().into() };
            Box::new(Wishes {
                positioned,
                recoverable,
                recover: (recoverable && recovers).then(from),
                mode: options.force_recovery_mode,
                reject_unrecovered: request.flag & FLAG_REJECT_UNRECOVERED != 0,
                limit: settings.recovery_limit,
                meta_ttl: channels.meta_ttl(options),
                filter: filter.map(Box::new),
                delta,
                attending,
            })
        })
    }

    /// Whether the session may ask who is in channels with these options.
    pub(super) fn may_read_presence(&self, options: &ChannelOptions, settings: &Settings, subscribed: bool) -> bool {
        settings.insecure
            || (options.allow_presence_for_client || (options.allow_presence_for_subscriber && subscribed))
                && (!self.user().is_empty() || options.allow_presence_for_anonymous)
    }

    /// Whether the session may read the history of channels with these options.
    pub(super) fn may_read_history(&self, options: &ChannelOptions, settings: &Settings, subscribed: bool) -> bool {
        settings.insecure
            || (options.allow_history_for_client || (options.allow_history_for_subscriber && subscribed))
                && (!self.user().is_empty() || options.allow_history_for_anonymous)
    }
}
