//! Where sessions connect to, and from which addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::layout::Layout;
use crate::wire::{Wire, websocket};

/// Sessions that share a loopback source address by default; far below the 28,232 ephemeral ports of Linux, so that
/// ports of closed connections may rest for their minute.
const SESSIONS_PER_SOURCE: u32 = 2_000;

/// The most servers of a run.
pub(crate) const MAX_SERVERS: usize = 4096;

/// Servers and how to speak to them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    servers: Vec<SocketAddr>,
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
    path: String,
}

impl Target {
    /// A target of at least one server and at most [`MAX_SERVERS`]; `path` matters to WebSocket wires only.
    pub(crate) fn new(servers: Vec<SocketAddr>, wire: Wire, path: &str, channel: &str, layout: Layout) -> Self {
        Self {
            servers,
            wire,
            sources: Vec::new(),
            stalled_receive_buffer: 4096,
            stalled_read_rate: 0,
            channel: channel.to_owned(),
            layout,
            path: path.to_owned(),
        }
    }

    /// How many servers there are.
    pub(crate) fn servers(&self) -> u32 {
        self.servers.len() as u32
    }

    /// Whether all servers are on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.servers.iter().all(|server| server.ip().is_loopback())
    }

    /// Takes `count` source addresses from 127.0.0.2 on, or as many as `sessions` need if that is 0, and at least one
    /// for each process. Only loopback targets are reached from them; for any other the system chooses.
    pub(crate) fn spread_sources(&mut self, count: u32, sessions: u32, processes: u32) {
        let reached = |server: &SocketAddr| matches!(server.ip(), IpAddr::V4(ip) if ip.is_loopback());
        if !self.servers.iter().all(reached) {
            return;
        }
        let processes = processes.max(1);
        let wanted = sessions.div_ceil(processes).div_ceil(SESSIONS_PER_SOURCE) * processes;
        let count = if count == 0 { wanted } else { count }.clamp(processes, 0x00ff_0000);
        let first = u32::from(Ipv4Addr::new(127, 0, 0, 2));
        self.sources = (0..count).map(|n| Ipv4Addr::from(first + n)).collect();
    }

    /// The same servers for process `number` of `of`, with source addresses that no other process has, so that no two
    /// compete for one address's ports.
    pub(super) fn part(&self, number: u32, of: u32) -> Self {
        let at = |number: u32| (self.sources.len() as u64 * u64::from(number) / u64::from(of)) as usize;
        let sources = self.sources[at(number)..at(number + 1)].to_vec();
        Self { sources, ..self.clone() }
    }

    /// The server that session `number` connects to. Round-robin, and shifted by one with every round of the channels:
    /// else servers and channels whose numbers share a factor would each know only some of the others.
    pub(crate) fn server_of(&self, number: u32) -> u16 {
        let channels = self.layout.channels();
        ((u64::from(number / channels) + u64::from(number % channels)) % self.servers.len() as u64) as u16
    }

    /// How many of the first `sessions` sessions connect to a server.
    pub(crate) fn sessions_of(&self, server: u16, sessions: u32) -> u32 {
        (0..sessions).filter(|number| self.server_of(*number) == server).count() as u32
    }

    /// The names of all channels.
    pub(crate) fn channel_names(&self) -> Arc<[String]> {
        (0..self.layout.channels()).map(|number| self.channel_name(number)).collect()
    }

    /// What asks for the channels of a session.
    fn opening(&self, first: u32) -> Vec<u8> {
        self.wire.opening(self.layout.channels_from(first).map(|number| self.channel_name(number)))
    }

    /// The name of a channel.
    pub(crate) fn channel_name(&self, number: u32) -> String {
        if self.layout.channels() > 1 { format!("{}-{number}", self.channel) } else { self.channel.clone() }
    }

    /// What a session sends as soon as TCP is up.
    pub(crate) fn greeting(&self, server: u16, channel: u32) -> Vec<u8> {
        if !self.wire.is_websocket() {
            return self.opening(channel);
        }
        let host = self.servers[usize::from(server)].to_string();
        let path = match self.wire {
            Wire::Nchan => format!("{}/{}", self.path.trim_end_matches('/'), self.channel_name(channel)),
            _ => self.path.clone(),
        };
        websocket::upgrade_request(&host, &path, self.wire.subprotocol())
    }

    /// What a session sends once the upgrade is granted and the server has said what has to come first.
    pub(crate) fn opening_frame(&self, channel: u32) -> Vec<u8> {
        let commands = self.opening(channel);
        let mut frame = Vec::with_capacity(commands.len() + 8);
        websocket::push_client_frame(self.wire.opcode(), &commands, &mut frame);
        frame
    }

    /// Begins to connect to a server; the socket does not block. `turn` chooses the source address.
    pub(crate) fn connect(&self, server: u16, turn: usize, stalled: bool) -> std::io::Result<TcpStream> {
        let address = self.servers[usize::from(server)];
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if stalled {
            socket.set_recv_buffer_size(self.stalled_receive_buffer)?;
        }
        if !self.sources.is_empty() {
            let source = self.sources[turn % self.sources.len()];
            socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        }
        match socket.connect(&SockAddr::from(address)) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => Ok(socket.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(servers: u16) -> Target {
        let servers = (0..servers).map(|n| ([127, 0, 0, 1], 8000 + n).into()).collect();
        Target::new(servers, Wire::WsJson, "/", "c", Layout::even(1, 1))
    }

    #[test]
    fn loopback_targets_are_reached_from_several_addresses_and_others_from_the_systems_choice() {
        let mut near = target(1);
        near.spread_sources(0, 15_000, 1);
        assert_eq!(near.sources.len(), 8);
        assert_eq!(near.sources[0], Ipv4Addr::new(127, 0, 0, 2));
        let mut far = Target::new(vec![([192, 0, 2, 1], 8000).into()], Wire::WsJson, "/", "c", Layout::even(1, 1));
        far.spread_sources(4, 15_000, 1);
        assert!(far.sources.is_empty());
    }

    #[test]
    fn a_million_sessions_have_source_addresses_enough_and_no_two_processes_share_one() {
        let mut target = target(53);
        target.spread_sources(0, 1_000_000, 53);
        let parts: Vec<_> = (0..53).map(|number| target.part(number, 53).sources).collect();
        assert!(parts.iter().all(|part| part.len() == 10), "{parts:?}");
        let mut all = parts.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 530);
    }

    #[test]
    fn every_process_has_a_source_address_even_where_fewer_are_asked_for() {
        let mut target = target(1);
        target.spread_sources(1, 10, 3);
        assert!((0..3).all(|number| target.part(number, 3).sources.len() == 1));
    }

    #[test]
    fn servers_get_equal_shares_of_the_sessions_of_each_channel() {
        for (servers, channels) in [(2u16, 1), (2, 2), (3, 6), (4, 10), (5, 1000)] {
            let mut target = target(servers);
            target.layout = Layout::even(channels, 1);
            let mut counts = vec![vec![0u32; servers.into()]; channels as usize];
            for number in 0..channels * u32::from(servers) {
                counts[(number % channels) as usize][usize::from(target.server_of(number))] += 1;
            }
            assert!(counts.iter().flatten().all(|count| *count == 1), "{servers} {channels}");
        }
    }

    #[test]
    fn only_nchan_has_the_channel_in_the_path_of_its_upgrade() {
        let greeting = |wire, path| {
            let target = Target::new(vec![([127, 0, 0, 1], 80).into()], wire, path, "c", Layout::even(8, 1));
            String::from_utf8(target.greeting(0, 7)).unwrap()
        };
        assert!(greeting(Wire::Nchan, "/sub/").starts_with("GET /sub/c-7 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
        assert!(greeting(Wire::Nats, "/").starts_with("GET / HTTP/1.1\r\n"));
        assert!(greeting(Wire::WsProtobuf, "/ws").contains("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"));
    }

    #[test]
    fn channels_carry_their_number_where_there_are_several() {
        let mut target = target(1);
        assert_eq!(&*target.channel_names(), ["c"]);
        target.layout = Layout::even(2, 1);
        assert_eq!(&*target.channel_names(), ["c-0", "c-1"]);
    }
}
