//! Keeps the [`Topology`] up to date: asks Sentinels for their master, or a cluster for its masters.
//!
//! One task asks again and again, at once when somebody has met something that speaks against what is known (a lost
//! connection, a redirection), and now and then without a reason, since a server may be replaced without a word.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::client::ask;
use super::health::Health;
use super::settings::{Endpoint, RedisSettings};
use super::topology::{Layout, SLOTS, SlotRange, Topology};
use crate::stats::{BrokerStats, add};

/// The shortest time between two looks that somebody asked for. It doubles while they go on asking.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest such time.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Whom to ask.
#[derive(Debug)]
pub(crate) enum Source {
    /// These nodes of a cluster, beside those that are known already.
    Cluster(Vec<Endpoint>),
    /// These Sentinels, for the master of this name, where we are who `login` says.
    Sentinel { sentinels: Vec<Endpoint>, master: String, login: Endpoint },
}

/// What asks.
#[derive(Debug)]
pub(crate) struct Discovery {
    pub(crate) settings: Arc<RedisSettings>,
    pub(crate) source: Source,
    pub(crate) topology: Arc<Topology>,
    pub(crate) health: Arc<Health>,
    pub(crate) stats: Arc<BrokerStats>,
}

/// What a look has found.
struct Found {
    layout: Layout,
    /// Who told it, and is asked first next time: another one might know less.
    by: Endpoint,
    /// How many slots of a cluster it does not know a master of. Many where a node has left the cluster.
    unknown: usize,
    /// What is wrong with it, for a person.
    flaw: Option<String>,
}

impl Discovery {
    /// Runs until told to stop, or until nobody is left who could.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep_looking() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn keep_looking(&self) {
        let RedisSettings { reconnect_first, reconnect_longest, topology_interval, .. } = *self.settings;
        let mut failures = Backoff::new(reconnect_first, reconnect_longest);
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut interval = Backoff::new(topology_interval, topology_interval);
        let (mut last, mut said, mut doubted) = (None, None, false);
        loop {
            let result = self.look(last.as_ref(), doubted).await;
            let trouble = match &result {
                Ok(found) => found.flaw.clone(),
                Err(reason) => Some(reason.clone()),
            };
            if let Some(reason) = trouble.as_ref().filter(|_| said != trouble) {
                tracing::warn!(reason, "the servers of Redis are not all known; looking again");
            }
            said = trouble;
            let pause = match result {
                Ok(found) => {
                    failures.reset();
                    match &found.flaw {
                        Some(flaw) => self.health.degrade(flaw),
                        None => self.health.restore(),
                    }
                    last = Some(found.by);
                    self.take(found.layout);
                    pauses.next()
                }
                Err(reason) => {
                    // Connections to known servers tell by themselves whether those are there.
                    if self.topology.layout().any().is_none() {
                        self.health.degrade(&reason);
                    }
                    self.topology.looked(None);
                    failures.next()
                }
            };
            sleep(pause).await;
            doubted = tokio::select! {
                () = self.topology.wanted() => true,
                () = sleep(interval.next()) => {
                    pauses.reset();
                    false
                }
            };
        }
    }

    /// Shares a layout, if it is another one.
    fn take(&self, layout: Layout) {
        let before = self.topology.layout();
        if *before == layout {
            return self.topology.looked(None);
        }
        let moved = layout.moved_since(&before);
        add(&self.stats.slots_moved, moved as u64);
        let servers: Vec<String> = layout.servers().map(Endpoint::to_string).collect();
        tracing::info!(servers = servers.join(", "), slots_moved = moved, "the servers of Redis are these now");
        self.topology.looked(Some(layout));
    }

    /// Asks one server after the other until one knows of all slots, beginning with the `last` that did; `doubted`:
    /// with the one behind it, because something speaks against what it said.
    async fn look(&self, last: Option<&Endpoint>, doubted: bool) -> Result<Found, String> {
        let layout = self.topology.layout();
        let (known, given) = match &self.source {
            Source::Cluster(seeds) => (layout.servers().cloned().collect(), seeds),
            Source::Sentinel { sentinels, .. } => (Vec::new(), sentinels),
        };
        let mut servers: Vec<&Endpoint> = Vec::new();
        for server in known.iter().chain(given) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        if let Some(at) = last.and_then(|last| servers.iter().position(|server| *server == last)) {
            let first = (at + usize::from(doubted)) % servers.len();
            servers.rotate_left(first);
        }
        let (mut best, mut failures) = (None::<Found>, Vec::new());
        for server in servers {
            let found = match &self.source {
                Source::Cluster(_) => self.ask_node(server, &layout).await,
                Source::Sentinel { master, login, .. } => self.ask_sentinel(server, master, login).await,
            };
            match found {
                Ok(found) if found.unknown == 0 => return Ok(found),
                Ok(found) if best.as_ref().is_some_and(|best| best.unknown <= found.unknown) => {}
                Ok(found) => best = Some(found),
                Err(reason) => failures.push(format!("{server}: {reason}")),
            }
        }
        best.ok_or_else(|| failures.join("; "))
    }

    async fn ask(&self, server: &Endpoint, name: &'static str, words: &[&str]) -> Result<Value, String> {
        let answer = ask(server, &self.settings, name, words, self.settings.connect_timeout).await;
        answer.map_err(|error| error.details().to_owned())
    }

    async fn ask_node(&self, node: &Endpoint, layout: &Layout) -> Result<Found, String> {
        let ranges = slot_ranges(&self.ask(node, "CLUSTER", &["SLOTS"]).await?, node)?;
        let covered: usize = ranges.iter().map(|range| usize::from(range.last.saturating_sub(range.first)) + 1).sum();
        let (layout, without) = layout.with_ranges(&ranges);
        let flaw = match layout.uncovered() {
            _ if without > 0 => {
                let limit = layout.lanes();
                Some(format!("{without} masters of the cluster are beyond engine.redis.cluster_max_masters = {limit}"))
            }
            0 => None,
            uncovered => Some(format!("{uncovered} of the cluster's {SLOTS} slots have no master")),
        };
        Ok(Found { layout, by: node.clone(), unknown: SLOTS.saturating_sub(covered), flaw })
    }

    async fn ask_sentinel(&self, sentinel: &Endpoint, name: &str, login: &Endpoint) -> Result<Found, String> {
        let answer = self.ask(sentinel, "SENTINEL", &["GET-MASTER-ADDR-BY-NAME", name]).await?;
        let master = master_address(answer, login).ok_or_else(|| format!("it watches no master {name}"))?;
        // For a moment a Sentinel may name one that is no master any more, or not yet. Where the master does not
        // answer, those who connect to it tell why.
        if let Ok(role) = self.ask(&master, "ROLE", &[]).await
            && list(&role).and_then(|role| role.first()).and_then(Value::as_str).is_none_or(|role| role != "master")
        {
            return Err(format!("it names {master}, which is no master"));
        }
        Ok(Found { layout: Layout::single(Some(master)), by: sentinel.clone(), unknown: 0, flaw: None })
    }
}

fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// Reads the answer to CLUSTER SLOTS: ranges of slots, each with its master and then its replicas.
/// (<https://redis.io/docs/latest/commands/cluster-slots/>)
fn slot_ranges(answer: &Value, asked: &Endpoint) -> Result<Vec<SlotRange>, String> {
    let ranges = list(answer).ok_or("CLUSTER SLOTS was not answered by a list")?;
    let mut read = Vec::with_capacity(ranges.len());
    for range in ranges {
        let part = |at: usize| list(range).and_then(|parts| parts.get(at));
        let slot = |at: usize| part(at).and_then(Value::as_u64).and_then(|slot| u16::try_from(slot).ok());
        let node = |at: usize| part(2).and_then(list).and_then(|node| node.get(at));
        let port = node(1).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        let (Some(first), Some(last), Some(port)) = (slot(0), slot(1), port) else {
            return Err("CLUSTER SLOTS was answered by something else than slots".to_owned());
        };
        // A node that does not know its own name leaves it out: it is the one that was asked.
        let host = node(0).and_then(Value::as_str).filter(|host| !host.is_empty() && *host != "?");
        let host = host.map_or_else(|| asked.host.clone(), |host| host.to_string());
        read.push(SlotRange { first, last, master: asked.at(host, port) });
    }
    Ok(read)
}

/// Reads the answer to SENTINEL GET-MASTER-ADDR-BY-NAME: a host and a port, or nothing.
fn master_address(answer: Value, login: &Endpoint) -> Option<Endpoint> {
    let mut parts = answer.into_array().into_iter();
    let host = parts.next()?.into_string()?;
    let port = parts.next()?.into_string()?.parse().ok()?;
    Some(login.at(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Endpoint {
        let user = Some("me".to_owned());
        Endpoint { host: "seed".to_owned(), port: 7000, user, password: None, db: None }
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Integer(port), Value::from("id")])
    }

    #[test]
    fn slots_are_read_with_their_masters_and_a_node_without_a_name_is_the_one_asked() {
        let range = |first: i64, last: i64, master: Value, replica: Value| {
            Value::Array(vec![Value::Integer(first), Value::Integer(last), master, replica])
        };
        let answer = Value::Array(vec![
            range(0, 100, node(Value::from("a"), 1), node(Value::from("b"), 2)),
            range(101, 16_383, node(Value::Null, 3), node(Value::from("c"), 4)),
        ]);
        let ranges = slot_ranges(&answer, &asked()).unwrap();
        assert_eq!(ranges[0], SlotRange { first: 0, last: 100, master: asked().at("a".to_owned(), 1) });
        assert_eq!(ranges[1], SlotRange { first: 101, last: 16_383, master: asked().at("seed".to_owned(), 3) });
        assert_eq!(ranges[1].master.user.as_deref(), Some("me"));
    }

    #[test]
    fn answers_that_are_none_are_errors() {
        let strange = Value::Array(vec![Value::Array(vec![Value::Integer(-1), Value::Integer(2)])]);
        for answer in [Value::Null, Value::from("OK"), strange] {
            assert!(slot_ranges(&answer, &asked()).is_err(), "{answer:?}");
        }
        assert_eq!(master_address(Value::Null, &asked()), None);
        let address = Value::Array(vec![Value::from("h"), Value::from("6380")]);
        assert_eq!(master_address(address, &asked()).unwrap().to_string(), "h:6380");
    }
}
