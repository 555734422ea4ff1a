//! Where sessions connect to, from which addresses, and whether the process may hold that many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::error::{Error, Result};
use crate::wire::{Wire, websocket};

/// Sessions that share a loopback source address by default; far below the 28,232 ephemeral ports of Linux, so that
/// ports of closed connections may rest for their minute.
const SESSIONS_PER_SOURCE: u32 = 2_000;

/// Descriptors that the process needs beside its sessions.
const OTHER_DESCRIPTORS: u64 = 64;

/// A server and how to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Transport and encoding.
    pub(crate) wire: Wire,
    /// Source addresses, used in turn; empty to leave the choice to the system.
    pub(crate) sources: Vec<Ipv4Addr>,
    /// `SO_RCVBUF` in bytes of sessions that stop reading.
    pub(crate) stalled_receive_buffer: usize,
    /// The name of the shared channel, and the beginning of the names of numbered ones.
    pub(crate) channel: String,
    /// Whether channel names carry their number.
    pub(crate) numbered: bool,
    path: String,
}

impl Target {
    /// A target; `path` matters to WebSocket wires only.
    pub(crate) fn new(address: SocketAddr, wire: Wire, path: &str, channel: &str) -> Self {
        Self {
            address,
            wire,
            sources: Vec::new(),
            stalled_receive_buffer: 4096,
            channel: channel.to_owned(),
            numbered: false,
            path: path.to_owned(),
        }
    }

    /// Takes `count` source addresses from 127.0.0.2 on, or as many as `sessions` need if that is 0. Only a loopback
    /// target is reached from them; for any other the system chooses.
    pub(crate) fn spread_sources(&mut self, count: u32, sessions: u32) {
        if !matches!(self.address.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
            return;
        }
        let count = if count == 0 { sessions.div_ceil(SESSIONS_PER_SOURCE).max(1) } else { count };
        let first = u32::from(Ipv4Addr::new(127, 0, 0, 2));
        self.sources = (0..count.min(0x00ff_0000)).map(|n| Ipv4Addr::from(first + n)).collect();
    }

    /// The name of a channel.
    pub(crate) fn channel_name(&self, number: u32) -> String {
        if self.numbered { format!("{}-{number}", self.channel) } else { self.channel.clone() }
    }

    /// What a session sends as soon as TCP is up.
    pub(crate) fn greeting(&self, channel: u32) -> Vec<u8> {
        if !self.wire.is_websocket() {
            return self.wire.opening(&self.channel_name(channel));
        }
        let host = self.address.to_string();
        let path = match self.wire {
            Wire::Nchan => format!("{}/{}", self.path.trim_end_matches('/'), self.channel_name(channel)),
            _ => self.path.clone(),
        };
        websocket::upgrade_request(&host, &path, self.wire.subprotocol())
    }

    /// What a session sends once the upgrade is granted and the server has said what has to come first.
    pub(crate) fn opening_frame(&self, channel: u32) -> Vec<u8> {
        let commands = self.wire.opening(&self.channel_name(channel));
        let mut frame = Vec::with_capacity(commands.len() + 8);
        websocket::push_client_frame(self.wire.opcode(), &commands, &mut frame);
        frame
    }

    /// Begins to connect session `index`; the socket does not block.
    pub(crate) fn connect(&self, index: u32, stalled: bool) -> std::io::Result<TcpStream> {
        let socket =
            Socket::new(Domain::for_address(self.address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if stalled {
            socket.set_recv_buffer_size(self.stalled_receive_buffer)?;
        }
        if !self.sources.is_empty() {
            let source = self.sources[index as usize % self.sources.len()];
            socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        }
        match socket.connect(&SockAddr::from(self.address)) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => Ok(socket.into()),
        }
    }
}

/// Refuses a number of sessions for which the process has not enough file descriptors.
///
/// # Errors
/// Says the limit and how to raise it.
pub(crate) fn check_descriptors(sessions: u32) -> Result<()> {
    let limit = getrlimit(Resource::Nofile).current;
    enough(sessions, limit).map_err(Error::Usage)
}

fn enough(sessions: u32, limit: Option<u64>) -> std::result::Result<(), String> {
    let Some(limit) = limit else { return Ok(()) };
    let needed = u64::from(sessions) + OTHER_DESCRIPTORS;
    if needed <= limit {
        return Ok(());
    }
    Err(format!(
        "{sessions} sessions need {needed} file descriptors, but this process may open {limit}: raise the limit \
         (ulimit -n {needed}) or ask for at most {} sessions",
        limit.saturating_sub(OTHER_DESCRIPTORS)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_sessions_for_the_descriptors_are_refused_with_what_would_do() {
        assert!(enough(19_000, Some(20_000)).is_ok());
        assert!(enough(1_000_000, None).is_ok());
        let text = enough(20_000, Some(20_000)).unwrap_err();
        assert!(text.contains("ulimit -n 20064") && text.contains("at most 19936"), "{text}");
    }

    #[test]
    fn loopback_targets_are_reached_from_several_addresses_and_others_from_the_systems_choice() {
        let mut target = Target::new(([127, 0, 0, 1], 8000).into(), Wire::WsJson, "/", "c");
        target.spread_sources(0, 15_000);
        assert_eq!(target.sources.len(), 8);
        assert_eq!(target.sources[0], Ipv4Addr::new(127, 0, 0, 2));
        let mut far = Target::new(([192, 0, 2, 1], 8000).into(), Wire::WsJson, "/", "c");
        far.spread_sources(4, 15_000);
        assert!(far.sources.is_empty());
    }

    #[test]
    fn only_nchan_has_the_channel_in_the_path_of_its_upgrade() {
        let greeting = |wire, path| {
            let mut target = Target::new(([127, 0, 0, 1], 80).into(), wire, path, "c");
            target.numbered = true;
            String::from_utf8(target.greeting(7)).unwrap()
        };
        assert!(greeting(Wire::Nchan, "/sub/").starts_with("GET /sub/c-7 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
        assert!(greeting(Wire::Nats, "/").starts_with("GET / HTTP/1.1\r\n"));
        assert!(greeting(Wire::WsProtobuf, "/ws").contains("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"));
    }

    #[test]
    fn only_numbered_channels_carry_their_number() {
        let mut target = Target::new(([127, 0, 0, 1], 8000).into(), Wire::WsJson, "/", "c");
        assert_eq!(target.channel_name(7), "c");
        target.numbered = true;
        assert_eq!(target.channel_name(7), "c-7");
    }
}
