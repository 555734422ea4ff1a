//! The listeners: one thread each, which lets connections in and gives them to a shard.
//!
//! A thread that blocks in `accept` makes one system call for a connection; a runtime's listener
//! would register and deregister each socket besides.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use crate::admission::{Admission, retry_after};
use crate::refusal;
use crate::shard::inbox::{Inbox, Message};

/// Connections that the kernel holds ready. It lowers this to its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 65_535;

/// How long a listener waits when the process or the system has no descriptor left.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(50);

/// What a listener's clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP: WebSocket upgrades, and requests for the HTTP server.
    Http,
    /// The client protocol from the first byte.
    Raw,
}

/// Where accepted connections go.
#[derive(Clone)]
pub struct Destination {
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// The shards.
    pub inboxes: Arc<[Arc<Inbox<TcpStream>>]>,
    /// Refused sockets, which have their answer and wait for the peer to have read it.
    pub refused: mpsc::Sender<TcpStream>,
}

/// A running listener.
pub struct Listener {
    socket: Arc<TcpListener>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Binds an address.
///
/// # Errors
/// Where the address cannot be had; the message names it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart takes the port over at once, although connections of the old process linger.
        socket.set_reuse_address(true)?;
        // Inherited by every accepted socket: a turn's output is one write, nothing is to be waited for.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(named)
}

impl Listener {
    /// Starts letting connections in.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(socket: TcpListener, speaks: Speaks, destination: Destination) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let socket = Arc::new(socket);
        let stop = Arc::new(AtomicBool::new(false));
        let name = match speaks {
            Speaks::Http => "listen-http",
            Speaks::Raw => "listen-tcp",
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn({
            let (socket, stop) = (Arc::clone(&socket), Arc::clone(&stop));
            move || accept_all(&socket, &stop, speaks, &destination)
        })?;
        Ok(Self { socket, address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops, and waits for the thread.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread out of `accept`.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Read);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a listener's thread had panicked");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept_all(socket: &TcpListener, stop: &AtomicBool, speaks: Speaks, destination: &Destination) {
    let mut short_since: Option<Instant> = None;
    while !stop.load(Ordering::Acquire) {
        match rustix::net::acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((accepted, peer)) => {
                short_since = None;
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let Some(peer) = peer else { continue }; // gone before it was accepted
                let_in(TcpStream::from(accepted), peer, speaks, destination);
            }
            // The peer gave up, or a signal came.
            Err(Errno::CONNABORTED | Errno::INTR | Errno::AGAIN | Errno::PROTO) => {}
            Err(Errno::INVAL | Errno::BADF) if stop.load(Ordering::Acquire) => return,
            Err(error) => {
                if short_since.is_none() {
                    tracing::error!(%error, "connections cannot be accepted; trying on");
                    short_since = Some(Instant::now());
                }
                std::thread::park_timeout(NO_DESCRIPTOR_PAUSE);
            }
        }
    }
}

fn let_in(socket: TcpStream, peer: SocketAddr, speaks: Speaks, destination: &Destination) {
    match destination.admission.admit(peer.ip().to_canonical(), Instant::now()) {
        Ok(permit) => {
            let inbox = &destination.inboxes[usize::from(permit.shard())];
            inbox.send(Message::Accepted { socket, permit, raw: speaks == Speaks::Raw });
        }
        Err(reason) => {
            let mut answer = Vec::new();
            match speaks {
                Speaks::Http => refusal::write_busy(reason.label(), retry_after(reason), &mut answer),
                Speaks::Raw => refusal::write_raw_busy(reason.label(), &mut answer),
            }
            // The buffer of a new socket takes this; one that does not is broken.
            let _ = io::Write::write(&mut &socket, &answer);
            let _ = socket.shutdown(std::net::Shutdown::Write);
            // Where too many wait already, the socket is dropped, and its answer perhaps with it.
            let _ = destination.refused.try_send(socket);
        }
    }
}
