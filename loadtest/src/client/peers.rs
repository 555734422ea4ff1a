//! Tests: sessions of Nchan, NATS and MQTT from their first byte on, with reads that begin and end anywhere.

use super::count::{Count, Schedule};
use super::session::{Expectation, Outcome, Phase, Reading, Session};
use super::tally::Tally;
use crate::stamp::{Format, Stamp};
use crate::wire::{Wire, mqtt, websocket};

const EXPECTED: Expectation = Expectation { round: 1, payload: 64, interval: 0 };

/// A session that has just been connected.
struct Peer {
    wire: Wire,
    session: Session,
    counts: [Count; 1],
    tally: Tally,
    answer: Vec<u8>,
}

impl Peer {
    fn new(wire: Wire) -> Self {
        let mut session = Session::new(0, 5, 1, false, 0);
        session.phase = if wire.is_websocket() { Phase::Upgrading } else { Phase::Opening };
        Self { wire, session, counts: [Count::START], tally: Tally::new(), answer: Vec::new() }
    }

    fn receive(&mut self, bytes: &[u8]) -> Outcome {
        let mut reading = Reading {
            wire: self.wire,
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
        self.counts[0].lost(published, self.session.since, Schedule::default())
    }

    /// Gives it all these bytes in reads of the given sizes, then the rest; what came of them, without the `Continue`s.
    fn receive_in(&mut self, bytes: &[u8], sizes: &[usize]) -> Vec<Outcome> {
        let (mut outcomes, mut rest) = (Vec::new(), bytes);
        for size in sizes.iter().map(|size| size % 40 + 1).chain([usize::MAX]) {
            let (read, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            outcomes.push(self.receive(read));
        }
        outcomes.retain(|outcome| *outcome != Outcome::Continue);
        outcomes
    }
}

fn granted() -> Vec<u8> {
    let request = websocket::upgrade_request("localhost", "/", None);
    websocket::answer_upgrade(&request).unwrap().unwrap().1
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::push_server_frame(opcode, payload, &mut frame);
    frame
}

fn payload(sequence: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    Stamp { round: 1, channel: 5, sequence, due: 10 }.write(Format::Object, 64, &mut payload);
    payload
}

/// A complete NATS conversation, cut into frames of these sizes.
fn nats_stream(messages: u32, sizes: &[usize]) -> Vec<u8> {
    let mut lines = b"INFO {\"server_id\":\"x\"}\r\nPONG\r\n".to_vec();
    for sequence in 0..messages {
        lines.extend_from_slice(b"MSG c 1 64\r\n");
        lines.extend_from_slice(&payload(sequence));
        lines.extend_from_slice(b"\r\n");
    }
    let (mut out, mut rest) = (granted(), lines.as_slice());
    for size in sizes.iter().map(|size| size % 100).chain([usize::MAX]) {
        let (part, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        out.extend_from_slice(&frame(websocket::BINARY, part));
    }
    out
}

#[test]
fn an_nchan_session_is_ready_with_its_upgrade_and_every_frame_is_a_payload() {
    let mut peer = Peer::new(Wire::Nchan);
    assert_eq!(peer.receive(&[granted(), frame(websocket::TEXT, &payload(0))].concat()), Outcome::Ready);
    assert_eq!(peer.receive(&frame(websocket::BINARY, &payload(1))), Outcome::Continue);
    assert_eq!((peer.tally.delivered, peer.lost(2)), (2, 0));
}

#[test]
fn nats_gets_its_opening_after_its_info_and_is_ready_with_the_pong() {
    let mut peer = Peer::new(Wire::Nats);
    assert_eq!(peer.receive(&granted()), Outcome::Continue);
    assert_eq!(peer.receive(&frame(websocket::BINARY, b"INFO {}\r\n")), Outcome::SendOpening);
    assert_eq!(peer.receive(&frame(websocket::BINARY, b"PO")), Outcome::Continue);
    assert_eq!(peer.receive(&frame(websocket::BINARY, b"NG\r\n")), Outcome::Ready);
    peer.receive(&frame(websocket::BINARY, b"PING\r\n"));
    let sent = websocket::frame(&peer.answer).unwrap().unwrap();
    let mut pong = sent.payload.to_vec();
    websocket::apply_mask(sent.mask.unwrap(), &mut pong);
    assert_eq!((sent.opcode, pong.as_slice()), (websocket::BINARY, b"PONG\r\n".as_slice()));
}

#[test]
fn mqtt_is_ready_when_both_packets_are_answered() {
    let mut peer = Peer::new(Wire::Mqtt);
    assert_eq!(peer.receive(&[0x20, 2, 0, 0]), Outcome::Continue);
    assert_eq!(peer.receive(&[0x90, 3, 0, 1]), Outcome::Continue);
    assert_eq!(peer.receive(&[0]), Outcome::Ready);
    let mut packets = Vec::new();
    (0..3).for_each(|sequence| mqtt::push_publish("c", &payload(sequence), &mut packets));
    assert_eq!(peer.receive(&packets), Outcome::Continue);
    assert_eq!((peer.tally.delivered, peer.lost(3)), (3, 0));
}

#[test]
fn a_refusal_ends_the_session_in_the_servers_words() {
    let ends = |wire: Wire, bytes: &[u8]| match Peer::new(wire).receive(bytes) {
        Outcome::End(reason) => reason,
        other => format!("{other:?}"),
    };
    assert_eq!(ends(Wire::Mqtt, &[0x20, 2, 0, 5]), "connect refused with 5 (not authorized)");
    assert_eq!(ends(Wire::Mqtt, &[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0x80]), "subscribe refused with 128 (failure)");
    assert_eq!(ends(Wire::Nchan, b"HTTP/1.1 404 Not Found\r\n\r\n"), "refused with HTTP 404");
    let refusal = frame(websocket::BINARY, b"INFO {}\r\n-ERR 'maximum connections exceeded'\r\n");
    assert_eq!(ends(Wire::Nats, &[granted(), refusal].concat()), "the server complains: maximum connections exceeded");
    let text = frame(websocket::TEXT, b"INFO {}\r\n");
    assert_eq!(ends(Wire::Nats, &[granted(), text].concat()), "malformed: message of the other encoding");
}

proptest::proptest! {
    #[test]
    fn nats_lines_cut_by_frames_and_frames_cut_by_reads_come_out_whole(
        messages in 0u32..6,
        frames in proptest::collection::vec(0usize..1000, 0..12),
        reads in proptest::collection::vec(0usize..1000, 0..30),
    ) {
        let mut peer = Peer::new(Wire::Nats);
        let outcomes = peer.receive_in(&nats_stream(messages, &frames), &reads);
        // INFO and PONG in one read leave only the later outcome.
        proptest::prop_assert!(
            outcomes == [Outcome::SendOpening, Outcome::Ready] || outcomes == [Outcome::Ready], "{outcomes:?}"
        );
        proptest::prop_assert_eq!(peer.tally.delivered, u64::from(messages));
        proptest::prop_assert_eq!(peer.tally.accounting().fault(), None);
        proptest::prop_assert_eq!(peer.session.held(), 0);
    }

    #[test]
    fn mqtt_packets_cut_by_reads_come_out_whole(
        messages in 0u32..6,
        reads in proptest::collection::vec(0usize..1000, 0..30),
    ) {
        let mut peer = Peer::new(Wire::Mqtt);
        let mut stream = vec![0x20, 2, 0, 0, 0x90, 3, 0, 1, 0];
        (0..messages).for_each(|sequence| mqtt::push_publish("c", &payload(sequence), &mut stream));
        proptest::prop_assert_eq!(peer.receive_in(&stream, &reads), [Outcome::Ready]);
        proptest::prop_assert_eq!(peer.tally.delivered, u64::from(messages));
        proptest::prop_assert_eq!(peer.session.held(), 0);
    }

    #[test]
    fn garbage_is_waited_for_or_ends_the_session_and_never_makes_it_ready(
        bytes: Vec<u8>,
        reads in proptest::collection::vec(0usize..1000, 0..10),
    ) {
        for wire in [Wire::Nchan, Wire::Nats, Wire::Mqtt] {
            let mut peer = Peer::new(wire);
            let greeting = if wire == Wire::Nats { granted() } else { Vec::new() };
            peer.receive(&greeting);
            for outcome in peer.receive_in(&bytes, &reads) {
                proptest::prop_assert!(matches!(outcome, Outcome::End(_)), "{outcome:?}");
            }
        }
    }
}
