//! One session: what it is waiting for, which message is next, and what its bytes mean. No socket is touched here.

use serde::{Deserialize, Serialize};

use super::count::{Arrival, Count};
use super::tally::Tally;
use crate::stamp::Stamp;
use crate::wire::reply::{self, Reply};
use crate::wire::websocket::{self, Upgrade};
use crate::wire::{Malformed, Wire};

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// TCP connects.
    Connecting,
    /// The upgrade was asked for.
    Upgrading,
    /// Connect and subscribe are on their way; the connect is not answered yet.
    Opening,
    /// The subscribe is not answered yet.
    Subscribing,
    /// Subscribed.
    Ready,
    /// Over; kept for its accounting.
    Ended,
}

/// What one measurement needs to know to judge a message.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Expectation {
    /// The measurement's number.
    pub(crate) round: u16,
    /// Bytes of every payload.
    pub(crate) payload: usize,
    /// From one message of a channel to the next, in ns; 0 where there is no schedule.
    pub(crate) interval: u64,
}

/// What is to be done after bytes were read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Continue,
    /// The upgrade is granted: send the opening commands.
    SendOpening,
    /// The session has just become ready.
    Ready,
    /// The session is over, for this reason.
    End(String),
}

/// What one read brings along, beside its bytes.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    /// What is spoken.
    pub(crate) wire: Wire,
    /// When the bytes were read, in ns of [`crate::clock::now`].
    pub(crate) now: u64,
    /// What messages are judged by.
    pub(crate) expected: Expectation,
    /// Channels in all.
    pub(crate) channels: u32,
    /// The session's own channels, from its first on.
    pub(crate) counts: &'a mut [Count],
    /// Where it is all counted.
    pub(crate) tally: &'a mut Tally,
    /// What is to be sent is appended here.
    pub(crate) answer: &'a mut Vec<u8>,
}

impl Reading<'_> {
    /// Answers a server's ping.
    fn pong(&mut self) {
        if self.wire.is_websocket() {
            websocket::push_client_frame(self.wire.opcode(), self.wire.pong(), self.answer);
        } else {
            self.answer.extend_from_slice(self.wire.pong());
        }
    }
}

/// What came of the bytes of one read.
struct Parsed {
    outcome: Outcome,
    /// Bytes that need not come again.
    taken: usize,
    /// The beginning of a message whose frame has ended before it.
    cut: Vec<u8>,
}

/// The state of one session. Idle, it owns no heap memory.
#[derive(Debug)]
pub(crate) struct Session {
    /// What is incomplete: the beginning of a message that a frame's end has cut (`cut` bytes of it), then the
    /// beginning of a frame. Without a heap block while there is nothing.
    carry: Vec<u8>,
    /// When `connect` was called; once it is ready, when it became so. In ns of [`crate::clock::now`].
    pub(crate) since: u64,
    /// The number of the first channel that it subscribes to.
    pub(crate) channel: u32,
    /// Bytes of `carry` that have come out of their frames already.
    cut: u32,
    /// Which of the target's servers it connects to.
    pub(crate) server: u16,
    /// Subscribes that are not answered yet.
    awaiting: u16,
    /// How far it has come.
    pub(crate) phase: Phase,
    /// Does not read once it is ready.
    pub(crate) stalled: bool,
    /// It has been subscribed to everything, and is owed the messages of this measurement.
    pub(crate) subscribed: bool,
    /// Pings are to be answered.
    pong: bool,
    /// The disconnect code that a push announced; 0 for none.
    announced: u16,
}

// A promise of the documentation: 19,000 sessions fit into a few megabytes.
const _: () = assert!(size_of::<Session>() + size_of::<Count>() <= 64);

impl Session {
    /// A session that begins to connect to a server at `opened`, to subscribe to so many channels from `channel` on.
    pub(crate) fn new(server: u16, channel: u32, subscriptions: u16, stalled: bool, opened: u64) -> Self {
        Self {
            carry: Vec::new(),
            since: opened,
            channel,
            cut: 0,
            server,
            awaiting: subscriptions.max(1),
            phase: Phase::Connecting,
            stalled,
            subscribed: false,
            pong: false,
            announced: 0,
        }
    }

    /// Starts counting anew: who is subscribed counts from the first message on, who is not, from when it is. A session
    /// that has ended is owed nothing any more.
    pub(crate) fn start_round(&mut self, counts: &mut [Count]) {
        self.subscribed &= self.phase == Phase::Ready;
        counts.fill(if self.subscribed { Count::START } else { Count::JOIN });
    }

    /// Frees what an ended session does not need any more.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.carry = Vec::new();
    }

    /// Bytes of memory that it holds for what is incomplete.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.carry.capacity()
    }

    /// Takes bytes that were read.
    pub(crate) fn receive(&mut self, bytes: &[u8], reading: &mut Reading<'_>) -> Outcome {
        let cut = std::mem::take(&mut self.cut) as usize;
        let mut held = std::mem::take(&mut self.carry);
        let result = if held.is_empty() {
            self.parse(&[], bytes, reading).inspect(|parsed| {
                // Most reads end with a frame: nothing is kept, nothing is allocated.
                held.extend_from_slice(&bytes[parsed.taken..]);
            })
        } else {
            held.extend_from_slice(bytes);
            let (message, frames) = held.split_at(cut);
            self.parse(message, frames, reading).inspect(|parsed| {
                held.drain(..cut + parsed.taken);
            })
        };
        match result {
            Ok(Parsed { outcome: end @ Outcome::End(_), .. }) => end,
            Ok(Parsed { outcome, cut, .. }) => {
                // A message is at most 32 MiB, so its beginning is as well.
                self.cut = cut.len() as u32;
                held.splice(..0, cut);
                self.carry = if held.is_empty() { Vec::new() } else { held };
                outcome
            }
            Err(fault) => Outcome::End(format!("malformed: {fault}")),
        }
    }

    /// Why a session ended whose connection was closed without a code.
    pub(crate) fn reason_of_eof(&self) -> String {
        match (self.announced, self.phase) {
            (0, Phase::Ready) => "connection closed without a code".to_owned(),
            (0, _) => "connection closed during the handshake".to_owned(),
            (code, _) => closed_with(code),
        }
    }

    /// Parses as much as is complete of `bytes`; `cut` is the beginning of a message whose frame has ended before it.
    fn parse(&mut self, cut: &[u8], bytes: &[u8], reading: &mut Reading<'_>) -> Result<Parsed, Malformed> {
        let wire = reading.wire;
        let mut parsed = Parsed { outcome: Outcome::Continue, taken: 0, cut: cut.to_vec() };
        if self.phase == Phase::Upgrading {
            match websocket::upgrade_response(bytes)? {
                None => return Ok(parsed),
                Some(Upgrade::Refused(status)) => {
                    parsed.outcome = Outcome::End(format!("refused with HTTP {status}"));
                    return Ok(parsed);
                }
                Some(Upgrade::Granted(length)) => {
                    parsed.taken = length;
                    (self.phase, parsed.outcome) = match wire {
                        // The request was the subscription.
                        Wire::Nchan => (Phase::Ready, self.ready(reading)),
                        // The server introduces itself first.
                        Wire::Nats => (Phase::Opening, Outcome::Continue),
                        _ => (Phase::Opening, Outcome::SendOpening),
                    };
                }
            }
        }
        if !wire.is_websocket() {
            parsed.taken = wire.each(bytes, |reply| self.reply(reply, reading, &mut parsed.outcome))?;
            return Ok(parsed);
        }
        while !matches!(parsed.outcome, Outcome::End(_))
            && let Some(frame) = websocket::frame(&bytes[parsed.taken..])?
        {
            if frame.mask.is_some() {
                return Err("masked frame from a server");
            }
            parsed.taken += frame.length;
            match frame.opcode {
                opcode if wire.takes(opcode) => {
                    let joined;
                    let messages = if parsed.cut.is_empty() {
                        frame.payload
                    } else {
                        joined = [&parsed.cut, frame.payload].concat();
                        &joined
                    };
                    let taken = wire.each(messages, |reply| self.reply(reply, reading, &mut parsed.outcome))?;
                    if taken < messages.len() && !wire.cuts_messages() {
                        return Err("reply cut by the end of its frame");
                    }
                    parsed.cut = messages[taken..].to_vec();
                }
                websocket::TEXT | websocket::BINARY => return Err("message of the other encoding"),
                websocket::PING => websocket::push_client_frame(websocket::PONG, frame.payload, reading.answer),
                websocket::PONG => {}
                websocket::CLOSE => parsed.outcome = Outcome::End(closed_with(websocket::close_code(frame.payload))),
                _ => return Err("frame with an unknown opcode"),
            }
        }
        Ok(parsed)
    }

    #[inline]
    fn reply(&mut self, reply: Reply<'_>, reading: &mut Reading<'_>, outcome: &mut Outcome) {
        match reply {
            Reply::Publication(payload) => match Stamp::read(payload, reading.expected.payload) {
                Some(stamp) if stamp.round == reading.expected.round => self.delivery(stamp, reading),
                _ => reading.tally.strays += 1,
            },
            Reply::Ping if self.pong => reading.pong(),
            Reply::Greeting if self.phase == Phase::Opening => {
                self.phase = Phase::Subscribing;
                self.pong = true;
                *outcome = Outcome::SendOpening;
            }
            Reply::Connected { pong } => {
                self.pong = pong;
                if self.phase == Phase::Opening {
                    self.phase = Phase::Subscribing;
                }
            }
            Reply::Subscribed if self.phase == Phase::Subscribing => {
                self.awaiting = self.awaiting.saturating_sub(1);
                if self.awaiting == 0 {
                    *outcome = self.ready(reading);
                }
            }
            Reply::Refused { id, code, message } => {
                let command = if id == reply::CONNECT_ID { "connect" } else { "subscribe" };
                *outcome = Outcome::End(format!("{command} refused with {code} ({message})"));
            }
            Reply::Error(text) => *outcome = Outcome::End(format!("the server complains: {text}")),
            Reply::Disconnect(code) => self.announced = u16::try_from(code).unwrap_or(u16::MAX),
            Reply::Ping | Reply::Greeting | Reply::Subscribed | Reply::Other => {}
        }
    }

    /// The last subscribe is answered; what comes from here on is counted, also in the same read.
    fn ready(&mut self, reading: &mut Reading<'_>) -> Outcome {
        self.phase = Phase::Ready;
        self.subscribed = true;
        reading.tally.setup.saturating_record(reading.now.saturating_sub(self.since));
        self.since = reading.now;
        Outcome::Ready
    }

    #[inline]
    fn delivery(&mut self, stamp: Stamp, reading: &mut Reading<'_>) {
        let place = stamp.channel.checked_sub(self.channel).unwrap_or_else(|| {
            // The channels of a session may wrap around from the last to the first.
            stamp.channel.wrapping_add(reading.channels).wrapping_sub(self.channel)
        });
        let Some(count) = reading.counts.get_mut(place as usize) else {
            reading.tally.misrouted += 1;
            return;
        };
        let tally = &mut *reading.tally;
        if count.is_joining() {
            // Messages that were due after this session was subscribed, and before this one, are missing.
            let time = stamp.due.saturating_sub(self.since).saturating_sub(1);
            let missing = time.checked_div(reading.expected.interval).unwrap_or(0);
            count.join(stamp.sequence, u32::try_from(missing).unwrap_or(u32::MAX));
        }
        let Arrival { gap, late, again } = count.take(stamp.sequence);
        if self.stalled {
            tally.stalled_delivered += u64::from(!again);
            tally.stalled_faults += u64::from(gap > 0 || late || again);
            return;
        }
        tally.out_of_order += u64::from(late);
        tally.duplicates += u64::from(again);
        if !again {
            tally.delivered += 1;
            tally.last_delivery = reading.now;
            tally.latency.saturating_record(reading.now.saturating_sub(stamp.due));
        }
    }
}

/// A code in words, with the protocol's name for it.
fn closed_with(code: u16) -> String {
    let known = tidegate_protocol::code::DisconnectCode::ALL.iter().find(|known| known.code() == code);
    known.map_or_else(|| format!("closed with {code}"), |known| format!("closed with {known}"))
}

#[cfg(test)]
mod tests;
