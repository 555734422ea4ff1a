//! A thread that owns sessions: one epoll set, one slab, one read buffer for all.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::Counters;
use super::command::{Command, Opening};
use super::session::{Expectation, Outcome, Phase, Session};
use super::tally::{Tally, count};
use super::target::Target;
use crate::clock;
use crate::error::{Context, Result};

/// Shared by all sessions of a thread; a burst of 200 messages of 128 B fits in one read.
const READ_BUFFER: usize = 256 << 10;

/// Events taken per turn.
const EVENTS: usize = 1024;

/// Sessions begun per turn at most, so that those under way are served as well.
const OPEN_PER_TURN: u32 = 64;

/// Marks the eventfd among the slab's indices.
const WAKE: u64 = u64::MAX;

/// A thread's share of a command.
#[derive(Debug)]
pub(super) struct Order {
    /// What to do.
    pub(super) command: Command,
    /// Told when it is done, with what was counted if that was asked for.
    pub(super) answer: SyncSender<Option<Tally>>,
}

/// Sessions still to be opened.
#[derive(Debug)]
struct Pending {
    next: u32,
    step: u32,
    left: u32,
    opening: Opening,
    /// When the next connection is due, in ns; unused without a rate.
    due: u64,
}

struct Slot {
    /// `None` once the session has ended.
    stream: Option<TcpStream>,
    session: Session,
}

pub(super) struct Worker {
    target: Arc<Target>,
    counters: Arc<Counters>,
    wake: Arc<OwnedFd>,
    orders: Receiver<Order>,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    pending: Option<Pending>,
    /// Sessions begun and not ready yet.
    in_flight: u32,
    expectation: Expectation,
    tally: Tally,
    buffer: Box<[u8]>,
    answer: Vec<u8>,
}

impl Worker {
    pub(super) fn new(
        target: Arc<Target>,
        counters: Arc<Counters>,
        wake: Arc<OwnedFd>,
        orders: Receiver<Order>,
    ) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context(|| "cannot create an epoll set".to_owned())?;
        epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)
            .context(|| "cannot watch an eventfd".to_owned())?;
        Ok(Self {
            target,
            counters,
            wake,
            orders,
            epoll,
            slots: Vec::new(),
            pending: None,
            in_flight: 0,
            expectation: Expectation { round: 0, payload: 0 },
            tally: Tally::new(),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            answer: Vec::new(),
        })
    }

    /// Runs until the fleet is dropped.
    pub(super) fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            let timeout = self.open_due();
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // An epoll set and its buffer that are ours cannot fail otherwise.
                Err(_) => return,
            }
            let delivered = self.tally.delivered;
            let mut woken = false;
            for &Event { flags, data } in &events {
                if data.u64() == WAKE {
                    let _ = rustix::io::read(&*self.wake, &mut [0u8; 8]);
                    woken = true;
                } else {
                    self.event(data.u64() as usize, flags);
                }
            }
            self.counters.delivered.fetch_add(self.tally.delivered - delivered, Ordering::Release);
            if woken && !self.take_orders() {
                return;
            }
        }
    }

    /// Does what was ordered; false once the fleet is gone.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order { command, answer }) => {
                    let tally = self.obey(command);
                    // A receiver that is gone has given up waiting, which it reported itself.
                    let _ = answer.send(tally);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) -> Option<Tally> {
        match command {
            Command::Open { first, step, opening } => {
                self.slots.reserve(opening.sessions as usize);
                self.pending = Some(Pending { next: first, step, left: opening.sessions, opening, due: clock::now() });
            }
            Command::Round(expectation) => {
                self.expectation = expectation;
                self.slots.iter_mut().for_each(|slot| slot.session.start_round());
            }
            Command::Resume => {
                for index in 0..self.slots.len() {
                    if self.slots[index].session.stalled {
                        self.watch(index, EventFlags::IN);
                    }
                }
            }
            Command::Collect { published } => {
                let mut tally = std::mem::replace(&mut self.tally, Tally::new());
                for Slot { session, .. } in self.slots.iter().filter(|slot| !slot.session.stalled) {
                    tally.lost += session.lost(published.get(session.channel as usize).copied().unwrap_or(0));
                }
                return Some(tally);
            }
        }
        None
    }

    /// Begins the sessions that are due; says how long the loop may wait for the next.
    fn open_due(&mut self) -> Option<Timespec> {
        let mut pending = self.pending.take()?;
        let interval = 1_000_000_000u64.checked_div(u64::from(pending.opening.rate)).unwrap_or(0);
        let now = clock::now();
        // What was missed by more than 10 ms is not caught up with: a storm is not what a rate asks for.
        pending.due = pending.due.max(now.saturating_sub(10_000_000));
        let mut begun = 0;
        while pending.left > 0
            && begun < OPEN_PER_TURN
            && self.in_flight < pending.opening.in_flight
            && (interval == 0 || pending.due <= now)
        {
            self.begin(pending.next, &pending.opening);
            pending.next += pending.step;
            pending.left -= 1;
            pending.due += interval;
            begun += 1;
        }
        if pending.left == 0 {
            return None;
        }
        let wait = match (self.in_flight < pending.opening.in_flight, interval) {
            // Somebody has to become ready first, which is an event.
            (false, _) => None,
            (true, 0) => Some(0),
            (true, _) => Some(pending.due.saturating_sub(now)),
        };
        self.pending = Some(pending);
        wait.map(timespec)
    }

    fn begin(&mut self, number: u32, opening: &Opening) {
        let channel = number % opening.channels.max(1);
        let index = self.slots.len();
        let mut session = Session::new(channel, opening.stalled, clock::now());
        let server = self.target.server_of(number, opening.channels);
        session.server = server;
        let stream = self.target.connect(server, index, opening.stalled);
        self.in_flight += 1;
        let added = stream.and_then(|stream| {
            let data = EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &stream, data, EventFlags::OUT)?;
            Ok(stream)
        });
        match added {
            Ok(stream) => self.slots.push(Slot { stream: Some(stream), session }),
            Err(error) => {
                self.slots.push(Slot { stream: None, session });
                self.end(index, &error.to_string());
            }
        }
    }

    fn event(&mut self, index: usize, flags: EventFlags) {
        let Some(Slot { stream: Some(stream), session }) = self.slots.get_mut(index) else { return };
        if session.phase == Phase::Connecting {
            match stream.take_error() {
                Ok(None) => self.connected(index),
                Ok(Some(error)) | Err(error) => self.end(index, &error.to_string()),
            }
            return;
        }
        if session.stalled && session.phase == Phase::Ready && !flags.contains(EventFlags::IN) {
            // The server has ended the connection: now it can be read to its end.
            self.watch(index, EventFlags::IN);
            return;
        }
        self.read(index);
    }

    fn connected(&mut self, index: usize) {
        let session = &mut self.slots[index].session;
        session.phase = if self.target.wire.is_websocket() { Phase::Upgrading } else { Phase::Opening };
        let greeting = self.target.greeting(session.server, session.channel);
        self.watch(index, EventFlags::IN);
        self.send(index, &greeting);
    }

    fn watch(&mut self, index: usize, events: EventFlags) {
        let Some(stream) = &self.slots[index].stream else { return };
        let data = EventData::new_u64(index as u64);
        if let Err(error) = epoll::modify(&self.epoll, stream, data, events) {
            self.end(index, &std::io::Error::from(error).to_string());
        }
    }

    fn read(&mut self, index: usize) {
        let Some(Slot { stream: Some(stream), session }) = self.slots.get_mut(index) else { return };
        let length = match (&*stream).read(&mut self.buffer) {
            Ok(0) => {
                let reason = session.reason_of_eof();
                return self.end(index, &reason);
            }
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(error) => return self.end(index, &error.to_string()),
        };
        let now = clock::now();
        let bytes = &self.buffer[..length];
        let outcome =
            session.receive(self.target.wire, bytes, now, self.expectation, &mut self.tally, &mut self.answer);
        if !self.answer.is_empty() {
            let answer = std::mem::take(&mut self.answer);
            self.send(index, &answer);
            self.answer = answer;
            self.answer.clear();
        }
        match outcome {
            Outcome::Continue => {}
            Outcome::SendOpening => {
                let opening = self.target.opening_frame(self.slots[index].session.channel);
                self.send(index, &opening);
            }
            Outcome::Ready => self.ready(index, now),
            Outcome::End(reason) => self.end(index, &reason),
        }
    }

    fn ready(&mut self, index: usize, now: u64) {
        let session = &self.slots[index].session;
        if session.phase != Phase::Ready {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.tally.setup.saturating_record(now.saturating_sub(session.opened));
        self.counters.ready.fetch_add(1, Ordering::Release);
        if session.stalled {
            self.watch(index, EventFlags::RDHUP);
        }
    }

    /// Sends what must fit into an idle socket's buffer at once; a socket that takes less belongs to a server that
    /// does not read.
    fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(stream) = &self.slots[index].stream else { return };
        match (&*stream).write(bytes) {
            Ok(sent) if sent == bytes.len() => {}
            Ok(_) => self.end(index, "the server does not read what the session sends"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.end(index, "the server does not read what the session sends");
            }
            Err(error) if self.slots[index].session.phase == Phase::Ready => {
                // The reason may stand in what is still to be read: a close frame.
                let _ = error;
            }
            Err(error) => self.end(index, &error.to_string()),
        }
    }

    fn end(&mut self, index: usize, reason: &str) {
        let slot = &mut self.slots[index];
        if slot.session.phase == Phase::Ended {
            return;
        }
        slot.stream = None;
        let ready = slot.session.phase == Phase::Ready;
        slot.session.end();
        let counter = match (ready, slot.session.stalled) {
            (false, _) => &self.counters.failed,
            (true, true) => &self.counters.stalled_ended,
            (true, false) => &self.counters.ended,
        };
        counter.fetch_add(1, Ordering::Release);
        if !ready {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let reasons = if ready && slot.session.stalled { &mut self.tally.stalled_ended } else { &mut self.tally.ended };
        count(reasons, reason, 1);
    }
}

fn timespec(nanoseconds: u64) -> Timespec {
    Timespec {
        tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
        tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
    }
}
