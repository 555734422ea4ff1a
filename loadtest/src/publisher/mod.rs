//! Publishes numbered, time-stamped messages on a schedule, over one pipelined connection.
//!
//! - [`redis`]: plain `PUBLISH`
//! - [`api`]: the HTTP API, `POST /api/publish`
//! - [`nats`], [`nchan`], [`mqtt`]: the servers that Tidegate is compared with
//! - [`http`]: what the two over HTTP share
//!
//! The schedule is open-loop: message k is due at `start + k / rate`, whether or not the server keeps up, and its stamp
//! carries the time when it was due. So a server that falls behind shows it in its latencies.

mod api;
mod http;
mod mqtt;
mod nats;
mod nchan;
mod redis;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::api::Api;
use self::mqtt::Mqtt;
use self::nats::Nats;
use self::nchan::Nchan;
use self::redis::Redis;
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::settings::{Messages, Secret};
use crate::stamp::{Format, Stamp};
use crate::zipf::{self, Zipf};

/// Encoded messages that wait for the socket at most.
const MAX_QUEUE: usize = 256 << 10;
/// A backend that takes or answers nothing for so long is dead. One that writes a message to every subscriber before it
/// takes the next may need some seconds from answer to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages after which a backend that does not answer each is asked whether it has taken them.
const ASK_EVERY: u64 = 32;
/// Nanoseconds after which it is asked with fewer, so that a dead one is noticed at low rates as well.
const ASK_AFTER: u64 = 1_000_000_000;
/// Messages that such a backend has not confirmed at most; the queue's bound is met first with large payloads.
const WINDOW_OF_STREAMS: u64 = 4096;

/// A timer of the kernel may fire so many ns late. At low rates the publisher wakes up that much earlier and polls for
/// the rest, so that its own lateness is not taken for the server's.
const TIMER_SLACK: u64 = 60_000;
/// The interval in ns from which on that costs little.
const SPIN_FROM: f64 = 1e6;
/// At high rates the publisher wakes up once in so many ns and publishes all that has become due, in place of once for
/// each message: waking it, and the backend for its every message, would take the processor from what is measured. The
/// messages' latencies have it in them.
const BATCH: u64 = 500_000;

/// What to publish, and when.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Names of the channels.
    pub(crate) channels: Arc<[String]>,
    /// Which of them is next.
    pub(crate) draw: Draw,
    /// Bytes of every payload.
    pub(crate) payload: usize,
    /// What every payload is.
    pub(crate) format: Format,
    /// How many messages in all.
    pub(crate) messages: u64,
    /// Messages per second; `None` for as fast as they are taken.
    pub(crate) rate: Option<f64>,
    /// Goes into the stamps.
    pub(crate) round: u16,
}

/// How the channel of a message is chosen.
#[derive(Debug, Clone)]
pub(crate) enum Draw {
    /// One after the other.
    InTurn,
    /// By popularity, the same in every run.
    Popular(Arc<Zipf>),
}

impl Draw {
    fn channel(&self, message: u64, channels: usize) -> usize {
        match self {
            Self::InTurn => (message % channels as u64) as usize,
            Self::Popular(zipf) => (zipf.at(zipf::draw(message)) as usize).min(channels - 1),
        }
    }
}

impl Plan {
    /// From one message of a channel to the next, in ns; 0 where there is no such schedule.
    pub(crate) fn channel_interval(&self) -> u64 {
        match (&self.draw, self.rate) {
            (Draw::InTurn, Some(rate)) => (1e9 / rate * self.channels.len() as f64) as u64,
            _ => 0,
        }
    }
}

/// What became of a plan.
#[derive(Debug)]
pub(crate) struct Published {
    /// Messages in all.
    pub(crate) messages: u64,
    /// Messages of each channel.
    pub(crate) per_channel: Arc<[u32]>,
    /// When the first message was due, in ns of [`clock::now`].
    pub(crate) first: u64,
    /// The latest that a message was encoded after it was due, in ns; the publisher's own share of the latency.
    pub(crate) late: u64,
    /// Messages that no server listened to, where the backend tells.
    pub(crate) unheard: u64,
}

/// Where messages are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    /// Plain PUBLISH to Redis.
    Redis,
    /// The server's HTTP API.
    Api,
    /// PUB to a NATS server.
    Nats,
    /// POST to a publisher location of Nchan.
    Nchan,
    /// PUBLISH to an MQTT server, at quality of service 0.
    Mqtt,
}

/// The backend of the settings.
///
/// # Errors
/// A URL that is none.
pub(crate) fn dialect(messages: &Messages) -> Result<Box<dyn Dialect>> {
    let url = |default| messages.publish_url.as_ref().map_or(default, Secret::reveal);
    Ok(match messages.publish {
        Backend::Redis => Box::new(Redis::new(messages.redis.reveal(), &messages.redis_prefix)?),
        Backend::Api => Box::new(Api::new(&messages.api_url, messages.api_key.reveal())?),
        Backend::Nats => Box::new(Nats::new(url("nats://127.0.0.1:4222"))?),
        Backend::Nchan => Box::new(Nchan::new(url("http://127.0.0.1:80/pub"))?),
        Backend::Mqtt => Box::new(Mqtt::new(url("mqtt://127.0.0.1:1883"))?),
    })
}

/// How a backend wants its messages.
pub(crate) trait Dialect: Sync {
    /// What the backend is, for messages to a person.
    fn name(&self) -> String;
    /// Where it listens, `host:port`.
    fn address(&self) -> &str;
    /// Messages sent without an answer at most.
    fn window(&self) -> u64;
    /// What is sent before the first message, and how many answers that gets.
    fn hello(&self, out: &mut Vec<u8>) -> u64;
    /// Appends a message.
    fn encode(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>);
    /// Appends a question whose answer is [`Says::AllTaken`]; false where each message gets an answer of its own.
    fn ask(&self, _out: &mut Vec<u8>) -> bool {
        false
    }
    /// What would help if nobody listens to the messages.
    fn unheard(&self) -> &'static str {
        "let the sessions connect to the server that is published to"
    }
    /// Reads the answer that `bytes` begins with; `None` while it is incomplete.
    fn answer(&self, bytes: &[u8]) -> std::result::Result<Option<Answer>, String>;
}

/// What a backend sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Bytes of it.
    pub(crate) length: usize,
    /// Its meaning.
    pub(crate) says: Says,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// The next message was taken.
    Taken {
        /// Whether somebody listened; true where the backend does not tell.
        heard: bool,
    },
    /// Everything before the oldest open [`Dialect::ask`], or the hello, was taken.
    AllTaken,
    /// The backend wants these bytes.
    Asks(&'static [u8]),
    /// Nothing that matters.
    Nothing,
}

/// Carries a plan out, or the part of it that was begun when `stop` was set; counts the published messages in
/// `progress` as it goes.
///
/// # Errors
/// A backend that cannot be reached, refuses a message or stops answering.
pub(crate) fn publish(
    dialect: &dyn Dialect,
    plan: &Plan,
    progress: &AtomicU64,
    stop: &AtomicBool,
) -> Result<Published> {
    let mut run = Run::connect(dialect, plan)?;
    let first = clock::now();
    let interval = plan.rate.map_or(0.0, |rate| 1e9 / rate);
    let batched = plan.rate.is_some() && interval < BATCH as f64;
    let mut moved = Instant::now();
    loop {
        let now = clock::now();
        while run.may_encode() {
            let due = first + (interval * run.encoded as f64) as u64;
            if plan.rate.is_some() && due > now {
                break;
            }
            // A burst has no schedule: its messages are due when they are handed over.
            let due = if plan.rate.is_some() { due } else { clock::now() };
            run.encode(due, now);
        }
        progress.store(run.encoded, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            run.messages = run.encoded;
        }
        if run.answered == run.expected() && run.encoded == run.messages {
            break;
        }
        let early = if interval >= SPIN_FROM { TIMER_SLACK } else { 0 };
        let next = (plan.rate.is_some() && run.may_encode())
            .then(|| (first + (interval * run.encoded as f64) as u64).saturating_sub(clock::now() + early));
        let next = if batched { Some(0) } else { next };
        if run.exchange(next)? || run.answered == run.expected() {
            moved = Instant::now();
        } else if moved.elapsed() > PATIENCE {
            return Err(Error::Run(format!("{} has stopped answering; is it overloaded?", dialect.name())));
        }
        if batched && run.is_handed_over() {
            clock::pause(Duration::from_nanos(BATCH));
        }
    }
    Ok(Published {
        messages: run.encoded,
        per_channel: run.per_channel.into(),
        first,
        late: run.late,
        unheard: run.unheard,
    })
}

struct Run<'a> {
    dialect: &'a dyn Dialect,
    plan: &'a Plan,
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    payload: Vec<u8>,
    hellos: u64,
    /// How many it will be in all.
    messages: u64,
    encoded: u64,
    answered: u64,
    /// How many messages stood before each open question.
    asked: VecDeque<u64>,
    /// When the last one was asked, in ns of [`clock::now`].
    asked_at: u64,
    per_channel: Vec<u32>,
    late: u64,
    unheard: u64,
}

impl<'a> Run<'a> {
    fn connect(dialect: &'a dyn Dialect, plan: &'a Plan) -> Result<Self> {
        let stream = connect(dialect.address(), &dialect.name())?;
        stream.set_nonblocking(true).context(|| "cannot set a socket up".to_owned())?;
        let mut out = Vec::new();
        let hellos = dialect.hello(&mut out);
        Ok(Self {
            dialect,
            plan,
            stream,
            out,
            sent: 0,
            input: Vec::new(),
            payload: Vec::new(),
            hellos,
            messages: plan.messages,
            encoded: 0,
            answered: 0,
            asked: VecDeque::new(),
            asked_at: 0,
            per_channel: vec![0; plan.channels.len()],
            late: 0,
            unheard: 0,
        })
    }

    /// Answers that are to come for what has been encoded.
    fn expected(&self) -> u64 {
        self.hellos + self.encoded
    }

    /// Whether the socket has taken everything.
    fn is_handed_over(&self) -> bool {
        self.sent == self.out.len()
    }

    fn may_encode(&self) -> bool {
        self.encoded < self.messages
            && self.out.len() - self.sent < MAX_QUEUE
            && self.expected() - self.answered < self.dialect.window()
    }

    fn encode(&mut self, due: u64, now: u64) {
        let channel = self.plan.draw.channel(self.encoded, self.plan.channels.len());
        let sequence = self.per_channel[channel];
        Stamp { round: self.plan.round, channel: channel as u32, sequence, due }.write(
            self.plan.format,
            self.plan.payload,
            &mut self.payload,
        );
        self.dialect.encode(&self.plan.channels[channel], &self.payload, &mut self.out);
        self.per_channel[channel] += 1;
        self.encoded += 1;
        self.late = self.late.max(now.saturating_sub(due));
        let done = self.encoded == self.plan.messages;
        if (done || self.encoded.is_multiple_of(ASK_EVERY) || now.saturating_sub(self.asked_at) > ASK_AFTER)
            && self.dialect.ask(&mut self.out)
        {
            self.asked.push_back(self.encoded);
            self.asked_at = now;
        }
    }

    /// Writes and reads what goes; waits for `next` ns (or long) if nothing goes. True if something moved.
    fn exchange(&mut self, next: Option<u64>) -> Result<bool> {
        let mut moved = self.write()?;
        let unsent = self.sent < self.out.len();
        let interest = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let wait = next.unwrap_or(1_000_000_000).min(1_000_000_000);
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.min(999_999_999).cast_signed() };
        let mut fds = [PollFd::new(&self.stream, interest)];
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(|| format!("cannot wait for {}", self.dialect.name())),
        }
        if fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            moved |= self.read()?;
        }
        Ok(moved)
    }

    fn write(&mut self) -> Result<bool> {
        if self.sent == self.out.len() {
            return Ok(false);
        }
        match self.stream.write(&self.out[self.sent..]) {
            Ok(length) => self.sent += length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
            Err(error) => return Err(error).context(|| format!("cannot publish to {}", self.dialect.name())),
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > MAX_QUEUE {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Error::Run(format!("{} has closed the connection", self.dialect.name()))),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
            Err(error) => return Err(error).context(|| format!("cannot read from {}", self.dialect.name())),
        };
        self.input.extend_from_slice(&buffer[..length]);
        let mut taken = 0;
        while let Some(answer) = self.dialect.answer(&self.input[taken..]).map_err(Error::Run)? {
            taken += answer.length;
            match answer.says {
                Says::Taken { heard } => {
                    self.answered += 1;
                    self.unheard += u64::from(!heard && self.answered > self.hellos);
                }
                Says::AllTaken if self.answered < self.hellos => self.answered += 1,
                Says::AllTaken => match self.asked.pop_front() {
                    Some(messages) => self.answered = self.hellos + messages,
                    None => {
                        return Err(Error::Run(format!("{} answers what it was not asked", self.dialect.name())));
                    }
                },
                Says::Asks(bytes) => self.out.extend_from_slice(bytes),
                Says::Nothing => {}
            }
        }
        self.input.drain(..taken);
        Ok(true)
    }
}

/// Opens a connection to `host:port` within a few seconds.
pub(crate) fn connect(address: &str, name: &str) -> Result<TcpStream> {
    let addresses = address.to_socket_addrs().context(|| format!("cannot find {name}"))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => {
                stream.set_nodelay(true).context(|| "cannot set a socket up".to_owned())?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| ErrorKind::NotFound.into());
    Err(error).context(|| format!("cannot connect to {name}; is it running?"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A Redis that answers every command with the same bytes.
    fn server(answer: &'static [u8]) -> (String, std::thread::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut all, mut seen) = (Vec::new(), 0);
            let mut buffer = [0u8; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                all.extend_from_slice(&buffer[..length]);
                while let Some((_, length)) = crate::resp::value(&all[seen..]).unwrap() {
                    seen += length;
                    stream.write_all(answer).unwrap();
                }
            }
            all
        });
        (format!("redis://{address}"), thread)
    }

    fn plan(messages: u64, rate: Option<f64>) -> Plan {
        Plan {
            channels: ["a", "b"].map(str::to_owned).into(),
            draw: Draw::InTurn,
            payload: 64,
            format: Format::Object,
            messages,
            rate,
            round: 1,
        }
    }

    #[test]
    fn every_message_goes_out_once_to_the_channels_in_turn() {
        let (url, thread) = server(b":1\r\n");
        let redis = Redis::new(&url, "push:").unwrap();
        let published = publish(&redis, &plan(501, None), &AtomicU64::new(0), &AtomicBool::new(false)).unwrap();
        assert_eq!(&*published.per_channel, [251, 250]);
        assert_eq!(published.unheard, 0);
        let all = thread.join().unwrap();
        assert_eq!(memchr::memmem::find_iter(&all, b"push:a").count(), 251);
        assert_eq!(memchr::memmem::find_iter(&all, b"push:b").count(), 250);
    }

    #[test]
    fn a_rate_spreads_messages_over_time_and_their_stamps_keep_to_the_schedule() {
        let (url, thread) = server(b":0\r\n");
        let redis = Redis::new(&url, "push:").unwrap();
        let published = publish(&redis, &plan(50, Some(1000.0)), &AtomicU64::new(0), &AtomicBool::new(false)).unwrap();
        assert_eq!(published.unheard, 50);
        let all = thread.join().unwrap();
        let stamps: Vec<_> = memchr::memmem::find_iter(&all, crate::stamp::HEAD)
            .map(|at| Stamp::read(&all[at..], 64).unwrap().due - published.first)
            .collect();
        let schedule: Vec<_> = (0..50).map(|k| k * 1_000_000).collect();
        assert_eq!(stamps, schedule);
    }

    #[test]
    fn a_refused_message_ends_the_run_with_the_reason() {
        let (url, thread) = server(b"-NOPERM no\r\n");
        let redis = Redis::new(&url, "push:").unwrap();
        let error = publish(&redis, &plan(1, None), &AtomicU64::new(0), &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().contains("NOPERM no"), "{error}");
        thread.join().unwrap();
    }
}
