//! The program itself: what it does with the system's limit on files, and how a signal ends it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{frame, http, within};

/// Descriptors that the node keeps for other things than connections.
const OTHERS: usize = 200;

/// A running gateway, ended at the latest with its test.
struct Gateway(Child);

/// What it writes, and the lines read so far.
struct Output {
    pipe: BufReader<ChildStdout>,
    lines: Vec<String>,
}

impl Gateway {
    /// Starts `tidegate --dev` with so many file descriptors; answers it once it listens, with its address.
    async fn start(descriptors: usize) -> (Self, Output, SocketAddr) {
        let any = "127.0.0.1:0";
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_tidegate")])
            .args(["--dev", "--listen", any, "--tcp-listen", any, "--operator-listen", any])
            // No configuration but this.
            .env_clear()
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::piped())
            .spawn();
        let mut gateway = Self(child.expect("the gateway's program runs"));
        let pipe = BufReader::new(gateway.0.stdout.take().expect("its output is a pipe"));
        let reading = tokio::task::spawn_blocking(|| Output { pipe, lines: Vec::new() }.up_to("ws://"));
        let output = within("it says where it listens", reading).await.expect("reading does not fail");
        let address = output.lines.last().and_then(|line| line.split_once("ws://")?.1.split_once('/'));
        let address = address.expect("an address").0.parse().expect("an IP address and a port");
        (gateway, output, address)
    }

    /// Sends SIGTERM, and waits for the end.
    async fn terminate(mut self, output: Output, meanwhile: impl Future<Output = ()>) -> ExitStatus {
        let process = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it still runs");
        meanwhile.await;
        // Its output is read to the end, so that it never waits for us.
        let reading = tokio::task::spawn_blocking(|| output.read_to_end());
        within("it ends", reading).await.expect("reading does not fail");
        self.0.wait().expect("it is our child")
    }
}

impl Output {
    /// Reads lines until one holds `text`.
    fn up_to(mut self, text: &str) -> Self {
        while !self.lines.last().is_some_and(|line| line.contains(text)) {
            assert!(self.read(), "it ended without {text:?}: {:?}", self.lines);
        }
        self
    }

    fn read_to_end(mut self) {
        while self.read() {}
    }

    fn read(&mut self) -> bool {
        let mut line = String::new();
        let read = self.pipe.read_line(&mut line).expect("its output is text");
        self.lines.push(line);
        read > 0
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Ended already, unless the test has failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_open_files_lowers_that_of_connections_with_a_warning() {
    const ROOM: usize = 50;
    let (gateway, output, address) = Gateway::start(OTHERS + ROOM).await;
    let warned = |line: &String| line.contains("client.connection_limit is 500000") && line.contains("WARN");
    assert!(output.lines.iter().any(warned), "{:?}", output.lines);

    let mut inside = Vec::new();
    for _ in 0..ROOM {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&http::upgrade_request("", "")).await.unwrap();
        // Once it is answered it has been let in.
        stream.read_exact(&mut [0; 12]).await.unwrap();
        inside.push(stream);
    }
    for _ in 0..100 {
        let answer = http::exchange(address, &http::upgrade_request("", "")).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    drop(inside);
    assert!(gateway.terminate(output, async {}).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_closes_the_sessions_with_3001_and_ends_the_program_with_success() {
    let (gateway, output, address) = Gateway::start(OTHERS + 100).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut hello = http::upgrade_request("", "");
        hello.extend(frame::masked(frame::TEXT, b"{\"id\":1,\"connect\":{}}"));
        stream.write_all(&hello).await.unwrap();
        streams.push(stream);
    }
    let mut first = [0; 4];
    for stream in &mut streams {
        within("an answer", tokio::io::AsyncReadExt::read_exact(stream, &mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP");
    }
    let closed = async {
        for stream in &mut streams {
            let received = http::read_to_end(stream).await;
            assert!(received.ends_with(b"\x88\x0a\x0b\xb9shutdown"), "{:?}", String::from_utf8_lossy(&received));
        }
        streams.clear();
    };
    assert!(gateway.terminate(output, closed).await.success());
}
