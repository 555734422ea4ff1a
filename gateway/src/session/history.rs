//! The history command.

use tidegate_broadcaster::HistoryQuery;
use tidegate_protocol::code::{DisconnectCode, ErrorCode};
use tidegate_protocol::message::HistoryRequest;

use super::{Outcome, Session, View, error_reply};

impl Session {
    pub(super) fn history(&mut self, id: u32, request: HistoryRequest, view: &View<'_>) -> Outcome {
        if request.channel.is_empty() {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        match self.may_ask(&request, view) {
            Ok(query) => {
                let epoch = request.since.map(|since| since.epoch).unwrap_or_default();
                Outcome::History { id, channel: request.channel, query, epoch }
            }
            Err(code) => Outcome::Reply(error_reply(id, code)),
        }
    }

    fn may_ask(&self, request: &HistoryRequest, view: &View<'_>) -> Result<HistoryQuery, ErrorCode> {
        let settings = view.settings;
        let options = settings.channels.options(&request.channel)?;
        if settings.channels.0.retention(options).is_none() {
            return Err(ErrorCode::NotAvailable);
        }
        if !self.may_read_history(options, settings, self.is_subscribed(&request.channel, view)) {
            return Err(ErrorCode::PermissionDenied);
        }
        let since = request.since.as_ref().map(|since| since.offset);
        query(since, request.limit, request.reverse, settings.history_limit)
            .map(|query| HistoryQuery { meta_ttl: settings.channels.0.meta_ttl(options), ..query })
    }
}

/// What a request asks for: a limit of 0 is the position alone, a negative one as much as is allowed.
///
/// # Errors
/// 107 for what lies before the first publication.
pub fn query(since: Option<u64>, limit: i32, reverse: bool, most: u32) -> Result<HistoryQuery, ErrorCode> {
    if reverse && since == Some(0) {
        return Err(ErrorCode::BadRequest);
    }
    let limit = u32::try_from(limit).map_or(most, |limit| limit.min(most));
    Ok(HistoryQuery { since, limit, reverse, meta_ttl: std::time::Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_the_request_says_within_what_is_allowed() {
        let limit = |limit| query(None, limit, false, 300).unwrap().limit;
        assert_eq!([limit(0), limit(7), limit(1000), limit(-1)], [0, 7, 300, 300]);
    }

    #[test]
    fn nothing_lies_before_the_first() {
        assert_eq!(query(Some(0), 1, true, 300), Err(ErrorCode::BadRequest));
        assert!(query(Some(0), 1, false, 300).is_ok() && query(None, 1, true, 300).is_ok());
    }
}
