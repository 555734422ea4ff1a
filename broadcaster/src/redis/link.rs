//! One subscriber connection while it lives.
//!
//! A single task reads, routes, and writes subscriptions; whatever has arrived is decoded and routed as one burst.
//! It reads on only when every shard that was given something has room again: until then Redis and TCP hold the rest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};

use super::settings::Endpoint;
use super::subscriber::Subscriber;
use super::wire::{Item, Parsed, WireError, channels_command, command, parse};
use crate::envelope::MAX_PLACE;
use crate::interest::ShardSet;
use crate::publication::Channel;
use crate::stats::{GapReason, add};

/// The size of the read buffer, in bytes. Only a payload that does not fit makes it grow, for as long as it takes.
const READ_BUFFER: usize = 64 * 1024;

/// A read with less space than this is not worth its system call, in bytes.
const MIN_READ: usize = 16 * 1024;

/// How many commands may wait for their confirmations. With 512 channels each the confirmations stay far below the 8 MB
/// at which Redis drops a slow subscriber (`client-output-buffer-limit pubsub 32mb 8mb 60`).
const MAX_IN_FLIGHT: usize = 32;

/// No further command is written while so many bytes of earlier ones wait for the socket.
const MAX_UNWRITTEN: usize = 256 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("Redis closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("nothing was heard from Redis for {0:?}")]
    Silent(Duration),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("Redis confirmed something else than was asked for")]
    OutOfStep,
    #[error("Redis sent an error: {0}")]
    Error(String),
    #[error("it is not the server to subscribe to any more")]
    Replaced,
}

impl Lost {
    /// What it counts as.
    pub(crate) fn reason(&self) -> GapReason {
        match self {
            Self::Closed => GapReason::Closed,
            Self::Io(_) => GapReason::Broken,
            Self::Silent(_) => GapReason::Silent,
            Self::Wire(_) | Self::OutOfStep | Self::Error(_) => GapReason::Protocol,
            Self::Replaced => GapReason::Replaced,
        }
    }
}

/// A command that Redis has not answered completely. Redis answers in the order of the commands.
#[derive(Debug)]
pub(super) enum Command {
    Subscribe {
        channels: Vec<Channel>,
        confirmed: usize,
        /// How many channels had been taken from the queue before these. None for a channel that is tried again.
        after: Option<u64>,
    },
    Unsubscribe {
        channels: Vec<Channel>,
        confirmed: usize,
    },
    Ping,
}

/// One subscriber connection.
pub(crate) struct Link<'a> {
    pub(super) subscriber: &'a Subscriber,
    server: &'a Endpoint,
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    pub(super) in_flight: VecDeque<Command>,
    /// Channels of a refused command, which are tried one by one to find the one that Redis refuses.
    pub(super) suspects: VecDeque<Channel>,
    /// The bytes left to read of a payload that is not wanted.
    skip: u64,
    /// When something was last read, or the reader had a reason not to read.
    heard: Instant,
    /// When the PING was written that has not been answered.
    probed: Option<Instant>,
    /// The shards that had something of the last burst and may have no room.
    pub(super) touched: ShardSet,
    /// Whether the reader waits for their room.
    held: bool,
    /// The subscriptions that the connection has to restore: so many taken from the queue, and all of them confirmed.
    restore: Option<u64>,
    taken: u64,
}

impl std::fmt::Debug for Link<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

impl<'a> Link<'a> {
    pub(crate) fn new(subscriber: &'a Subscriber, server: &'a Endpoint, stream: TcpStream) -> Self {
        let restore = subscriber.channels.connected();
        Self {
            subscriber,
            server,
            stream,
            input: BytesMut::with_capacity(READ_BUFFER),
            output: BytesMut::new(),
            in_flight: VecDeque::new(),
            suspects: VecDeque::new(),
            skip: 0,
            heard: Instant::now(),
            probed: None,
            touched: ShardSet::default(),
            held: false,
            restore: Some(restore),
            taken: 0,
        }
    }

    /// When something was last read.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether everything that was wanted when the connection was made has been confirmed.
    pub(crate) fn is_restored(&self) -> bool {
        self.restore.is_none()
    }

    /// Runs the connection until it is lost.
    pub(crate) async fn run(&mut self) -> Lost {
        match self.drive().await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn drive(&mut self) -> Result<Infallible, Lost> {
        let mut timer: Pin<Box<Sleep>> = Box::pin(sleep_until(self.next_timer().into()));
        loop {
            self.write_commands();
            self.check_restored();
            let next = tokio::time::Instant::from_std(self.next_timer());
            if next < timer.deadline() {
                timer.as_mut().reset(next);
            }
            let full = self.subscriber.dispatcher.full(self.touched);
            if full.is_empty() {
                self.make_space();
            } else {
                add(&self.subscriber.stats.backpressure_waits, u64::from(!self.held));
            }
            self.held = !full.is_empty();
            self.touched = full;
            let (mut read, mut write) = self.stream.split();
            tokio::select! {
                result = read.read_buf(&mut self.input), if full.is_empty() => {
                    let read = result?;
                    if read == 0 {
                        return Err(Lost::Closed);
                    }
                    self.heard = Instant::now();
                    self.probed = None;
                    self.take_input()?;
                    if read >= MIN_READ {
                        // A flood. The shard on this thread has its turn between two bursts, as its sockets do.
                        tokio::task::yield_now().await;
                    }
                }
                result = write.write_buf(&mut self.output), if !self.output.is_empty() => {
                    if result? == 0 {
                        return Err(Lost::Closed);
                    }
                    if self.output.is_empty() {
                        self.output = BytesMut::new();
                    }
                }
                () = self.subscriber.dispatcher.room(full), if !full.is_empty() => self.silence_is_ours(),
                () = self.subscriber.channels.work.notified() => {}
                () = timer.as_mut() => {
                    if full.is_empty() {
                        self.probe()?;
                    } else {
                        self.silence_is_ours();
                    }
                    timer.as_mut().reset(self.next_timer().into());
                }
            }
        }
    }

    /// Nothing was read because a shard had no room: that is no sign of Redis being away.
    fn silence_is_ours(&mut self) {
        self.heard = Instant::now();
        self.probed = None;
    }

    /// When there is something to do even if nothing happens.
    fn next_timer(&self) -> Instant {
        let settings = &self.subscriber.settings;
        let probe = match self.probed {
            Some(probed) => probed + settings.io_timeout,
            None => self.heard + settings.probe_interval,
        };
        let leave = self.may_write().then(|| self.subscriber.channels.next_leave()).flatten();
        leave.map_or(probe, |leave| leave.min(probe))
    }

    fn probe(&mut self) -> Result<(), Lost> {
        let settings = &self.subscriber.settings;
        let now = Instant::now();
        match self.probed {
            Some(probed) if now >= probed + settings.io_timeout => Err(Lost::Silent(now - self.heard)),
            None if now >= self.heard + settings.probe_interval => {
                command(&mut self.output, &[b"PING"]);
                self.in_flight.push_back(Command::Ping);
                self.probed = Some(now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that the next read has space, and gives back what a large payload has left behind.
    fn make_space(&mut self) {
        let space = self.input.capacity() - self.input.len();
        if space >= MIN_READ && self.input.capacity() <= READ_BUFFER {
            return;
        }
        if self.input.is_empty() && self.input.capacity() > READ_BUFFER {
            self.input = BytesMut::with_capacity(READ_BUFFER);
        } else if space < MIN_READ {
            self.input.reserve(READ_BUFFER.saturating_sub(self.input.len()).max(MIN_READ));
        }
    }

    /// Decodes and routes what has arrived.
    fn take_input(&mut self) -> Result<(), Lost> {
        // What says its place may be longer; `route` looks at the rest.
        let max_payload = self.subscriber.settings.max_payload.saturating_add(MAX_PLACE);
        if self.skip_unwanted() {
            return Ok(());
        }
        // A front that is not whole stays where it is, and is not copied.
        if let Parsed::Incomplete(need) = parse(&self.input, max_payload)? {
            self.input.reserve(need.saturating_sub(self.input.len()));
            return Ok(());
        }
        let received = Instant::now();
        let arrived = self.input.split().freeze();
        let subscriber = self.subscriber;
        let mut burst = subscriber.dispatcher.burst();
        let (mut messages, mut bytes) = (0, 0);
        let mut at = 0;
        let outcome = loop {
            let rest = &arrived[at..];
            let (item, taken) = match parse(rest, max_payload) {
                Ok(Parsed::Item(item, taken)) => (item, taken),
                Ok(Parsed::Incomplete(need)) => {
                    self.input.reserve(need.max(MIN_READ));
                    self.input.extend_from_slice(rest);
                    break Ok(());
                }
                Err(error) => break Err(error.into()),
            };
            match item {
                Item::Message { channel, payload } => {
                    messages += 1;
                    bytes += payload.len() as u64;
                    let payload = arrived.slice(at + payload.start..at + payload.end);
                    subscriber.route(&mut burst, &rest[channel], payload, received);
                }
                Item::Oversized { channel, length } => {
                    subscriber.oversized(&rest[channel], length);
                    at += taken;
                    let tail = &arrived[at..];
                    self.skip = length.saturating_add(2);
                    let here = usize::try_from(self.skip).unwrap_or(usize::MAX).min(tail.len());
                    self.skip -= here as u64;
                    at += here;
                    if self.skip > 0 {
                        break Ok(());
                    }
                    continue;
                }
                reply => {
                    burst.forget();
                    if let Err(lost) = self.take_reply(reply, rest) {
                        break Err(lost);
                    }
                }
            }
            at += taken;
        };
        burst.received(messages, bytes);
        self.touched = self.touched.union(burst.flush());
        outcome
    }

    /// Writes the commands that are due, as far as the output.
    #[cfg(feature = "internals")]
    pub(super) fn ask(&mut self) {
        self.write_commands();
    }

    /// What the reads do that it takes for these bytes: each gets what there is space for.
    #[cfg(feature = "internals")]
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Lost> {
        while !bytes.is_empty() {
            self.make_space();
            let space = self.input.capacity() - self.input.len();
            let (read, rest) = bytes.split_at(space.min(bytes.len()));
            self.input.extend_from_slice(read);
            self.take_input()?;
            bytes = rest;
        }
        Ok(())
    }

    /// Drops what has arrived of an unwanted payload. Answers whether nothing else has arrived.
    fn skip_unwanted(&mut self) -> bool {
        let here = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.input.len());
        self.input.advance(here);
        self.skip -= here as u64;
        self.input.is_empty()
    }

    /// Whether a further command may be written now.
    fn may_write(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT && self.output.len() < MAX_UNWRITTEN
    }

    /// Puts into the output what there is to subscribe and to let go.
    fn write_commands(&mut self) {
        let Subscriber { settings, channels, stats, .. } = self.subscriber;
        while self.may_write() {
            let (batch, after) = if let Some(suspect) = self.suspects.pop_front() {
                (vec![suspect], None)
            } else {
                let taken = channels.take_queued(settings.subscribe_batch);
                let after = std::mem::replace(&mut self.taken, taken.total);
                (taken.channels, Some(after))
            };
            if !batch.is_empty() {
                self.write_channels("SUBSCRIBE", "SSUBSCRIBE", &batch);
                self.in_flight.push_back(Command::Subscribe { channels: batch, confirmed: 0, after });
                add(&stats.subscribe_batches, 1);
                continue;
            }
            if channels.has_queued() {
                continue;
            }
            let batch = channels.take_leaving(settings.subscribe_batch, Instant::now());
            if batch.is_empty() {
                return;
            }
            self.subscriber.unconfirmed(batch.len());
            self.write_channels("UNSUBSCRIBE", "SUNSUBSCRIBE", &batch);
            self.in_flight.push_back(Command::Unsubscribe { channels: batch, confirmed: 0 });
            add(&stats.unsubscribe_batches, 1);
        }
    }

    /// Writes one command for all, or with sharded pub/sub one for each: a command may name channels of one slot only.
    fn write_channels(&mut self, name: &str, sharded: &str, channels: &[Channel]) {
        let settings = &self.subscriber.settings;
        if settings.sharded {
            for channel in channels {
                channels_command(&mut self.output, sharded, &settings.prefix, std::iter::once(&**channel));
            }
        } else {
            channels_command(&mut self.output, name, &settings.prefix, channels.iter().map(|channel| &**channel));
        }
    }

    /// Whether everything that was wanted when the connection was made is confirmed.
    fn check_restored(&mut self) {
        let Some(restore) = self.restore else { return };
        let outstanding = self.taken < restore
            || !self.suspects.is_empty()
            || self.in_flight.iter().any(|command| match command {
                Command::Subscribe { after, .. } => after.is_none_or(|after| after < restore),
                Command::Unsubscribe { .. } | Command::Ping => false,
            });
        if !outstanding {
            self.restore = None;
            self.subscriber.restored(self.server);
        }
    }
}
