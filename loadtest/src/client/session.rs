//! One session: what it is waiting for, which message is next, and what its bytes mean. No socket is touched here.

use serde::{Deserialize, Serialize};

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

/// The state of one session. Idle, it owns no heap memory.
#[derive(Debug)]
pub(crate) struct Session {
    /// The start of a frame whose end has not come; without a heap block while there is none.
    carry: Vec<u8>,
    /// When `connect` was called, in ns of [`crate::clock::now`].
    pub(crate) opened: u64,
    /// The number of the channel that it subscribes to.
    pub(crate) channel: u32,
    /// The sequence number that comes next.
    next: u32,
    /// Messages before `next` that have not come.
    missing: u32,
    /// Which of the target's servers it connects to.
    pub(crate) server: u16,
    /// How far it has come.
    pub(crate) phase: Phase,
    /// Does not read once it is ready.
    pub(crate) stalled: bool,
    /// Had ended when the measurement began.
    absent: bool,
    /// Pings are to be answered.
    pong: bool,
    /// The disconnect code that a push announced; 0 for none.
    announced: u16,
}

// A promise of the documentation: 19,000 sessions fit into a few megabytes.
const _: () = assert!(size_of::<Session>() <= 72);

impl Session {
    /// A session that begins to connect at `opened`.
    pub(crate) fn new(channel: u32, stalled: bool, opened: u64) -> Self {
        Self {
            carry: Vec::new(),
            opened,
            channel,
            next: 0,
            missing: 0,
            server: 0,
            phase: Phase::Connecting,
            stalled,
            absent: false,
            pong: false,
            announced: 0,
        }
    }

    /// Starts counting anew; a session that has ended is owed nothing any more.
    pub(crate) fn start_round(&mut self) {
        self.absent = self.phase == Phase::Ended;
        self.next = 0;
        self.missing = 0;
    }

    /// How many of `published` messages never came.
    pub(crate) fn lost(&self, published: u32) -> u64 {
        if self.absent {
            return 0;
        }
        u64::from(self.missing) + u64::from(published.saturating_sub(self.next))
    }

    /// Frees what an ended session does not need any more.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.carry = Vec::new();
    }

    /// Takes bytes that were read at `now`; answers that are to be sent are appended to `answer`.
    pub(crate) fn receive(
        &mut self,
        wire: Wire,
        bytes: &[u8],
        now: u64,
        expected: Expectation,
        tally: &mut Tally,
        answer: &mut Vec<u8>,
    ) -> Outcome {
        let result = if self.carry.is_empty() {
            self.parse(wire, bytes, now, expected, tally, answer).map(|(outcome, taken)| {
                // Most reads end with a frame: nothing is kept, nothing is allocated.
                (outcome, bytes[taken..].to_vec())
            })
        } else {
            let mut held = std::mem::take(&mut self.carry);
            held.extend_from_slice(bytes);
            self.parse(wire, &held, now, expected, tally, answer).map(|(outcome, taken)| {
                held.drain(..taken);
                (outcome, if held.is_empty() { Vec::new() } else { held })
            })
        };
        match result {
            Ok((outcome, rest)) => {
                if !matches!(outcome, Outcome::End(_)) {
                    self.carry = rest;
                }
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

    /// Parses as much as is complete; gives the number of bytes that were taken.
    fn parse(
        &mut self,
        wire: Wire,
        bytes: &[u8],
        now: u64,
        expected: Expectation,
        tally: &mut Tally,
        answer: &mut Vec<u8>,
    ) -> Result<(Outcome, usize), Malformed> {
        let mut taken = 0;
        if self.phase == Phase::Upgrading {
            match websocket::upgrade_response(bytes)? {
                None => return Ok((Outcome::Continue, 0)),
                Some(Upgrade::Refused(status)) => {
                    return Ok((Outcome::End(format!("refused with HTTP {status}")), bytes.len()));
                }
                Some(Upgrade::Granted(length)) => {
                    self.phase = Phase::Opening;
                    // A server may not speak before it was spoken to: nothing follows the head.
                    return Ok((Outcome::SendOpening, length));
                }
            }
        }
        let mut outcome = Outcome::Continue;
        if !wire.is_websocket() {
            taken = reply::each_protobuf(bytes, |reply| {
                self.reply(wire, reply, now, expected, tally, answer, &mut outcome);
            })?;
            return Ok((outcome, taken));
        }
        while let Some(frame) = websocket::frame(&bytes[taken..])? {
            if frame.mask.is_some() {
                return Err("masked frame from a server");
            }
            match frame.opcode {
                websocket::TEXT if wire.is_json() => {
                    reply::each_json(frame.payload, |reply| {
                        self.reply(wire, reply, now, expected, tally, answer, &mut outcome);
                    })?;
                }
                websocket::BINARY if !wire.is_json() => {
                    let whole = reply::each_protobuf(frame.payload, |reply| {
                        self.reply(wire, reply, now, expected, tally, answer, &mut outcome);
                    })?;
                    if whole != frame.payload.len() {
                        return Err("reply cut by the end of its frame");
                    }
                }
                websocket::TEXT | websocket::BINARY => return Err("message of the other encoding"),
                websocket::PING => websocket::push_client_frame(websocket::PONG, frame.payload, answer),
                websocket::PONG => {}
                websocket::CLOSE => {
                    return Ok((Outcome::End(closed_with(websocket::close_code(frame.payload))), bytes.len()));
                }
                _ => return Err("frame with an unknown opcode"),
            }
            taken += frame.length;
            if let Outcome::End(_) = outcome {
                break;
            }
        }
        Ok((outcome, taken))
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "one call site's locals, and this runs per delivery")]
    fn reply(
        &mut self,
        wire: Wire,
        reply: Reply<'_>,
        now: u64,
        expected: Expectation,
        tally: &mut Tally,
        answer: &mut Vec<u8>,
        outcome: &mut Outcome,
    ) {
        match reply {
            Reply::Publication(payload) => match Stamp::read(payload, expected.payload) {
                Some(stamp) if stamp.round == expected.round => self.delivery(stamp, now, tally),
                _ => tally.strays += 1,
            },
            Reply::Ping if self.pong => {
                if wire.is_websocket() {
                    let opcode = if wire.is_json() { websocket::TEXT } else { websocket::BINARY };
                    websocket::push_client_frame(opcode, reply::pong(wire), answer);
                } else {
                    answer.extend_from_slice(reply::pong(wire));
                }
            }
            Reply::Connected { pong } => {
                self.pong = pong;
                if self.phase == Phase::Opening {
                    self.phase = Phase::Subscribing;
                }
            }
            Reply::Subscribed if self.phase == Phase::Subscribing => {
                self.phase = Phase::Ready;
                *outcome = Outcome::Ready;
            }
            Reply::Refused { id, code, message } => {
                let command = if id == reply::CONNECT_ID { "connect" } else { "subscribe" };
                *outcome = Outcome::End(format!("{command} refused with {code} ({message})"));
            }
            Reply::Disconnect(code) => self.announced = u16::try_from(code).unwrap_or(u16::MAX),
            Reply::Ping | Reply::Subscribed | Reply::Other => {}
        }
    }

    #[inline]
    fn delivery(&mut self, stamp: Stamp, now: u64, tally: &mut Tally) {
        if stamp.channel != self.channel {
            tally.misrouted += 1;
            return;
        }
        let (late, again, gap);
        if stamp.sequence >= self.next {
            gap = stamp.sequence - self.next;
            self.missing = self.missing.saturating_add(gap);
            self.next = stamp.sequence.saturating_add(1);
            (late, again) = (false, false);
        } else {
            // Without a list of what is missing, an earlier message counts as late as long as something is missing,
            // and as a duplicate otherwise. Both fail a run.
            gap = 0;
            late = self.missing > 0;
            again = !late;
            self.missing -= u32::from(late);
        }
        if self.stalled {
            tally.stalled_delivered += u64::from(!again);
            tally.stalled_faults += u64::from(gap > 0 || late || again);
            return;
        }
        tally.out_of_order += u64::from(late);
        tally.duplicates += u64::from(again);
        if !again {
            tally.delivered += 1;
            tally.last_delivery = now;
            tally.latency.saturating_record(now.saturating_sub(stamp.due));
        }
    }
}

/// A code in words, with the protocol's name for it.
fn closed_with(code: u16) -> String {
    let known = tidegate_protocol::code::DisconnectCode::ALL.iter().find(|known| known.code() == code);
    known.map_or_else(|| format!("closed with {code}"), |known| format!("closed with {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expectation = Expectation { round: 1, payload: 64 };

    /// A ready session, with what it needs to receive.
    struct Bench {
        session: Session,
        tally: Tally,
        answer: Vec<u8>,
    }

    impl Bench {
        fn new() -> Self {
            let mut session = Session::new(5, false, 0);
            session.phase = Phase::Opening;
            let mut bench = Self { session, tally: Tally::new(), answer: Vec::new() };
            let opened = text("{\"id\":1,\"connect\":{\"pong\":true}}\n{\"id\":2,\"subscribe\":{}}");
            assert_eq!(bench.receive(&opened), Outcome::Ready);
            bench
        }

        fn receive(&mut self, bytes: &[u8]) -> Outcome {
            self.session.receive(Wire::WsJson, bytes, 1000, EXPECTED, &mut self.tally, &mut self.answer)
        }
    }

    fn text(message: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        websocket::push_server_frame(websocket::TEXT, message.as_bytes(), &mut frame);
        frame
    }

    fn message(channel: u32, sequence: u32) -> Vec<u8> {
        let mut payload = Vec::new();
        Stamp { round: 1, channel, sequence, due: 10 }.write(64, &mut payload);
        let payload = String::from_utf8(payload).unwrap();
        text(&format!("{{\"push\":{{\"channel\":\"c\",\"pub\":{{\"data\":{payload}}}}}}}"))
    }

    #[test]
    fn messages_in_order_are_counted_with_their_latency() {
        let mut bench = Bench::new();
        for sequence in 0..5 {
            assert_eq!(bench.receive(&message(5, sequence)), Outcome::Continue);
        }
        assert_eq!(bench.tally.accounting().fault(), None);
        assert_eq!((bench.tally.delivered, bench.session.lost(5)), (5, 0));
        assert_eq!(bench.tally.latency.len(), 5);
    }

    #[test]
    fn a_byte_at_a_time_counts_the_same_and_leaves_nothing_behind() {
        let mut bench = Bench::new();
        for byte in [message(5, 0), message(5, 1)].concat() {
            assert_eq!(bench.receive(&[byte]), Outcome::Continue);
        }
        assert_eq!(bench.tally.delivered, 2);
        assert!(bench.session.carry.capacity() == 0);
    }

    #[test]
    fn a_gap_is_a_loss() {
        let mut bench = Bench::new();
        bench.receive(&message(5, 0));
        bench.receive(&message(5, 3));
        assert_eq!(bench.session.lost(6), 2 + 2);
    }

    #[test]
    fn a_late_message_is_out_of_order_and_no_loss() {
        let mut bench = Bench::new();
        for sequence in [1, 0, 2] {
            bench.receive(&message(5, sequence));
        }
        assert_eq!((bench.tally.out_of_order, bench.tally.duplicates, bench.session.lost(3)), (1, 0, 0));
        assert_eq!(bench.tally.delivered, 3);
    }

    #[test]
    fn a_message_that_comes_again_is_a_duplicate_and_no_delivery() {
        let mut bench = Bench::new();
        bench.receive(&message(5, 0));
        bench.receive(&message(5, 0));
        assert_eq!((bench.tally.duplicates, bench.tally.delivered), (1, 1));
    }

    #[test]
    fn another_channels_message_is_misrouted_and_another_rounds_is_a_stray() {
        let mut bench = Bench::new();
        bench.receive(&message(6, 0));
        let mut payload = Vec::new();
        Stamp { round: 2, channel: 5, sequence: 0, due: 0 }.write(64, &mut payload);
        let other = String::from_utf8(payload).unwrap();
        bench.receive(&text(&format!("{{\"push\":{{\"channel\":\"c\",\"pub\":{{\"data\":{other}}}}}}}")));
        assert_eq!((bench.tally.misrouted, bench.tally.strays, bench.tally.delivered), (1, 1, 0));
    }

    #[test]
    fn a_ping_is_answered_by_a_masked_empty_command() {
        let mut bench = Bench::new();
        bench.receive(&text("{}"));
        let frame = websocket::frame(&bench.answer).unwrap().unwrap();
        let mut payload = frame.payload.to_vec();
        websocket::apply_mask(frame.mask.unwrap(), &mut payload);
        assert_eq!((frame.opcode, payload.as_slice()), (websocket::TEXT, b"{}".as_slice()));
    }

    #[test]
    fn a_close_frame_ends_the_session_with_its_code_and_name() {
        let mut frame = Vec::new();
        websocket::push_server_frame(websocket::CLOSE, &3008u16.to_be_bytes(), &mut frame);
        assert_eq!(Bench::new().receive(&frame), Outcome::End("closed with 3008 (slow)".to_owned()));
    }

    #[test]
    fn a_refused_subscribe_ends_the_session_and_says_why() {
        let mut session = Session::new(0, false, 0);
        session.phase = Phase::Opening;
        let bytes =
            text("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"error\":{\"code\":103,\"message\":\"permission denied\"}}");
        let outcome = session.receive(Wire::WsJson, &bytes, 0, EXPECTED, &mut Tally::new(), &mut Vec::new());
        assert_eq!(outcome, Outcome::End("subscribe refused with 103 (permission denied)".to_owned()));
    }

    #[test]
    fn garbage_ends_the_session() {
        assert!(
            matches!(Bench::new().receive(b"\xff\xff\xff"), Outcome::End(reason) if reason.starts_with("malformed"))
        );
    }
}
