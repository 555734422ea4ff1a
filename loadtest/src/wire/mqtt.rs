//! MQTT 3.1.1, as much as subscribing and publishing at quality of service 0 need (OASIS standard of 29 October 2014;
//! chapters in brackets).
//!
//! Sessions ask for no keep-alive (3.1.2.10: 0 turns it off), so they need no timer and send no PINGREQ while idle.

use super::Malformed;
use super::reply::{CONNECT_ID, Reply, SUBSCRIBE_ID};

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const SUBACK: u8 = 9;
const PINGRESP: u8 = 13;

/// Asks for a PINGRESP, which comes when everything before has been taken (3.12).
pub(crate) const PINGREQ: &[u8] = &[0xc0, 0];

/// The id of every session's SUBSCRIBE packet; 0 is not allowed (2.3.1).
const PACKET_ID: [u8; 2] = [0, 1];

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// The answer to a connect: 0 if it was accepted, else the reason (3.2.2.3).
    Connack(u8),
    /// A message's payload.
    Publish(&'a [u8]),
    /// The answer to a subscribe: the granted quality of service, or 0x80 for a refusal (3.9.3).
    Suback(u8),
    /// Everything before the [`PINGREQ`] has been taken.
    Pingresp,
}

/// The packet that `bytes` begins with and its length; `None` while it is incomplete.
///
/// # Errors
/// What a server does not send to such a client, or too long.
#[inline]
pub(crate) fn packet(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, after)) = remaining_length(rest)? else { return Ok(None) };
    if length > super::MAX_MESSAGE {
        return Err("MQTT packet over 32 MiB");
    }
    let Some(body) = after.get(..length) else { return Ok(None) };
    let packet = match (first >> 4, body) {
        (PUBLISH, _) => Packet::Publish(payload(first, body)?),
        (CONNACK, [_, code]) => Packet::Connack(*code),
        (SUBACK, [_, _, code]) => Packet::Suback(*code),
        (PINGRESP, []) => Packet::Pingresp,
        (CONNACK | SUBACK | PINGRESP, _) => return Err("MQTT packet of a wrong length"),
        _ => return Err("packet that no MQTT server sends to a subscriber"),
    };
    Ok(Some((packet, bytes.len() - after.len() + length)))
}

/// The payload of a PUBLISH, behind its topic (3.3).
#[inline]
fn payload(first: u8, body: &[u8]) -> Result<&[u8], Malformed> {
    if first & 0b0110 != 0 {
        return Err("MQTT message of a quality of service that was not asked for");
    }
    let (length, rest) = body.split_first_chunk::<2>().ok_or("MQTT message without a topic")?;
    rest.get(usize::from(u16::from_be_bytes(*length))..).ok_or("MQTT message that its topic overruns")
}

/// The length of what follows it, in up to four groups of seven bits (2.2.3); `None` while it is incomplete.
#[inline]
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &bytes[index + 1..])));
        }
    }
    if bytes.len() >= 4 { Err("MQTT length over 4 bytes") } else { Ok(None) }
}

/// Goes through the complete packets at the beginning of `bytes`; says how many bytes they took.
///
/// # Errors
/// As [`packet`]; what came before has been seen.
#[inline]
pub(crate) fn each(bytes: &[u8], mut seen: impl FnMut(Reply<'_>)) -> Result<usize, Malformed> {
    let mut taken = 0;
    while let Some((packet, length)) = packet(&bytes[taken..])? {
        taken += length;
        seen(match packet {
            Packet::Publish(payload) => Reply::Publication(payload),
            Packet::Connack(0) => Reply::Connected { pong: false },
            Packet::Connack(code) => refused(CONNECT_ID, code),
            Packet::Suback(code @ 0x80..) => refused(SUBSCRIBE_ID, code),
            Packet::Suback(_) => Reply::Subscribed,
            Packet::Pingresp => Reply::Other,
        });
    }
    Ok(taken)
}

fn refused(id: u32, code: u8) -> Reply<'static> {
    Reply::Refused { id, code: code.into(), message: refusal(code).to_owned() }
}

/// What a refusal's code means (3.2.2.3 and 3.9.3).
pub(crate) fn refusal(code: u8) -> &'static str {
    match code {
        1 => "unacceptable protocol version",
        2 => "identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 => "not authorized",
        0x80 => "failure",
        _ => "a code of no known meaning",
    }
}

fn push_packet(first: u8, body: &[&[u8]], out: &mut Vec<u8>) {
    out.push(first);
    let mut length: usize = body.iter().map(|part| part.len()).sum();
    loop {
        let group = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { group | 0x80 } else { group });
        if length == 0 {
            break;
        }
    }
    for part in body {
        out.extend_from_slice(part);
    }
}

/// The two bytes before a string. Names are checked before a run to be far below their limit.
fn prefix(text: &str) -> [u8; 2] {
    u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// Appends a CONNECT of a clean session without keep-alive, whose identifier the server chooses (3.1.3.1).
pub(crate) fn push_connect(login: Option<(&str, &str)>, out: &mut Vec<u8>) {
    const CLEAN_SESSION: u8 = 0x02;
    const USER_AND_PASSWORD: u8 = 0xc0;
    const VERSION_3_1_1: u8 = 4;
    let flags = CLEAN_SESSION | if login.is_some() { USER_AND_PASSWORD } else { 0 };
    let head = [0, 4, b'M', b'Q', b'T', b'T', VERSION_3_1_1, flags, 0, 0];
    let no_identifier = [0, 0];
    match login {
        None => push_packet(0x10, &[&head, &no_identifier], out),
        Some((user, password)) => push_packet(
            0x10,
            &[&head, &no_identifier, &prefix(user), user.as_bytes(), &prefix(password), password.as_bytes()],
            out,
        ),
    }
}

/// Appends a message of quality of service 0 that is not retained.
pub(crate) fn push_publish(topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    push_packet(0x30, &[&prefix(topic), topic.as_bytes(), payload], out);
}

/// What a subscriber sends at once; packets may follow a CONNECT before it is answered (3.1.4).
pub(crate) fn opening(topic: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_connect(None, &mut out);
    let quality_of_service = [0];
    push_packet(0x82, &[&PACKET_ID, &prefix(topic), topic.as_bytes(), &quality_of_service], &mut out);
    out
}

/// Whether a name is one topic and no filter (4.7); those that begin with `$` are the server's own.
pub(crate) fn is_topic(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bytes: &[u8]) -> Result<(Vec<String>, usize), Malformed> {
        let mut all = Vec::new();
        let taken = each(bytes, |reply| all.push(format!("{reply:?}")))?;
        Ok((all, taken))
    }

    fn stream() -> Vec<u8> {
        let mut stream = vec![0x20, 2, 0, 0, 0x90, 3, 0, 1, 0];
        push_publish("news", b"hello", &mut stream);
        push_publish("news", &[b'x'; 300], &mut stream);
        stream.extend_from_slice(&[0xd0, 0, 0x90, 3, 0, 1, 0x80, 0x20, 2, 0, 5]);
        stream
    }

    #[test]
    fn joined_packets_are_told_apart() {
        let stream = stream();
        let (all, taken) = seen(&stream).unwrap();
        assert_eq!(taken, stream.len());
        assert_eq!(
            all,
            [
                "Connected { pong: false }".to_owned(),
                "Subscribed".to_owned(),
                format!("Publication({:?})", b"hello"),
                format!("Publication({:?})", [b'x'; 300]),
                "Other".to_owned(),
                "Refused { id: 2, code: 128, message: \"failure\" }".to_owned(),
                "Refused { id: 1, code: 5, message: \"not authorized\" }".to_owned(),
            ]
        );
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_once_the_rest_has_come() {
        let stream = stream();
        let (whole, _) = seen(&stream).unwrap();
        for cut in 0..stream.len() {
            let (mut all, taken) = seen(&stream[..cut]).unwrap();
            all.extend(seen(&stream[taken..]).unwrap().0);
            assert_eq!(all, whole, "cut at {cut}");
        }
    }

    #[test]
    fn absurd_lengths_and_packets_of_the_wrong_kind_or_form_are_refused() {
        for wrong in [
            &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01][..], // length of five groups
            &[0x30, 0xff, 0xff, 0xff, 0x7f],           // 256 MiB
            &[0x32, 2, 0, 0],                          // quality of service 1
            &[0x30, 1, 0],                             // no topic
            &[0x30, 2, 0, 1],                          // topic beyond the packet
            &[0x20, 1, 0],                             // CONNACK without a code
            &[0x10, 0],                                // CONNECT, from a server
            b"HTTP/1.1 400 Bad Request\r\n\r\n........................................................................",
        ] {
            assert!(seen(wrong).is_err(), "{wrong:x?}");
        }
    }

    #[test]
    fn the_opening_is_a_connect_and_a_subscribe() {
        let expected = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\x82\x09\x00\x01\x00\x04news\x00";
        assert_eq!(opening("news"), expected);
    }

    #[test]
    fn a_login_goes_into_the_connect() {
        let mut out = Vec::new();
        push_connect(Some(("me", "pw")), &mut out);
        assert_eq!(out, b"\x10\x14\x00\x04MQTT\x04\xc2\x00\x00\x00\x00\x00\x02me\x00\x02pw");
    }

    #[test]
    fn filters_and_the_servers_own_names_are_no_topics() {
        assert!(is_topic("loadtest-7") && is_topic("a/b"));
        for wrong in ["", "a/+", "#", "$SYS/x"] {
            assert!(!is_topic(wrong), "{wrong}");
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
                push_publish("a/b", payload, &mut stream);
            }
            let mut out = Vec::new();
            let taken = each(&stream, |reply| if let Reply::Publication(payload) = reply { out.push(payload.to_vec()) });
            proptest::prop_assert_eq!(taken, Ok(stream.len()));
            proptest::prop_assert_eq!(out, payloads);
        }
    }
}
