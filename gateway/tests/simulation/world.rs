//! Whole shards and an embedded broker with virtual clients, driven by a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use tidegate::admission::{Admission, Caps};
use tidegate::config::{ChannelOptions, Config, Namespace, QueuePolicy};
use tidegate::hub::stream::Reason;
use tidegate::node::resolve;
use tidegate::origin::Origins;
use tidegate::session::settings::ChannelRules;
use tidegate::shard::entropy::Entropy;
use tidegate::shard::inbox::{Inbox, Message};
use tidegate::shard::stats::ShardStats;
use tidegate::shard::{Call, Setup, Shard};
use tidegate_broadcaster::{Broker, EmbeddedBroker, Event, Inboxes, Publication, PublishRequest, PushKind, ShardInbox};

use crate::client::{Client, Lost, Promise, number_of, promise};
use crate::random::Random;
use crate::socket::{Virtual, Wire};

const SHARDS: usize = 2;
/// Clients of most seeds: few, so that there can be many seeds.
const FEW: usize = 40;
/// Clients of the others, and which those are.
const MANY: usize = 2000;
const MANY_EVERY: u64 = 50;
const STEPS: usize = 400;
const PLENTY: usize = 1 << 40;

/// Turns in which nobody does anything, so that positions have been compared (every two seconds; a turn takes 75 ms, by and large).
const LEAST_ROUNDS: usize = 80;
const MOST_ROUNDS: usize = 20_000;

/// A channel that knows who is in it, and tells who comes and goes.
const ROOM: &str = "room:1";

const CHANNELS: [&str; 10] =
    ["plain-1", "plain-2", "kept:1", "kept:2", "kept:3", "short:1", "latest:1", "latest:2", "oldest:1", ROOM];

/// What all payloads have in common.
const TEXT: &str = "what all of them have in common, so that a delta is short";

/// An inbox on whose way publications get lost, or take their time: a history that was read meanwhile has them already.
struct Lossy {
    inbox: Arc<Inbox<Virtual>>,
    losses: Arc<Mutex<Losses>>,
}

struct Losses {
    random: Random,
    /// Publications in a thousand.
    share: usize,
    lost: Lost,
    /// What is on its way, in order, with the turns that it takes.
    under_way: VecDeque<(usize, Event)>,
}

impl Losses {
    /// What has arrived by the next turn.
    fn arrived(&mut self, all: bool) -> Vec<Event> {
        let mut arrived = Vec::new();
        while let Some((turns, event)) = self.under_way.pop_front() {
            if turns > 0 && !all {
                self.under_way.push_front((turns - 1, event));
                break;
            }
            arrived.push(event);
        }
        arrived
    }
}

impl ShardInbox for Lossy {
    fn push(&self, event: Event) {
        let event = match event {
            Event::Publications(publications) => {
                let losses = &mut *self.losses.lock().unwrap();
                let kept = publications.into_iter().filter(|publication| {
                    // Nothing would reveal a lost one of the others: what is checked is that a node tells them all.
                    let lost = publication.kind == PushKind::Publication && losses.random.permille(losses.share);
                    if lost && let Some(number) = number_of(&publication.payload.data) {
                        losses.lost.entry(publication.channel.to_string()).or_default().insert(number);
                    }
                    !lost
                });
                // Between channels there is no order. Those without positions have to come while they are subscribed: that is
                // what a broker's connection sees to.
                let recovers = |publication: &Arc<Publication>| promise(&publication.channel) == Promise::Recovers;
                let (late, prompt): (Vec<_>, Vec<_>) = kept.partition(recovers);
                let turns = if losses.random.permille(200) { 1 + losses.random.below(4) } else { 0 };
                losses.under_way.push_back((turns, Event::Publications(late)));
                Event::Publications(prompt)
            }
            other => other,
        };
        self.inbox.push(event);
    }

    fn has_room(&self) -> bool {
        self.inbox.has_room()
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inbox.room()
    }
}

struct Node {
    shard: Shard<Virtual>,
    inbox: Arc<Inbox<Virtual>>,
    stats: Arc<ShardStats>,
    losses: Arc<Mutex<Losses>>,
    /// The broker's answers that are on their way, with the step in which they come.
    calls: Vec<(usize, Call<Virtual>)>,
    /// The shard has something left to do.
    has_more: bool,
}

impl Node {
    /// Whether nothing is left to do or on its way.
    fn rests(&self) -> bool {
        let under_way = !self.losses.lock().unwrap().under_way.is_empty();
        !self.has_more && !under_way && self.calls.is_empty() && self.inbox.is_empty() && self.stats.pending.get() == 0
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) published: u64,
    pub(crate) received: u64,
    pub(crate) recovered: u64,
    pub(crate) lost: u64,
    pub(crate) insufficient: u64,
    pub(crate) conflated: u64,
    pub(crate) dropped: u64,
    /// Times at which clients were told that one has come or gone.
    pub(crate) told: u64,
}

impl Summary {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            published: self.published + other.published,
            received: self.received + other.received,
            recovered: self.recovered + other.recovered,
            lost: self.lost + other.lost,
            insufficient: self.insufficient + other.insufficient,
            conflated: self.conflated + other.conflated,
            dropped: self.dropped + other.dropped,
            told: self.told + other.told,
        }
    }
}

pub(crate) struct World {
    random: Random,
    nodes: Vec<Node>,
    broker: Arc<EmbeddedBroker>,
    admission: Arc<Admission>,
    rules: ChannelRules,
    clients: Vec<Client>,
    published: BTreeMap<&'static str, u64>,
    now: Instant,
    step: usize,
    /// Everything is let through, and nothing new happens.
    calm: bool,
}

fn config() -> Config {
    let mut config = Config::default();
    config.client.allow_anonymous_connect_without_token = true;
    config.client.queue_max_size = 4096;
    config.client.channel_position_check_delay = Duration::from_secs(2);
    let open = ChannelOptions {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        ..ChannelOptions::default()
    };
    let keeps = |history_size| ChannelOptions {
        history_size,
        history_ttl: Duration::from_secs(86_400),
        force_recovery: true,
        allowed_delta_types: vec!["fossil".to_owned()],
        delta_publish: true,
        ..open.clone()
    };
    let thins = |queue_policy| ChannelOptions { queue_policy, ..open.clone() };
    let room = ChannelOptions { presence: true, join_leave: true, force_push_join_leave: true, ..open.clone() };
    let options = [
        ("kept", keeps(100_000)),
        ("short", keeps(5)),
        ("latest", thins(QueuePolicy::Latest)),
        ("oldest", thins(QueuePolicy::DropOldest)),
        ("room", room),
    ];
    let namespace = |(name, options): (&str, _)| Namespace { name: name.to_owned(), options };
    config.channel.namespaces = options.map(namespace).into();
    config.channel.without_namespace = open;
    config
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let clients = if seed.is_multiple_of(MANY_EVERY) { MANY } else { FEW };
        let config = config();
        let now = Instant::now();
        let lossy: Vec<Lossy> = (0..SHARDS as u64)
            .map(|shard| {
                let losses = Losses {
                    random: Random::new(seed ^ (shard + 1)),
                    share: 10,
                    lost: Lost::new(),
                    under_way: VecDeque::new(),
                };
                Lossy { inbox: Arc::new(Inbox::new(1 << 20)), losses: Arc::new(Mutex::new(losses)) }
            })
            .collect();
        let own: Vec<_> = lossy.iter().map(|lossy| (Arc::clone(&lossy.inbox), Arc::clone(&lossy.losses))).collect();
        let inboxes: Inboxes = lossy.into_iter().map(|lossy| Arc::new(lossy) as Arc<dyn ShardInbox>).collect();
        let broker = Arc::new(EmbeddedBroker::new(inboxes));
        let nodes = (0..).zip(own).map(|(id, (inbox, losses))| {
            let stats = Arc::new(ShardStats::default());
            let setup = Setup {
                id,
                settings: Arc::new(resolve::settings(&config)),
                websocket_path: None,
                origins: Arc::new(Origins::default()),
                flush_interval: Duration::ZERO,
                start: now,
                start_unix_ms: 0,
            };
            let mut random = Random::new(seed ^ 0xffff ^ u64::from(id));
            let entropy = Entropy::new(move |bytes| bytes.iter_mut().for_each(|byte| *byte = random.next() as u8));
            let broker = Arc::clone(&broker) as Arc<dyn Broker>;
            let shard = Shard::new(setup, broker, Arc::clone(&inbox), Arc::clone(&stats), entropy);
            Node { shard, inbox, stats, losses, calls: Vec::new(), has_more: false }
        });
        let nodes = nodes.collect();
        let caps = Caps { connections: 100_000, per_address: 0, rate: 0, handshakes: 0 };
        Self {
            random: Random::new(seed),
            nodes,
            broker,
            admission: Arc::new(Admission::new(caps, SHARDS, Arc::default(), now)),
            rules: ChannelRules(config.channel),
            clients: (0..clients).map(|number| Client::new(number % SHARDS)).collect(),
            published: BTreeMap::new(),
            now,
            step: 0,
            calm: false,
        }
    }

    /// Runs it all; what a checker found is the error.
    pub(crate) fn run(mut self) -> Result<Summary, String> {
        while self.step < STEPS {
            self.act();
            self.turn()?;
        }
        self.settle()?;
        Ok(self.summary())
    }

    /// Something happens: publications, and something that a client does, for every forty of them.
    fn act(&mut self) {
        for _ in 0..self.random.below(4) {
            if self.random.permille(400) {
                let channel = *self.random.pick(&CHANNELS);
                let count = if self.random.permille(100) { 30 } else { 1 + self.random.below(3) };
                (0..count).for_each(|_| self.publish(channel));
            }
            for _ in 0..self.clients.len() / FEW {
                self.act_as_client();
            }
        }
        for client in 0..self.clients.len() {
            if !self.clients[client].is_open() && self.random.permille(200) {
                self.open(client);
            }
        }
    }

    fn act_as_client(&mut self) {
        let (number, channel) = (self.random.below(self.clients.len()), *self.random.pick(&CHANNELS));
        let delta = self.random.permille(500);
        let client = &mut self.clients[number];
        match self.random.below(100) {
            0..30 => client.subscribe(channel, delta),
            30..35 => client.unsubscribe(channel),
            35..45 => client.stalled ^= true,
            45..52 => client.close(),
            _ => {}
        }
    }

    fn open(&mut self, client: usize) {
        let shard = self.clients[client].shard;
        let Ok(permit) = self.admission.admit([127, 0, 0, 1].into(), shard as u8, self.now) else { return };
        let wire = Arc::new(Mutex::new(Wire { room: PLENTY, ..Wire::default() }));
        let socket = Virtual(Arc::clone(&wire));
        self.nodes[shard].inbox.send(Message::Accepted { socket, permit, raw: true });
        self.clients[client].open(wire);
    }

    fn publish(&mut self, channel: &'static str) {
        let number = self.published.entry(channel).or_default();
        *number += 1;
        let request = PublishRequest {
            channel: channel.into(),
            data: Bytes::from(format!("{number} {TEXT}")),
            retention: self.rules.retention(channel),
            delta: true,
            ..PublishRequest::default()
        };
        drop(self.broker.publish(request));
    }

    /// A turn of every shard, and the clients read what they can.
    fn turn(&mut self) -> Result<(), String> {
        self.step += 1;
        self.now += Duration::from_millis(self.random.below(150) as u64);
        for client in &mut self.clients {
            let Some(wire) = &client.wire else { continue };
            let mut wire = wire.lock().unwrap();
            wire.room = match (self.calm, client.stalled) {
                (false, true) => 0,
                // A few bytes at a time, so that messages are torn.
                (false, false) if self.random.permille(100) => self.random.below(200),
                _ => PLENTY,
            };
        }
        for node in 0..SHARDS {
            self.turn_of(node)?;
        }
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            if client.stalled && !self.calm {
                continue;
            }
            let losses = self.nodes[client.shard].losses.lock().unwrap();
            client.read(&losses.lost).map_err(|error| format!("step {}, client {number}: {error}", self.step))?;
            drop(losses);
            // The shard has let go of the socket.
            if client.key.is_some() && client.wire.as_ref().is_some_and(|wire| Arc::strong_count(wire) == 1) {
                client.close();
            }
        }
        Ok(())
    }

    fn turn_of(&mut self, number: usize) -> Result<(), String> {
        let node = &mut self.nodes[number];
        node.shard.begin(self.now);
        for key in node.shard.tasks.rewatch.split_off(0) {
            let Some(connection) = node.shard.connection(key) else { continue };
            connection.watched = connection.wanted();
            let wire = Arc::clone(&connection.socket.0);
            let same = |client: &&mut Client| client.wire.as_ref().is_some_and(|own| Arc::ptr_eq(own, &wire));
            if let Some(client) = self.clients.iter_mut().find(same) {
                client.key = Some(key);
            }
        }
        // Those whose client has closed them belong to nobody any more, so the shard itself says which it has.
        for key in node.shard.keys() {
            let Some(connection) = node.shard.connection(key) else { continue };
            let watched = connection.watched;
            let (input, output, gone) = {
                let wire = connection.socket.0.lock().unwrap();
                (!wire.to_shard.is_empty() || wire.closed, wire.room > 0, wire.closed)
            };
            let (input, output) = (input && watched.input, output && watched.output);
            if input || output || gone {
                node.shard.ready(key, input, output, gone);
            }
        }
        let arrived = node.losses.lock().unwrap().arrived(self.calm);
        arrived.into_iter().for_each(|event| node.inbox.push(event));
        for message in node.inbox.take(Vec::new()) {
            node.shard.receive(message);
        }
        node.has_more = node.shard.finish();
        node.shard.end(self.now);
        for call in std::mem::take(&mut node.shard.tasks.calls) {
            let delay = if self.calm { 0 } else { self.random.below(8) };
            node.calls.push((self.step + delay, call));
        }
        let (due, later) = std::mem::take(&mut node.calls).into_iter().partition(|(step, _)| *step <= self.step);
        node.calls = later;
        let due: Vec<(usize, Call<Virtual>)> = due;
        for (_, call) in due {
            let Some(message) = call.now_or_never() else { return Err("the embedded broker waits".to_owned()) };
            node.inbox.send(message);
        }
        let stats = &node.stats;
        let dropped: u64 = stats.dropped.iter().map(|count| count.get()).sum();
        let sum = stats.delivered.get() + stats.conflated.get() + dropped + stats.pending.get();
        if stats.offered.get() != sum || stats.pending.get() > 1 << 40 {
            return Err(format!("step {}: offered {}, but all together {sum}", self.step, stats.offered.get()));
        }
        let gaps = stats.gaps[Reason::Offset as usize].get();
        let lost: usize = node.losses.lock().unwrap().lost.values().map(BTreeSet::len).sum();
        if gaps > lost as u64 {
            return Err(format!("step {}: {gaps} gaps are told where {lost} publications were lost", self.step));
        }
        Ok(())
    }

    /// Nothing gets lost any more and nobody stalls: in the end everybody has what was promised.
    fn settle(&mut self) -> Result<(), String> {
        self.calm = true;
        self.nodes.iter().for_each(|node| node.losses.lock().unwrap().share = 0);
        self.rest()?;
        // The first shows what is missing in front of it; those who come back for that get the others.
        for _ in 0..2 {
            CHANNELS.iter().for_each(|channel| self.publish(channel));
            self.rest()?;
        }
        for (number, client) in self.clients.iter().enumerate() {
            for (channel, subscription) in client.subscriptions.iter().filter(|(_, subscription)| subscription.wanted) {
                let top = self.published.get(channel.as_str()).copied().unwrap_or(0);
                if !subscription.live || subscription.last != Some(top) {
                    return Err(format!(
                        "client {number}, {channel}: in the end {subscription:?}, where {top} were published"
                    ));
                }
            }
        }
        self.attendance()?;
        for node in &self.nodes {
            let stats = &node.stats;
            let waiting = [stats.pending.get(), stats.queue_bytes.get(), node.inbox.bytes() as u64];
            if waiting != [0; 3] {
                return Err(format!("in the end {waiting:?} wait (deliveries, bytes of queues, bytes of the inbox)"));
            }
        }
        Ok(())
    }

    /// Turns until nothing happens any more: for as long as positions are compared, and no shard has anything left to do.
    fn rest(&mut self) -> Result<(), String> {
        for round in 0..MOST_ROUNDS {
            for client in 0..self.clients.len() {
                self.clients[client].stalled = false;
                if !self.clients[client].is_open() {
                    self.open(client);
                }
            }
            self.turn()?;
            if round > LEAST_ROUNDS && self.nodes.iter().all(Node::rests) {
                return Ok(());
            }
        }
        Err(format!("no rest after {MOST_ROUNDS} turns"))
    }

    /// In the end those are present who are subscribed, and what everybody was told of them agrees with that.
    fn attendance(&self) -> Result<(), String> {
        let answer = self.broker.presence(&ROOM.into(), u32::MAX).now_or_never();
        let Some(Ok(presence)) = answer else { return Err("the embedded broker waits".to_owned()) };
        let present: BTreeSet<&str> = presence.members.iter().map(|info| info.client.as_str()).collect();
        let live = |client: &&Client| client.subscriptions.get(ROOM).is_some_and(|subscription| subscription.live);
        let members: Vec<&Client> = self.clients.iter().filter(live).collect();
        let subscribed: BTreeSet<&str> = members.iter().map(|client| client.name.as_str()).collect();
        if present != subscribed {
            return Err(format!("{present:?} are present, {subscribed:?} are subscribed"));
        }
        for client in members {
            let subscription = &client.subscriptions[ROOM];
            let is_here = |who: &String| present.contains(who.as_str());
            if !subscription.here.contains(&client.name)
                || !subscription.here.iter().all(is_here)
                || subscription.gone.iter().any(is_here)
            {
                return Err(format!("{} was told {subscription:?}, but {present:?} are present", client.name));
            }
        }
        Ok(())
    }

    fn summary(&self) -> Summary {
        let sum = |count: fn(&ShardStats) -> u64| self.nodes.iter().map(|node| count(&node.stats)).sum();
        let lost = |node: &Node| node.losses.lock().unwrap().lost.values().map(|lost| lost.len() as u64).sum::<u64>();
        Summary {
            published: self.published.values().sum(),
            received: self.clients.iter().map(|client| client.received).sum(),
            recovered: self.clients.iter().map(|client| client.recovered).sum(),
            lost: self.nodes.iter().map(lost).sum(),
            insufficient: sum(|stats| stats.insufficient.get()),
            conflated: sum(|stats| stats.conflated.get()),
            dropped: sum(|stats| stats.dropped.iter().map(|count| count.get()).sum()),
            told: self.clients.iter().map(|client| client.told).sum(),
        }
    }
}
