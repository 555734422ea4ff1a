//! A master with a replica, and Sentinels that watch them.

use super::{Process, until};

/// What the servers and the Sentinels ask for, where they ask for passwords.
pub const SERVER_PASSWORD: &str = "of-the-servers";
pub const SENTINEL_PASSWORD: &str = "of-the-sentinels";

/// What the Sentinels call the master.
pub const NAME: &str = "mymaster";

/// The first two are the servers: the master and its replica at the start.
pub struct Watched {
    pub servers: Vec<Process>,
    pub sentinels: Vec<Process>,
}

impl Watched {
    /// A master, a replica and three Sentinels, two of which have to agree.
    pub fn start() -> Self {
        Self::start_with(false)
    }

    /// The same, where servers and Sentinels ask for different passwords.
    pub fn start_with_passwords() -> Self {
        Self::start_with(true)
    }

    fn start_with(passwords: bool) -> Self {
        let mut lines = "save \"\"\nrepl-diskless-sync-delay 0\n".to_owned();
        let mut sentinel_lines = String::new();
        if passwords {
            lines += &format!("requirepass {SERVER_PASSWORD}\nmasterauth {SERVER_PASSWORD}\n");
            sentinel_lines = format!(
                "requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n\
                 sentinel auth-pass {NAME} {SERVER_PASSWORD}\n"
            );
        }
        let server = |lines: &str| {
            let mut server = Process::start(lines);
            server.password = passwords.then_some(SERVER_PASSWORD);
            server
        };
        let master = server(&lines);
        let port = master.port;
        let replica = server(&format!("{lines}replicaof 127.0.0.1 {port}\n"));
        until("the replica follows", || replica.ask(&["INFO", "replication"]).contains("master_link_status:up"));
        let sentinel = |_| {
            let mut sentinel = sentinel(port, &sentinel_lines);
            sentinel.password = passwords.then_some(SENTINEL_PASSWORD);
            sentinel
        };
        let watched = Self { servers: vec![master, replica], sentinels: (0..3).map(sentinel).collect() };
        until("the Sentinels know all", || {
            watched.sentinels.iter().all(|sentinel| {
                let master = sentinel.ask(&["SENTINEL", "MASTER", NAME]);
                let lines: Vec<&str> = master.lines().collect();
                let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
                is("num-slaves", "1") && is("num-other-sentinels", "2") && is("flags", "master")
            })
        });
        watched
    }

    /// The addresses of the Sentinels.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Process::address).collect()
    }

    /// The number of the server that the Sentinels name.
    pub fn master(&self) -> Option<usize> {
        let answer = self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        let port: u16 = answer.lines().nth(1)?.parse().ok()?;
        self.servers.iter().position(|server| server.port == port)
    }
}

/// A Sentinel that notices soon what goes wrong.
fn sentinel(master: u16, lines: &str) -> Process {
    Process::start_sentinel(&format!(
        "sentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {NAME} 500\n\
         sentinel failover-timeout {NAME} 3000\nsentinel parallel-syncs {NAME} 1\n{lines}"
    ))
}
