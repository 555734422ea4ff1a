//! Publishing to Nchan: a POST per message, pipelined over one connection.

use super::{Answer, Dialect, Says, http};
use crate::error::{Error, Result};
use crate::url::Url;

/// Requests in flight, as with the API; the server takes them one after another.
const WINDOW: u64 = 64;

/// A publisher location of Nchan.
#[derive(Debug, Clone)]
pub(crate) struct Nchan {
    url: Url,
}

impl Nchan {
    /// `url` is the location that the channel's name is appended to, such as `http://127.0.0.1/pub`.
    ///
    /// # Errors
    /// A URL that is none.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let wrong = |fault: &str| Error::Usage(format!("--publish-url: {fault}"));
        let mut url = Url::parse(url, "http", 80).map_err(|fault| wrong(&fault))?;
        if url.password.is_some() || url.path.contains('?') {
            return Err(wrong("no login and no query: a publisher location such as http://127.0.0.1/pub"));
        }
        url.path = url.path.trim_end_matches('/').to_owned();
        Ok(Self { url })
    }
}

impl Dialect for Nchan {
    fn name(&self) -> String {
        format!("Nchan at {}", self.url.address)
    }

    fn address(&self) -> &str {
        &self.url.address
    }

    fn window(&self) -> u64 {
        WINDOW
    }

    fn unheard(&self) -> &'static str {
        "let the subscriber's and the publisher's location name the same channel group"
    }

    fn hello(&self, _out: &mut Vec<u8>) -> u64 {
        0
    }

    fn encode(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        let head = format!(
            "POST {}/{channel} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.url.path,
            self.url.address,
            payload.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(payload);
    }

    fn answer(&self, bytes: &[u8]) -> std::result::Result<Option<Answer>, String> {
        let Some(response) = http::response(bytes).map_err(|fault| format!("{} sent an {fault}", self.name()))? else {
            return Ok(None);
        };
        let hint = match response.status {
            _ if response.last => {
                "ends the connection: raise nginx's keepalive_requests and keepalive_timeout for this location"
            }
            // 201 with a subscriber, 202 without one.
            200..=299 => {
                let says = Says::Taken { heard: response.status != 202 };
                return Ok(Some(Answer { length: response.length, says }));
            }
            403 => "refuses to publish (HTTP 403): check the location's access rules",
            404 | 405 => "has no publisher there: check --publish-url against the location with nchan_publisher",
            413 => "takes no payload of that size (HTTP 413): raise client_max_body_size",
            _ => return Err(format!("{} answered HTTP {}: look at its error log", self.name(), response.status)),
        };
        Err(format!("{} {hint}", self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_post_to_its_channels_path() {
        let nchan = Nchan::new("http://127.0.0.1:8088/pub/").unwrap();
        let mut out = Vec::new();
        nchan.encode("news", b"{}", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /pub/news HTTP/1.1\r\nHost: 127.0.0.1:8088\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"), "{text}");
    }

    #[test]
    fn it_is_told_whether_somebody_listens_and_what_a_refusal_means() {
        let nchan = Nchan::new("http://127.0.0.1:8088/pub").unwrap();
        let answer = |status: &str| nchan.answer(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        let says = |status: &str| answer(status).unwrap().unwrap().says;
        assert_eq!(says("201 Created"), Says::Taken { heard: true });
        assert_eq!(says("202 Accepted"), Says::Taken { heard: false });
        for (status, hint) in [("403 Forbidden", "access rules"), ("404 Not Found", "--publish-url"), ("500 x", "500")]
        {
            assert!(answer(status).unwrap_err().contains(hint));
        }
        assert!(answer("201 Created\r\nConnection: close").unwrap_err().contains("keepalive_requests"));
    }

    #[test]
    fn a_url_with_a_login_or_a_query_is_refused() {
        for wrong in ["http://me:pw@localhost/pub", "http://localhost/pub?id=1", "ws://localhost/pub"] {
            assert!(Nchan::new(wrong).is_err(), "{wrong}");
        }
    }
}
