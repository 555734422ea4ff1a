//! Payloads: the class is what a parser says, and the form for JSON clients is one line of JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tidegate_protocol::codec::payload::{Content, classify, json_form};

fuzz_target!(|data: &[u8]| {
    let content = classify(data);
    assert_eq!(content == Content::Binary, std::str::from_utf8(data).is_err());
    if content == Content::Json {
        assert!(serde_json::from_slice::<&RawValue>(data).is_ok());
    }
    match json_form(content, data) {
        None => assert_eq!(content, Content::Binary),
        Some(form) => {
            assert!(!form.contains(&b'\n') && !form.contains(&b'\r'));
            assert!(serde_json::from_slice::<&RawValue>(&form).is_ok());
            if content == Content::Text {
                let text: String = serde_json::from_slice(&form).expect("a string");
                assert_eq!(text.as_bytes(), data);
            }
        }
    }
});
