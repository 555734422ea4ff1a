//! Where sessions connect to, from which addresses, and whether the process may hold that many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::wire::{Wire, reply, websocket};

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
    /// What stalled sessions read all the same, in bytes per second; 0 for nothing.
    pub(crate) stalled_read_rate: u64,
    /// The name of an only channel, and the beginning of the names of several.
    pub(crate) channel: String,
    /// Who subscribes to what.
    pub(crate) layout: Layout,
    upgrade: Vec<u8>,
}

impl Target {
    /// A target; `path` matters to WebSocket wires only.
    pub(crate) fn new(address: SocketAddr, wire: Wire, path: &str, channel: &str, layout: Layout) -> Self {
        let upgrade = websocket::upgrade_request(&address.to_string(), path, !wire.is_json());
        Self {
            address,
            wire,
            sources: Vec::new(),
            stalled_receive_buffer: 4096,
            stalled_read_rate: 0,
            channel: channel.to_owned(),
            layout,
            upgrade,
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

    /// The names of all channels.
    pub(crate) fn channel_names(&self) -> Arc<[String]> {
        (0..self.layout.channels()).map(|number| self.channel_name(number)).collect()
    }

    /// The name of a channel.
    pub(crate) fn channel_name(&self, number: u32) -> String {
        if self.layout.channels() > 1 { format!("{}-{number}", self.channel) } else { self.channel.clone() }
    }

    fn channels_from(&self, first: u32) -> impl Iterator<Item = String> {
        self.layout.channels_from(first).map(|number| self.channel_name(number))
    }

    /// What a session sends as soon as TCP is up.
    pub(crate) fn greeting(&self, channel: u32) -> Vec<u8> {
        if self.wire.is_websocket() {
            self.upgrade.clone()
        } else {
            reply::opening(self.wire, self.channels_from(channel))
        }
    }

    /// What a session sends once the upgrade is granted.
    pub(crate) fn opening_frame(&self, channel: u32) -> Vec<u8> {
        let commands = reply::opening(self.wire, self.channels_from(channel));
        let opcode = if self.wire.is_json() { websocket::TEXT } else { websocket::BINARY };
        let mut frame = Vec::with_capacity(commands.len() + 8);
        websocket::push_client_frame(opcode, &commands, &mut frame);
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
        let mut target = Target::new(([127, 0, 0, 1], 8000).into(), Wire::WsJson, "/", "c", Layout::even(1, 1));
        target.spread_sources(0, 15_000);
        assert_eq!(target.sources.len(), 8);
        assert_eq!(target.sources[0], Ipv4Addr::new(127, 0, 0, 2));
        let mut far = Target::new(([192, 0, 2, 1], 8000).into(), Wire::WsJson, "/", "c", Layout::even(1, 1));
        far.spread_sources(4, 15_000);
        assert!(far.sources.is_empty());
    }

    #[test]
    fn channels_carry_their_number_where_there_are_several() {
        let mut target = Target::new(([127, 0, 0, 1], 8000).into(), Wire::WsJson, "/", "c", Layout::even(1, 1));
        assert_eq!(&*target.channel_names(), ["c"]);
        target.layout = Layout::even(2, 1);
        assert_eq!(&*target.channel_names(), ["c-0", "c-1"]);
    }
}
