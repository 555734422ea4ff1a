//! A WebSocket echo server on this crate's handshake and framing, for the conformance cases (`protocol/conformance`).
//!
//! `echo [ADDRESS]` listens there (default 127.0.0.1:9001) and prints the address; port 0 takes a free port. A thread
//! a connection, and messages of up to 64 MiB: it is made to be driven by one test client, not to face the world.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use tidegate_protocol::websocket::assemble::{Assembler, FrameError, Step};
use tidegate_protocol::websocket::frame;
use tidegate_protocol::websocket::handshake::{self, HandshakeError, Head};

/// Bytes of the longest message that is echoed.
const MESSAGE_MAX: usize = 64 << 20;

/// Bytes of the longest frame: a message and its header.
const BUFFER_MAX: usize = MESSAGE_MAX + 14;

/// Bytes of the longest request head.
const HEAD_MAX: usize = 16 << 10;

/// How long a peer may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::print_stdout, reason = "tells the script that started it where it listens")]
fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                complain(&error);
            }
        });
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program for a person or a script to watch")]
fn complain(error: &io::Error) {
    eprintln!("{error}");
}

/// The bytes read from a connection and not used yet.
struct Input {
    stream: TcpStream,
    bytes: Vec<u8>,
    filled: usize,
}

impl Input {
    /// Waits for more bytes; `false` at the end of the stream.
    fn read(&mut self) -> io::Result<bool> {
        if self.filled == self.bytes.len() {
            let length = (2 * self.filled).clamp(64 << 10, BUFFER_MAX);
            self.bytes.resize(length, 0);
        }
        let count = self.stream.read(&mut self.bytes[self.filled..])?;
        self.filled += count;
        Ok(count > 0)
    }

    /// Drops bytes that were used.
    fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

/// Serves one connection to its end.
fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut input = Input { stream, bytes: Vec::new(), filled: 0 };
    let mut answer = Vec::new();
    let Some(consumed) = open(&mut input, &mut answer)? else { return Ok(()) };
    input.stream.write_all(&answer)?;
    input.consume(consumed);

    let mut assembler = Assembler::default();
    loop {
        answer.clear();
        let (consumed, open) = take_frames(&mut assembler, &mut input.bytes[..input.filled], &mut answer);
        input.stream.write_all(&answer)?;
        if !open {
            return close(input);
        }
        input.consume(consumed);
        if !input.read()? {
            return Ok(());
        }
    }
}

/// Reads the handshake and prepares its answer. Bytes of the request's head, or `None` when that was the end.
fn open(input: &mut Input, answer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if !input.read()? {
            return Ok(None);
        }
        let refusal = match handshake::parse_head(&input.bytes[..input.filled], HEAD_MAX) {
            Ok(Head::Incomplete) => continue,
            Ok(Head::Request(head)) => match handshake::upgrade(&head) {
                Ok(Some(upgrade)) => {
                    handshake::write_response(&upgrade, answer);
                    return Ok(Some(head.length));
                }
                Ok(None) => HandshakeError::Upgrade("this server does nothing else"),
                Err(error) => error,
            },
            Err(error) => error,
        };
        refusal.write_response(answer);
        input.stream.write_all(answer)?;
        return Ok(None);
    }
}

/// Answers every frame in `bytes`: how many bytes that took, and whether the connection goes on.
fn take_frames(assembler: &mut Assembler, bytes: &mut [u8], answer: &mut Vec<u8>) -> (usize, bool) {
    let mut at = 0;
    loop {
        at += match assembler.step(&mut bytes[at..], MESSAGE_MAX, true) {
            Ok(Step::Incomplete) => return (at, true),
            Ok(Step::Message { opcode_text, payload, consumed }) => {
                let opcode = if opcode_text { frame::TEXT } else { frame::BINARY };
                frame::write_header(opcode, payload.len(), answer);
                answer.extend_from_slice(&payload);
                consumed
            }
            Ok(Step::Ping { payload, consumed }) => {
                answer.extend_from_slice(&frame::pong(payload));
                consumed
            }
            Ok(Step::Pong { consumed } | Step::Continue { consumed }) => consumed,
            Ok(Step::Close { code, .. }) => {
                answer.extend_from_slice(&code.map_or_else(frame::close_without_code, |code| frame::close(code, "")));
                return (at, false);
            }
            Err(error) => {
                answer.extend_from_slice(&refuse(&error));
                return (at, false);
            }
        }
    }
}

/// The close frame for a violation.
fn refuse(error: &FrameError) -> Vec<u8> {
    frame::close(error.close_code(), &error.to_string())
}

/// Ends a connection after the close frame was sent: reads to the end, so that the kernel does not answer what the
/// peer still sends with a reset, which could overtake the close frame.
fn close(mut input: Input) -> io::Result<()> {
    input.stream.shutdown(Shutdown::Write)?;
    loop {
        input.filled = 0;
        if !input.read()? {
            return Ok(());
        }
    }
}
