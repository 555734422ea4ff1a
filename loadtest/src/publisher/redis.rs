//! Publishing by plain `PUBLISH`.

use super::{Answer, Dialect, Says};
use crate::error::{Error, Result};
use crate::resp::{self, Value};
use crate::url::Url;

/// A Redis to publish to.
#[derive(Debug, Clone)]
pub(crate) struct Redis {
    url: Url,
    prefix: String,
}

impl Redis {
    /// `prefix` stands before the channel in Redis, `push:` by default.
    ///
    /// # Errors
    /// A URL that is none.
    pub(crate) fn new(url: &str, prefix: &str) -> Result<Self> {
        Ok(Self { url: resp::url(url).map_err(Error::Usage)?, prefix: prefix.to_owned() })
    }
}

impl Dialect for Redis {
    fn name(&self) -> String {
        format!("Redis at {}", self.url.address)
    }

    fn address(&self) -> &str {
        &self.url.address
    }

    fn window(&self) -> u64 {
        // Bounded by the queue and by what the sockets hold.
        u64::MAX
    }

    fn unheard(&self) -> &'static str {
        "let the server use the same Redis, and give its prefix by --redis-prefix"
    }

    fn hello(&self, out: &mut Vec<u8>) -> u64 {
        u64::from(resp::push_login(&self.url, out))
    }

    fn encode(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        let channel = [self.prefix.as_bytes(), channel.as_bytes()].concat();
        resp::push_command(&[b"PUBLISH", &channel, payload], out);
    }

    fn answer(&self, bytes: &[u8]) -> std::result::Result<Option<Answer>, String> {
        match resp::value(bytes).map_err(|fault| format!("{} sent a {fault}", self.name()))? {
            None => Ok(None),
            Some((Value::Error(text), _)) => {
                Err(format!("{} refused a command: {}", self.name(), String::from_utf8_lossy(text)))
            }
            Some((value, length)) => {
                Ok(Some(Answer { length, says: Says::Taken { heard: value != Value::Integer(0) } }))
            }
        }
    }
}
