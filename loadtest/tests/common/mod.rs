//! What the tests share: a Redis, a floor, runs of the program.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses some of it, and nobody else any")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate-loadtest");

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis on a free port, ready.
pub fn redis() -> (Running, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let child = command.stdout(Stdio::null()).spawn().expect("redis-server is installed");
    let running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.write_all(b"PING\r\n").unwrap();
            let mut answer = [0u8; 7];
            if stream.read_exact(&mut answer).is_ok() && &answer == b"+PONG\r\n" {
                return (running, port);
            }
        }
        assert!(Instant::now() < deadline, "redis-server does not come up");
        std::thread::yield_now();
    }
}

/// A floor, and the address that it printed.
pub fn floor(redis: u16, channel: &str) -> (Running, String) {
    let mut child = Command::new(PROGRAM)
        .args([
            "floor",
            "--until-stdin-closes",
            "--listen",
            "127.0.0.1:0",
            "--redis",
            &url(redis),
            "--channel",
            channel,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Running(child), line.trim().strip_prefix("listening ").expect("an address").to_owned())
}

pub fn url(redis: u16) -> String {
    format!("redis://127.0.0.1:{redis}")
}

/// Runs the program to its end and gives its JSON as well, if it wrote any.
pub fn run(name: &str, arguments: &[&str]) -> (Output, serde_json::Value) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    let _ = std::fs::remove_file(&file);
    let output = Command::new(PROGRAM).args(arguments).arg("--json").arg(&file).output().unwrap();
    let json = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    (output, json.unwrap_or_default())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
