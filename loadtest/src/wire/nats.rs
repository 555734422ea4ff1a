//! The NATS client protocol: text lines, and a payload behind each `MSG` and `PUB`.
//!
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>. Over WebSocket the lines are a stream that frames
//! cut anywhere, so everything here takes the beginning of a stream and says how much of it was complete.

use super::Malformed;
use super::reply::Reply;

/// Ends every line and every payload.
const END: &[u8] = b"\r\n";

/// The longest line that is understood; an `INFO` of a large cluster has some kilobytes.
const MAX_LINE: usize = 64 << 10;

/// Asks for a `PONG`, which comes when everything before has been taken.
pub(crate) const PING: &[u8] = b"PING\r\n";
/// Answers a `PING`.
pub(crate) const PONG: &[u8] = b"PONG\r\n";

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    /// The server's description of itself, in JSON.
    Info(&'a [u8]),
    /// A message's payload.
    Message(&'a [u8]),
    /// Wants a [`PONG`].
    Ping,
    /// Everything before the [`PING`] has been taken.
    Pong,
    /// `+OK`, which only verbose clients get.
    Ok,
    /// An error in the server's words, without its quotes.
    Error(&'a [u8]),
}

/// The operation that `bytes` begins with and its length; `None` while it is incomplete.
///
/// # Errors
/// What is no line of a server, or too long.
#[inline]
pub(crate) fn operation(bytes: &[u8]) -> Result<Option<(Operation<'_>, usize)>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > MAX_LINE { Err("NATS line over 64 KiB") } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or("NATS line without CR")?;
    let after = end + 1;
    if let Some(arguments) = line.strip_prefix(b"MSG ") {
        let size = size(arguments)?;
        let whole = after + size + END.len();
        let Some(payload) = bytes.get(after..whole) else { return Ok(None) };
        let payload = payload.strip_suffix(END).ok_or("NATS payload without its end")?;
        return Ok(Some((Operation::Message(payload), whole)));
    }
    let operation = match line {
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        b"+OK" => Operation::Ok,
        _ => match (line.strip_prefix(b"INFO "), line.strip_prefix(b"-ERR ")) {
            (Some(description), _) => Operation::Info(description),
            (_, Some(text)) => Operation::Error(unquoted(text)),
            _ => return Err("line that no NATS server sends"),
        },
    };
    Ok(Some((operation, after)))
}

/// The last argument of a `MSG`: the payload's length in bytes.
#[inline]
fn size(arguments: &[u8]) -> Result<usize, Malformed> {
    let digits = arguments.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let size = str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or("NATS message without a size")?;
    if size > super::MAX_MESSAGE { Err("NATS message over 32 MiB") } else { Ok(size) }
}

fn unquoted(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    text.strip_prefix(b"'").and_then(|text| text.strip_suffix(b"'")).unwrap_or(text)
}

/// Goes through the complete operations at the beginning of `bytes`; says how many bytes they took.
///
/// # Errors
/// As [`operation`]; what came before has been seen.
#[inline]
pub(crate) fn each(bytes: &[u8], mut seen: impl FnMut(Reply<'_>)) -> Result<usize, Malformed> {
    let mut taken = 0;
    while let Some((operation, length)) = operation(&bytes[taken..])? {
        taken += length;
        match operation {
            Operation::Message(payload) => seen(Reply::Publication(payload)),
            Operation::Ping => seen(Reply::Ping),
            Operation::Info(_) => seen(Reply::Greeting),
            // The only PING of a session stands behind its SUB.
            Operation::Pong => seen(Reply::Subscribed),
            Operation::Error(text) => seen(Reply::Error(String::from_utf8_lossy(text).into_owned())),
            Operation::Ok => seen(Reply::Other),
        }
    }
    Ok(taken)
}

#[derive(serde::Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    headers: bool,
    lang: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
}

/// Appends a `CONNECT`, quiet (no `+OK`) and without headers, so that every message comes as a plain `MSG`.
pub(crate) fn push_connect(login: Option<(&str, &str)>, out: &mut Vec<u8>) {
    let connect = Connect {
        verbose: false,
        pedantic: false,
        headers: false,
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        user: login.map(|(user, _)| user),
        pass: login.map(|(_, password)| password),
    };
    out.extend_from_slice(b"CONNECT ");
    // Strings and booleans always serialise, and a Vec takes everything.
    let _ = serde_json::to_writer(&mut *out, &connect);
    out.extend_from_slice(END);
}

/// Appends a message.
pub(crate) fn push_publish(subject: &str, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(END);
}

/// What a subscriber sends once it has seen the server's `INFO`. The `PONG` comes when the subscription stands.
pub(crate) fn opening(subject: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_connect(None, &mut out);
    out.extend_from_slice(format!("SUB {subject} 1\r\n").as_bytes());
    out.extend_from_slice(PING);
    out
}

/// Whether a name is one subject: tokens with dots between them, and no wildcard.
pub(crate) fn is_subject(name: &str) -> bool {
    name.split('.').all(|token| !token.is_empty() && token != "*" && token != ">")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"INFO {\"server_id\":\"x\"}\r\nPONG\r\nMSG loadtest 1 5\r\nhello\r\nPING\r\n\
        MSG a.b 1 reply.to 4\r\n\r\n\r\n\r\n+OK\r\n-ERR 'Authorization Violation'\r\n";

    fn seen(bytes: &[u8]) -> Result<(Vec<String>, usize), Malformed> {
        let mut all = Vec::new();
        let taken = each(bytes, |reply| all.push(format!("{reply:?}")))?;
        Ok((all, taken))
    }

    #[test]
    fn joined_lines_are_told_apart_and_payloads_may_hold_line_ends() {
        let (all, taken) = seen(STREAM).unwrap();
        assert_eq!(taken, STREAM.len());
        assert_eq!(
            all,
            [
                "Greeting".to_owned(),
                "Subscribed".to_owned(),
                format!("Publication({:?})", b"hello"),
                "Ping".to_owned(),
                format!("Publication({:?})", b"\r\n\r\n"),
                "Other".to_owned(),
                "Error(\"Authorization Violation\")".to_owned(),
            ]
        );
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_once_the_rest_has_come() {
        let (whole, _) = seen(STREAM).unwrap();
        for cut in 0..STREAM.len() {
            let (mut all, taken) = seen(&STREAM[..cut]).unwrap();
            assert!(taken <= cut);
            all.extend(seen(&STREAM[taken..]).unwrap().0);
            assert_eq!(all, whole, "cut at {cut}");
        }
    }

    #[test]
    fn lines_without_end_absurd_sizes_and_strangers_are_refused() {
        for wrong in [
            &b"MSG a 1 99999999999\r\n"[..],
            b"MSG a 1 -1\r\n",
            b"MSG a 1 x\r\n",
            b"MSG a 1 2\r\nabcd",
            b"PING\n",
            b"\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
        ] {
            assert!(seen(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
        assert!(seen(&vec![b'I'; MAX_LINE + 1]).is_err());
    }

    #[test]
    fn the_opening_asks_for_a_pong_behind_the_subscription() {
        let opening = String::from_utf8(opening("news")).unwrap();
        let lines: Vec<_> = opening.split("\r\n").collect();
        let connect: serde_json::Value = serde_json::from_str(lines[0].strip_prefix("CONNECT ").unwrap()).unwrap();
        assert_eq!((&connect["verbose"], &connect["headers"]), (&false.into(), &false.into()));
        assert_eq!(lines[1..], ["SUB news 1", "PING", ""]);
    }

    #[test]
    fn wildcards_and_empty_tokens_are_no_subjects() {
        assert!(is_subject("loadtest-7") && is_subject("a.b*c"));
        for wrong in ["", "a..b", ".a", "a.*", ">", "a.>"] {
            assert!(!is_subject(wrong), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_nothing_panics_and_nothing_is_taken_twice(bytes: Vec<u8>) {
            if let Ok((_, taken)) = seen(&bytes) {
                proptest::prop_assert!(taken <= bytes.len());
            }
        }

        #[test]
        fn messages_of_any_content_come_out_as_they_went_in(payloads: Vec<Vec<u8>>) {
            let mut stream = Vec::new();
            for payload in &payloads {
                stream.extend_from_slice(format!("MSG s 1 {}\r\n", payload.len()).as_bytes());
                stream.extend_from_slice(payload);
                stream.extend_from_slice(END);
            }
            let mut out = Vec::new();
            let taken = each(&stream, |reply| if let Reply::Publication(payload) = reply { out.push(payload.to_vec()) });
            proptest::prop_assert_eq!(taken, Ok(stream.len()));
            proptest::prop_assert_eq!(out, payloads);
        }
    }
}
