//! Clients of the gateway: the codecs are the project's, the framing of WebSocket is not.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tidegate_protocol::codec::delimited::{Delimited, split_delimited};
use tidegate_protocol::codec::{Format, decode_reply, encode_command};
use tidegate_protocol::message::{
    Command, ConnectRequest, Publication, PublishRequest, Reply, SubscribeRequest, UnsubscribeRequest,
};

use super::DEADLINE;
use super::node::Node;

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Json,
    Protobuf,
    Tcp,
}

impl Wire {
    pub const ALL: [Self; 3] = [Self::Json, Self::Protobuf, Self::Tcp];

    pub fn format(self) -> Format {
        if self == Self::Json { Format::Json } else { Format::Protobuf }
    }
}

/// What a client receives.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "handled at once")]
pub enum Received {
    /// A reply or a push.
    Reply(Reply),
    /// The gateway has closed the connection with this code.
    Closed(u16, String),
    /// The connection has ended without a word.
    Ended,
}

/// A connected client. Every wait has a deadline, and fails the test when it passes.
pub struct Client {
    /// How it speaks.
    pub wire: Wire,
    /// Its id, as the gateway gave it.
    pub id: String,
    stream: TcpStream,
    input: Vec<u8>,
    /// Pushes that came before the reply that was waited for.
    pushes: VecDeque<Reply>,
    /// Replies that came in one message with others.
    replies: VecDeque<Reply>,
    last_id: u32,
}

/// A socket to the node, with a receive buffer of this size where one is given.
fn open(address: SocketAddr, buffer: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
        // Segments as on a real network: with those of loopback (64 KB) the kernel gives the sender megabytes.
        socket.set_tcp_mss(1400).unwrap();
    }
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Asks for a WebSocket, and gives the head of the answer.
pub fn upgrade(stream: &mut TcpStream, format: Format) -> String {
    let protocol = if format == Format::Json { "" } else { "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n" };
    let request = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Tries to open a WebSocket. The answer's status: 101, or that of a refusal.
pub fn try_upgrade(node: &Node) -> (u16, String) {
    let mut stream = open(node.http, None);
    let head = upgrade(&mut stream, Format::Json);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head:?}")), head)
}

impl Client {
    pub fn connect(node: &Node, wire: Wire) -> Self {
        Self::connect_with(node, wire, None)
    }

    /// A client whose socket takes little of what it does not read.
    pub fn connect_with(node: &Node, wire: Wire, buffer: Option<usize>) -> Self {
        let mut stream = open(if wire == Wire::Tcp { node.tcp } else { node.http }, buffer);
        if wire != Wire::Tcp {
            let head = upgrade(&mut stream, wire.format());
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            let agreed = head.to_ascii_lowercase().contains("centrifuge-protobuf");
            assert_eq!(agreed, wire == Wire::Protobuf, "{head}");
        }
        let mut client = Self {
            wire,
            id: String::new(),
            stream,
            input: Vec::new(),
            pushes: VecDeque::new(),
            replies: VecDeque::new(),
            last_id: 0,
        };
        let reply = client.call(Command { connect: Some(ConnectRequest::default()), ..Command::default() });
        client.id = reply.connect.unwrap_or_else(|| panic!("not connected: {:?}", reply.error)).client;
        client
    }

    /// Sends a command, and gives its id.
    pub fn send(&mut self, mut command: Command) -> u32 {
        self.last_id += 1;
        command.id = self.last_id;
        self.write(&command);
        command.id
    }

    fn write(&mut self, command: &Command) {
        let mut message = Vec::new();
        encode_command(self.wire.format(), command, &mut message);
        if self.wire != Wire::Tcp {
            let kind = if self.wire == Wire::Json { 0x81 } else { 0x82 };
            let mut frame = vec![kind];
            match message.len() {
                length @ 0..126 => frame.push(0x80 | length as u8),
                length => {
                    frame.push(0x80 | 126);
                    frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
                }
            }
            // A mask of zeros is a mask: the payload stays as it is.
            frame.extend_from_slice(&[0; 4]);
            frame.append(&mut message);
            message = frame;
        }
        self.stream.write_all(&message).unwrap();
    }

    /// Sends a command and waits for its reply.
    pub fn call(&mut self, command: Command) -> Reply {
        let id = self.send(command);
        loop {
            match self.receive() {
                Received::Reply(reply) if reply.id == id => return reply,
                Received::Reply(reply) if reply.push.is_some() => self.pushes.push_back(reply),
                other => panic!("expected the reply to command {id}, got {other:?}"),
            }
        }
    }

    /// Subscribes, or gives the error's code.
    pub fn try_subscribe(&mut self, channel: &str) -> Result<(), u32> {
        let subscribe = SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() };
        let reply = self.call(Command { subscribe: Some(subscribe), ..Command::default() });
        reply.error.map_or(Ok(()), |error| Err(error.code))
    }

    pub fn subscribe(&mut self, channel: &str) {
        assert_eq!(self.try_subscribe(channel), Ok(()), "{channel}");
    }

    pub fn unsubscribe(&mut self, channel: &str) {
        let unsubscribe = UnsubscribeRequest { channel: channel.into() };
        let reply = self.call(Command { unsubscribe: Some(unsubscribe), ..Command::default() });
        assert_eq!(reply.error, None);
    }

    pub fn publish(&mut self, channel: &str, data: &'static [u8]) {
        assert_eq!(self.try_publish(channel, data), Ok(()), "{channel}");
    }

    /// Publishes, or gives the error's code.
    pub fn try_publish(&mut self, channel: &str, data: &'static [u8]) -> Result<(), u32> {
        let publish =
            PublishRequest { channel: channel.into(), data: Bytes::from_static(data), ..PublishRequest::default() };
        let reply = self.call(Command { publish: Some(publish), ..Command::default() });
        reply.error.map_or(Ok(()), |error| Err(error.code))
    }

    /// The next publication, with its channel.
    pub fn publication(&mut self) -> (String, Publication) {
        let reply = self.pushes.pop_front().unwrap_or_else(|| match self.receive() {
            Received::Reply(reply) => reply,
            other => panic!("expected a publication, got {other:?}"),
        });
        let push = reply.push.unwrap_or_else(|| panic!("expected a push, got a reply to command {}", reply.id));
        let publication = push.r#pub.clone().unwrap_or_else(|| panic!("expected a publication, got {push:?}"));
        (push.channel, publication)
    }

    /// Holds the next publication to be this one.
    pub fn expect(&mut self, channel: &str, data: &[u8]) {
        let (on, publication) = self.publication();
        let text = String::from_utf8_lossy;
        assert_eq!((on.as_str(), text(&publication.data)), (channel, text(data)), "on {:?}", self.wire);
    }

    /// Holds the next publications to be these: those of a channel in their order, channels in any.
    pub fn expect_each(&mut self, wanted: &[(&str, &[u8])]) {
        let mut wanted: Vec<_> = wanted.iter().map(|(on, data)| ((*on).to_owned(), data.to_vec())).collect();
        let mut got: Vec<_> =
            wanted.iter().map(|_| self.publication()).map(|(on, it)| (on, it.data.to_vec())).collect();
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        got.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(got, wanted, "on {:?}", self.wire);
    }

    /// Reads until the connection is closed, and gives the code.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.receive() {
                Received::Reply(_) => {}
                Received::Closed(code, reason) => return (code, reason),
                Received::Ended => return (0, "the connection ended without a word".into()),
            }
        }
    }

    /// The next reply or push; pings are answered on the way.
    pub fn receive(&mut self) -> Received {
        loop {
            if let Some(reply) = self.replies.pop_front() {
                if let Some(disconnect) = reply.push.as_ref().and_then(|push| push.disconnect.as_ref()) {
                    return Received::Closed(disconnect.code as u16, disconnect.reason.clone());
                }
                if reply == Reply::default() {
                    self.write(&Command::default());
                    continue;
                }
                return Received::Reply(reply);
            }
            match self.take_message() {
                Some(Ok(())) => {}
                Some(Err((code, reason))) => return Received::Closed(code, reason),
                None => {
                    if !self.read_more(DEADLINE) {
                        return Received::Ended;
                    }
                }
            }
        }
    }

    /// Whether the connection lives and nothing has come for so long.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        if !self.pushes.is_empty() || !self.replies.is_empty() || !self.input.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut chunk = [0; 1024];
        let quiet = match self.stream.read(&mut chunk) {
            Ok(n) => {
                self.input.extend_from_slice(&chunk[..n]);
                false
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        quiet
    }

    /// The bare socket, for a client that stops behaving.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Reads once. Answers whether the connection goes on.
    fn read_more(&mut self, limit: Duration) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.input.extend_from_slice(&chunk[..n]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came within {limit:?} on {:?}", self.wire)
            }
            Err(_) => false,
        }
    }

    /// Takes a message off the input, if a whole one is there: its replies, or the code of a close frame.
    fn take_message(&mut self) -> Option<Result<(), (u16, String)>> {
        let (kind, body, taken) = match self.wire {
            Wire::Tcp => match split_delimited(&self.input, 1 << 26).unwrap() {
                Delimited::Incomplete => return None,
                Delimited::Message { body, consumed } => (0x2, body, consumed),
            },
            Wire::Json | Wire::Protobuf => split_frame(&self.input)?,
        };
        let result = match (kind, self.wire) {
            (0x1, Wire::Json) => {
                let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                self.replies.extend(lines.map(|line| decode_reply(Format::Json, line).unwrap()));
                Ok(())
            }
            (0x2, Wire::Tcp) => {
                self.replies.push_back(decode_reply(Format::Protobuf, body).unwrap());
                Ok(())
            }
            (0x2, Wire::Protobuf) => {
                let mut rest = body;
                while let Delimited::Message { body, consumed } = split_delimited(rest, 1 << 26).unwrap() {
                    self.replies.push_back(decode_reply(Format::Protobuf, body).unwrap());
                    rest = &rest[consumed..];
                }
                assert!(rest.is_empty(), "a frame ends within a message");
                Ok(())
            }
            (0x8, Wire::Json | Wire::Protobuf) => {
                let code = body.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                Err((code, String::from_utf8_lossy(body.get(2..).unwrap_or_default()).into_owned()))
            }
            (kind, wire) => panic!("a frame of kind {kind} on {wire:?}"),
        };
        self.input.drain(..taken);
        Some(result)
    }
}

/// The first frame: its kind, its payload, and how many bytes it takes. The gateway sends whole messages, unmasked.
fn split_frame(input: &[u8]) -> Option<(u8, &[u8], usize)> {
    let [first, second, ..] = *input else { return None };
    assert_eq!(first & 0xf0, 0x80, "whole, and no reserved bits");
    let (length, start) = match second {
        126 => (u64::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*input.get(2..)?.first_chunk()?), 10),
        length => (u64::from(length), 2),
    };
    let end = start + usize::try_from(length).unwrap();
    Some((first & 0x0f, input.get(start..end)?, end))
}
