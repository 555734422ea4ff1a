//! What a published payload is, and the form in which JSON clients receive it.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// How deep a payload may nest and still pass as JSON. SDKs parse payloads with recursive parsers (Python's gives up
/// at about 1,000 levels), so deeper data is delivered as text.
pub const MAX_DEPTH: usize = 512;

/// What a payload's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// One valid JSON value, at most [`MAX_DEPTH`] levels deep.
    Json,
    /// UTF-8, but not such JSON.
    Text,
    /// Not UTF-8.
    Binary,
}

/// Says what `data` is, in one pass or two, without recursion.
pub fn classify(data: &[u8]) -> Content {
    match simdutf8::basic::from_utf8(data) {
        Err(_) => Content::Binary,
        Ok(text) if json_value(text).is_some() => Content::Json,
        Ok(_) => Content::Text,
    }
}

/// What JSON clients receive: JSON without the newlines between its tokens, since a newline ends a message (and, with
/// the carriage return, a line of an event stream); text as a JSON string; nothing for binary.
pub fn json_form(content: Content, data: &[u8]) -> Option<Cow<'_, [u8]>> {
    match content {
        Content::Json => Some(without_newlines(data)),
        // A string serializes to JSON whatever it holds, so `ok` loses nothing.
        Content::Text => serde_json::to_vec(std::str::from_utf8(data).ok()?).ok().map(Cow::Owned),
        Content::Binary => None,
    }
}

/// The text as a JSON value, if it is one of bounded depth.
pub(super) fn json_value(text: &str) -> Option<&RawValue> {
    // The parser skips raw values with a stack of its own on the heap, one byte a level.
    let value: &RawValue = serde_json::from_str(text).ok()?;
    // Each level takes two bytes.
    let shallow = text.len() <= 2 * MAX_DEPTH || depth(text.as_bytes()) <= MAX_DEPTH;
    shallow.then_some(value)
}

/// Drops newlines from valid JSON. Its strings hold none (control characters are escaped there).
pub(super) fn without_newlines(json: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect())
}

/// How deep valid JSON nests.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => _ = bytes.next(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_told_apart() {
        let cases: &[(&[u8], Content)] = &[
            (b"{}", Content::Json),
            (b"{\"a\": [1, 2.5e3, null, true, \"\\u00e9\"]}", Content::Json),
            (b"1", Content::Json),
            (b"null", Content::Json),
            (b"\"text\"", Content::Json),
            (b" [1]\r\n", Content::Json),
            ("\"Zürich\"".as_bytes(), Content::Json),
            (b"", Content::Text),
            (b" ", Content::Text),
            (b"hello", Content::Text),
            (b"{\"a\":1", Content::Text),
            (b"{} {}", Content::Text),
            (b"\"a\nb\"", Content::Text),
            (b"[1,]", Content::Text),
            (b"NaN", Content::Text),
            ("\u{feff}{}".as_bytes(), Content::Text),
            (b"\xff", Content::Binary),
            (b"\"\xff\"", Content::Binary),
            (b"{\"a\":\"\xed\xa0\x80\"}", Content::Binary),
        ];
        for (data, content) in cases {
            assert_eq!(classify(data), *content, "{}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn json_beyond_the_depth_limit_is_text() {
        let nested = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert_eq!(classify(&nested(MAX_DEPTH)), Content::Json);
        assert_eq!(classify(&nested(MAX_DEPTH + 1)), Content::Text);
        assert_eq!(classify(&nested(1_000_000)), Content::Text);
        assert_eq!(classify(&vec![b'['; 1_000_000]), Content::Text);
    }

    #[test]
    fn brackets_within_strings_are_no_depth() {
        let brackets = format!("[\"{}\", \"\\\"{}\"]", "[".repeat(4000), "{".repeat(4000));
        assert_eq!(classify(brackets.as_bytes()), Content::Json);
    }

    #[test]
    fn json_without_newlines_is_borrowed() {
        let data = b"{\"a\": \"b\\n\"}";
        assert!(matches!(json_form(Content::Json, data), Some(Cow::Borrowed(form)) if form == data));
    }

    #[test]
    fn newlines_between_tokens_are_stripped() {
        let form = json_form(Content::Json, b"{\r\n  \"a\": \"x\\ny\",\n  \"b\": 2\n}\n");
        assert_eq!(form.as_deref(), Some(b"{  \"a\": \"x\\ny\",  \"b\": 2}".as_slice()));
    }

    #[test]
    fn text_becomes_a_json_string() {
        let form = json_form(Content::Text, "he said \"hi\"\n\u{0}é".as_bytes());
        assert_eq!(form.as_deref(), Some("\"he said \\\"hi\\\"\\n\\u0000é\"".as_bytes()));
    }

    #[test]
    fn binary_has_no_json_form() {
        assert_eq!(json_form(Content::Binary, b"\xff"), None);
    }
}
