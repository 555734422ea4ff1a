//! Several Redis servers that belong together: a [`cluster`], or a master with its replica and its Sentinels
//! ([`sentinel`]). Needs nothing but `redis-server` and `redis-cli`, so that the gateway's tests use it too.

pub mod cluster;
pub mod sentinel;

use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A server with a directory of its own. Ends with the value, and the directory goes.
pub struct Process {
    pub port: u16,
    directory: PathBuf,
    is_sentinel: bool,
    /// For `redis-cli`, where one is asked for.
    pub password: Option<&'static str>,
    child: Option<Child>,
}

impl Process {
    /// Starts a server on a free port with these lines of configuration.
    pub fn start(lines: &str) -> Self {
        Self::start_as(lines, false)
    }

    /// Starts a Sentinel.
    pub fn start_sentinel(lines: &str) -> Self {
        Self::start_as(lines, true)
    }

    fn start_as(lines: &str, is_sentinel: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-redis-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (port, directory) = (free_port(), std::env::temp_dir().join(name));
        fs::create_dir_all(&directory).unwrap();
        let text = format!("port {port}\nbind 127.0.0.1\ndir {}\n{lines}", directory.display());
        fs::write(directory.join("redis.conf"), text).unwrap();
        let mut process = Self { port, directory, is_sentinel, password: None, child: None };
        process.restart();
        process
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, where it must not run.
    pub fn restart(&mut self) {
        assert!(self.child.is_none());
        let child = Command::new(program())
            .arg(self.directory.join("redis.conf"))
            .args(self.is_sentinel.then_some("--sentinel"))
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!(
                "redis-server cannot be started ({error}). Install it: `apt-get install redis-server`, or run `./test`"
            )
        }));
        let port = self.port;
        until("it listens", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "redis-server on port {port} has ended: {ended:?}");
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// Ends it without any goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What it answers to a command, each line of which is an element.
    pub fn ask(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(words)
            .envs(self.password.map(|password| ("REDISCLI_AUTH", password)))
            .output()
            .expect("redis-cli comes with redis-server");
        let answer = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        assert!(output.status.success(), "{words:?}: {answer} {}", String::from_utf8_lossy(&output.stderr));
        answer
    }

    /// Sends a signal: with `-STOP` its connections stay and nothing answers, until `-CONT`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// Asks for something that has to be answered with OK.
    pub fn tell(&self, words: &[&str]) {
        let answer = self.ask(words);
        assert_eq!(answer, "OK", "{words:?} on {}", self.port);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The server that is tested: `redis-server`, or what the variable names, such as Valkey's.
pub fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    // Tests run at once and a port is not held until its server has it: each looks from a place of its own.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 90) as u16 * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `holds`.
#[allow(clippy::disallowed_methods, reason = "it looks again and again until a deadline")]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
