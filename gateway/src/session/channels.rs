//! The commands that name a channel: subscribe, unsubscribe, publish, sub_refresh.
//!
//! The order of the checks is the protocol's: a client that breaks several rules gets the code
//! that other servers would give.

use tidegate_protocol::code::{DisconnectCode, ErrorCode};
use tidegate_protocol::filter::Filter;
use tidegate_protocol::message::{
    Publication, PublishRequest, SubRefreshRequest, SubscribeRequest, UnsubscribeRequest,
};

use super::{Outcome, Session, View, error_reply};
use crate::config::{ChannelOptions, DataFormat};

/// What holds for a subscription: its channel's options, and its filter.
type Terms<'a> = (&'a ChannelOptions, Option<Filter>);

impl Session {
    pub(super) fn subscribe(&mut self, id: u32, request: SubscribeRequest, view: &View<'_>) -> Outcome {
        if request.channel.is_empty() {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        if let Err(code) = self.has_room_for(&request.channel, view) {
            return Outcome::Reply(error_reply(id, code));
        }
        if !matches!(request.delta.as_str(), "" | "fossil") {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        match self.may_subscribe(&request, view) {
            Ok((options, filter)) => {
                let wishes = self.wishes(&request, filter, options, view.settings);
                Outcome::Subscribe { id, channel: request.channel, wishes }
            }
            Err(code) => Outcome::Reply(error_reply(id, code)),
        }
    }

    fn has_room_for(&self, channel: &str, view: &View<'_>) -> Result<(), ErrorCode> {
        let settings = view.settings;
        settings.channels.check_length(channel)?;
        if view.hub.find(channel).is_some_and(|known| self.place(known).is_some()) {
            return Err(ErrorCode::AlreadySubscribed);
        }
        if self.subscriptions().len() >= settings.channel_limit {
            return Err(ErrorCode::LimitExceeded);
        }
        settings.channels.options(channel).map(|_| ())
    }

    fn may_subscribe<'v>(&self, request: &SubscribeRequest, view: &View<'v>) -> Result<Terms<'v>, ErrorCode> {
        let settings = view.settings;
        let channel = request.channel.as_str();
        let options = settings.channels.options(channel)?;
        let filter = match &request.tf {
            None => None,
            Some(node) if options.allow_tags_filter => Some(Filter::new(node).map_err(|_| ErrorCode::BadRequest)?),
            Some(_) => return Err(ErrorCode::BadRequest),
        };
        // Only stream subscriptions exist.
        if request.r#type != 0 {
            return Err(ErrorCode::PermissionDenied);
        }
        if settings.insecure {
            return Ok((options, filter));
        }
        // A token would decide alone, but none can be verified yet.
        let needs_more = !request.token.is_empty()
            || settings.channels.is_private(channel)
            || settings.channels.is_user_limited(channel);
        let allowed =
            options.allow_subscribe_for_client && (!self.user().is_empty() || options.allow_subscribe_for_anonymous);
        if needs_more || !allowed { Err(ErrorCode::PermissionDenied) } else { Ok((options, filter)) }
    }

    pub(super) fn unsubscribe(&mut self, id: u32, request: &UnsubscribeRequest, view: &View<'_>) -> Outcome {
        if request.channel.is_empty() {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        let channel = view.hub.find(&request.channel).filter(|channel| self.place(*channel).is_some());
        Outcome::Unsubscribe { id, channel }
    }

    pub(super) fn publish(&mut self, id: u32, request: PublishRequest, view: &View<'_>) -> Outcome {
        if request.channel.is_empty() {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        let options = match self.may_publish(&request, view) {
            Ok(options) => options,
            Err(code) => return Outcome::Reply(error_reply(id, code)),
        };
        let retention = view.settings.channels.0.retention(options);
        let delta = options.delta_publish;
        let publication = Publication { data: request.data, info: Some(self.info()), ..Publication::default() };
        Outcome::Publish { id, channel: request.channel, publication: Publication { delta, ..publication }, retention }
    }

    fn may_publish<'v>(&self, request: &PublishRequest, view: &View<'v>) -> Result<&'v ChannelOptions, ErrorCode> {
        let settings = view.settings;
        let options = settings.channels.options(&request.channel)?;
        let fits = match options.publication_data_format {
            DataFormat::Binary => true,
            DataFormat::NotEmpty => !request.data.is_empty(),
            DataFormat::Json => serde_json::from_slice::<serde::de::IgnoredAny>(&request.data).is_ok(),
        };
        // Keyed (map) publications need a namespace that keeps a map: there is none yet.
        if !fits || request.r#type != 0 {
            return Err(ErrorCode::BadRequest);
        }
        if settings.insecure || self.may_publish_as_client(options) {
            return Ok(options);
        }
        let subscribed = options.allow_publish_for_subscriber && self.is_subscribed(&request.channel, view);
        if subscribed { Ok(options) } else { Err(ErrorCode::PermissionDenied) }
    }

    /// Whether the session has a subscription of the channel that the broker has confirmed.
    pub(super) fn is_subscribed(&self, channel: &str, view: &View<'_>) -> bool {
        let place = view.hub.find(channel).and_then(|channel| self.place(channel));
        place.is_some_and(|place| self.subscriptions()[place].position().is_some())
    }

    fn may_publish_as_client(&self, options: &ChannelOptions) -> bool {
        options.allow_publish_for_client && (!self.user().is_empty() || options.allow_publish_for_anonymous)
    }

    /// No subscription expires yet, so there is nothing to refresh.
    pub(super) fn sub_refresh(&mut self, id: u32, request: &SubRefreshRequest, view: &View<'_>) -> Outcome {
        if request.channel.is_empty() {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        let subscribed = view.hub.find(&request.channel).and_then(|channel| self.place(channel)).is_some();
        let code =
            if subscribed && request.token.is_empty() { ErrorCode::BadRequest } else { ErrorCode::PermissionDenied };
        Outcome::Reply(error_reply(id, code))
    }
}
