//! The floor's connection to Redis: one subscribed channel.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::publisher::connect;
use crate::resp::{self, Value};
use crate::url::Url;

/// Read at once; a burst of 200 messages of 128 B fits twice.
const READ_BUFFER: usize = 128 << 10;

/// A subscription.
#[derive(Debug)]
pub(super) struct Upstream {
    stream: TcpStream,
    input: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Upstream {
    /// Connects, logs in if the URL says so, and waits until the subscription is confirmed.
    pub(super) fn subscribe(url: &Url, channel: &str) -> Result<Self> {
        let mut stream = connect(&url.address, &format!("Redis at {}", url.address))?;
        let mut out = Vec::new();
        let mut answers = u32::from(resp::push_login(url, &mut out)) + 1;
        resp::push_command(&[b"SUBSCRIBE", channel.as_bytes()], &mut out);
        stream.write_all(&out).context(|| "cannot subscribe in Redis".to_owned())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).context(|| "cannot set a socket up".to_owned())?;
        let mut upstream = Self { stream, input: Vec::new(), buffer: vec![0; READ_BUFFER].into_boxed_slice() };
        while answers > 0 {
            upstream.fill()?;
            upstream.values(|value| match value {
                Value::Error(text) => {
                    Err(Error::Run(format!("Redis refuses the subscription: {}", String::from_utf8_lossy(text))))
                }
                _ => {
                    answers = answers.saturating_sub(1);
                    Ok(())
                }
            })?;
        }
        upstream.stream.set_nonblocking(true).context(|| "cannot set a socket up".to_owned())?;
        Ok(upstream)
    }

    /// For an epoll set.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once and gives away every complete message's payload.
    pub(super) fn read(&mut self, mut message: impl FnMut(&[u8])) -> Result<()> {
        self.fill()?;
        self.values(|value| {
            if let Value::Array(parts) = value
                && let [Value::Bulk(Some(b"message")), _, Value::Bulk(Some(payload))] = parts.as_slice()
            {
                message(payload);
            }
            Ok(())
        })
    }

    fn fill(&mut self) -> Result<()> {
        match self.stream.read(&mut self.buffer) {
            Ok(0) => Err(super::upstream_gone()),
            Ok(length) => {
                self.input.extend_from_slice(&self.buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            // Either the time-out while subscribing, or an event that was none: epoll said that there is something.
            Err(error) => Err(error).context(|| "cannot read from Redis".to_owned()),
        }
    }

    fn values(&mut self, mut seen: impl FnMut(Value<'_>) -> Result<()>) -> Result<()> {
        let mut taken = 0;
        let wrong = |fault| Error::Run(format!("Redis sent a {fault}"));
        while let Some((value, length)) = resp::value(&self.input[taken..]).map_err(wrong)? {
            seen(value)?;
            taken += length;
        }
        self.input.drain(..taken);
        Ok(())
    }
}
