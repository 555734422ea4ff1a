//! A shard with virtual sockets, an embedded broker and no clock.

use super::*;
use socket::{Virtual, Wire};

/// A raw TCP client: the simplest framing, so that the tests read well.
pub(super) struct Client {
    pub(super) wire: Arc<Mutex<Wire>>,
    pub(super) key: Option<crate::shard::slab::Key>,
}

impl Client {
    pub(super) fn send(&self, command: tidegate_protocol::message::Command) {
        use prost::Message as _;
        self.wire.lock().unwrap().to_shard.extend(command.encode_length_delimited_to_vec());
    }

    pub(super) fn connect(&self) {
        self.send(tidegate_protocol::message::Command {
            id: 1,
            connect: Some(Default::default()),
            ..Default::default()
        });
    }

    pub(super) fn subscribe(&self, channel: &str) {
        let request = tidegate_protocol::message::SubscribeRequest { channel: channel.into(), ..Default::default() };
        self.send(tidegate_protocol::message::Command { id: 2, subscribe: Some(request), ..Default::default() });
    }

    pub(super) fn unsubscribe(&self, channel: &str) {
        let request = tidegate_protocol::message::UnsubscribeRequest { channel: channel.into() };
        self.send(tidegate_protocol::message::Command { id: 3, unsubscribe: Some(request), ..Default::default() });
    }

    /// What has arrived whole: `c` connect, `s` subscribe, `u` unsubscribe, `d3008` a disconnect,
    /// and the data of publications.
    pub(super) fn received(&self) -> Vec<String> {
        use prost::Message as _;
        let wire = self.wire.lock().unwrap();
        let mut rest = &wire.to_client[..];
        let mut all = Vec::new();
        while let Ok(reply) = tidegate_protocol::message::Reply::decode_length_delimited(&mut rest) {
            all.push(match reply {
                reply if reply.connect.is_some() => "c".into(),
                reply if reply.subscribe.is_some() => "s".into(),
                reply if reply.unsubscribe.is_some() => "u".into(),
                reply => match reply.push {
                    Some(push) => match (push.r#pub, push.disconnect) {
                        (Some(publication), _) => String::from_utf8_lossy(&publication.data).into_owned(),
                        (_, Some(disconnect)) => format!("d{}", disconnect.code),
                        _ => "?".into(),
                    },
                    None => "ping".into(),
                },
            });
        }
        all
    }
}

pub(super) struct World {
    pub(super) shard: Shard<Virtual>,
    pub(super) inbox: Arc<Inbox<Virtual>>,
    pub(super) broker: Arc<EmbeddedBroker>,
    pub(super) stats: Arc<ShardStats>,
    pub(super) admission: Arc<Admission>,
    pub(super) rules: ChannelRules,
    pub(super) clients: Vec<Client>,
    /// The broker's answers, while they are to come late.
    pub(super) held: Option<Vec<Call<Virtual>>>,
    pub(super) now: Instant,
}

/// Anonymous clients may subscribe; and what `change` says.
pub(super) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.client.allow_anonymous_connect_without_token = true;
    config.channel.without_namespace = ChannelOptions {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        ..ChannelOptions::default()
    };
    change(&mut config);
    config
}

impl World {
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let config = config(change);
        let now = Instant::now();
        let inbox = Arc::new(Inbox::new(1 << 20));
        let inboxes: Inboxes = Arc::new([Arc::clone(&inbox) as Arc<dyn ShardInbox>]);
        let broker = Arc::new(EmbeddedBroker::new(inboxes));
        let stats = Arc::new(ShardStats::default());
        let setup = Setup {
            id: 0,
            settings: Arc::new(resolve::settings(&config)),
            websocket_path: Some("/connection/websocket".into()),
            origins: Arc::new(Origins::default()),
            flush_interval: config.websocket.flush_interval,
            start: now,
            start_unix_ms: 0,
        };
        let mut seed = 0_u8;
        let entropy = Entropy::new(move |bytes| {
            bytes.iter_mut().for_each(|byte| {
                seed = seed.wrapping_mul(13).wrapping_add(7);
                *byte = seed;
            });
        });
        let shard =
            Shard::new(setup, Arc::clone(&broker) as Arc<dyn Broker>, Arc::clone(&inbox), Arc::clone(&stats), entropy);
        let caps = Caps { connections: 100_000, per_address: 0, rate: 0, handshakes: 0 };
        let admission = Arc::new(Admission::new(caps, 1, Arc::default(), now));
        let rules = ChannelRules(config.channel);
        Self { shard, inbox, broker, stats, admission, rules, clients: Vec::new(), held: None, now }
    }

    /// A connected client whose socket takes `room` bytes, subscribed to these channels.
    pub(super) fn client(&mut self, room: usize, channels: &[&str]) -> usize {
        let wire = Arc::new(Mutex::new(Wire { room, ..Wire::default() }));
        let permit = self.admission.admit([127, 0, 0, 1].into(), 0, self.now).unwrap();
        self.inbox.send(Message::Accepted { socket: Virtual(Arc::clone(&wire)), permit, raw: true });
        self.clients.push(Client { wire, key: None });
        self.turn();
        let client = self.clients.last().unwrap();
        client.connect();
        channels.iter().for_each(|channel| client.subscribe(channel));
        self.turn();
        self.clients.len() - 1
    }

    /// One turn, with news of every socket that has some. Answers whether there is more to do.
    pub(super) fn turn(&mut self) -> bool {
        self.shard.begin(self.now);
        for key in self.shard.tasks.rewatch.split_off(0) {
            let Some(connection) = self.shard.connection(key) else { continue };
            connection.watched = connection.wanted();
            let wire = Arc::clone(&connection.socket.0);
            if let Some(client) = self.clients.iter_mut().find(|client| Arc::ptr_eq(&client.wire, &wire)) {
                client.key = Some(key);
            }
        }
        let keys: Vec<_> = self.clients.iter().filter_map(|client| client.key).collect();
        for key in keys {
            let Some(connection) = self.shard.connection(key) else { continue };
            let watched = connection.watched;
            let (input, output, gone) = {
                let wire = connection.socket.0.lock().unwrap();
                (!wire.to_shard.is_empty() || wire.closed, wire.room > 0, wire.closed)
            };
            let (input, output) = (input && watched.input, output && watched.output);
            if input || output || gone {
                self.shard.ready(key, input, output, gone);
            }
        }
        for message in self.inbox.take(Vec::new()) {
            self.shard.receive(message);
        }
        let more = self.shard.finish();
        self.shard.end(self.now);
        self.check_accounting();
        let calls = std::mem::take(&mut self.shard.tasks.calls);
        let answered = !calls.is_empty() && self.held.is_none();
        match &mut self.held {
            Some(held) => held.extend(calls),
            None => calls.into_iter().for_each(|call| self.answer(call)),
        }
        more || answered || !self.shard.tasks.rewatch.is_empty()
    }

    /// The embedded broker has every answer at once.
    pub(super) fn answer(&self, call: Call<Virtual>) {
        self.inbox.send(call.now_or_never().unwrap());
    }

    /// A turn whose look at the sockets has not come to anybody, as when more of them have news than one look shows.
    pub(super) fn blind_turn(&mut self) {
        self.shard.begin(self.now);
        self.shard.finish();
        self.shard.end(self.now);
    }

    pub(super) fn settle(&mut self) {
        let mut turns = 0;
        while self.turn() {
            turns += 1;
            assert!(turns < 10_000, "the shard comes to rest");
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(100);
            self.turn();
        }
        self.settle();
    }

    pub(super) fn publish(&self, channel: &str, data: &str) {
        self.publish_with(channel, data, Default::default());
    }

    pub(super) fn publish_tagged(&self, channel: &str, tags: BTreeMap<String, String>) {
        self.publish_with(channel, "{}", tags);
    }

    pub(super) fn publish_with(&self, channel: &str, data: &str, tags: BTreeMap<String, String>) {
        let request = PublishRequest {
            channel: channel.into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            retention: self.rules.retention(channel),
            tags,
            delta: true,
            ..PublishRequest::default()
        };
        drop(self.broker.publish(request));
    }

    pub(super) fn dropped(&self) -> u64 {
        self.stats.dropped.iter().map(|count| count.get()).sum()
    }

    pub(super) fn check_accounting(&self) {
        let stats = &self.stats;
        let sum = stats.delivered.get() + stats.conflated.get() + self.dropped() + stats.pending.get();
        assert_eq!(stats.offered.get(), sum, "offered = delivered + conflated + dropped + pending");
    }
}

pub(super) const PLENTY: usize = 1 << 30;
