//! Publishing by the server's HTTP API, with keep-alive and a few requests in flight.

use serde_json::value::RawValue;

use super::{Answer, Dialect, Says, http};
use crate::error::{Error, Result};

/// Requests in flight; enough to hide the round trip, few enough for any server.
const WINDOW: u64 = 64;

/// An API to publish to.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    address: String,
    path: String,
    key: String,
}

impl Api {
    /// `url` is the API's root, such as `http://127.0.0.1:8000/api`.
    ///
    /// # Errors
    /// A URL that is none.
    pub(crate) fn new(url: &str, key: &str) -> Result<Self> {
        let wrong = || Error::Usage(format!("--api-url {url}: an API URL looks like http://127.0.0.1:8000/api"));
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').ok_or_else(wrong)?;
        let control = |text: &str| text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
        if host.is_empty() || control(rest) {
            return Err(wrong());
        }
        if control(key) {
            return Err(Error::Usage("--api-key: a key has no spaces and no control characters".to_owned()));
        }
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        Ok(Self { address, path: format!("/{}/publish", path.trim_end_matches('/')), key: key.to_owned() })
    }
}

#[derive(serde::Serialize)]
struct Publish<'a> {
    channel: &'a str,
    data: &'a RawValue,
}

#[derive(serde::Deserialize)]
struct Reply {
    error: Option<serde_json::Value>,
}

impl Dialect for Api {
    fn name(&self) -> String {
        format!("the API at {}", self.address)
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn window(&self) -> u64 {
        WINDOW
    }

    fn hello(&self, _out: &mut Vec<u8>) -> u64 {
        0
    }

    fn encode(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        let data = str::from_utf8(payload).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        // A stamp is JSON by construction.
        let Some(data) = data else { return };
        let Ok(body) = serde_json::to_vec(&Publish { channel, data }) else { return };
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.address,
            self.key,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&body);
    }

    fn answer(&self, bytes: &[u8]) -> std::result::Result<Option<Answer>, String> {
        let Some(response) = http::response(bytes).map_err(|fault| format!("{} sent an {fault}", self.name()))? else {
            return Ok(None);
        };
        match response.status {
            200 => {}
            status @ (401 | 403) => {
                return Err(format!("{} refuses the key (HTTP {status}): check --api-key", self.name()));
            }
            status => return Err(format!("{} answered HTTP {status}: check --api-url", self.name())),
        }
        let reply: Reply = serde_json::from_slice(response.body)
            .map_err(|_| format!("{} sent an answer that is no JSON", self.name()))?;
        match reply.error {
            Some(error) => Err(format!("{} refused a message: {error}", self.name())),
            None => Ok(Some(Answer { length: response.length, says: Says::Taken { heard: true } })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_key_channel_and_the_payload_as_it_is() {
        let api = Api::new("http://127.0.0.1:8000/api/", "secret").unwrap();
        let mut out = Vec::new();
        api.encode("news", b"{\"lt\":\"x\"}", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /api/publish HTTP/1.1\r\n") && text.contains("X-API-Key: secret\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n{\"channel\":\"news\",\"data\":{\"lt\":\"x\"}}"), "{text}");
    }

    #[test]
    fn answers_are_read_whole_and_refusals_say_why() {
        let api = Api::new("http://127.0.0.1:8000/api", "k").unwrap();
        let fine = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"result\":{}}";
        assert_eq!(api.answer(fine), Ok(Some(Answer { length: fine.len(), says: Says::Taken { heard: true } })));
        assert_eq!(api.answer(&fine[..fine.len() - 1]), Ok(None));
        assert!(
            api.answer(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").unwrap_err().contains("--api-key")
        );
        let refusal = b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"error\":{\"code\":107}}";
        assert!(api.answer(refusal).unwrap_err().contains("107"));
    }

    #[test]
    fn a_key_or_url_that_would_break_the_request_is_refused() {
        assert!(Api::new("http://127.0.0.1:8000/api", "a\r\nb").is_err());
        assert!(Api::new("http://127.0.0.1:8000/a pi", "k").is_err());
        assert!(Api::new("127.0.0.1:8000", "k").is_err());
    }
}
