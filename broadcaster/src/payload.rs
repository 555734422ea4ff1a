//! What a payload is, decided once per node when it arrives.

use bytes::Bytes;
use memchr::memchr2_iter;
use serde::de::IgnoredAny;

use crate::publication::{Payload, PayloadKind};

/// How deeply arrays and objects may be nested for a payload to count as JSON. Clients' parsers
/// recurse; what is deeper is passed on as text.
const MAX_JSON_DEPTH: usize = 128;

/// Finds out what the bytes are. Costs one pass for UTF-8 and, where it may be JSON, one for its grammar.
pub fn classify(data: Bytes) -> Payload {
    let kind = match simdutf8::basic::from_utf8(&data) {
        Ok(text) if is_json(text) => PayloadKind::Json,
        Ok(_) => PayloadKind::Text,
        Err(_) => PayloadKind::Binary,
    };
    Payload { data, kind }
}

fn is_json(text: &str) -> bool {
    // Skipping a value is iterative in serde_json and checks no depth, so that is checked here.
    serde_json::from_str::<IgnoredAny>(text).is_ok() && depth_is_bounded(text.as_bytes())
}

/// Whether valid JSON is at most [`MAX_JSON_DEPTH`] deep.
fn depth_is_bounded(json: &[u8]) -> bool {
    // Nearly every payload has so few brackets that none of its nestings can be too deep.
    if memchr2_iter(b'[', b'{', json).take(MAX_JSON_DEPTH + 1).count() <= MAX_JSON_DEPTH {
        return true;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(data: &[u8]) -> PayloadKind {
        classify(Bytes::copy_from_slice(data)).kind
    }

    #[test]
    fn json_text_and_binary_are_told_apart() {
        for json in ["{}", "[1,2]", "null", "12.5", "\"x\"", " {\"a\": [true]} ", "\"\\u00e4\""] {
            assert_eq!(kind(json.as_bytes()), PayloadKind::Json, "{json}");
        }
        for text in ["", "hello", "{", "{} {}", "01", "{'a':1}", "\"a\nb\"", "\u{e4}"] {
            assert_eq!(kind(text.as_bytes()), PayloadKind::Text, "{text}");
        }
        assert_eq!(kind(b"\xff\xfe"), PayloadKind::Binary);
        assert_eq!(kind(b"\"\xff\""), PayloadKind::Binary, "broken UTF-8 inside a JSON string is no JSON");
    }

    #[test]
    fn json_deeper_than_128_is_text() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(kind(nested(128).as_bytes()), PayloadKind::Json);
        assert_eq!(kind(nested(129).as_bytes()), PayloadKind::Text);
        assert_eq!(kind(nested(200_000).as_bytes()), PayloadKind::Text);
        let flat = format!("[{}0]", "[],{},\"[[[\\\"[[\",".repeat(500));
        assert_eq!(kind(flat.as_bytes()), PayloadKind::Json, "many brackets, but not deep");
    }
}
