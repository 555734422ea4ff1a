//! What a client sends, as bytes: an upgrade, and commands in masked WebSocket frames.

use prost::Message as _;
use tidegate_protocol::message::{Command, ConnectRequest, SubscribeRequest};

/// How a client writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON in text frames.
    Json,
    /// Protobuf in binary frames.
    Protobuf,
}

/// The request that a browser opens a WebSocket with, as short as one can be and with what every browser adds.
pub(crate) fn upgrade(form: Form) -> Vec<u8> {
    let protocol = match form {
        Form::Json => "",
        Form::Protobuf => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
    };
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: push.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept-Language: en-GB,en;q=0.7\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    )
    .into_bytes()
}

/// A connect command without a token, in a frame.
pub(crate) fn connect(form: Form) -> Vec<u8> {
    match form {
        Form::Json => frame(form, br#"{"id":1,"connect":{}}"#),
        Form::Protobuf => {
            let command = Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() };
            frame(form, &command.encode_length_delimited_to_vec())
        }
    }
}

/// A subscribe command, in a frame.
pub(crate) fn subscribe(form: Form, channel: &str) -> Vec<u8> {
    match form {
        Form::Json => frame(form, format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#).as_bytes()),
        Form::Protobuf => {
            let subscribe = SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() };
            let command = Command { id: 2, subscribe: Some(subscribe), ..Command::default() };
            frame(form, &command.encode_length_delimited_to_vec())
        }
    }
}

/// The answer to a ping, in a frame.
pub(crate) fn pong(form: Form) -> Vec<u8> {
    match form {
        Form::Json => frame(form, b"{}"),
        Form::Protobuf => frame(form, &Command::default().encode_length_delimited_to_vec()),
    }
}

/// A masked frame with a payload of less than 64 KiB (RFC 6455, 5.2).
fn frame(form: Form, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let opcode = match form {
        Form::Json => 0x81,
        Form::Protobuf => 0x82,
    };
    let mut out = vec![opcode];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => out.push(0x80 | length),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
