//! Publishing over MQTT at quality of service 0, and a PINGREQ now and then whose PINGRESP says that everything before
//! was taken: a server handles a connection's packets in their order (MQTT 3.1.1, section 4.6).

use super::{Answer, Dialect, Says, WINDOW_OF_STREAMS};
use crate::error::{Error, Result};
use crate::url::Url;
use crate::wire::mqtt::{self, Packet};

/// An MQTT server.
#[derive(Debug, Clone)]
pub(crate) struct Mqtt {
    url: Url,
}

impl Mqtt {
    /// `url` is such as `mqtt://127.0.0.1:1883`, with `user:password@` if the server wants a login.
    ///
    /// # Errors
    /// A URL that is none, or a login that is too long for the protocol.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let wrong = |fault: &str| Error::Usage(format!("--publish-url: {fault}"));
        let url = Url::parse(url, "mqtt", 1883).map_err(|fault| wrong(&fault))?;
        let most = usize::from(u16::MAX);
        if url.login().is_some_and(|(user, password)| user.len() > most || password.len() > most) {
            return Err(wrong("user and password have at most 65535 bytes each"));
        }
        Ok(Self { url })
    }
}

impl Dialect for Mqtt {
    fn name(&self) -> String {
        format!("the MQTT server at {}", self.url.address)
    }

    fn address(&self) -> &str {
        &self.url.address
    }

    fn window(&self) -> u64 {
        WINDOW_OF_STREAMS
    }

    fn hello(&self, out: &mut Vec<u8>) -> u64 {
        mqtt::push_connect(self.url.login(), out);
        1
    }

    fn encode(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        mqtt::push_publish(channel, payload, out);
    }

    fn ask(&self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(mqtt::PINGREQ);
        true
    }

    fn answer(&self, bytes: &[u8]) -> std::result::Result<Option<Answer>, String> {
        let read = mqtt::packet(bytes).map_err(|fault| format!("{} sent a {fault}", self.name()))?;
        let Some((packet, length)) = read else { return Ok(None) };
        let says = match packet {
            Packet::Connack(0) | Packet::Pingresp => Says::AllTaken,
            Packet::Connack(code) => {
                let hint = match code {
                    4 | 5 => ": give user and password in --publish-url, or allow anonymous clients",
                    _ => "",
                };
                let why = mqtt::refusal(code);
                return Err(format!("{} refused the publisher with {code} ({why}){hint}", self.name()));
            }
            Packet::Publish(_) | Packet::Suback(_) => {
                return Err(format!("{} sent a subscriber's packet to a publisher", self.name()));
            }
        };
        Ok(Some(Answer { length, says }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_publish_and_a_pingreq_asks_for_the_answer() {
        let mqtt = Mqtt::new("mqtt://127.0.0.1").unwrap();
        let mut out = Vec::new();
        mqtt.encode("news", b"{}", &mut out);
        assert!(mqtt.ask(&mut out));
        assert_eq!(out, b"\x30\x08\x00\x04news{}\xc0\x00");
    }

    #[test]
    fn answers_are_counted_and_refusals_say_what_would_help() {
        let mqtt = Mqtt::new("mqtt://127.0.0.1").unwrap();
        let says = |bytes: &[u8]| mqtt.answer(bytes).map(|answer| answer.map(|answer| answer.says));
        assert_eq!(says(&[0x20, 2, 0, 0]), Ok(Some(Says::AllTaken)));
        assert_eq!(says(&[0xd0, 0]), Ok(Some(Says::AllTaken)));
        assert_eq!(says(&[0xd0]), Ok(None));
        assert!(says(&[0x20, 2, 0, 5]).unwrap_err().contains("anonymous"));
        assert!(says(&[0x20, 2, 0, 3]).unwrap_err().contains("server unavailable"));
        assert!(says(&[0x10, 0]).is_err());
    }

    #[test]
    fn a_login_that_the_protocol_cannot_carry_is_refused() {
        assert!(Mqtt::new(&format!("mqtt://{}:x@localhost", "u".repeat(70_000))).is_err());
    }
}
