//! The program `tidegate` as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;

use super::http::{Answer, Metrics, get, post};
use super::{Directory, eventually};

/// The key of every node that a test starts.
pub const API_KEY: &str = "the-key-of-the-tests";

/// Free ports of loopback.
const ANYWHERE: [&str; 3] = ["127.0.0.1:0"; 3];

/// The lines that a process has printed so far.
type Lines = Arc<Mutex<Vec<String>>>;

/// The command `tidegate` with nothing in its environment that could set anything, in a directory of its own.
pub fn command(directory: &Directory) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear().current_dir(&directory.0).stdin(Stdio::null());
    command
}

/// How a node is to be started: with `--dev`, on free ports.
pub struct Setup {
    /// Files that grow beyond [`Node::limit_files`] are an error of the write, and do not end the process.
    survives_file_limit: bool,
    arguments: Vec<String>,
    settings: String,
    directory: Directory,
}

impl Setup {
    pub fn new() -> Self {
        Self::without_key().with(&["--api-key", API_KEY])
    }

    /// With the key that `--dev` makes up.
    pub fn without_key() -> Self {
        let (arguments, settings) = (vec!["--dev".into()], String::new());
        let setup = Self { survives_file_limit: false, arguments, settings, directory: Directory::new() };
        setup.with(&["--shards", "2"])
    }

    /// With further arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// With this Redis.
    pub fn redis(self, url: &str) -> Self {
        self.with(&["--redis", url])
    }

    /// With further settings, as TOML.
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self
    }

    /// So that [`Node::limit_files`] can be used.
    pub fn survives_file_limit(self) -> Self {
        Self { survives_file_limit: true, ..self }
    }

    /// The node's directory, for files that its settings name.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Starts the node on free ports, and waits until all is well.
    pub fn start(self) -> Node {
        self.start_at(ANYWHERE)
    }

    /// Starts the node: where it listens for HTTP, raw TCP, operators.
    pub fn start_at(self, listen: [&str; 3]) -> Node {
        let node = self.launch(listen);
        eventually("the node is ready, and nothing is wrong", || {
            let (status, report) = node.ready();
            (status == 200 && report["status"] == "ok").then_some(())
        });
        node
    }

    /// Starts the node on free ports, in whatever state it then is.
    pub fn start_anyhow(self) -> Node {
        self.launch(ANYWHERE)
    }

    fn launch(self, listen: [&str; 3]) -> Node {
        let Self { survives_file_limit, arguments, settings, directory } = self;
        let file = directory.write("settings.toml", &settings);
        let flags = ["--listen", listen[0], "--tcp-listen", listen[1], "--operator-listen", listen[2]];
        let mut command = command(&directory);
        if survives_file_limit {
            // The signal that the kernel sends otherwise is ignored across the exec.
            let shell = Command::new("/bin/sh");
            let node = std::mem::replace(&mut command, shell);
            command.env_clear().current_dir(&directory.0).stdin(Stdio::null());
            command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(node.get_program());
        }
        let mut child = command
            .arg("--config")
            .arg(file)
            .args(&arguments)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::default();
        let readers = vec![collect(child.stdout.take().unwrap(), &log), collect(child.stderr.take().unwrap(), &log)];
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node { child, log, readers, http: nowhere, tcp: nowhere, operator: nowhere, directory };
        let started = eventually("the node has started", || {
            let ended = node.child.try_wait().unwrap();
            assert!(ended.is_none(), "the node has ended: {ended:?}");
            node.logged("started")
        });
        let address = |name: &str| started[name].as_str().and_then(|text| text.parse().ok());
        node.http = address("http").unwrap_or_else(|| panic!("no address in {started}"));
        node.tcp = address("tcp").unwrap_or_else(|| panic!("no address in {started}"));
        node.operator = address("operators").unwrap_or_else(|| panic!("no address in {started}"));
        node
    }
}

fn collect(from: impl Read + Send + 'static, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            lines.lock().unwrap().push(line);
        }
    })
}

/// A running node. Ends with the value; its log is shown where the test has failed.
pub struct Node {
    child: Child,
    log: Lines,
    /// Those who read its log, until its end.
    readers: Vec<JoinHandle<()>>,
    /// Where clients connect over HTTP.
    pub http: SocketAddr,
    /// Where clients connect over raw TCP.
    pub tcp: SocketAddr,
    /// The operators' port.
    pub operator: SocketAddr,
    /// Where it runs.
    pub directory: Directory,
}

impl Node {
    /// What it has printed so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The first entry of its log with this message.
    pub fn logged(&self, message: &str) -> Option<Value> {
        self.all_logged(message).into_iter().next()
    }

    /// The entries of its log with this message.
    pub fn all_logged(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        let entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["message"].as_str().is_some_and(|text| text.contains(message))).collect()
    }

    /// Asks whether it is ready: status and report.
    pub fn ready(&self) -> (u16, Value) {
        let Answer { status, body, .. } = get(self.operator, "/health/ready");
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Waits until one of the checks of readiness has this status, and gives the answer's status and the check's words.
    pub fn wait_for_check(&self, limit: Duration, name: &str, status: &str) -> (u16, String) {
        super::within(limit, &format!("the check {name} says {status}"), || {
            let (http, report) = self.ready();
            let check = report["checks"].as_array()?.iter().find(|check| check["name"] == name)?.clone();
            (check["status"] == status).then(|| (http, check["detail"].as_str().unwrap_or_default().to_owned()))
        })
    }

    /// The metrics now.
    pub fn metrics(&self) -> Metrics {
        Metrics::read(self.operator)
    }

    /// Calls the server API with the key.
    pub fn api(&self, method: &str, body: &str) -> Value {
        let answer = self.api_with(method, body, Some(API_KEY));
        assert_eq!(answer.status, 200, "{method} {body:.200}: {}", String::from_utf8_lossy(&answer.body));
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Calls the server API with any key or none.
    pub fn api_with(&self, method: &str, body: &str, key: Option<&str>) -> Answer {
        let header = key.map(|key| ("X-API-Key", key));
        post(self.http, &format!("/api/{method}"), header.as_slice(), body.as_bytes())
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Lets no file of the process grow beyond so many bytes; `None`: any size. A full disk looks the same to it, but
    /// for the number of the error.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).unwrap();
    }

    /// Waits for the process to end, and for the last line of its log.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let status = super::within(limit, "the node has ended", || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(100);
            eprintln!("the log of the node on {}:\n{}", self.http, log[from..].join("\n"));
        }
    }
}
