//! Properties of WebSocket framing: whatever the fragmentation, the masks and the pieces in which bytes arrive, the
//! same messages come out; and no bytes make the parsers panic.
#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_protocol::websocket::assemble::{Assembler, FrameError, Step};
use tidegate_protocol::websocket::handshake::{Head, parse_head, upgrade};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

const LIMIT: usize = 4096;

/// A message as a client means it.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    text: bool,
    payload: Vec<u8>,
}

/// A message, the lengths of its fragments, and a ping to send between them.
#[derive(Debug, Clone)]
struct Plan {
    message: Sent,
    fragments: Vec<usize>,
    ping: Option<Vec<u8>>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let message = prop_oneof![
        any::<String>().prop_map(|text| Sent { text: true, payload: text.into_bytes() }),
        vec(any::<u8>(), 0..400).prop_map(|payload| Sent { text: false, payload }),
    ];
    (message, vec(0_usize..100, 0..5), proptest::option::of(vec(any::<u8>(), 0..=125)))
        .prop_map(|(message, fragments, ping)| Plan { message, fragments, ping })
}

/// Appends a frame, masked.
fn put(opcode: OpCode, is_final: bool, mask: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
    header.format(payload.len() as u64, out).unwrap();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// The frames of a message.
fn frames(plan: &Plan, mask: [u8; 4], out: &mut Vec<u8>) {
    let mut kind = if plan.message.text { Data::Text } else { Data::Binary };
    let mut rest = plan.message.payload.as_slice();
    for length in &plan.fragments {
        let (fragment, behind) = rest.split_at(rest.len().min(*length));
        put(OpCode::Data(kind), false, mask, fragment, out);
        if let Some(ping) = &plan.ping {
            put(OpCode::Control(Control::Ping), true, mask.map(|key| !key), ping, out);
        }
        (kind, rest) = (Data::Continue, behind);
    }
    put(OpCode::Data(kind), true, mask, rest, out);
}

/// Walks a stream that arrives in pieces of these sizes.
fn receive(stream: &[u8], pieces: &[usize]) -> Result<(Vec<Sent>, usize), FrameError> {
    let (mut assembler, mut found, mut pings) = (Assembler::default(), Vec::new(), 0);
    let (mut pending, mut rest) = (Vec::new(), stream);
    for size in pieces.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*size));
        pending.extend_from_slice(piece);
        rest = behind;
        let mut at = 0;
        loop {
            at += match assembler.step(&mut pending[at..], LIMIT, true)? {
                Step::Incomplete => break,
                Step::Message { opcode_text, payload, consumed } => {
                    found.push(Sent { text: opcode_text, payload: payload.into_owned() });
                    consumed
                }
                Step::Ping { consumed, .. } => {
                    pings += 1;
                    consumed
                }
                Step::Pong { consumed } | Step::Continue { consumed } | Step::Close { consumed, .. } => consumed,
            };
        }
        pending.drain(..at);
        if rest.is_empty() {
            break;
        }
    }
    Ok((found, pings))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_out_whatever_the_fragments_masks_and_pieces(
        plans in vec((plan(), any::<[u8; 4]>()), 0..6), pieces in vec(1_usize..200, 1..16),
    ) {
        let mut stream = Vec::new();
        for (plan, mask) in &plans {
            frames(plan, *mask, &mut stream);
        }
        let (found, pings) = receive(&stream, &pieces).unwrap();
        prop_assert_eq!(found, plans.iter().map(|(plan, _)| plan.message.clone()).collect::<Vec<_>>());
        let expected: usize =
            plans.iter().map(|(plan, _)| if plan.ping.is_some() { plan.fragments.len() } else { 0 }).sum();
        prop_assert_eq!(pings, expected);
    }

    #[test]
    fn text_is_refused_exactly_when_it_is_not_utf8(
        payload in vec(prop_oneof![Just(0xe2), Just(0x82), Just(0xac), Just(b'a'), any::<u8>()], 0..12),
        fragments in vec(0_usize..4, 0..4),
    ) {
        let valid = std::str::from_utf8(&payload).is_ok();
        let plan = Plan { message: Sent { text: true, payload }, fragments, ping: None };
        let mut stream = Vec::new();
        frames(&plan, [1, 2, 3, 4], &mut stream);
        match receive(&stream, &[7]) {
            Ok((found, _)) => prop_assert!(valid && found == [plan.message]),
            Err(error) => prop_assert!(!valid && error == FrameError::Utf8),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..512), pieces in vec(1_usize..64, 1..8)) {
        drop(receive(&bytes, &pieces));
        if let Ok(Head::Request(head)) = parse_head(&bytes, 256) {
            drop(upgrade(&head));
        }
    }

    #[test]
    fn a_damaged_request_never_panics(at in any::<proptest::sample::Index>(), bytes in vec(any::<u8>(), 0..8)) {
        let mut request = b"GET /connection/websocket?format=protobuf HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".to_vec();
        let at = at.index(request.len());
        let end = request.len().min(at + bytes.len());
        request.splice(at..end, bytes);
        if let Ok(Head::Request(head)) = parse_head(&request, 16_384) {
            prop_assert!(head.length <= request.len());
            drop(upgrade(&head));
        }
    }
}
