//! Pings, pongs and deadlines.
//!
//! A session has one deadline at a time. What it is is decided when it comes up: most of the
//! time something has happened meanwhile, and the deadline only moves on.

use tidegate_protocol::code::DisconnectCode;

use super::settings::Timing;
use super::{Outcome, Session, State, View};
use crate::shard::wheel::Tick;

/// The share of an interval in whose multiples pings are due: with 25 s, whole seconds. A shard that sends its pings of a second
/// together is woken for many pongs at once, where each of them alone would take it several times what it then does.
const GRAINS: Tick = 25;

/// The largest of such grains, in ticks: a second.
const LARGEST_GRAIN: Tick = 10;

/// When what happened last and is due next. Sixteen bytes and two flags.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    opened: Tick,
    last_traffic: Tick,
    /// When the next ping is due; `Tick::MAX` when there are none.
    next_ping: Tick,
    pinged: Tick,
    awaiting_pong: bool,
    /// Pings are the transport's own frames (`cf_ws_frame_ping_pong`), not the protocol's.
    pub frame_pings: bool,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this tick.
    Wait(Tick),
    /// A ping, and nothing else before this tick.
    Ping(Tick),
    /// The connection ends.
    Close(DisconnectCode),
}

impl Heartbeat {
    pub(super) fn new(now: Tick, frame_pings: bool) -> Self {
        Self { opened: now, last_traffic: now, next_ping: Tick::MAX, pinged: 0, awaiting_pong: false, frame_pings }
    }

    /// Schedules the first ping, uniformly between half an interval and a whole one from now, so
    /// that clients which came together do not pong together. Answers what the client is told of
    /// the interval: nothing where the pings are the transport's.
    pub(super) fn connected(&mut self, now: Tick, random: u64, timing: &Timing) -> Option<Tick> {
        let interval = timing.ping_interval?;
        let half = interval / 2;
        let first = now + half + (random % u64::from(interval - half + 1)) as Tick;
        self.next_ping = first.next_multiple_of((interval / GRAINS).clamp(1, LARGEST_GRAIN));
        (!self.frame_pings).then_some(interval)
    }

    /// Bytes went in or out.
    pub fn touch(&mut self, now: Tick) {
        self.last_traffic = now;
    }

    /// Ticks since bytes last went in or out.
    pub fn silent_for(&self, now: Tick) -> Tick {
        now.saturating_sub(self.last_traffic)
    }

    /// When the pong that is awaited is too late; `Tick::MAX` where none is.
    fn pong_due(&self, timing: &Timing) -> Tick {
        if self.awaiting_pong { self.pinged + timing.pong_timeout } else { Tick::MAX }
    }

    /// When the connection has been idle for too long; `Tick::MAX` where it may be.
    fn idle_due(&self, timing: &Timing) -> Tick {
        timing.idle_timeout.map_or(Tick::MAX, |timeout| self.last_traffic + timeout)
    }

    /// A pong of the transport. Unlike the protocol's, one that nobody asked for is allowed
    /// (RFC 6455, 5.5.3). Answers whether it came later than the lag threshold.
    pub fn frame_pong(&mut self, now: Tick, timing: &Timing) -> bool {
        let awaited = self.frame_pings && std::mem::take(&mut self.awaiting_pong);
        awaited && now.saturating_sub(self.pinged) > timing.lag_threshold
    }
}

impl Session {
    /// An empty command: the answer to a ping, and a violation where there was none.
    pub(super) fn pong(&mut self, view: &View<'_>) -> Outcome {
        let heartbeat = &mut self.heartbeat;
        if heartbeat.frame_pings || !std::mem::take(&mut heartbeat.awaiting_pong) {
            return Outcome::Disconnect(DisconnectCode::BadRequest);
        }
        Outcome::Pong(view.now.saturating_sub(heartbeat.pinged) > view.settings.timing.lag_threshold)
    }

    /// When something is due next, as far as is known now.
    pub fn deadline(&self, timing: &Timing) -> Tick {
        let heartbeat = &self.heartbeat;
        if self.state == State::New {
            return heartbeat.opened + timing.stale_close_delay;
        }
        heartbeat.next_ping.min(heartbeat.pong_due(timing)).min(heartbeat.idle_due(timing))
    }

    /// Whether the client is late: with its connect, with a pong, or with anything at all.
    pub fn is_overdue(&self, now: Tick, timing: &Timing) -> bool {
        let heartbeat = &self.heartbeat;
        if self.state == State::New {
            return now >= heartbeat.opened + timing.stale_close_delay;
        }
        now >= heartbeat.pong_due(timing).min(heartbeat.idle_due(timing))
    }

    /// What is due now, and when to ask again.
    pub fn due(&mut self, now: Tick, timing: &Timing) -> Due {
        if now < self.deadline(timing) {
            return Due::Wait(self.deadline(timing));
        }
        if self.state == State::New {
            return Due::Close(DisconnectCode::Stale);
        }
        let heartbeat = &mut self.heartbeat;
        if now >= heartbeat.pong_due(timing) {
            return Due::Close(DisconnectCode::NoPong);
        }
        if now >= heartbeat.idle_due(timing) {
            return Due::Close(DisconnectCode::ConnectionClosed);
        }
        let interval = timing.ping_interval.unwrap_or(Tick::MAX / 2);
        heartbeat.awaiting_pong = true;
        heartbeat.pinged = now;
        // From when it was due, not from now: the spread of the first ping stays.
        heartbeat.next_ping = (heartbeat.next_ping + interval).max(now + 1);
        Due::Ping(self.deadline(timing))
    }
}
