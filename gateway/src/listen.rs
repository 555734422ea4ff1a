//! The door: the listening sockets of each shard, and what becomes of a connection that comes in.
//!
//! Every shard listens for itself, on a socket of its own at the same address (`SO_REUSEPORT`), so that the kernel
//! spreads connections over the shards, and one that is served is accepted by the thread that serves it: a listener
//! with a thread of its own costs two context switches a connection, which was a third of what a connect takes.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tidegate_broadcaster::ShardId;
use tokio::sync::mpsc;

use crate::admission::{Admission, retry_after};
use crate::refusal;
use crate::shard::inbox::{Inbox, Message};

/// Connections that the kernel holds ready, for each shard. It lowers this to its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 65_535;

/// Connections that a shard accepts in one turn. The others wait for the next one, and messages do not wait for them.
const MOST_AT_ONCE: usize = 64;

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

/// Binds an address, once for each shard.
///
/// # Errors
/// Where the address cannot be had; the message names it.
pub fn bind_each(address: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    let open = || -> io::Result<Vec<TcpListener>> {
        // `SO_REUSEPORT` would let a second node share the port of a running one without a word. This socket does
        // not have it, and so finds out whether the port is free; it holds the number where any would do.
        let probe = open_at(address, false)?;
        let address = probe.local_addr()?.as_socket().unwrap_or(address);
        let sockets = (0..shards).map(|_| open_at(address, true)).collect::<io::Result<Vec<_>>>()?;
        drop(probe);
        sockets.into_iter().map(start_listening).collect()
    };
    open().map_err(|error| named(address, &error))
}

/// Binds an address once.
///
/// # Errors
/// Where the address cannot be had; the message names it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    open_at(address, false).and_then(start_listening).map_err(|error| named(address, &error))
}

fn named(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

fn open_at(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart takes the port over at once, although connections of the old process linger.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Inherited by every accepted socket: a turn's output is one write, nothing is to be waited for.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn start_listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A shard's own door.
pub struct Door {
    /// Its listening sockets.
    pub listeners: Vec<(TcpListener, Speaks)>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// Every shard's inbox: now and then a connection is served by another one.
    pub inboxes: Arc<[Arc<Inbox<TcpStream>>]>,
    /// Refused sockets, which have their answer and wait for the peer to have read it.
    pub refused: mpsc::Sender<TcpStream>,
    /// When accepting goes on after the system had no descriptor.
    pub closed_until: Option<Instant>,
    /// Whether that has been said in the log since a connection was last accepted.
    pub complained: bool,
}

impl Door {
    /// Accepts what waits at a listener, and gives what this shard is to serve to `serve`. Answers whether more may
    /// wait there.
    ///
    /// Where no descriptor is left, the door is closed for a moment: see [`Door::closed_until`].
    pub fn accept(
        &mut self,
        listener: usize,
        here: ShardId,
        now: Instant,
        serve: &mut dyn FnMut(Message<TcpStream>),
    ) -> bool {
        let Some((socket, speaks)) = self.listeners.get(listener) else { return false };
        for _ in 0..MOST_AT_ONCE {
            match rustix::net::acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((accepted, peer)) => {
                    self.complained = false;
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    let Some(peer) = peer else { continue }; // gone before it was accepted
                    self.let_in(TcpStream::from(accepted), peer, *speaks, here, now, serve);
                }
                Err(Errno::AGAIN) => return false,
                // The peer gave up, or a signal came.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        tracing::error!(%error, "connections cannot be accepted; trying on");
                    }
                    self.closed_until = Some(now + NO_DESCRIPTOR_PAUSE);
                    return false;
                }
            }
        }
        true
    }

    fn let_in(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        speaks: Speaks,
        here: ShardId,
        now: Instant,
        serve: &mut dyn FnMut(Message<TcpStream>),
    ) {
        match self.admission.admit(peer.ip().to_canonical(), here, now) {
            Ok(permit) => {
                let shard = permit.shard();
                let message = Message::Accepted { socket, permit, raw: speaks == Speaks::Raw };
                if shard == here {
                    serve(message);
                } else {
                    self.inboxes[usize::from(shard)].send(message);
                }
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
                let _ = self.refused.try_send(socket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_not_shared() {
        let shards = bind_each(([127, 0, 0, 1], 0).into(), 2).unwrap();
        let address = shards[0].local_addr().unwrap();
        assert_eq!(shards[1].local_addr().unwrap(), address);
        for error in [bind_each(address, 2).unwrap_err(), bind(address).unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
        drop(shards);
        assert_eq!(bind_each(address, 3).unwrap().len(), 3);
    }
}
