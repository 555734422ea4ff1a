//! A Redis Cluster on loopback.

use super::{Process, free_port, until};

/// The number of slots.
const SLOTS: usize = 16_384;

/// The masters come first, then the replicas: `masters + n` follows `n`.
pub struct Cluster {
    pub nodes: Vec<Process>,
}

impl Cluster {
    /// So many masters that share the slots evenly, in their order; with a replica each or without.
    pub fn start(masters: usize, with_replicas: bool) -> Self {
        let count = if with_replicas { 2 * masters } else { masters };
        let mut bus = Vec::new();
        let start = |_| {
            let port = free_port();
            bus.push(port.to_string());
            Process::start(&format!(
                "save \"\"\ncluster-enabled yes\ncluster-port {port}\ncluster-node-timeout 1000\n\
                 cluster-replica-validity-factor 0\nrepl-diskless-sync-delay 0\n"
            ))
        };
        let nodes: Vec<Process> = (0..count).map(start).collect();
        let cluster = Self { nodes };
        for (number, node) in cluster.nodes.iter().enumerate() {
            node.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            let other = &cluster.nodes[0];
            node.tell(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), &bus[0]]);
            if number < masters {
                let (first, last) = (SLOTS * number / masters, SLOTS * (number + 1) / masters - 1);
                node.tell(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
        }
        cluster.wait_until_all_agree(count, masters);
        for replica in masters..count {
            let master = cluster.id(replica - masters);
            let node = &cluster.nodes[replica];
            node.tell(&["CLUSTER", "REPLICATE", &master]);
            until("the replica has its master's data", || {
                node.ask(&["INFO", "replication"]).contains("link_status:up")
            });
        }
        cluster
    }

    fn wait_until_all_agree(&self, count: usize, masters: usize) {
        until("the cluster is whole", || {
            self.nodes.iter().all(|node| {
                let info = node.ask(&["CLUSTER", "INFO"]);
                let has = |line: String| info.lines().any(|other| other.trim() == line);
                has("cluster_state:ok".to_owned())
                    && has(format!("cluster_known_nodes:{count}"))
                    && has(format!("cluster_size:{masters}"))
            })
        });
    }

    /// The addresses of all nodes.
    pub fn seeds(&self) -> Vec<String> {
        self.nodes.iter().map(Process::address).collect()
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"])
    }

    /// The slot of a key or a channel.
    pub fn slot(&self, name: &str) -> u16 {
        self.nodes[0].ask(&["CLUSTER", "KEYSLOT", name]).parse().unwrap()
    }

    /// The master of a slot in the first order of things.
    pub fn first_master(&self, slot: u16, masters: usize) -> usize {
        (0..masters).find(|number| usize::from(slot) < SLOTS * (number + 1) / masters).unwrap()
    }

    /// Begins to move a slot: from now on commands about keys that are not there are sent on.
    pub fn open(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self.nodes[to].tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        self.nodes[from].tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
    }

    /// Moves up to so many keys of a slot. Answers how many there were.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize, most: usize) -> usize {
        let keys = self.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most.to_string()]);
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        if !keys.is_empty() {
            let port = self.nodes[to].port.to_string();
            let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            self.nodes[from].tell(&[&words[..], &keys].concat());
        }
        keys.len()
    }

    /// Says to every master that a slot has moved, to its new one first and to its old one last but for the others.
    pub fn close(&self, slot: u16, from: usize, to: usize, masters: usize) {
        let (slot, id) = (slot.to_string(), self.id(to));
        let others = (0..masters).filter(|node| *node != from && *node != to);
        for node in [to, from].into_iter().chain(others) {
            self.nodes[node].tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }

    /// Moves a slot with its keys, as `redis-cli --cluster reshard` does.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize, masters: usize) {
        self.open(slot, from, to);
        while self.move_keys(slot, from, to, 100) > 0 {}
        self.close(slot, from, to, masters);
    }
    /// Has Redis' own tool move so many slots.
    pub fn reshard(&self, from: usize, to: usize, slots: usize) {
        let (address, from, to, slots) = (self.nodes[0].address(), self.id(from), self.id(to), slots.to_string());
        let words = ["--cluster", "reshard", &address, "--cluster-from", &from, "--cluster-to", &to];
        let answer = self.nodes[0].ask(&[&words[..], &["--cluster-slots", &slots, "--cluster-yes"]].concat());
        assert!(!answer.contains("ERR"), "{answer}");
    }
}
