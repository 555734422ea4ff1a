//! The shard's epoll set, which the thread's tokio runtime watches.
//!
//! The one module with `unsafe` code: a single call, to register a descriptor with the runtime.
#![allow(unsafe_code, reason = "tokio offers no safe way to watch a descriptor; the SAFETY note argues the one call")]

use std::cell::Cell;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::connection::Watch;
use super::slab::Key;

/// Sockets looked at in one turn. The others' news waits in the kernel until the next one.
const EVENTS: usize = 1024;

/// What the set has news of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Connections wait at the listener with this number.
    Listener(usize),
    /// A connection's socket.
    Socket(Ready),
}

/// Listeners are marked with the highest numbers, which no connection's key has: a slab never has so many slots.
const LISTENERS: u64 = u64::MAX - 0xff;

/// News of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    /// Whose it is.
    pub(super) key: Key,
    /// There is something to read, the end of the stream perhaps.
    pub(super) input: bool,
    /// The peer sends no more: behind the input is the end of the stream.
    pub(super) ended: bool,
    /// There is room to write.
    pub(super) output: bool,
    /// The connection is broken, or both sides have ended it.
    pub(super) gone: bool,
}

/// An epoll set inside a tokio runtime.
pub(super) struct Poller {
    epoll: AsyncFd<OwnedFd>,
    events: Vec<epoll::Event>,
    /// Whether the next look has to be made although nobody has been woken: some news has been left, or a watch has
    /// changed. The kernel wakes for a changed watch only where the socket is not in the set's list already, and there it
    /// may still stand from the last look.
    unsure: Cell<bool>,
}

impl Poller {
    /// An empty set, watched by the runtime that this is called in.
    ///
    /// # Errors
    /// Where the system gives no descriptor.
    pub(super) fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: the AsyncFd owns the descriptor, hands it out by shared reference only, and
        // nothing here replaces, duplicates or closes it before the AsyncFd is dropped.
        let epoll = unsafe { AsyncFd::register(set) }.map_err(io::Error::from)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS), unsure: Cell::new(false) })
    }

    /// Waits until some socket may have news.
    ///
    /// # Errors
    /// Where the runtime is shutting down.
    pub(super) async fn readable(&self) -> io::Result<()> {
        // Not drained here: `ready` may leave some for the next turn. `looked` clears the mark.
        self.epoll.readable().await?.retain_ready();
        Ok(())
    }

    /// What has news, without waiting; at most [`EVENTS`] of them. Nothing, and no system call, where nobody has been
    /// woken since [`Poller::looked`] and no watch has changed.
    ///
    /// # Errors
    /// Where the system refuses the look.
    pub(super) fn ready(&mut self) -> io::Result<impl Iterator<Item = News> + '_> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let events = &mut self.events;
        events.clear();
        let mut look = |set: &OwnedFd| {
            epoll::wait(set, rustix::buffer::spare_capacity(&mut *events), Some(&at_once)).map_err(io::Error::from)
        };
        let looked = if self.unsure.take() {
            look(self.epoll.get_ref())
        } else {
            self.epoll.try_io(Interest::READABLE, |set| look(set))
        };
        match looked {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.unsure.set(true),
            Err(error) => return Err(error),
        }
        Ok(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data.u64());
            if data >= LISTENERS {
                return News::Listener((data - LISTENERS) as usize);
            }
            News::Socket(Ready {
                key: Key::from_bits(data),
                input: flags.contains(epoll::EventFlags::IN),
                ended: flags.contains(epoll::EventFlags::RDHUP),
                output: flags.contains(epoll::EventFlags::OUT),
                gone: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
            })
        }))
    }

    /// Ends the look of this turn, so that waiting waits: whatever comes from now on wakes the runtime. Without it the
    /// set would be looked at once more after each wake, only to be found empty.
    ///
    /// `left`: some socket has been left with news, which wake nobody again. Where there was news for a full list, there
    /// may be more for another.
    pub(super) fn looked(&self, left: bool) {
        if left || self.events.len() == EVENTS {
            self.unsure.set(true);
        }
        // The error is what tells the runtime that the set is empty.
        let _ = self.epoll.try_io(Interest::READABLE, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Whether the set has to be looked at again at once.
    pub(super) fn must_look_again(&self) -> bool {
        self.unsure.get()
    }

    /// Watches a listener for connections, or no more.
    ///
    /// # Errors
    /// Where the system has no room for it.
    pub(super) fn watch_listener(&self, listener: &TcpListener, number: usize, wanted: bool) -> io::Result<()> {
        let set = self.epoll.get_ref();
        if wanted {
            let data = epoll::EventData::new_u64(LISTENERS + number as u64);
            epoll::add(set, listener, data, epoll::EventFlags::IN)?;
        } else {
            epoll::delete(set, listener)?;
        }
        Ok(())
    }

    /// Watches a socket for `wanted` from now on, and always for its breaking.
    ///
    /// The end of the peer's stream is input like any other: it is behind the commands, and nobody looks at it while
    /// those wait.
    ///
    /// # Errors
    /// Where the system has no room for the socket.
    pub(super) fn watch(&self, socket: &TcpStream, key: Key, watched: Watch, wanted: Watch) -> io::Result<()> {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN | epoll::EventFlags::RDHUP, wanted.input);
        flags.set(epoll::EventFlags::OUT, wanted.output);
        let data = epoll::EventData::new_u64(key.to_bits());
        let set = self.epoll.get_ref();
        if watched.known {
            epoll::modify(set, socket, data, flags)?;
            self.unsure.set(true);
        } else {
            epoll::add(set, socket, data, flags)?;
        }
        Ok(())
    }

    /// Watches a socket no more. One that was never watched is fine.
    pub(super) fn forget(&self, socket: &TcpStream) {
        let _ = epoll::delete(self.epoll.get_ref(), socket);
    }
}
