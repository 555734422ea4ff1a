//! A client of the protocol, on a real socket. It answers nothing by itself: a test sees every ping.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tidegate::shard::stats::Wire;
use tidegate_protocol::codec::{Delimited, Format, decode_reply, encode_command, split_delimited};
use tidegate_protocol::message::{
    Command, ConnectRequest, ConnectResult, Error, Publication, PublishRequest, Reply, SubscribeRequest,
    UnsubscribeRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{TestNode, frame, http, within};

/// What comes from the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    /// A reply, a push, or a ping of the protocol (an empty reply).
    Reply(Box<Reply>),
    /// A WebSocket ping.
    Ping(Vec<u8>),
    /// A WebSocket pong.
    Pong(Vec<u8>),
    /// A WebSocket close frame.
    Close { code: Option<u16>, reason: String },
    /// The end of the stream, or a reset.
    End,
}

/// A client.
pub(crate) struct Client {
    stream: TcpStream,
    wire: Wire,
    input: Vec<u8>,
    incoming: VecDeque<Incoming>,
    /// The last command's id.
    last_id: u32,
}

impl Client {
    /// Opens the transport. Nothing of the protocol has been said yet.
    pub(crate) async fn open(node: &TestNode, wire: Wire) -> Self {
        Self::open_with(node, wire, "", TcpSocket::new_v4().expect("a socket")).await
    }

    /// Opens a JSON WebSocket with something in the query (from its question mark on).
    pub(crate) async fn open_json(node: &TestNode, query: &str) -> Self {
        Self::open_with(node, Wire::WebSocketJson, query, TcpSocket::new_v4().expect("a socket")).await
    }

    /// Opens the transport on a prepared socket.
    pub(crate) async fn open_with(node: &TestNode, wire: Wire, query: &str, socket: TcpSocket) -> Self {
        let protocol = match wire {
            Wire::TcpProtobuf => return Self::dial(node, wire, socket).await,
            Wire::WebSocketJson => "",
            Wire::WebSocketProtobuf => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
        };
        let (client, answer) = Self::upgrade(node, wire, &http::upgrade_request(query, protocol), socket).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        client
    }

    /// Sends a request, and answers what the server says to it.
    pub(crate) async fn upgrade(
        node: &TestNode,
        wire: Wire,
        request: &[u8],
        socket: TcpSocket,
    ) -> (Self, http::Answer) {
        let mut client = Self::dial(node, wire, socket).await;
        client.send_bytes(request).await;
        let answer = client.head().await;
        (client, answer)
    }

    /// Connects the socket, and nothing more.
    pub(crate) async fn dial(node: &TestNode, wire: Wire, socket: TcpSocket) -> Self {
        let address: SocketAddr = if wire.is_websocket() { node.http() } else { node.tcp() };
        let stream = within("a connection", socket.connect(address)).await.expect("the listener accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, wire, input: Vec::new(), incoming: VecDeque::new(), last_id: 0 }
    }

    /// Opens the transport and connects.
    pub(crate) async fn connect(node: &TestNode, wire: Wire) -> Self {
        let mut client = Self::open(node, wire).await;
        client.say_hello().await;
        client
    }

    /// Connects and subscribes.
    pub(crate) async fn subscribed(node: &TestNode, wire: Wire, channel: &str) -> Self {
        let mut client = Self::connect(node, wire).await;
        client.subscribe(channel).await;
        client
    }

    /// Reads the answer to an upgrade; what follows it stays.
    pub(crate) async fn head(&mut self) -> http::Answer {
        within("an HTTP answer", async {
            loop {
                if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                    let answer = http::Answer::parse(&self.input[..end + 4]);
                    self.input.drain(..end + 4);
                    return answer;
                }
                assert!(self.fill().await, "the connection ended before an HTTP answer: {:?}", self.input);
            }
        })
        .await
    }

    /// Sends a connect command and awaits its reply.
    pub(crate) async fn say_hello(&mut self) -> ConnectResult {
        let id = self.send(hello()).await;
        self.reply_to(id).await.connect.expect("a connect result")
    }

    /// Subscribes, and awaits the reply.
    pub(crate) async fn subscribe(&mut self, channel: &str) {
        let reply = self.ask(subscribe(channel)).await;
        assert!(reply.subscribe.is_some(), "{reply:?}");
    }

    /// Sends a command and awaits its reply. Pings and pushes that come before it are an error.
    pub(crate) async fn ask(&mut self, command: Command) -> Reply {
        let id = self.send(command).await;
        self.reply_to(id).await
    }

    /// Sends a command whose reply is an error.
    pub(crate) async fn ask_in_vain(&mut self, command: Command) -> Error {
        let reply = self.ask(command).await;
        reply.error.clone().unwrap_or_else(|| panic!("not an error: {reply:?}"))
    }

    /// Sends a command, with the next id, and answers the id.
    pub(crate) async fn send(&mut self, command: Command) -> u32 {
        let mut commands = [command];
        self.number(&mut commands);
        self.send_commands(&commands).await;
        self.last_id
    }

    /// Gives commands the next ids.
    pub(crate) fn number(&mut self, commands: &mut [Command]) {
        for command in commands {
            self.last_id += 1;
            command.id = self.last_id;
        }
    }

    /// Sends commands as they are, in one message.
    pub(crate) async fn send_commands(&mut self, commands: &[Command]) {
        let message = encode(self.wire.format(), commands);
        self.send_message(&message).await;
    }

    /// Sends a message: in a frame where the transport has frames.
    pub(crate) async fn send_message(&mut self, message: &[u8]) {
        match self.wire {
            Wire::TcpProtobuf => self.send_bytes(message).await,
            Wire::WebSocketJson => self.send_bytes(&frame::masked(frame::TEXT, message)).await,
            Wire::WebSocketProtobuf => self.send_bytes(&frame::masked(frame::BINARY, message)).await,
        }
    }

    /// Sends bytes as they are. Fails where the server has closed the connection.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        assert!(self.try_send_bytes(bytes).await, "the connection is closed");
    }

    /// Sends bytes as they are; `false` where the server has closed the connection meanwhile.
    pub(crate) async fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        within("the bytes are sent", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Says that nothing more will be sent (FIN).
    pub(crate) async fn finish(&mut self) {
        within("the stream is shut down", self.stream.shutdown()).await.expect("the stream is open");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a TCP socket");
    }

    /// Everything up to the end of the stream, as it is.
    pub(crate) async fn end(&mut self) -> Vec<u8> {
        within("the end of the stream", async { while self.fill().await {} }).await;
        std::mem::take(&mut self.input)
    }

    /// The kind of the first frame.
    pub(crate) async fn first_opcode(&mut self) -> u8 {
        within("a frame", async {
            while self.input.is_empty() {
                assert!(self.fill().await, "the connection ended before a frame");
            }
        })
        .await;
        self.input[0] & 0x0f
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Incoming {
        within("something from the server", async {
            loop {
                self.split();
                if let Some(incoming) = self.incoming.pop_front() {
                    return incoming;
                }
                if !self.fill().await {
                    return Incoming::End;
                }
            }
        })
        .await
    }

    /// What comes next, which has to be a reply or a push.
    pub(crate) async fn next_reply(&mut self) -> Reply {
        match self.next().await {
            Incoming::Reply(reply) => *reply,
            other => panic!("not a reply: {other:?}"),
        }
    }

    /// The reply to a command, which has to be what comes next.
    pub(crate) async fn reply_to(&mut self, id: u32) -> Reply {
        let reply = self.next_reply().await;
        assert_eq!(reply.id, id, "{reply:?}");
        reply
    }

    /// The next publication of `channel`, which has to be what comes next.
    pub(crate) async fn publication(&mut self, channel: &str) -> Publication {
        let reply = self.next_reply().await;
        let push = reply.push.clone().unwrap_or_else(|| panic!("not a push: {reply:?}"));
        assert_eq!(push.channel, channel);
        push.r#pub.unwrap_or_else(|| panic!("not a publication: {reply:?}"))
    }

    /// The code with which the server ends the connection, after whatever comes before it: of the close frame, or
    /// on raw TCP of the disconnect push. The stream has to end behind it.
    pub(crate) async fn close_code(&mut self) -> u16 {
        let code = loop {
            match self.next().await {
                Incoming::Reply(reply) => {
                    let disconnect = reply.push.and_then(|push| push.disconnect);
                    if let Some(disconnect) = disconnect {
                        break u16::try_from(disconnect.code).expect("a disconnect code");
                    }
                }
                Incoming::Close { code, .. } => break code.expect("a close frame with a code"),
                Incoming::Ping(_) | Incoming::Pong(_) => {}
                Incoming::End => panic!("the connection ended without a code"),
            }
        };
        assert_eq!(self.next().await, Incoming::End);
        code
    }

    /// The next publication, or the code with which the connection ends.
    pub(crate) async fn next_or_close(&mut self) -> Result<Publication, u16> {
        match self.next().await {
            Incoming::Reply(reply) => {
                let push = reply.push.clone().unwrap_or_else(|| panic!("not a push: {reply:?}"));
                match push.disconnect {
                    Some(disconnect) => Err(u16::try_from(disconnect.code).expect("a disconnect code")),
                    None => Ok(push.r#pub.unwrap_or_else(|| panic!("not a publication: {reply:?}"))),
                }
            }
            Incoming::Close { code, .. } => Err(code.expect("a close frame with a code")),
            other => panic!("neither a publication nor a close: {other:?}"),
        }
    }

    /// Reads more; `false` at the end of the stream.
    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.input).await.is_ok_and(|read| read > 0)
    }

    /// Takes what is whole off the input.
    fn split(&mut self) {
        if !self.wire.is_websocket() {
            let taken = replies(Format::Protobuf, &self.input, &mut self.incoming);
            self.input.drain(..taken);
            return;
        }
        while let Some(frame) = frame::take(&mut self.input) {
            let incoming = match frame.opcode {
                frame::TEXT | frame::BINARY => {
                    let format = self.wire.format();
                    let expected = if format == Format::Json { frame::TEXT } else { frame::BINARY };
                    assert_eq!(frame.opcode, expected, "JSON comes as text, Protobuf as binary");
                    let taken = replies(format, &frame.payload, &mut self.incoming);
                    assert_eq!(taken, frame.payload.len(), "a message holds whole replies");
                    continue;
                }
                frame::PING => Incoming::Ping(frame.payload),
                frame::PONG => Incoming::Pong(frame.payload),
                frame::CLOSE => {
                    let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8(frame.payload.get(2..).unwrap_or_default().to_vec());
                    Incoming::Close { code, reason: reason.expect("a reason in UTF-8") }
                }
                other => panic!("a frame of kind {other}"),
            };
            self.incoming.push_back(incoming);
        }
    }
}

/// Decodes the replies in a message or at the start of a stream; answers the bytes used.
fn replies(format: Format, bytes: &[u8], into: &mut VecDeque<Incoming>) -> usize {
    let mut decode = |body| {
        let reply = decode_reply(format, body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
        into.push_back(Incoming::Reply(Box::new(reply)));
    };
    match format {
        Format::Json => {
            bytes.split(|byte| *byte == b'\n').for_each(&mut decode);
            bytes.len()
        }
        Format::Protobuf => {
            let mut used = 0;
            while let Delimited::Message { body, consumed } =
                split_delimited(&bytes[used..], 1 << 24).expect("a length")
            {
                decode(body);
                used += consumed;
            }
            used
        }
    }
}

/// Commands as one message.
pub(crate) fn encode(format: Format, commands: &[Command]) -> Vec<u8> {
    let mut message = Vec::new();
    for command in commands {
        if format == Format::Json && !message.is_empty() {
            message.push(b'\n');
        }
        encode_command(format, command, &mut message);
    }
    message
}

/// A connect command without a token.
pub(crate) fn hello() -> Command {
    Command { connect: Some(ConnectRequest::default()), ..Command::default() }
}

/// A subscribe command.
pub(crate) fn subscribe(channel: &str) -> Command {
    let request = SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() };
    Command { subscribe: Some(request), ..Command::default() }
}

/// An unsubscribe command.
pub(crate) fn unsubscribe(channel: &str) -> Command {
    Command { unsubscribe: Some(UnsubscribeRequest { channel: channel.into() }), ..Command::default() }
}

/// A publish command.
pub(crate) fn publish(channel: &str, data: &str) -> Command {
    let request = PublishRequest {
        channel: channel.into(),
        data: bytes::Bytes::copy_from_slice(data.as_bytes()),
        ..PublishRequest::default()
    };
    Command { publish: Some(request), ..Command::default() }
}
