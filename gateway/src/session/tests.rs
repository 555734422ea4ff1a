//! The session's answers, command by command, and what has to wait.

use tidegate_protocol::limits::Limits;
use tidegate_protocol::message::{
    ConnectRequest, HistoryRequest, PingRequest, PresenceRequest, PublishRequest, RefreshRequest, RpcRequest,
    SendRequest, SubRefreshRequest, SubscribeRequest, UnsubscribeRequest,
};

use super::heartbeat::Due;
use super::settings::{ChannelRules, Timing};
use super::*;
use crate::config::{ChannelConfig, ChannelOptions, Namespace};
use crate::hub::{Status, Subscriber, Traits};

fn settings() -> Settings {
    let open = ChannelOptions {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        ..ChannelOptions::default()
    };
    let subscribers = ChannelOptions { allow_publish_for_subscriber: true, ..open.clone() };
    let subscribers = ChannelOptions { allow_publish_for_client: false, ..subscribers };
    let users =
        ChannelOptions { allow_subscribe_for_anonymous: false, allow_publish_for_anonymous: false, ..open.clone() };
    let namespace = |name: &str, options| Namespace { name: name.into(), options };
    Settings {
        insecure: false,
        allow_anonymous: true,
        channel_limit: 3,
        queue_max_size: 1 << 20,
        history_limit: 300,
        presence_limit: 5000,
        recovery_limit: 300,
        position_check: None,
        include_server_time: false,
        version: "test".into(),
        limits: Limits::default(),
        timing: Timing {
            ping_interval: Some(250),
            pong_timeout: 80,
            stale_close_delay: 100,
            handshake_timeout: 50,
            idle_timeout: Some(600),
            lag_threshold: 20,
            close_timeout: 50,
        },
        channels: ChannelRules(ChannelConfig {
            without_namespace: open,
            namespaces: vec![
                namespace("closed", ChannelOptions::default()),
                namespace("subscribers", subscribers),
                namespace("users", users),
            ],
            ..ChannelConfig::default()
        }),
    }
}

struct World {
    settings: Settings,
    hub: Hub,
    session: Session,
    now: Tick,
}

impl World {
    fn new() -> Self {
        Self { settings: settings(), hub: Hub::default(), session: Session::new(0, false), now: 0 }
    }

    fn connected() -> Self {
        let mut world = Self::new();
        let connected = world.handle(Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() });
        assert!(matches!(connected, Outcome::Connected(_)), "{connected:?}");
        world
    }

    fn handle(&mut self, command: Command) -> Outcome {
        let view = View {
            settings: &self.settings,
            hub: &self.hub,
            now: self.now,
            unix_ms: 1_700_000_000_000,
            random: 0,
            fresh_id: Uuid::from_u128(7),
        };
        self.session.handle(command, &view)
    }

    fn join(&mut self, name: &str) -> ChannelId {
        let channel = self.hub.open(name.into(), Status::Live, Traits::default());
        let place = self.session.subscriptions().len() as u32;
        let position = self.hub.subscribe(channel, Subscriber::new(0, place));
        self.session.add(channel, position);
        channel
    }

    fn waits(&self, command: &Command) -> bool {
        self.session.must_wait(command, &self.hub)
    }
}

fn subscribe(channel: &str) -> Command {
    let request = SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() };
    Command { id: 2, subscribe: Some(request), ..Command::default() }
}

fn unsubscribe(channel: &str) -> Command {
    Command { id: 3, unsubscribe: Some(UnsubscribeRequest { channel: channel.into() }), ..Command::default() }
}

fn publish(channel: &str, data: &'static str) -> Command {
    let request = PublishRequest { channel: channel.into(), data: data.into(), ..PublishRequest::default() };
    Command { id: 4, publish: Some(request), ..Command::default() }
}

fn error(outcome: &Outcome) -> Option<u32> {
    match outcome {
        Outcome::Reply(Reply { error: Some(error), .. }) => Some(error.code),
        _ => None,
    }
}

#[test]
fn connect_tells_the_client_what_it_has_to_know() {
    let mut world = World::new();
    world.settings.include_server_time = true;
    let outcome = world.handle(Command { id: 9, connect: Some(ConnectRequest::default()), ..Command::default() });
    let Outcome::Connected(Reply { id: 9, connect: Some(result), .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((result.ping, result.pong, result.time), (25, true, 1_700_000_000_000));
    assert_eq!((result.client, result.version), (Uuid::from_u128(7).to_string(), "test".into()));
}

#[test]
fn whoever_may_not_connect_is_told_why() {
    let connect = |token: &str| Command {
        id: 1,
        connect: Some(ConnectRequest { token: token.into(), ..ConnectRequest::default() }),
        ..Command::default()
    };
    let outcome = |anonymous, insecure, token| {
        let mut world = World::new();
        world.settings.allow_anonymous = anonymous;
        world.settings.insecure = insecure;
        world.handle(connect(token))
    };
    assert_eq!(outcome(false, false, ""), Outcome::Disconnect(DisconnectCode::BadRequest));
    assert_eq!(outcome(true, false, "token"), Outcome::Disconnect(DisconnectCode::InvalidToken));
    assert!(matches!(outcome(true, false, ""), Outcome::Connected(_)));
    assert!(matches!(outcome(false, true, "token"), Outcome::Connected(_)));
}

#[test]
fn violations_end_the_connection() {
    let commands: Vec<(&str, Command)> = vec![
        ("a second connect", Command { id: 2, connect: Some(ConnectRequest::default()), ..Command::default() }),
        ("an empty command with an id", Command { id: 2, ..Command::default() }),
        ("a pong that nobody asked for", Command::default()),
        ("a ping", Command { id: 2, ping: Some(PingRequest {}), ..Command::default() }),
        ("no channel to subscribe", subscribe("")),
        ("no channel to unsubscribe", unsubscribe("")),
        ("no channel to publish", publish("", "1")),
        ("no channel to ask", Command { id: 2, presence: Some(PresenceRequest::default()), ..Command::default() }),
        ("no token", Command { id: 2, refresh: Some(RefreshRequest::default()), ..Command::default() }),
        ("no channel", Command { id: 2, sub_refresh: Some(SubRefreshRequest::default()), ..Command::default() }),
    ];
    for (what, command) in commands {
        let outcome = World::connected().handle(command);
        assert_eq!(outcome, Outcome::Disconnect(DisconnectCode::BadRequest), "{what}");
    }
    let mut delta = subscribe("news");
    delta.subscribe.as_mut().unwrap().delta = "zip".into();
    assert_eq!(World::connected().handle(delta), Outcome::Disconnect(DisconnectCode::BadRequest));
    let send = Command { send: Some(SendRequest::default()), ..Command::default() };
    assert_eq!(World::connected().handle(send), Outcome::Disconnect(DisconnectCode::NotAvailable));
    let refresh = Command { id: 1, refresh: Some(RefreshRequest { token: "t".into() }), ..Command::default() };
    assert_eq!(World::connected().handle(refresh), Outcome::Disconnect(DisconnectCode::InvalidToken));
}

#[test]
fn nothing_but_a_connect_with_an_id_comes_first() {
    for command in [
        subscribe("news"),
        Command::default(),
        Command { connect: Some(ConnectRequest::default()), ..Command::default() },
    ] {
        assert_eq!(World::new().handle(command), Outcome::Disconnect(DisconnectCode::BadRequest));
    }
}

#[test]
fn subscribe_checks_name_limit_namespace_and_permission() {
    let mut world = World::connected();
    world.join("mine");
    let long = "x".repeat(300);
    for (channel, code) in [
        (long.as_str(), 107),
        ("naïve", 107),
        ("mine", 105),
        ("nowhere:x", 102),
        ("closed:x", 103),
        ("users:x", 103),
        ("$secret", 103),
        ("dialog#1,2", 103),
    ] {
        assert_eq!(error(&world.handle(subscribe(channel))), Some(code), "{channel}");
    }
    assert_eq!(world.handle(subscribe("news")), Outcome::Subscribe { id: 2, channel: "news".into(), wishes: None });
    world.join("second");
    world.join("third");
    assert_eq!(error(&world.handle(subscribe("fourth"))), Some(106));
}

#[test]
fn what_no_namespace_can_allow_yet_is_refused() {
    let mut world = World::connected();
    let with = |change: fn(&mut SubscribeRequest)| {
        let mut command = subscribe("news");
        command.subscribe.as_mut().map(change);
        command
    };
    assert_eq!(error(&world.handle(with(|request| request.tf = Some(Default::default())))), Some(107));
    assert_eq!(error(&world.handle(with(|request| request.r#type = 1))), Some(103));
    assert_eq!(error(&world.handle(with(|request| request.token = "t".into()))), Some(103));
    // Wishes that cannot be granted are ignored.
    let wishes = world.handle(with(|request| {
        (request.recover, request.positioned, request.recoverable, request.join_leave) = (true, true, true, true);
        request.flag = 3;
        request.delta = "fossil".into();
    }));
    assert!(matches!(wishes, Outcome::Subscribe { .. }), "{wishes:?}");
}

#[test]
fn publish_checks_data_and_permission() {
    let mut world = World::connected();
    assert_eq!(error(&world.handle(publish("closed:x", "1"))), Some(103));
    assert_eq!(error(&world.handle(publish("users:x", "1"))), Some(103));
    assert_eq!(error(&world.handle(publish("nowhere:x", "1"))), Some(102));
    assert_eq!(error(&world.handle(publish("news", ""))), Some(107));
    assert_eq!(error(&world.handle(publish("subscribers:x", "1"))), Some(103), "not subscribed");
    world.join("subscribers:x");
    assert!(matches!(world.handle(publish("subscribers:x", "1")), Outcome::Publish { .. }));
    let Outcome::Publish { id: 4, channel, publication, .. } = world.handle(publish("news", "{}")) else { panic!() };
    assert_eq!((channel.as_str(), &publication.data[..]), ("news", &b"{}"[..]));
    assert_eq!(publication.info.map(|info| info.client), Some(Uuid::from_u128(7).to_string()));
}

#[test]
fn features_that_are_off_say_so() {
    let mut world = World::connected();
    let rpc = |method: &str| Command {
        id: 5,
        rpc: Some(RpcRequest { method: method.into(), ..RpcRequest::default() }),
        ..Command::default()
    };
    assert_eq!(error(&world.handle(rpc("method"))), Some(108));
    assert_eq!(error(&world.handle(rpc("space:method"))), Some(104));
    let history = |channel: &str| Command {
        id: 5,
        history: Some(HistoryRequest { channel: channel.into(), ..HistoryRequest::default() }),
        ..Command::default()
    };
    assert_eq!(error(&world.handle(history("news"))), Some(108));
    assert_eq!(error(&world.handle(history("nowhere:x"))), Some(102));
}

#[test]
fn subscribes_overlap_and_what_must_not_overtake_them_waits() {
    let mut world = World::connected();
    let pending = world.hub.open("pending".into(), Status::Pending, Traits::default());
    world.join("live");
    world.session.reserve(pending);
    assert!(!world.waits(&subscribe("other")), "subscribes are under way together");
    assert!(world.waits(&publish("other", "1")), "a publish takes effect after the subscribes before it");
    assert!(world.waits(&unsubscribe("pending")));
    assert!(!world.waits(&unsubscribe("live")), "another channel's unsubscribe takes effect at once");
    assert!(!world.waits(&Command::default()), "pongs never wait");
    assert_eq!(error(&world.handle(subscribe("pending"))), Some(105));

    let position = world.hub.subscribe(pending, Subscriber::new(0, 1));
    world.session.settle(pending, Some(position));
    assert!(!world.waits(&publish("other", "1")));
    assert!(!world.waits(&unsubscribe("pending")));
}

#[test]
fn a_subscribe_waits_for_the_publishes_before_it() {
    let mut world = World::connected();
    world.session.call_started();
    assert!(world.waits(&subscribe("news")));
    assert!(!world.waits(&publish("news", "1")), "publishes are under way together");
    for _ in 1..MAX_PENDING_CALLS {
        world.session.call_started();
    }
    assert!(world.waits(&publish("news", "1")), "but not without bound");
    for _ in 0..MAX_PENDING_CALLS {
        world.session.call_ended();
    }
    assert!(!world.waits(&subscribe("news")));
}

#[test]
fn a_subscription_that_was_refused_leaves_no_trace() {
    let mut world = World::connected();
    let refused = world.hub.open("refused".into(), Status::Pending, Traits::default());
    world.session.reserve(refused);
    let live = world.join("live");
    let removed = world.session.settle(refused, None).unwrap();
    assert_eq!(removed.moved.map(|moved| moved.channel), Some(live), "the last one moves into the gap");
    assert_eq!(removed.place, 0);
    assert_eq!(world.session.subscriptions().len(), 1);
}

#[test]
fn a_ping_is_due_within_the_interval_and_its_pong_keeps_the_session() {
    let mut world = World::connected();
    let timing = world.settings.timing;
    let Due::Wait(first) = world.session.due(0, &timing) else { panic!() };
    assert_eq!(first, 130, "the first whole second from half an interval on, with these random bits");
    world.now = first;
    assert_eq!(world.session.due(first, &timing), Due::Ping(first + 80));
    world.now += 10;
    assert_eq!(world.handle(Command::default()), Outcome::Pong(false));
    assert_eq!(world.session.due(first + 80, &timing), Due::Wait(first + 250));
    assert_eq!(world.session.due(first + 250, &timing), Due::Ping(first + 330));
    world.now = first + 250 + 30;
    assert_eq!(world.handle(Command::default()), Outcome::Pong(true), "later than the lag threshold");
    assert_eq!(world.handle(Command::default()), Outcome::Disconnect(DisconnectCode::BadRequest), "one pong a ping");
}

#[test]
fn a_missing_pong_closes() {
    let mut world = World::connected();
    let timing = world.settings.timing;
    assert_eq!(world.session.due(130, &timing), Due::Ping(210));
    assert_eq!(world.session.due(209, &timing), Due::Wait(210));
    assert_eq!(world.session.due(210, &timing), Due::Close(DisconnectCode::NoPong));
}

#[test]
fn whoever_never_connects_is_stale_and_whoever_is_silent_is_idle() {
    let mut world = World::new();
    let mut timing = world.settings.timing;
    assert_eq!(world.session.due(99, &timing), Due::Wait(100));
    assert_eq!(world.session.due(100, &timing), Due::Close(DisconnectCode::Stale));

    timing.ping_interval = None;
    world.settings.timing = timing;
    let outcome = world.handle(Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() });
    let Outcome::Connected(Reply { connect: Some(result), .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((result.ping, result.pong), (0, false));
    world.session.heartbeat.touch(500);
    assert_eq!(world.session.due(600, &timing), Due::Wait(1100));
    assert_eq!(world.session.due(1100, &timing), Due::Close(DisconnectCode::ConnectionClosed));
}

#[test]
fn first_pings_are_spread_over_the_seconds_of_half_an_interval() {
    let mut timing = settings().timing;
    let mut firsts = |interval| {
        timing.ping_interval = Some(interval);
        let mut counts: std::collections::BTreeMap<Tick, u32> = Default::default();
        for random in 0..12_600 {
            let mut heartbeat = Heartbeat::new(0, false);
            heartbeat.connected(0, random, &timing);
            let mut session = Session { heartbeat, ..Session::new(0, false) };
            session.state = State::Connected;
            match session.due(0, &timing) {
                Due::Wait(tick) => *counts.entry(tick).or_default() += 1,
                other => panic!("{other:?}"),
            }
        }
        counts
    };
    let long = firsts(250);
    assert!(long.keys().copied().eq((130..=250).step_by(10)), "{long:?}");
    assert!(long.values().all(|count| (600..=1000).contains(count)), "{long:?}");
    let short = firsts(20);
    assert!(short.keys().copied().eq(10..=20), "a short interval has no seconds to spare: {short:?}");
}

#[test]
fn a_session_is_small() {
    // What every idle session pays; docs/architecture.md counts on it.
    assert!(size_of::<Session>() <= 96, "{}", size_of::<Session>());
}
