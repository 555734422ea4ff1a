//! Publishing to NATS: `PUB` over TCP, and a `PING` now and then whose `PONG` says that everything before was taken.

use super::{Answer, Dialect, Says, WINDOW_OF_STREAMS};
use crate::error::{Error, Result};
use crate::url::Url;
use crate::wire::nats::{self, Operation};

/// A NATS server.
#[derive(Debug, Clone)]
pub(crate) struct Nats {
    url: Url,
}

impl Nats {
    /// `url` is such as `nats://127.0.0.1:4222`, with `user:password@` if the server wants a login.
    ///
    /// # Errors
    /// A URL that is none.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let url = Url::parse(url, "nats", 4222).map_err(|fault| Error::Usage(format!("--publish-url: {fault}")))?;
        Ok(Self { url })
    }

    fn refusal(&self, text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text);
        let hint = if text.contains("Authorization") || text.contains("Authentication") {
            ": give user and password in --publish-url"
        } else if text.contains("Maximum Payload") {
            ": raise its max_payload or lower --payload"
        } else {
            ""
        };
        format!("{} refused to publish ({text}){hint}", self.name())
    }
}

impl Dialect for Nats {
    fn name(&self) -> String {
        format!("NATS at {}", self.url.address)
    }

    fn address(&self) -> &str {
        &self.url.address
    }

    fn window(&self) -> u64 {
        WINDOW_OF_STREAMS
    }

    fn hello(&self, out: &mut Vec<u8>) -> u64 {
        nats::push_connect(self.url.login(), out);
        out.extend_from_slice(nats::PING);
        1
    }

    fn encode(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        nats::push_publish(channel, payload, out);
    }

    fn ask(&self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(nats::PING);
        true
    }

    fn answer(&self, bytes: &[u8]) -> std::result::Result<Option<Answer>, String> {
        let read = nats::operation(bytes).map_err(|fault| format!("{} sent a {fault}", self.name()))?;
        let Some((operation, length)) = read else { return Ok(None) };
        let says = match operation {
            Operation::Info(description) => {
                if requires_tls(description) {
                    return Err(format!("{} wants TLS, which this tool does not speak: allow plain TCP", self.name()));
                }
                Says::Nothing
            }
            Operation::Pong => Says::AllTaken,
            Operation::Ping => Says::Asks(nats::PONG),
            Operation::Ok => Says::Nothing,
            Operation::Message(_) => return Err(format!("{} sent a message to a publisher", self.name())),
            Operation::Error(text) => return Err(self.refusal(text)),
        };
        Ok(Some(Answer { length, says }))
    }
}

fn requires_tls(description: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Info {
        #[serde(default)]
        tls_required: bool,
    }
    serde_json::from_slice::<Info>(description).is_ok_and(|info| info.tls_required)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_pub_and_a_ping_asks_for_the_answer() {
        let nats = Nats::new("nats://me:pw@127.0.0.1").unwrap();
        let mut out = Vec::new();
        assert_eq!(nats.hello(&mut out), 1);
        let hello = String::from_utf8(std::mem::take(&mut out)).unwrap();
        assert!(hello.contains("\"user\":\"me\",\"pass\":\"pw\"") && hello.ends_with("\r\nPING\r\n"), "{hello}");
        nats.encode("news", b"{}", &mut out);
        assert!(nats.ask(&mut out));
        assert_eq!(out, b"PUB news 2\r\n{}\r\nPING\r\n");
    }

    #[test]
    fn a_servers_ping_is_answered_and_its_refusals_say_what_would_help() {
        let nats = Nats::new("nats://127.0.0.1").unwrap();
        let says = |bytes: &[u8]| nats.answer(bytes).map(|answer| answer.map(|answer| answer.says));
        assert_eq!(says(b"INFO {\"auth_required\":true}\r\n"), Ok(Some(Says::Nothing)));
        assert_eq!(says(b"PONG\r\n"), Ok(Some(Says::AllTaken)));
        assert_eq!(says(b"PING\r\n"), Ok(Some(Says::Asks(b"PONG\r\n"))));
        assert_eq!(says(b"PIN"), Ok(None));
        assert!(says(b"INFO {\"tls_required\":true}\r\n").unwrap_err().contains("TLS"));
        assert!(says(b"-ERR 'Authorization Violation'\r\n").unwrap_err().contains("user and password"));
        assert!(says(b"-ERR 'Maximum Payload Violation'\r\n").unwrap_err().contains("max_payload"));
        assert!(says(b"+PONG\r\n").is_err());
    }
}
