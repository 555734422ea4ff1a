//! Puts a [`RedisBroker`] together and starts its tasks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::RedisBroker;
use super::commands::{Job, Publisher};
use super::connections::{Connections, ShardConnections};
use super::discovery::{Discovery, Source};
use super::health::Health;
use super::held::Held;
use super::pipeline::Pipeline;
use super::presence::PresenceTask;
use super::router::{LaneQueue, Router};
use super::settings::{RedisSettings, SettingsError, Start};
use super::subscriber::{Expiry, Receiver, Subscriber};
use super::topology::{Lane, Layout, Topology};
use crate::dispatch::{Dispatcher, Inboxes};
use crate::interest::{InterestMap, MAX_SHARDS};
use crate::stats::BrokerStats;

impl RedisBroker {
    /// Starts the publishing side on the current tokio runtime, which has to have I/O and time, and answers with the
    /// receiving side of each shard, in their order, which the caller has to run. Redis need not be reachable: the
    /// broker is degraded until it is.
    ///
    /// All of them end with [`RedisBroker::shutdown`], or when the broker is dropped.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn start(mut settings: RedisSettings, inboxes: Inboxes) -> Result<(Arc<Self>, Vec<Receiver>), SettingsError> {
        let start = Start::new(&settings)?;
        settings.sharded &= matches!(start, Start::Cluster(_));
        let settings = Arc::new(settings);
        let (topology, source) = servers(start, &settings);
        let lanes = topology.layout().lanes();
        let interest = Arc::<InterestMap>::default();
        let stats = Arc::<BrokerStats>::default();
        let connections = Arc::new(Connections::new(
            Arc::clone(&interest),
            Arc::clone(&topology),
            settings.prefix.clone(),
            inboxes.len().min(MAX_SHARDS),
            if settings.sharded { lanes } else { 1 },
            settings.grace,
        ));
        let dispatcher = Dispatcher::new(Arc::clone(&interest), inboxes, Arc::clone(&stats));
        let (stop, stopped) = watch::channel(false);
        let parts = Parts { settings, topology, connections, dispatcher, stats };

        let receivers: Vec<Receiver> =
            parts.connections.each().iter().map(|shard| parts.receiver(shard, stopped.clone())).collect();
        let health = |receiver: &Receiver| receiver.subscribers.iter().map(|lane| Arc::clone(&lane.health)).collect();
        let subscribing = receivers.iter().map(health).collect();
        let publishing: Arc<[Arc<Health>]> = (0..lanes).map(|_| Arc::new(Health::connecting())).collect();
        let (publisher, mut tasks) = parts.publishing(&publishing, &stopped);
        let publisher = Arc::new(publisher);
        let (settings, stats) = (Arc::clone(&parts.settings), Arc::clone(&parts.stats));
        let (attendance, presence) = PresenceTask::new(settings, Arc::clone(&publisher), stats);
        tasks.push(tokio::spawn(presence.run()));
        let discovering = Arc::new(Health::connecting());
        match source {
            Some(source) => tasks.extend(parts.discovery(source, &discovering, &stopped)),
            None => discovering.restore(),
        }
        let Parts { settings, topology, connections, dispatcher, stats } = parts;
        let broker = Self {
            settings,
            interest,
            topology,
            connections,
            dispatcher,
            publisher,
            attendance,
            subscribing,
            publishing,
            discovering,
            stats,
            stop,
            tasks: Mutex::new(tasks),
        };
        Ok((Arc::new(broker), receivers))
    }
}

/// What is known of the servers at the start, and whom to ask for more.
fn servers(start: Start, settings: &RedisSettings) -> (Arc<Topology>, Option<Source>) {
    let (topology, source) = match start {
        Start::One(server) => (Topology::fixed(server), None),
        Start::Cluster(seeds) => (Topology::found(Layout::cluster(settings.max_masters)), Some(Source::Cluster(seeds))),
        Start::Sentinel { sentinels, master, login } => {
            (Topology::found(Layout::single(None)), Some(Source::Sentinel { sentinels, master, login }))
        }
    };
    (Arc::new(topology), source)
}

/// What everybody shares.
struct Parts {
    settings: Arc<RedisSettings>,
    topology: Arc<Topology>,
    connections: Arc<Connections>,
    dispatcher: Dispatcher,
    stats: Arc<BrokerStats>,
}

impl Parts {
    /// The receiving side of a shard.
    fn receiver(&self, shard: &ShardConnections, stop: watch::Receiver<bool>) -> Receiver {
        let epoch: Arc<str> = Arc::default();
        let subscriber = |channels: &Arc<_>| Subscriber {
            settings: Arc::clone(&self.settings),
            topology: Arc::clone(&self.topology),
            connections: Arc::clone(&self.connections),
            channels: Arc::clone(channels),
            confirmed: AtomicU64::default(),
            dispatcher: self.dispatcher.clone(),
            stats: Arc::clone(&self.stats),
            health: Arc::new(Health::connecting()),
            epoch: Arc::clone(&epoch),
            warned: Mutex::default(),
            gap: Mutex::default(),
        };
        let expiry = Expiry {
            settings: Arc::clone(&self.settings),
            connections: Arc::clone(&self.connections),
            waits: Arc::clone(&shard.waits),
            dispatcher: self.dispatcher.clone(),
            stats: Arc::clone(&self.stats),
        };
        // Those that have no server yet take themselves out.
        self.stats.connections.fetch_add(shard.lanes.len() as u64, Ordering::Relaxed);
        Receiver { subscribers: shard.lanes.iter().map(subscriber).collect(), expiry, stop }
    }

    /// The publishing side, which runs.
    fn publishing(&self, lanes: &Arc<[Arc<Health>]>, stop: &watch::Receiver<bool>) -> (Publisher, Vec<JoinHandle<()>>) {
        let (topology, stats) = (Arc::clone(&self.topology), Arc::clone(&self.stats));
        let (publisher, queue) = Publisher::new(&self.settings, topology, Arc::clone(lanes), stats);
        let pipeline = |lane: usize, health: &Arc<Health>, queue: mpsc::Receiver<Job>, outcomes| Pipeline {
            settings: Arc::clone(&self.settings),
            topology: Arc::clone(&self.topology),
            lane: lane as Lane,
            queue,
            outcomes,
            health: Arc::clone(health),
            stats: Arc::clone(&self.stats),
        };
        if !self.topology.is_cluster() {
            let only = lanes.first().map(|health| tokio::spawn(pipeline(0, health, queue, None).run(stop.clone())));
            return (publisher, only.into_iter().collect());
        }
        let (stop_lanes, stopped) = watch::channel(false);
        let (told, outcomes) = mpsc::channel(self.settings.max_queued_publishes);
        let mut tasks = Vec::with_capacity(lanes.len() + 1);
        let mut queues = Vec::with_capacity(lanes.len());
        for (lane, health) in lanes.iter().enumerate() {
            let (sender, receiver) = mpsc::channel(self.settings.max_queued_publishes);
            queues.push(LaneQueue { queue: sender, health: Arc::clone(health) });
            tasks.push(tokio::spawn(pipeline(lane, health, receiver, Some(told.clone())).run(stopped.clone())));
        }
        let router = Router {
            settings: Arc::clone(&self.settings),
            topology: Arc::clone(&self.topology),
            queue,
            lanes: queues,
            outcomes,
            held: Held::default(),
            stats: Arc::clone(&self.stats),
            stop_lanes,
        };
        tasks.push(tokio::spawn(router.run(stop.clone())));
        (publisher, tasks)
    }

    /// What keeps the topology, and what brings channels to where they belong then.
    fn discovery(&self, source: Source, health: &Arc<Health>, stop: &watch::Receiver<bool>) -> [JoinHandle<()>; 2] {
        let discovery = Discovery {
            settings: Arc::clone(&self.settings),
            source,
            topology: Arc::clone(&self.topology),
            health: Arc::clone(health),
            stats: Arc::clone(&self.stats),
        };
        let connections = Arc::clone(&self.connections);
        [tokio::spawn(discovery.run(stop.clone())), tokio::spawn(connections.follow(stop.clone()))]
    }
}
