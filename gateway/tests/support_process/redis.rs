//! A Redis server of its own for a test, and a client for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, eventually};

/// A `redis-server` on a free port of loopback. Ends with the value.
pub struct Redis {
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further options.
    pub fn start_with(options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut redis = Self { port: free_port(), options, child: None };
        redis.restart();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the server on its port, where it must not run.
    pub fn restart(&mut self) {
        assert!(self.child.is_none());
        let child = Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.unwrap_or_else(|error| {
            panic!("redis-server cannot be started ({error}). Install it: `sudo apt-get install redis-server`, or run `./test`")
        });
        eventually("redis-server listens", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.child = Some(child);
    }

    /// Ends the server without any goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops the process, so that its connections stay and nothing answers.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    pub fn client(&self) -> RedisClient {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        RedisClient { reader: BufReader::new(stream.try_clone().unwrap()), writer: stream }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    // Tests run at once and a port is not held until its server has it: each looks from a place of its own, below
    // the ports that the system gives to connections.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 180) as u16 * 50;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 50;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A backend that knows nothing but `PUBLISH`.
pub struct RedisClient {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl RedisClient {
    /// Publishes for the gateway, and tells how many connections received it.
    pub fn publish(&mut self, channel: &str, payload: &[u8]) -> i64 {
        self.publish_all([(channel, payload)])
    }

    /// Publishes all without waiting in between, and sums up how many connections received each.
    pub fn publish_all<'a>(&mut self, messages: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> i64 {
        let mut out = Vec::new();
        let mut n = 0;
        for (channel, payload) in messages {
            encode(&mut out, &[b"PUBLISH", format!("push:{channel}").as_bytes(), payload]);
            n += 1;
        }
        self.writer.write_all(&out).unwrap();
        (0..n).map(|_| self.integer()).sum()
    }

    /// Sends a command that is answered by a number.
    pub fn words(&mut self, command: &str) -> i64 {
        let mut out = Vec::new();
        encode(&mut out, &command.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        self.writer.write_all(&out).unwrap();
        self.integer()
    }

    /// How many connections have subscribed the channel.
    pub fn subscribers(&mut self, channel: &str) -> i64 {
        let mut out = Vec::new();
        encode(&mut out, &[b"PUBSUB", b"NUMSUB", format!("push:{channel}").as_bytes()]);
        self.writer.write_all(&out).unwrap();
        assert_eq!(self.line(), "*2");
        let length: usize = self.line().strip_prefix('$').unwrap().parse().unwrap();
        self.reader.read_exact(&mut vec![0; length + 2]).unwrap();
        self.integer()
    }

    fn integer(&mut self) -> i64 {
        let line = self.line();
        line.strip_prefix(':').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number: {line}"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
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
