//! A thread that owns sessions: one epoll set, one slab, one read buffer for all.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::Counters;
use super::command::{Command, Opening};
use super::count::{Count, Schedule};
use super::session::{Expectation, Outcome, Phase, Reading, Session};
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

/// How often slow readers read, in ns.
const SLOW_TICK: u64 = 50_000_000;

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

/// Sessions that are closed and reopened in turn.
#[derive(Debug)]
struct Churn {
    /// From one to the next, in ns.
    interval: f64,
    /// When the next is due, in ns.
    due: f64,
    /// Whose turn it is.
    next: usize,
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
    /// What each session has had of its channels; as many as it has subscriptions, in the order of the slots.
    counts: Vec<Count>,
    pending: Option<Pending>,
    churn: Option<Churn>,
    /// Sessions that read slowly, and when they do so next, in ns.
    slow: Vec<usize>,
    slow_due: u64,
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
            counts: Vec::new(),
            pending: None,
            churn: None,
            slow: Vec::new(),
            slow_due: 0,
            in_flight: 0,
            expectation: Expectation { round: 0, payload: 0, interval: 0 },
            tally: Tally::new(),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            answer: Vec::new(),
        })
    }

    /// Runs until the fleet is dropped.
    pub(super) fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            // Sessions are reopened here and not among events, which may still speak of the socket before.
            let timeout = [self.open_due(), self.churn_due(), self.read_slowly()].into_iter().flatten().min();
            let timeout = timeout.map(timespec);
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
                let subscriptions = self.subscriptions();
                let counts = self.counts.chunks_mut(subscriptions);
                self.slots.iter_mut().zip(counts).for_each(|(slot, counts)| slot.session.start_round(counts));
            }
            Command::Churn { per_second } => {
                let next = self.churn.take().map_or(0, |churn| churn.next);
                let interval = 1e9 / per_second;
                let due = clock::now() as f64 + interval;
                self.churn = (per_second > 0.0).then_some(Churn { interval, due, next });
            }
            Command::Resume => {
                self.slow.clear();
                for index in 0..self.slots.len() {
                    if self.slots[index].session.stalled {
                        self.watch(index, EventFlags::IN);
                    }
                }
            }
            Command::Collect { published, schedule } => {
                let mut tally = std::mem::replace(&mut self.tally, Tally::new());
                tally.lost += self.lost(&published, schedule);
                return Some(tally);
            }
        }
        None
    }

    /// Channels of each session.
    fn subscriptions(&self) -> usize {
        self.target.layout.subscriptions() as usize
    }

    /// Where the counts of a session are.
    fn counts_of(&self, index: usize) -> Range<usize> {
        index * self.subscriptions()..(index + 1) * self.subscriptions()
    }

    /// Messages that did not come to those who were subscribed.
    fn lost(&self, published: &[u32], schedule: Schedule) -> u64 {
        let mut lost = 0;
        for (Slot { session, .. }, counts) in self.slots.iter().zip(self.counts.chunks(self.subscriptions())) {
            if session.stalled || !session.subscribed {
                continue;
            }
            for (channel, count) in self.target.layout.channels_from(session.channel).zip(counts) {
                let published = published.get(channel as usize).copied().unwrap_or(0);
                lost += count.lost(published, session.since, schedule);
            }
        }
        lost
    }

    /// Begins the sessions that are due; says for how many ns the loop may wait for the next.
    fn open_due(&mut self) -> Option<u64> {
        let mut pending = self.pending.take()?;
        let interval = 1_000_000_000u64.checked_div(u64::from(pending.opening.rate)).unwrap_or(0);
        let now = clock::now();
        // What was missed by more than 10 ms is not caught up with: a storm is not what a rate asks for.
        pending.due = pending.due.max(now.saturating_sub(10_000_000));
        let (most, per_turn) = match pending.opening.in_flight {
            0 => (u32::MAX, u32::MAX),
            most => (most, OPEN_PER_TURN),
        };
        let mut begun = 0;
        while pending.left > 0 && begun < per_turn && self.in_flight < most && (interval == 0 || pending.due <= now) {
            let session = self.session(pending.next, pending.opening.stalled);
            self.slots.push(Slot { stream: None, session });
            self.counts.resize(self.slots.len() * self.subscriptions(), Count::JOIN);
            self.begin(self.slots.len() - 1);
            pending.next += pending.step;
            pending.left -= 1;
            pending.due += interval;
            begun += 1;
        }
        if pending.left == 0 {
            return None;
        }
        let wait = match (self.in_flight < most, interval) {
            // Somebody has to become ready first, which is an event.
            (false, _) => None,
            (true, 0) => Some(0),
            (true, _) => Some(pending.due.saturating_sub(now)),
        };
        self.pending = Some(pending);
        wait
    }

    fn session(&self, number: u32, stalled: bool) -> Session {
        let layout = &self.target.layout;
        let (server, channel) = (self.target.server_of(number), layout.first(number));
        Session::new(server, channel, layout.subscriptions() as u16, stalled, clock::now())
    }

    /// Connects the session of a slot.
    fn begin(&mut self, index: usize) {
        let Session { server, stalled, .. } = self.slots[index].session;
        let stream = self.target.connect(server, index, stalled);
        self.in_flight += 1;
        let added = stream.and_then(|stream| {
            let data = EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &stream, data, EventFlags::OUT)?;
            Ok(stream)
        });
        match added {
            Ok(stream) => self.slots[index].stream = Some(stream),
            Err(error) => self.end(index, &error.to_string()),
        }
    }

    /// Closes and reopens the sessions whose turn it is; says for how many ns the loop may wait for the next.
    fn churn_due(&mut self) -> Option<u64> {
        let mut churn = self.churn.take()?;
        let now = clock::now() as f64;
        let mut begun = 0;
        while churn.due <= now && begun < OPEN_PER_TURN && !self.slots.is_empty() {
            churn.due += churn.interval;
            begun += 1;
            let index = churn.next % self.slots.len();
            churn.next = index + 1;
            self.reopen(index);
        }
        let wait = (churn.due - now).max(0.0) as u64;
        self.churn = Some(churn);
        Some(wait)
    }

    /// Closes a session, as a client does that goes away, and opens it anew. One that is still connecting is left to it.
    fn reopen(&mut self, index: usize) {
        let Slot { session, .. } = &self.slots[index];
        if session.stalled || !matches!(session.phase, Phase::Ready | Phase::Ended) {
            return;
        }
        if session.phase == Phase::Ready {
            self.counters.closed.fetch_add(1, Ordering::Release);
        }
        if session.subscribed {
            // What came is judged; what was still on its way was not waited for.
            self.tally.lost += self.counts[self.counts_of(index)].iter().map(|count| count.missing()).sum::<u64>();
        }
        let subscriptions = self.target.layout.subscriptions() as u16;
        let session = Session::new(session.server, session.channel, subscriptions, false, clock::now());
        self.slots[index] = Slot { stream: None, session };
        let counts = self.counts_of(index);
        self.counts[counts].fill(Count::JOIN);
        self.tally.reopened += 1;
        self.begin(index);
    }

    /// Lets slow readers read what their rate allows; says for how many ns the loop may wait for the next time.
    fn read_slowly(&mut self) -> Option<u64> {
        if self.slow.is_empty() {
            return None;
        }
        let now = clock::now();
        if now >= self.slow_due {
            let late = now - self.slow_due;
            let time = SLOW_TICK + late.min(1_000_000_000);
            self.slow_due = now + SLOW_TICK;
            let allowed = (self.target.stalled_read_rate.saturating_mul(time) / 1_000_000_000).max(1);
            let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).min(READ_BUFFER);
            for index in std::mem::take(&mut self.slow) {
                self.read(index, allowed);
                if self.slots[index].session.phase == Phase::Ready {
                    self.slow.push(index);
                }
            }
        }
        Some(self.slow_due.saturating_sub(now))
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
            self.slow.retain(|slow| *slow != index);
            self.watch(index, EventFlags::IN);
            return;
        }
        self.read(index, READ_BUFFER);
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

    fn read(&mut self, index: usize, most: usize) {
        let counts = self.counts_of(index);
        let Some(Slot { stream: Some(stream), session }) = self.slots.get_mut(index) else { return };
        let length = match (&*stream).read(&mut self.buffer[..most]) {
            Ok(0) => {
                let reason = session.reason_of_eof();
                return self.end(index, &reason);
            }
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(error) => return self.end(index, &error.to_string()),
        };
        let now = clock::now();
        let mut reading = Reading {
            wire: self.target.wire,
            now,
            expected: self.expectation,
            channels: self.target.layout.channels(),
            counts: &mut self.counts[counts],
            tally: &mut self.tally,
            answer: &mut self.answer,
        };
        let outcome = session.receive(&self.buffer[..length], &mut reading);
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
        let stalled = session.stalled;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counters.ready.fetch_add(1, Ordering::Release);
        if stalled {
            self.watch(index, EventFlags::RDHUP);
            if self.target.stalled_read_rate > 0 {
                self.slow_due = if self.slow.is_empty() { now + SLOW_TICK } else { self.slow_due };
                self.slow.push(index);
            }
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
        let reasons = match (ready, slot.session.stalled) {
            (false, _) => &mut self.tally.refused,
            (true, true) => &mut self.tally.stalled_ended,
            (true, false) => &mut self.tally.ended,
        };
        count(reasons, reason, 1);
    }
}

fn timespec(nanoseconds: u64) -> Timespec {
    Timespec {
        tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
        tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
    }
}
