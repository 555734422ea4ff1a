//! A session that is given bytes.

use super::*;
use crate::client::count::Schedule;
use crate::stamp::Format;

const EXPECTED: Expectation = Expectation { round: 1, payload: 64, interval: 100 };

/// A ready session, with what it needs to receive.
struct Bench {
    session: Session,
    counts: Vec<Count>,
    tally: Tally,
    answer: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        Self::subscribed(1)
    }

    /// With so many channels of 7, from number 5 on.
    fn subscribed(subscriptions: u16) -> Self {
        let mut session = Session::new(0, 5, subscriptions, false, 0);
        session.phase = Phase::Opening;
        let counts = vec![Count::START; subscriptions.into()];
        let mut bench = Self { session, counts, tally: Tally::new(), answer: Vec::new() };
        assert_eq!(bench.receive(&text("{\"id\":1,\"connect\":{\"pong\":true}}")), Outcome::Continue);
        for left in (0..u32::from(subscriptions)).rev() {
            let outcome = bench.receive(&text(&format!("{{\"id\":{},\"subscribe\":{{}}}}", left + 2)));
            assert_eq!(outcome, if left == 0 { Outcome::Ready } else { Outcome::Continue });
        }
        bench
    }

    fn receive(&mut self, bytes: &[u8]) -> Outcome {
        let mut reading = Reading {
            wire: Wire::WsJson,
            now: 1000,
            expected: EXPECTED,
            channels: 7,
            counts: &mut self.counts,
            tally: &mut self.tally,
            answer: &mut self.answer,
        };
        self.session.receive(bytes, &mut reading)
    }

    fn lost(&self, published: u32) -> u64 {
        let schedule = Schedule { first: 10, interval: 100 };
        self.counts.iter().map(|count| count.lost(published, self.session.since, schedule)).sum()
    }
}

fn text(message: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::push_server_frame(websocket::TEXT, message.as_bytes(), &mut frame);
    frame
}

fn message(channel: u32, sequence: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    let due = 10 + 100 * u64::from(sequence);
    Stamp { round: 1, channel, sequence, due }.write(Format::Object, 64, &mut payload);
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
    assert_eq!((bench.tally.delivered, bench.lost(5)), (5, 0));
    assert_eq!(bench.tally.latency.len(), 5);
}

#[test]
fn a_byte_at_a_time_counts_the_same_and_leaves_nothing_behind() {
    let mut bench = Bench::new();
    for byte in [message(5, 0), message(5, 1)].concat() {
        assert_eq!(bench.receive(&[byte]), Outcome::Continue);
    }
    assert_eq!(bench.tally.delivered, 2);
    assert_eq!(bench.session.held(), 0);
}

#[test]
fn a_gap_is_a_loss() {
    let mut bench = Bench::new();
    bench.receive(&message(5, 0));
    bench.receive(&message(5, 3));
    assert_eq!(bench.lost(6), 2 + 2);
}

#[test]
fn each_of_several_channels_is_counted_by_itself_also_around_the_end() {
    let mut bench = Bench::subscribed(3);
    for (channel, sequence) in [(5, 0), (6, 0), (0, 0), (0, 1), (5, 2)] {
        bench.receive(&message(channel, sequence));
    }
    assert_eq!((bench.tally.delivered, bench.tally.misrouted), (5, 0));
    assert_eq!(bench.lost(3), 1 + 2 + 1);
    bench.receive(&message(1, 0));
    bench.receive(&message(4, 0));
    assert_eq!(bench.tally.misrouted, 2);
}

#[test]
fn who_joins_in_the_middle_misses_only_what_was_due_afterwards() {
    // Messages are due at 10, 110, 210, ...
    for (ready, first, lost) in [(250, 3, 0), (250, 2, 0), (250, 5, 2), (5, 0, 0), (209, 3, 1), (210, 3, 0)] {
        let mut bench = Bench::new();
        bench.counts = vec![Count::JOIN];
        bench.session.since = ready;
        bench.receive(&message(5, first));
        assert_eq!(bench.lost(first + 1), lost, "ready at {ready}, first {first}");
        assert_eq!(bench.lost(first + 2), lost + 1);
        bench.receive(&message(5, first));
        assert_eq!(bench.tally.duplicates, u64::from(lost == 0));
    }
}

#[test]
fn who_joins_in_the_middle_and_hears_nothing_has_lost_what_was_due_afterwards() {
    let mut bench = Bench::new();
    bench.counts = vec![Count::JOIN];
    for (ready, published, lost) in [(250, 5, 2), (250, 3, 0), (210, 3, 0), (209, 3, 1), (0, 3, 3)] {
        bench.session.since = ready;
        assert_eq!(bench.lost(published), lost, "ready at {ready}, {published} published");
    }
}

#[test]
fn a_late_message_is_out_of_order_and_no_loss() {
    let mut bench = Bench::new();
    for sequence in [1, 0, 2] {
        bench.receive(&message(5, sequence));
    }
    assert_eq!((bench.tally.out_of_order, bench.tally.duplicates, bench.lost(3)), (1, 0, 0));
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
    Stamp { round: 2, channel: 5, sequence: 0, due: 0 }.write(Format::Object, 64, &mut payload);
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
    let mut bench = Bench::new();
    (bench.session.phase, bench.session.awaiting) = (Phase::Opening, 1);
    let outcome = bench.receive(&text(
        "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"error\":{\"code\":103,\"message\":\"permission denied\"}}",
    ));
    assert_eq!(outcome, Outcome::End("subscribe refused with 103 (permission denied)".to_owned()));
}

#[test]
fn garbage_ends_the_session() {
    assert!(matches!(Bench::new().receive(b"\xff\xff\xff"), Outcome::End(reason) if reason.starts_with("malformed")));
}
