//! The commands that ask who is in a channel.

use tidegate_protocol::code::{DisconnectCode, ErrorCode};
use tidegate_protocol::message::ClientInfo;

use super::{Outcome, Session, View, error_reply};

/// What is asked about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Who is in it.
    Members,
    /// How many are.
    Numbers,
}

impl Session {
    /// What others learn of the session.
    pub fn info(&self) -> ClientInfo {
        ClientInfo { user: self.user().into(), client: self.client().to_string(), ..ClientInfo::default() }
    }

    pub(super) fn presence(&mut self, id: u32, channel: String, question: Question, view: &View<'_>) -> Outcome {
        if channel.is_empty() {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        match self.may_ask_presence(&channel, view) {
            Ok(()) => Outcome::Presence { id, channel, question },
            Err(code) => Outcome::Reply(error_reply(id, code)),
        }
    }

    fn may_ask_presence(&self, channel: &str, view: &View<'_>) -> Result<(), ErrorCode> {
        let options = view.settings.channels.options(channel)?;
        if !options.presence {
            return Err(ErrorCode::NotAvailable);
        }
        let subscribed = self.is_subscribed(channel, view);
        if self.may_read_presence(options, view.settings, subscribed) {
            Ok(())
        } else {
            Err(ErrorCode::PermissionDenied)
        }
    }
}
