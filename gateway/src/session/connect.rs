//! The connect command.

use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::message::{ConnectRequest, ConnectResult, Reply};

use super::{Outcome, Session, State, View, reply};
use crate::shard::wheel::TICK_MS;

impl Session {
    /// Whoever brings no token may be anonymous, where that is allowed. There is no way to verify
    /// a token yet: one that is brought is not valid, except where nothing is checked.
    pub(super) fn connect(&mut self, id: u32, request: &ConnectRequest, view: &View<'_>) -> Outcome {
        let settings = view.settings;
        if !settings.insecure {
            if !request.token.is_empty() {
                return Outcome::Disconnect(DisconnectCode::InvalidToken);
            }
            if !settings.allow_anonymous {
                return Outcome::Disconnect(DisconnectCode::BadRequest);
            }
        }
        self.state = State::Connected;
        self.client = view.fresh_id;
        let pings = self.heartbeat.connected(view.now, view.random, &settings.timing);
        let connect = ConnectResult {
            client: self.client.to_string(),
            version: settings.version.clone(),
            ping: pings.map_or(0, |interval| (u64::from(interval) * TICK_MS / 1000).max(1) as u32),
            pong: pings.is_some(),
            time: if settings.include_server_time { view.unix_ms } else { 0 },
            ..ConnectResult::default()
        };
        Outcome::Connected(Reply { connect: Some(connect), ..reply(id) })
    }
}
