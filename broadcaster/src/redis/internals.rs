//! The reader of a subscriber connection without a Redis, for benchmarks and budgets (feature `internals`).
//!
//! What is read is handed in as bytes; everything behind the system call is the node's own.

use std::io;

use bytes::BytesMut;

use super::link::Link;
use super::settings::Endpoint;
use super::wire::{Item, Parsed, command, parse};
use super::{RedisBroker, RedisSettings};
use crate::broker::Broker;
use crate::dispatch::Inboxes;
use crate::publication::Channel;

/// A subscriber connection whose bytes come from the caller.
#[derive(Debug)]
pub struct Reader<'a> {
    link: Link<'a>,
}

impl Reader<'_> {
    /// Decodes and routes `bytes`, in as many reads as they take.
    ///
    /// # Errors
    /// Bytes that no Redis sends.
    pub fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.link.feed(bytes).map_err(|lost| io::Error::new(io::ErrorKind::InvalidData, lost.to_string()))
    }
}

/// Gives `work` a reader for these shards, of which the first has each of `channels`.
///
/// # Errors
/// Where the system gives no loopback socket: the reader holds one, which nothing is read from.
pub fn with_reader<R>(channels: &[String], inboxes: Inboxes, work: impl FnOnce(&mut Reader<'_>) -> R) -> io::Result<R> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    stream.set_nonblocking(true)?;

    // The publishing side's task never runs: nobody drives the runtime.
    let (broker, receivers) =
        RedisBroker::start(RedisSettings::new("redis://127.0.0.1"), inboxes).map_err(io::Error::other)?;
    let Some(subscriber) = receivers.first().and_then(|receiver| receiver.subscribers.first()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no shard to read for"));
    };
    let server = Endpoint { host: String::new(), port: 0, user: None, password: None, db: None };
    let mut link = Link::new(subscriber, &server, tokio::net::TcpStream::from_std(stream)?);
    let mut confirmations = BytesMut::new();
    for name in channels {
        broker.subscribe(&Channel::from(name.as_str()), 0);
        confirmation(&mut confirmations, &format!("{}{name}", subscriber.settings.prefix));
    }
    link.ask();
    let mut reader = Reader { link };
    reader.receive(&confirmations)?;
    Ok(work(&mut reader))
}

/// What Redis answers to a subscribe.
fn confirmation(out: &mut BytesMut, name: &str) {
    out.extend_from_slice(format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len()).as_bytes());
}

/// Appends a message as Redis sends it.
pub fn message(out: &mut BytesMut, channel: &str, payload: &[u8]) {
    command(out, &[b"message", channel.as_bytes(), payload]);
}

/// Parses whole messages, and answers how many there are and the bytes of their payloads.
///
/// # Errors
/// Bytes that no Redis sends, or that end within a message.
pub fn parse_messages(mut bytes: &[u8]) -> io::Result<(usize, usize)> {
    let (mut messages, mut length) = (0, 0);
    while !bytes.is_empty() {
        match parse(bytes, usize::MAX) {
            Ok(Parsed::Item(Item::Message { payload, .. }, taken)) => {
                messages += 1;
                length += payload.len();
                bytes = &bytes[taken..];
            }
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
    Ok((messages, length))
}
