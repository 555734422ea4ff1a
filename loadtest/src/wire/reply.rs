//! What a session looks for in what a server sends, and the Centrifuge protocol: commands out, replies in.

use prost::Message as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tidegate_protocol::message;

use super::{MAX_MESSAGE, Malformed};
use crate::stamp;

/// The id of every session's connect command.
pub(crate) const CONNECT_ID: u32 = 1;
/// The id of every session's first subscribe command; further ones count on.
pub(crate) const SUBSCRIBE_ID: u32 = 2;

/// A reply, as far as a load generator cares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// A publication; the slice begins with its payload (and, in JSON, goes on behind it).
    Publication(&'a [u8]),
    /// Wants [`super::Wire::pong`].
    Ping,
    /// The server has said what it is and waits for the opening.
    Greeting,
    /// The connect was accepted.
    Connected {
        /// Whether the server wants pings to be answered.
        pong: bool,
    },
    /// The subscribe was accepted.
    Subscribed,
    /// A command was refused.
    Refused {
        /// The command's id.
        id: u32,
        /// The error code.
        code: u32,
        /// The error's text.
        message: String,
    },
    /// The server complains, in its own words.
    Error(String),
    /// The server is about to end the connection.
    Disconnect(u32),
    /// Something else that the protocol allows.
    Other,
}

/// The connect and the subscribes of one session in JSON, pipelined.
pub(crate) fn opening_json(channels: impl Iterator<Item = String>) -> Vec<u8> {
    let mut out = format!("{{\"id\":{CONNECT_ID},\"connect\":{{}}}}");
    for (id, channel) in (SUBSCRIBE_ID..).zip(channels) {
        let channel = serde_json::Value::from(channel);
        out.push_str(&format!("\n{{\"id\":{id},\"subscribe\":{{\"channel\":{channel}}}}}"));
    }
    out.into_bytes()
}

/// The same in Protobuf.
pub(crate) fn opening_protobuf(channels: impl Iterator<Item = String>) -> Vec<u8> {
    let connect = message::Command { id: CONNECT_ID, connect: Some(Default::default()), ..Default::default() };
    let mut out = connect.encode_length_delimited_to_vec();
    for (id, channel) in (SUBSCRIBE_ID..).zip(channels) {
        let subscribe = message::SubscribeRequest { channel, ..Default::default() };
        let subscribe = message::Command { id, subscribe: Some(subscribe), ..Default::default() };
        out.extend_from_slice(&subscribe.encode_length_delimited_to_vec());
    }
    out
}

/// Goes through the newline-separated replies of one JSON message.
///
/// # Errors
/// A line that is no reply; the replies before it have been seen.
#[inline]
pub(crate) fn each_json(mut message: &[u8], mut seen: impl FnMut(Reply<'_>)) -> Result<(), Malformed> {
    while !message.is_empty() {
        let line = match memchr::memchr(b'\n', message) {
            Some(end) => {
                let line = &message[..end];
                message = &message[end + 1..];
                line
            }
            None => std::mem::take(&mut message),
        };
        if line.starts_with(b"{\"push\":{")
            && let Some(at) = find_stamp(line)
        {
            seen(Reply::Publication(&line[at..]));
        } else if line == b"{}" {
            seen(Reply::Ping);
        } else if !line.is_empty() {
            seen(rare_json(line)?);
        }
    }
    Ok(())
}

/// Where a stamp's payload begins, which is JSON of one kind or another here. The searcher's tables are built once per
/// thread, not per line.
#[inline]
fn find_stamp(line: &[u8]) -> Option<usize> {
    thread_local! {
        static FINDER: memchr::memmem::Finder<'static> = memchr::memmem::Finder::new(stamp::MARK);
    }
    let at = FINDER.with(|finder| finder.find(line))?;
    match &line[..at] {
        [.., b'{', b'"'] => Some(at - 2),
        [.., b'"'] => Some(at - 1),
        _ => None,
    }
}

#[derive(Deserialize)]
struct JsonReply {
    #[serde(default)]
    id: u32,
    error: Option<JsonError>,
    connect: Option<JsonConnect>,
    subscribe: Option<IgnoredAny>,
    push: Option<JsonPush>,
}

#[derive(Deserialize)]
struct JsonError {
    code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct JsonConnect {
    #[serde(default)]
    pong: bool,
}

#[derive(Deserialize)]
struct JsonPush {
    disconnect: Option<JsonError>,
}

fn rare_json(line: &[u8]) -> Result<Reply<'static>, Malformed> {
    let reply: JsonReply = serde_json::from_slice(line).map_err(|_| "reply that is no JSON object")?;
    Ok(if let Some(error) = reply.error {
        Reply::Refused { id: reply.id, code: error.code, message: error.message }
    } else if let Some(connect) = reply.connect {
        Reply::Connected { pong: connect.pong }
    } else if reply.subscribe.is_some() {
        Reply::Subscribed
    } else if let Some(disconnect) = reply.push.and_then(|push| push.disconnect) {
        Reply::Disconnect(disconnect.code)
    } else {
        Reply::Other
    })
}

/// Goes through the varint-delimited replies at the beginning of `bytes`; says how many bytes they took. What follows
/// is an incomplete reply.
///
/// # Errors
/// A length beyond the limit of a frame, or a reply that is no Protobuf; the replies before it have been seen.
#[inline]
pub(crate) fn each_protobuf(bytes: &[u8], mut seen: impl FnMut(Reply<'_>)) -> Result<usize, Malformed> {
    let mut taken = 0;
    while let Some((length, rest)) = varint(&bytes[taken..])? {
        if length > MAX_MESSAGE as u64 {
            return Err("reply over 32 MiB");
        }
        let Some(reply) = rest.get(..length as usize) else { break };
        taken = bytes.len() - rest.len() + reply.len();
        if reply.is_empty() {
            seen(Reply::Ping);
        } else if let Some(data) = publication(reply) {
            seen(Reply::Publication(data));
        } else {
            seen(rare_protobuf(reply)?);
        }
    }
    Ok(taken)
}

/// The payload of a reply that carries a publication: Reply.push (4), Push.pub (4), Publication.data (4).
#[inline]
fn publication(reply: &[u8]) -> Option<&[u8]> {
    field(field(field(reply, 4)?, 4)?, 4)
}

/// The first length-delimited field of this number, if everything before it is sound.
#[inline]
fn field(mut message: &[u8], number: u64) -> Option<&[u8]> {
    loop {
        let (key, rest) = varint(message).ok()??;
        match key & 7 {
            0 => message = varint(rest).ok()??.1,
            1 => message = rest.get(8..)?,
            2 => {
                let (length, rest) = varint(rest).ok()??;
                let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                if key >> 3 == number {
                    return Some(value);
                }
                message = after;
            }
            5 => message = rest.get(4..)?,
            _ => return None,
        }
    }
}

/// The varint that `bytes` begins with and what follows; `None` while it is incomplete.
#[inline]
fn varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Malformed> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate() {
        if index == 10 {
            return Err("varint over 10 bytes");
        }
        value |= u64::from(byte & 0x7f) << (7 * index as u32);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &bytes[index + 1..])));
        }
    }
    Ok(None)
}

fn rare_protobuf(reply: &[u8]) -> Result<Reply<'static>, Malformed> {
    let reply = message::Reply::decode(reply).map_err(|_| "reply that is no Protobuf message")?;
    Ok(if let Some(error) = reply.error {
        Reply::Refused { id: reply.id, code: error.code, message: error.message }
    } else if let Some(connect) = reply.connect {
        Reply::Connected { pong: connect.pong }
    } else if reply.subscribe.is_some() {
        Reply::Subscribed
    } else if let Some(disconnect) = reply.push.and_then(|push| push.disconnect) {
        Reply::Disconnect(disconnect.code)
    } else {
        Reply::Other
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Format, Stamp};

    const STAMP: Stamp = Stamp { round: 1, channel: 2, sequence: 3, due: 4 };

    fn payload() -> Vec<u8> {
        let mut payload = Vec::new();
        STAMP.write(Format::Object, 128, &mut payload);
        payload
    }

    fn describe(reply: Reply<'_>) -> String {
        match reply {
            Reply::Publication(data) => format!("{:?}", Stamp::read(data, 128)),
            other => format!("{other:?}"),
        }
    }

    fn push(push: message::Push) -> message::Reply {
        message::Reply { push: Some(push), ..Default::default() }
    }

    #[test]
    fn joined_json_replies_are_told_apart() {
        let payload = String::from_utf8(payload()).unwrap();
        let message = format!(
            "{{\"id\":1,\"connect\":{{\"client\":\"c\",\"ping\":25,\"pong\":true}}}}\n{{\"id\":2,\"subscribe\":{{}}}}\n\
             {{}}\n\n{{\"push\":{{\"channel\":\"c\",\"pub\":{{\"data\":{payload},\"offset\":7}}}}}}\n\
             {{\"push\":{{\"channel\":\"c\",\"join\":{{}}}}}}\n\
             {{\"id\":2,\"error\":{{\"code\":103,\"message\":\"permission denied\"}}}}\n\
             {{\"push\":{{\"disconnect\":{{\"code\":3001,\"reason\":\"shutdown\"}}}}}}\n"
        );
        let mut seen = Vec::new();
        each_json(message.as_bytes(), |reply| seen.push(describe(reply))).unwrap();
        assert_eq!(
            seen,
            [
                "Connected { pong: true }".to_owned(),
                "Subscribed".to_owned(),
                "Ping".to_owned(),
                format!("{:?}", Some(STAMP)),
                "Other".to_owned(),
                "Refused { id: 2, code: 103, message: \"permission denied\" }".to_owned(),
                "Disconnect(3001)".to_owned(),
            ]
        );
        assert!(each_json(b"{\"push\":", |_| ()).is_err());
    }

    #[test]
    fn a_payload_is_found_in_every_format_that_json_has() {
        for format in [Format::Object, Format::String, Format::Text] {
            let mut payload = Vec::new();
            STAMP.write(format, 128, &mut payload);
            if format == Format::Text {
                payload = serde_json::to_vec(str::from_utf8(&payload).unwrap()).unwrap();
            }
            let payload = String::from_utf8(payload).unwrap();
            let line = format!("{{\"push\":{{\"channel\":\"lt\",\"pub\":{{\"data\":{payload}}}}}}}");
            let mut seen = Vec::new();
            each_json(line.as_bytes(), |reply| seen.push(describe(reply))).unwrap();
            assert_eq!(seen, [format!("{:?}", Some(STAMP))], "{format:?}");
        }
    }

    #[test]
    fn joined_protobuf_replies_are_told_apart_and_an_incomplete_one_is_left() {
        let publication = message::Publication { data: payload().into(), offset: 9, ..Default::default() };
        let replies = [
            message::Reply {
                id: 1,
                connect: Some(message::ConnectResult { pong: true, ..Default::default() }),
                ..Default::default()
            },
            message::Reply { id: 2, subscribe: Some(Default::default()), ..Default::default() },
            message::Reply::default(),
            push(message::Push { channel: "c".into(), r#pub: Some(publication), ..Default::default() }),
            push(message::Push { channel: "c".into(), join: Some(Default::default()), ..Default::default() }),
            push(message::Push {
                disconnect: Some(message::Disconnect { code: 3008, ..Default::default() }),
                ..Default::default()
            }),
        ];
        let mut bytes = Vec::new();
        for reply in &replies {
            bytes.extend_from_slice(&reply.encode_length_delimited_to_vec());
        }
        let whole = bytes.len();
        let first = replies[0].encode_length_delimited_to_vec();
        bytes.extend_from_slice(&first[..first.len() - 1]);
        let mut seen = Vec::new();
        let taken = each_protobuf(&bytes, |reply| seen.push(describe(reply))).unwrap();
        assert_eq!(taken, whole);
        assert_eq!(
            seen,
            [
                "Connected { pong: true }".to_owned(),
                "Subscribed".to_owned(),
                "Ping".to_owned(),
                format!("{:?}", Some(STAMP)),
                "Other".to_owned(),
                "Disconnect(3008)".to_owned(),
            ]
        );
    }

    #[test]
    fn broken_protobuf_is_an_error_and_never_a_panic() {
        assert!(each_protobuf(&[0xff; 11], |_| ()).is_err());
        assert!(each_protobuf(&[0xff, 0xff, 0xff, 0xff, 0x7f], |_| ()).is_err());
        assert!(each_protobuf(&[3, 0x22, 0x7f, 0], |_| ()).is_err());
        assert_eq!(each_protobuf(&[0x80], |_| ()), Ok(0));
    }

    #[test]
    fn the_opening_holds_a_connect_and_the_subscribes_in_both_encodings() {
        let json = opening_json(["a\"b", "c"].map(str::to_owned).into_iter());
        let lines: Vec<serde_json::Value> =
            json.split(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
        assert!(lines[0]["connect"].is_object());
        assert_eq!((&lines[1]["id"], &lines[1]["subscribe"]["channel"]), (&2.into(), &"a\"b".into()));
        assert_eq!((&lines[2]["id"], &lines[2]["subscribe"]["channel"]), (&3.into(), &"c".into()));

        let protobuf = opening_protobuf(std::iter::once("news".to_owned()));
        let mut rest = protobuf.as_slice();
        let connect = message::Command::decode_length_delimited(&mut rest).unwrap();
        let subscribe = message::Command::decode_length_delimited(&mut rest).unwrap();
        assert!(connect.connect.is_some() && rest.is_empty());
        assert_eq!(subscribe.subscribe.unwrap().channel, "news");
    }
}
