//! The shard's thread: a tokio runtime for one thread, with one epoll set of the shard's own.
//!
//! tokio watches the epoll set's descriptor; when that is readable, the set is asked, without
//! waiting, which sockets have news. A socket so costs an epoll entry and its place in the slab,
//! where a task would cost 650 bytes.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tidegate_broadcaster::redis::Receiver;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};

use super::entropy::Entropy;
use super::inbox::{Inbox, Message};
use super::poller::{News, Poller, Ready};
use super::stats::ShardStats;
use super::{Call, HandOff, Setup, Shard};
use crate::listen::Door;

/// What a shard's thread is given.
pub struct Reactor {
    /// What the shard needs to know.
    pub setup: Setup,
    /// The broker.
    pub broker: Arc<dyn tidegate_broadcaster::Broker>,
    /// What brings the broker's messages, where that is a connection.
    pub receiver: Option<Receiver>,
    /// Its listeners.
    pub door: Door,
    /// The way in for other threads.
    pub inbox: Arc<Inbox<TcpStream>>,
    /// What is counted.
    pub stats: Arc<ShardStats>,
    /// Where requests that are no WebSockets go.
    pub http: mpsc::Sender<HandOff<TcpStream>>,
    /// Where answers of the broker are awaited.
    pub runtime: tokio::runtime::Handle,
    /// `true`: the thread ends.
    pub stop: watch::Receiver<bool>,
}

/// Runs a shard until it is told to stop.
///
/// The broker's receiver runs beside it, on the same thread: a message that comes in there is in the shard's inbox
/// without waking anybody. Both are tasks, because waking the future that `block_on` itself runs takes a system call.
///
/// # Errors
/// Where the system gives no runtime or no epoll set.
///
/// # Panics
/// Where the shard or the receiver does.
pub fn run(mut reactor: Reactor) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let receiver = reactor.receiver.take();
        let mut receiving = tokio::task::spawn_local(async {
            if let Some(receiver) = receiver {
                receiver.run().await;
            }
        });
        let mut serving = tokio::task::spawn_local(reactor.serve());
        let served = tokio::select! {
            served = &mut serving => served,
            received = &mut receiving => match received {
                Ok(()) => serving.await,
                Err(error) => Err(error),
            },
        };
        served.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(std::io::Error::other(error)),
        })
    })
}

impl Reactor {
    async fn serve(mut self) -> std::io::Result<()> {
        let mut poller = Poller::new()?;
        let entropy = Entropy::new(fill_random);
        let mut shard = Shard::new(
            self.setup.clone(),
            Arc::clone(&self.broker),
            Arc::clone(&self.inbox),
            Arc::clone(&self.stats),
            entropy,
        );
        let mut messages: Vec<Message<TcpStream>> = Vec::new();
        let mut more = false;
        self.watch_listeners(&poller, true)?;
        loop {
            if more {
                // Lets the runtime's own driver run; the sockets are looked at below all the same.
                tokio::task::yield_now().await;
            } else {
                let until = [shard.next_wake(), self.door.closed_until].into_iter().flatten().min();
                self.wait(&poller, until).await?;
            }
            let began = Instant::now();
            shard.begin(began);
            let age = began.saturating_duration_since(self.setup.start);
            self.stats.last_turn.set(age.as_millis() as u64);
            if self.door.closed_until.take_if(|until| *until <= began).is_some() {
                self.watch_listeners(&poller, true)?;
            }
            let open = self.door.closed_until.is_none();
            let mut left = false;
            for news in poller.ready()? {
                match news {
                    News::Socket(Ready { key, input, ended, output, gone }) => {
                        shard.ready(key, input, output, gone);
                        // One read has taken the input. The end of the stream, which came with it, takes another.
                        left |= ended;
                    }
                    News::Listener(number) => {
                        let mut serve = |accepted| shard.receive(accepted);
                        left |= self.door.accept(number, self.setup.id, began, &mut serve);
                    }
                }
            }
            poller.looked(shard.must_look_again() | left);
            if open && self.door.closed_until.is_some() {
                // What waits there would wake the shard again at once.
                self.watch_listeners(&poller, false)?;
            }
            messages = self.inbox.take(messages);
            for message in messages.drain(..) {
                shard.receive(message);
            }
            more = shard.finish();
            self.rewatch(&poller, &mut shard);
            more |= poller.must_look_again();
            self.hand_over(&poller, &mut shard);
            let ended = Instant::now();
            shard.end(ended);
            self.stats.turns.add(1);
            self.stats.busy.add(ended.duration_since(began).as_nanos() as u64);
            if self.is_told_to_stop() {
                return Ok(());
            }
        }
    }

    fn watch_listeners(&self, poller: &Poller, wanted: bool) -> std::io::Result<()> {
        for (number, (listener, _)) in self.door.listeners.iter().enumerate() {
            poller.watch_listener(listener, number, wanted)?;
        }
        Ok(())
    }

    /// Whether the thread is to end. Where nobody is left to tell it anything, it ends too.
    fn is_told_to_stop(&self) -> bool {
        self.stop.has_changed().is_err() || *self.stop.borrow()
    }

    /// Waits for a socket, the inbox, the next deadline or the end.
    async fn wait(&mut self, poller: &Poller, until: Option<Instant>) -> std::io::Result<()> {
        // Even an idle shard has a turn every second: what watches over the threads sees that it lives.
        let limit = Instant::now() + Duration::from_secs(1);
        let until = until.map_or(limit, |until| until.min(limit));
        tokio::select! {
            ready = poller.readable() => ready?,
            () = self.inbox.wait() => {}
            () = tokio::time::sleep_until(until.into()) => {}
            _ = self.stop.changed() => {}
        }
        Ok(())
    }

    /// Tells the kernel which connections are to be watched for what.
    fn rewatch(&self, poller: &Poller, shard: &mut Shard<TcpStream>) {
        for key in std::mem::take(&mut shard.tasks.rewatch) {
            let Some(connection) = shard.connection(key) else { continue };
            let wanted = connection.wanted();
            let watched = std::mem::replace(&mut connection.watched, wanted);
            if let Err(error) = poller.watch(&connection.socket, key, watched, wanted) {
                tracing::error!(%error, "a socket cannot be watched; its connection is closed");
                shard.abandon(key);
            }
        }
    }

    /// Hands to others what is theirs to do.
    fn hand_over(&self, poller: &Poller, shard: &mut Shard<TcpStream>) {
        for hand_off in shard.tasks.hand_offs.drain(..) {
            poller.forget(&hand_off.socket);
            if let Err(error) = self.http.try_send(hand_off) {
                let (mpsc::error::TrySendError::Full(mut refused) | mpsc::error::TrySendError::Closed(mut refused)) =
                    error;
                self.stats.refused_requests.add(1);
                let mut answer = Vec::new();
                crate::refusal::write_busy("too many HTTP requests wait", 1, &mut answer);
                // A courtesy: the socket's buffer is empty, and nobody waits for it.
                let _ = std::io::Write::write(&mut refused.socket, &answer);
            }
        }
        for call in shard.tasks.calls.drain(..) {
            self.await_call(call);
        }
    }

    /// Has the broker's answer put into the inbox: at once where it is there already, as the embedded broker's nearly
    /// always is, else by a task on the other runtime.
    fn await_call(&self, mut call: Call<TcpStream>) {
        if let Some(answer) = (&mut call).now_or_never() {
            return self.inbox.send(answer);
        }
        let inbox = Arc::clone(&self.inbox);
        self.runtime.spawn(async move { inbox.send(call.await) });
    }
}

/// Random bytes from the system.
fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        // Fails only where the kernel has no such call; then the ids come from the hasher's seeds.
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                use std::hash::BuildHasher;
                let seed = std::hash::RandomState::new().hash_one(filled).to_le_bytes();
                let n = seed.len().min(bytes.len() - filled);
                bytes[filled..filled + n].copy_from_slice(&seed[..n]);
                filled += n;
            }
        }
    }
}
