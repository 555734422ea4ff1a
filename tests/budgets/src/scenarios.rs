//! What is counted. A scenario prepares, goes through its rounds, and holds the result to what it promises, so that a
//! figure never comes from a shard that did nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tidegate::shard::inbox::{Inbox, Message};
use tidegate_broadcaster::{Event, Inboxes, Payload, Publication, PushKind, ShardInbox, internals};

use crate::client::{self, Form};
use crate::world::{Virtual, World, Wrong, expect};

/// One scenario.
pub(crate) struct Scenario {
    /// What the budget file calls it.
    pub(crate) name: &'static str,
    /// The number of rounds that it is counted with: the difference between as many and twice as many.
    pub(crate) rounds: u32,
    /// What a figure is for one of: so many of them make a round.
    pub(crate) units: u32,
    /// Goes through so many rounds.
    pub(crate) run: fn(u32) -> Result<(), Wrong>,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self { name: "broadcast", rounds: 20, units: BROADCAST, run: broadcast },
        Self { name: "unicast", rounds: 5, units: UNICAST, run: unicast },
        Self { name: "burst", rounds: 20, units: BURST_MESSAGES * BURST_SESSIONS, run: burst },
        Self { name: "connect_json", rounds: 512, units: 1, run: |rounds| connect(rounds, Form::Json) },
        Self { name: "connect_protobuf", rounds: 512, units: 1, run: |rounds| connect(rounds, Form::Protobuf) },
        Self { name: "ping", rounds: 4, units: IDLE, run: ping },
        Self { name: "redis", rounds: 30, units: REDIS_MESSAGES, run: redis },
    ];
}

const BROADCAST: u32 = 1000;
const UNICAST: u32 = 1000;
const BURST_MESSAGES: u32 = 200;
const BURST_SESSIONS: u32 = 100;
const IDLE: u32 = 1000;
const REDIS_MESSAGES: u32 = 1000;
const REDIS_CHANNELS: u32 = 100;

/// A payload of 128 bytes, as the load generator's.
fn payload() -> Bytes {
    let mut text = format!(r#"{{"n":1,"text":"{}"}}"#, "x".repeat(128));
    let surplus = text.len() - 128;
    text.replace_range(15..15 + surplus, "");
    Bytes::from(text)
}

/// A publication as a broker's reader makes it of the payload.
fn publication(channel: &str) -> Arc<Publication> {
    Arc::new(Publication {
        channel: channel.into(),
        kind: PushKind::Publication,
        payload: Payload::new(payload()),
        offset: 0,
        epoch: Arc::default(),
        info: None,
        tags: BTreeMap::new(),
        delta: false,
        is_late: false,
        received: Instant::now(),
    })
}

/// One publication to a thousand sessions of one channel.
fn broadcast(rounds: u32) -> Result<(), Wrong> {
    let mut world = World::new();
    for _ in 0..BROADCAST {
        world.connect(Form::Json, "news")?;
    }
    let publications = [publication("news")];
    for _ in 0..rounds {
        world.deliver(&publications);
        world.settle();
    }
    expect("deliveries", world.stats.delivered.get(), u64::from(rounds) * u64::from(BROADCAST))
}

/// A thousand publications in one turn, each to the one session of its channel.
fn unicast(rounds: u32) -> Result<(), Wrong> {
    let mut world = World::new();
    let names: Vec<String> = (0..UNICAST).map(|n| format!("user-{n:06}")).collect();
    for name in &names {
        world.connect(Form::Json, name)?;
    }
    let publications: Vec<_> = names.iter().map(|name| publication(name)).collect();
    for _ in 0..rounds {
        world.deliver(&publications);
        world.settle();
    }
    expect("deliveries", world.stats.delivered.get(), u64::from(rounds) * u64::from(UNICAST))
}

/// Two hundred publications of one channel that are in the inbox together, to a hundred sessions.
fn burst(rounds: u32) -> Result<(), Wrong> {
    let mut world = World::new();
    for _ in 0..BURST_SESSIONS {
        world.connect(Form::Json, "news")?;
    }
    let publications: Vec<_> = (0..BURST_MESSAGES).map(|_| publication("news")).collect();
    for _ in 0..rounds {
        world.deliver(&publications);
        world.settle();
    }
    let deliveries = u64::from(BURST_MESSAGES) * u64::from(BURST_SESSIONS);
    expect("deliveries", world.stats.delivered.get(), u64::from(rounds) * deliveries)
}

/// From accept to the subscribe's reply, a session at a time: each has the shard's turns for itself.
fn connect(rounds: u32, form: Form) -> Result<(), Wrong> {
    let mut world = World::new();
    for _ in 0..rounds {
        world.connect(form, "news")?;
    }
    expect("subscriptions", world.stats.subscriptions.get(), u64::from(rounds))
}

/// A thousand idle sessions over one ping interval, with a turn in every tick: each is pinged once and answers.
fn ping(rounds: u32) -> Result<(), Wrong> {
    const TICK: Duration = Duration::from_millis(tidegate::shard::wheel::TICK_MS);
    const TICKS: u32 = 250; // `client.ping_interval` is 25 s
    let mut world = World::with_ears();
    for _ in 0..IDLE {
        world.connect(Form::Json, "news")?;
    }
    world.heard();
    let pong = client::pong(Form::Json);
    // The first pings are spread over the second half of an interval: one more, so that every round has all of them.
    for _ in 0..(rounds + 1) * TICKS {
        world.pass(TICK);
        world.settle(); // a turn sends only so many
        for number in world.heard() {
            world.send(number, &pong);
        }
    }
    expect("sessions", world.stats.sessions.get(), u64::from(IDLE))?;
    expect("late pongs", world.stats.lagging.get(), 0)?;
    expect("pings", world.stats.pings.get(), u64::from(rounds + 1) * u64::from(IDLE))
}

/// A thousand messages of a hundred channels that Redis sends at once, from the bytes to the shard's inbox.
fn redis(rounds: u32) -> Result<(), Wrong> {
    let names: Vec<String> = (0..REDIS_CHANNELS).map(|n| format!("user-{n:06}")).collect();
    let payload = payload();
    let mut bytes = BytesMut::new();
    for n in 0..REDIS_MESSAGES {
        internals::message(&mut bytes, &format!("push:{}", names[(n % REDIS_CHANNELS) as usize]), &payload);
    }
    let inbox = Arc::new(Inbox::<Virtual>::new(16 << 20));
    let inboxes: Inboxes = Arc::new([Arc::clone(&inbox) as Arc<dyn ShardInbox>]);
    let mut routed = 0;
    internals::with_reader(&names, inboxes, |reader| {
        let mut messages = inbox.take(Vec::new()); // the answers to the subscribes
        messages.clear();
        for _ in 0..rounds {
            reader.receive(&bytes)?;
            messages = inbox.take(messages);
            for message in messages.drain(..) {
                if let Message::Broker(Event::Publications(publications)) = message {
                    routed += publications.len() as u64;
                }
            }
        }
        Ok::<_, io::Error>(())
    })??;
    expect("messages", routed, u64::from(rounds) * u64::from(REDIS_MESSAGES))
}
