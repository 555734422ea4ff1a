//! A master with a replica, and Sentinels that watch them.

use super::{Process, until};

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
        let lines = "save \"\"\nrepl-diskless-sync-delay 0\n";
        let master = Process::start(lines);
        let port = master.port;
        let replica = Process::start(&format!("{lines}replicaof 127.0.0.1 {port}\n"));
        until("the replica follows", || replica.ask(&["INFO", "replication"]).contains("master_link_status:up"));
        let watched = Self { servers: vec![master, replica], sentinels: (0..3).map(|_| sentinel(port)).collect() };
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
fn sentinel(master: u16) -> Process {
    Process::start_sentinel(&format!(
        "sentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {NAME} 500\n\
         sentinel failover-timeout {NAME} 3000\nsentinel parallel-syncs {NAME} 1\n"
    ))
}
