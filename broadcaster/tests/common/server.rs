//! A Redis server of its own for a test, and a client for it that shares no code with the broker.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::inbox::DEADLINE;

/// A `redis-server` on a free port of loopback. Ends with the value.
pub struct Server {
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further options, such as `["--requirepass", "secret"]`.
    pub async fn start_with(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let mut failures = Vec::new();
        for _ in 0..5 {
            let mut server = Self { port: free_port(), options: options.clone(), child: None };
            match server.spawn().await {
                Ok(()) => return server,
                // Somebody else was faster at taking the port.
                Err(failure) => failures.push(failure),
            }
        }
        panic!("no redis-server: {failures:?}");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the server on its port again, where it must not run.
    pub async fn restart(&mut self) {
        self.spawn().await.unwrap();
    }

    async fn spawn(&mut self) -> Result<(), String> {
        assert!(self.child.is_none());
        let started = Command::new(super::deployment::program())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn();
        let child = started.unwrap_or_else(|error| {
            panic!(
                "redis-server cannot be started ({error}). Install it: `apt-get install redis-server`, or run `./test`"
            )
        });
        self.child = Some(child);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(format!("redis-server on port {} ended: {status}", self.port));
            }
            if start.elapsed() > DEADLINE {
                return Err(format!("redis-server does not listen on port {}", self.port));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends the server without any goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Stops the process, so that its connections stay and nothing answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.port).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    // Tests run at once and a port is not held until its server has it: each looks from a place of its own.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 200) as u16 * 50;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 50;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A plain client.
pub struct Client {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    buffer: BytesMut,
}

impl Client {
    async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the server listens");
        stream.set_nodelay(true).unwrap();
        let (read, write) = stream.into_split();
        Self { read, write, buffer: BytesMut::new() }
    }

    /// Sends a command and waits for its answer.
    pub async fn call(&mut self, arguments: &[&[u8]]) -> BytesFrame {
        let mut out = Vec::new();
        encode(&mut out, arguments);
        self.write.write_all(&out).await.unwrap();
        self.answer().await
    }

    pub async fn words(&mut self, command: &str) -> BytesFrame {
        let arguments: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let answer = self.call(&arguments).await;
        assert!(!matches!(answer, BytesFrame::Error(_)), "{command}: {answer:?}");
        answer
    }

    /// The server's connections, this one among them.
    pub async fn connections(&mut self) -> Vec<String> {
        match self.words("CLIENT LIST").await {
            BytesFrame::BulkString(list) => String::from_utf8_lossy(&list).lines().map(str::to_owned).collect(),
            other => panic!("expected a list, got {other:?}"),
        }
    }

    /// Publishes and tells how many connections received it.
    pub async fn publish(&mut self, channel: &str, payload: &[u8]) -> i64 {
        integer(self.call(&[b"PUBLISH", channel.as_bytes(), payload]).await)
    }

    /// Publishes all without waiting in between, and sums up how many connections received each.
    pub async fn publish_all(&mut self, messages: impl IntoIterator<Item = (String, Bytes)>) -> i64 {
        let mut out = Vec::new();
        let mut n = 0;
        for (channel, payload) in messages {
            encode(&mut out, &[b"PUBLISH", channel.as_bytes(), &payload]);
            n += 1;
        }
        let Self { read, write, buffer } = self;
        let answers = async {
            let mut sum = 0;
            for _ in 0..n {
                sum += integer(answer(read, buffer).await);
            }
            sum
        };
        let (written, sum) = tokio::join!(write.write_all(&out), answers);
        written.unwrap();
        sum
    }

    async fn answer(&mut self) -> BytesFrame {
        answer(&mut self.read, &mut self.buffer).await
    }
}

async fn answer(read: &mut OwnedReadHalf, buffer: &mut BytesMut) -> BytesFrame {
    loop {
        if let Some((frame, _, _)) = decode_bytes_mut(buffer).expect("Redis speaks its protocol") {
            return frame;
        }
        let n = tokio::time::timeout(DEADLINE, read.read_buf(buffer)).await.expect("an answer in time").unwrap();
        assert!(n > 0, "the server closed the connection");
    }
}

fn integer(frame: BytesFrame) -> i64 {
    match frame {
        BytesFrame::Integer(n) => n,
        other => panic!("expected a number, got {other:?}"),
    }
}

fn encode(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    out.extend(format!("*{}\r\n", arguments.len()).bytes());
    for argument in arguments {
        out.extend(format!("${}\r\n", argument.len()).bytes());
        out.extend_from_slice(argument);
        out.extend(b"\r\n");
    }
}
