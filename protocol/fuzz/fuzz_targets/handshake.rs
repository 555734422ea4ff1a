//! Request heads: any bytes, and a head that is complete is incomplete, not wrong, in every shorter piece of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::websocket::handshake::{Head, parse_head, upgrade, write_response};

const LIMIT: usize = 4096;

fuzz_target!(|data: &[u8]| {
    match parse_head(data, LIMIT) {
        Ok(Head::Request(head)) => {
            assert!(head.length <= data.len().min(LIMIT));
            for end in [head.length / 2, head.length - 1] {
                assert!(matches!(parse_head(&data[..end], LIMIT), Ok(Head::Incomplete)), "at {end}");
            }
            let mut out = Vec::new();
            match upgrade(&head) {
                Ok(Some(upgrade)) => {
                    assert_eq!(upgrade.accept.len(), 28);
                    write_response(&upgrade, &mut out);
                    assert!(out.ends_with(b"\r\n\r\n"));
                }
                Ok(None) => {}
                Err(error) => error.write_response(&mut out),
            }
        }
        Ok(Head::Incomplete) => assert!(data.len() < LIMIT),
        Err(error) => assert!((400..=431).contains(&error.status())),
    }
});
