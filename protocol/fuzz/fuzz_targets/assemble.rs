//! Client frames: a stream in pieces gives the same messages, and the same error, as in one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::websocket::assemble::{Assembler, FrameError, Step};

const LIMIT: usize = 4096;

/// What came out of a stream that arrives in pieces of `size` bytes.
fn receive(stream: &[u8], size: usize) -> (Vec<(u8, Vec<u8>)>, Option<FrameError>) {
    let (mut assembler, mut found, mut pending) = (Assembler::default(), Vec::new(), Vec::new());
    for piece in stream.chunks(size) {
        pending.extend_from_slice(piece);
        let mut at = 0;
        loop {
            at += match assembler.step(&mut pending[at..], LIMIT, true) {
                Ok(Step::Incomplete) => break,
                Ok(Step::Message { opcode_text, payload, consumed }) => {
                    assert!(payload.len() <= LIMIT);
                    assert!(!opcode_text || std::str::from_utf8(&payload).is_ok());
                    found.push((opcode_text.into(), payload.into_owned()));
                    consumed
                }
                Ok(Step::Ping { payload, consumed }) => {
                    assert!(payload.len() <= 125);
                    found.push((9, payload.to_vec()));
                    consumed
                }
                Ok(Step::Pong { consumed } | Step::Continue { consumed }) => consumed,
                Ok(Step::Close { code, reason, consumed }) => {
                    assert!(reason.len() <= 123 && code.is_none_or(|code| (1000..5000).contains(&code)));
                    found.push((8, reason.as_bytes().to_vec()));
                    consumed
                }
                Err(error) => return (found, Some(error)),
            };
        }
        pending.drain(..at);
        assert!(pending.len() < LIMIT + 14, "more is kept than one frame");
        assert!(assembler.buffered() <= 2 * LIMIT);
    }
    (found, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    // In one piece the stream is longer than a frame may be, so cut it there as well.
    assert_eq!(receive(stream, 1 + usize::from(size)), receive(stream, LIMIT));
});
