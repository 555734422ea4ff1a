//! The physical limit: a server that accepts, answers, frames a message once and calls `write` on every socket.
//!
//! It speaks as much of the JSON protocol over WebSocket as the client of this tool needs, listens to the same Redis
//! channel as the server that it is compared with, and sends the same bytes. One thread, one epoll set. It has no
//! limits, no pings, no channels and no mercy: what it costs is what the kernel charges.
//!
//! - this page: the loop
//! - [`upstream`]: its connection to Redis
//! - [`child`]: running it beside a measurement

pub(crate) mod child;
mod upstream;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;

use self::upstream::Upstream;
use crate::error::{Context, Error, Result};
use crate::stamp;
use crate::url::Url;
use crate::wire::{reply, websocket};

const LISTENER: u64 = u64::MAX;
const UPSTREAM: u64 = u64::MAX - 1;
const PARENT: u64 = u64::MAX - 2;

/// What a socket that does not keep up may have waiting; then it is closed.
const MAX_WAITING: usize = 16 << 20;
/// What a client may say before its first complete frame.
const MAX_INPUT: usize = websocket::MAX_HEAD + 1024;

/// What the floor needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Where messages come from.
    pub(crate) redis: Url,
    /// The channel, as clients name it.
    pub(crate) channel: String,
    /// What stands before the channel in Redis.
    pub(crate) prefix: String,
    /// End when standard input is closed, which it is when a parent process dies.
    pub(crate) until_stdin_closes: bool,
}

struct Socket {
    stream: TcpStream,
    /// Upgrade granted.
    open: bool,
    /// Bytes of an incomplete request or frame.
    input: Vec<u8>,
    /// What the socket did not take.
    waiting: Vec<u8>,
}

struct Floor {
    epoll: OwnedFd,
    sockets: Vec<Option<Socket>>,
    free: Vec<usize>,
}

/// Serves until the process is ended (or its parent is, if so asked).
///
/// # Errors
/// An address that is taken, a Redis that cannot be reached or goes away.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let mut upstream = Upstream::subscribe(&settings.redis, &format!("{}{}", settings.prefix, settings.channel))?;
    let listener = TcpListener::bind(settings.listen).context(|| format!("cannot listen on {}", settings.listen))?;
    listener.set_nonblocking(true).context(|| "cannot set a socket up".to_owned())?;
    let address = listener.local_addr().context(|| "cannot tell the address".to_owned())?;
    let epoll = epoll::create(CreateFlags::CLOEXEC).context(|| "cannot create an epoll set".to_owned())?;
    let watch = || "cannot watch a socket".to_owned();
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).context(watch)?;
    epoll::add(&epoll, upstream.stream(), EventData::new_u64(UPSTREAM), EventFlags::IN).context(watch)?;
    let stdin = std::io::stdin();
    if settings.until_stdin_closes {
        epoll::add(&epoll, &stdin, EventData::new_u64(PARENT), EventFlags::IN)
            .context(|| "--until-stdin-closes needs a pipe or a terminal as standard input".to_owned())?;
    }
    writeln!(std::io::stdout(), "listening {address}").context(|| "cannot print".to_owned())?;

    let mut floor = Floor { epoll, sockets: Vec::new(), free: Vec::new() };
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    let mut frames = Vec::new();
    loop {
        events.clear();
        match epoll::wait(&floor.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "cannot wait for events".to_owned()),
        }
        for &Event { flags, data } in &events {
            match data.u64() {
                LISTENER => floor.accept(&listener)?,
                UPSTREAM => {
                    frames.clear();
                    upstream.read(|payload| frame(&settings.channel, payload, &mut frames))?;
                    floor.write_all(&frames);
                }
                PARENT => {
                    if stdin.lock().read(&mut [0u8; 64]).unwrap_or(0) == 0 {
                        return Ok(());
                    }
                }
                index => floor.event(index as usize, flags),
            }
        }
    }
}

/// Appends the frame that a server sends for a publication.
fn frame(channel: &str, payload: &[u8], out: &mut Vec<u8>) {
    let mut message = format!("{{\"push\":{{\"channel\":\"{channel}\",\"pub\":{{\"data\":").into_bytes();
    if payload.starts_with(stamp::MARK) {
        // Plain text, which a server gives to JSON clients as a string; this tool's own needs no escaping.
        message.extend_from_slice(&[b"\"", payload, b"\""].concat());
    } else {
        message.extend_from_slice(payload);
    }
    message.extend_from_slice(b"}}}");
    websocket::push_server_frame(websocket::TEXT, &message, out);
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                Err(error) => {
                    return Err(error)
                        .context(|| "cannot accept; is the limit of file descriptors too low?".to_owned());
                }
            };
            let index = self.free.pop().unwrap_or(self.sockets.len());
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
                continue;
            }
            let data = EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &stream, data, EventFlags::IN).context(|| "cannot watch a socket".to_owned())?;
            let socket = Some(Socket { stream, open: false, input: Vec::new(), waiting: Vec::new() });
            match self.sockets.get_mut(index) {
                Some(place) => *place = socket,
                None => self.sockets.push(socket),
            }
        }
    }

    /// The whole point: one `write` per socket.
    fn write_all(&mut self, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        for index in 0..self.sockets.len() {
            if self.sockets[index].as_ref().is_some_and(|socket| socket.open) {
                self.write(index, frames);
            }
        }
    }

    fn write(&mut self, index: usize, bytes: &[u8]) {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return };
        let mut sent = 0;
        if socket.waiting.is_empty() {
            sent = match socket.stream.write(bytes) {
                Ok(sent) => sent,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(_) => return self.close(index),
            };
        }
        if sent == bytes.len() {
            return;
        }
        let first = socket.waiting.is_empty();
        socket.waiting.extend_from_slice(&bytes[sent..]);
        if socket.waiting.len() > MAX_WAITING {
            return self.close(index);
        }
        if first {
            self.watch(index, EventFlags::IN | EventFlags::OUT);
        }
    }

    fn watch(&mut self, index: usize, flags: EventFlags) {
        let Some(Some(socket)) = self.sockets.get(index) else { return };
        if epoll::modify(&self.epoll, &socket.stream, EventData::new_u64(index as u64), flags).is_err() {
            self.close(index);
        }
    }

    fn event(&mut self, index: usize, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(index);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(index);
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return };
        match socket.stream.write(&socket.waiting) {
            Ok(sent) if sent == socket.waiting.len() => {
                socket.waiting = Vec::new();
                self.watch(index, EventFlags::IN);
            }
            Ok(sent) => drop(socket.waiting.drain(..sent)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.close(index),
        }
    }

    fn read(&mut self, index: usize) {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return };
        let mut buffer = [0u8; 4096];
        match socket.stream.read(&mut buffer) {
            Ok(0) => return self.close(index),
            Ok(length) => socket.input.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.close(index),
        }
        match respond(socket) {
            Ok(answer) if answer.is_empty() => {}
            Ok(answer) => self.write(index, &answer),
            Err(_) => self.close(index),
        }
    }

    fn close(&mut self, index: usize) {
        self.sockets[index] = None;
        self.free.push(index);
    }
}

/// Answers what a client has said so far: the upgrade, then its connect and subscribe.
///
/// # Errors
/// What this tool's client does not say.
fn respond(socket: &mut Socket) -> std::result::Result<Vec<u8>, &'static str> {
    if socket.input.len() > MAX_INPUT {
        return Err("too much");
    }
    let mut answer = Vec::new();
    if !socket.open {
        let Some((length, granted)) = websocket::answer_upgrade(&socket.input)? else { return Ok(answer) };
        socket.input.drain(..length);
        socket.open = true;
        answer = granted;
    }
    while let Some(frame) = websocket::frame(&socket.input)? {
        if frame.opcode == websocket::CLOSE {
            return Err("closed");
        }
        let mut command = frame.payload.to_vec();
        websocket::apply_mask(frame.mask.ok_or("unmasked")?, &mut command);
        let length = frame.length;
        socket.input.drain(..length);
        if memchr::memmem::find(&command, b"\"subscribe\"").is_some() {
            let replies = format!(
                "{{\"id\":{},\"connect\":{{\"client\":\"floor\",\"version\":\"floor\"}}}}\n{{\"id\":{},\"subscribe\":{{}}}}",
                reply::CONNECT_ID,
                reply::SUBSCRIBE_ID
            );
            websocket::push_server_frame(websocket::TEXT, replies.as_bytes(), &mut answer);
        }
    }
    if socket.input.is_empty() {
        socket.input = Vec::new();
    }
    Ok(answer)
}

/// The error of a floor whose Redis went away.
fn upstream_gone() -> Error {
    Error::Run("Redis has closed the floor's connection".to_owned())
}
