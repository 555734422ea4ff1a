//! Length-delimited messages: a stream that arrives byte by byte gives the same messages and the same error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::codec::{Delimited, split_delimited};

const LIMIT: usize = 1024;

/// Takes whole messages off the stream; `false` after an error.
fn take(stream: &mut Vec<u8>, found: &mut Vec<Vec<u8>>) -> bool {
    loop {
        match split_delimited(stream, LIMIT) {
            Ok(Delimited::Message { body, consumed }) => {
                assert!(body.len() <= LIMIT && consumed <= stream.len());
                found.push(body.to_vec());
                stream.drain(..consumed);
            }
            Ok(Delimited::Incomplete) => return true,
            Err(_) => return false,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut whole = Vec::new();
    let good = take(&mut data.to_vec(), &mut whole);

    let (mut pending, mut found) = (Vec::new(), Vec::new());
    let mut still_good = true;
    for &byte in data {
        pending.push(byte);
        still_good = take(&mut pending, &mut found);
        if !still_good {
            break;
        }
        assert!(pending.len() < LIMIT + 10, "more is kept than one message");
    }
    assert_eq!((found, still_good), (whole, good));
});
