//! Who is in a channel, and who is told that somebody comes or goes.

use tidegate_protocol::message::{
    Command, HistoryRequest, PresenceRequest, PresenceResult, PresenceStatsRequest, PresenceStatsResult,
    SubscribeRequest,
};

use super::*;

fn world(change: impl FnOnce(&mut Config)) -> World {
    World::new(|config| {
        let options = &mut config.channel.without_namespace;
        options.presence = true;
        options.join_leave = true;
        options.allow_presence_for_subscriber = true;
        options.allow_presence_for_anonymous = true;
        change(config);
    })
}

impl Client {
    /// Subscribes, and asks to be told who comes and goes.
    fn attend(&self) {
        self.ask(SubscribeRequest { channel: "news".into(), join_leave: true, ..SubscribeRequest::default() });
    }

    fn ask_presence(&self) {
        let channel = || "news".to_owned();
        let presence = Some(PresenceRequest { channel: channel() });
        self.send(Command { id: 5, presence, ..Command::default() });
        let presence_stats = Some(PresenceStatsRequest { channel: channel() });
        self.send(Command { id: 6, presence_stats, ..Command::default() });
    }

    fn presence(&self) -> Option<PresenceResult> {
        self.got().replies.into_iter().rev().find_map(|reply| reply.presence)
    }

    fn numbers(&self) -> Option<PresenceStatsResult> {
        self.got().replies.into_iter().rev().find_map(|reply| reply.presence_stats)
    }

    /// Its id.
    fn id(&self) -> String {
        self.got().replies.into_iter().find_map(|reply| reply.connect).unwrap().client
    }

    /// What it was told: `+` and `-` with the client's id, `p` for a publication, `s` for the reply to its subscribe.
    fn told(&self) -> Vec<String> {
        let replies = self.got().replies.into_iter();
        let one = |reply: tidegate_protocol::message::Reply| {
            let push = reply.push.unwrap_or_default();
            let name = |sign: &str, info: Option<tidegate_protocol::message::ClientInfo>| {
                format!("{sign}{}", info.unwrap().client)
            };
            match (push.join, push.leave, push.r#pub, reply.subscribe) {
                (Some(join), ..) => Some(name("+", join.info)),
                (_, Some(leave), ..) => Some(name("-", leave.info)),
                (_, _, Some(_), _) => Some("p".into()),
                (_, _, _, Some(_)) => Some("s".into()),
                _ => None,
            }
        };
        replies.filter_map(one).collect()
    }
}

impl World {
    /// Until nothing happens any more, what the broker says last included.
    fn rest(&mut self) {
        self.settle();
        self.turn();
        self.settle();
    }

    fn close(&mut self, client: usize) {
        self.clients[client].wire.lock().unwrap().closed = true;
        self.rest();
    }
}

#[test]
fn whoever_is_subscribed_is_present_and_nobody_else() {
    let mut world = world(|_| {});
    let stays = world.client(PLENTY, &["news"]);
    let goes = world.client(PLENTY, &["news"]);
    world.client(PLENTY, &["other"]);
    world.rest();
    world.clients[stays].ask_presence();
    world.rest();
    let present: Vec<_> = world.clients[stays].presence().unwrap().presence.into_keys().collect();
    let mut ids = [stays, goes].map(|client| world.clients[client].id());
    ids.sort();
    assert_eq!(present, ids);
    let numbers = world.clients[stays].numbers().unwrap();
    assert_eq!((numbers.num_clients, numbers.num_users), (2, 1), "all who are anonymous are one user");

    world.close(goes);
    world.clients[stays].ask_presence();
    world.rest();
    assert_eq!(world.clients[stays].presence().unwrap().presence.len(), 1, "in the turn in which it went");
    world.clients[stays].unsubscribe("news");
    world.rest();
    assert_eq!(
        world.broker.stats().present.load(std::sync::atomic::Ordering::Relaxed),
        1,
        "the one in the other channel"
    );
}

#[test]
fn who_comes_and_goes_is_told_to_those_who_asked_in_the_order_of_the_channel() {
    let mut world = world(|_| {});
    let attends = world.client(PLENTY, &[]);
    let plain = world.client(PLENTY, &["news"]);
    world.rest();
    world.clients[attends].attend();
    world.rest();
    world.publish("news", "1");
    let comes = world.client(PLENTY, &["news"]);
    world.rest();
    world.publish("news", "2");
    world.rest();
    world.close(comes);
    world.publish("news", "3");
    world.rest();
    let (own, other) = (world.clients[attends].id(), world.clients[comes].id());
    let expected =
        ["s".into(), format!("+{own}"), "p".into(), format!("+{other}"), "p".into(), format!("-{other}"), "p".into()];
    assert_eq!(world.clients[attends].told(), expected);
    assert_eq!(world.clients[plain].told(), ["s", "p", "p", "p"]);
    assert_eq!(world.clients[comes].told(), ["s", "p"], "it did not ask, and came behind the first");
}

#[test]
fn a_namespace_may_tell_everybody_and_whoever_may_not_ask_is_not_told() {
    let mut forced = world(|config| config.channel.without_namespace.force_push_join_leave = true);
    let first = forced.client(PLENTY, &["news"]);
    forced.rest();
    forced.client(PLENTY, &["news"]);
    forced.rest();
    assert_eq!(forced.clients[first].told().len(), 3, "the reply, its own coming and the other's");

    let mut closed = world(|config| config.channel.without_namespace.allow_presence_for_subscriber = false);
    let client = closed.client(PLENTY, &[]);
    closed.clients[client].attend();
    closed.rest();
    closed.clients[client].ask_presence();
    closed.rest();
    let got = closed.clients[client].got();
    assert_eq!((closed.clients[client].told(), got.errors), (vec!["s".to_owned()], vec![103, 103]));
}

#[test]
fn a_channel_without_presence_says_so_and_one_with_too_many_clients_gives_its_numbers_only() {
    let mut without = world(|config| config.channel.without_namespace.presence = false);
    let client = without.client(PLENTY, &["news"]);
    without.clients[client].ask_presence();
    without.rest();
    assert_eq!(without.clients[client].got().errors, [108, 108]);

    let mut crowded = world(|config| config.client.presence_max_clients = 2);
    let clients: Vec<_> = (0..3).map(|_| crowded.client(PLENTY, &["news"])).collect();
    crowded.rest();
    crowded.clients[clients[0]].ask_presence();
    crowded.rest();
    let got = crowded.clients[clients[0]].got();
    assert_eq!((got.errors, crowded.clients[clients[0]].numbers().unwrap().num_clients), (vec![106], 3));
    assert_eq!(crowded.stats.presence_refused.get(), 1);
}

/// Coming and going has no place in a history: positions, deltas, filters and recoveries do not see it.
#[test]
fn what_is_told_of_others_does_not_touch_positions() {
    let mut world = world(|config| {
        let options = &mut config.channel.without_namespace;
        options.history_size = 10;
        options.history_ttl = Duration::from_secs(60);
        options.force_recovery = true;
        options.allow_history_for_subscriber = true;
        options.allow_history_for_anonymous = true;
        options.allowed_delta_types = vec!["fossil".into()];
    });
    let attends = world.client(PLENTY, &[]);
    world.clients[attends].ask(SubscribeRequest {
        channel: "news".into(),
        join_leave: true,
        delta: "fossil".into(),
        ..SubscribeRequest::default()
    });
    world.rest();
    let text = |n: u32| format!("{{\"n\":{n},\"text\":\"{}\"}}", "what all of them have in common ".repeat(5));
    for n in 0..4 {
        world.publish("news", &text(n));
        let other = world.client(PLENTY, &["news"]);
        world.rest();
        world.close(other);
    }
    // One that recovers while somebody comes.
    world.held = Some(Vec::new());
    let late = world.client(PLENTY, &[]);
    world.clients[late].ask(SubscribeRequest {
        channel: "news".into(),
        recover: true,
        recoverable: true,
        join_leave: true,
        offset: 2,
        ..SubscribeRequest::default()
    });
    world.turn();
    let history = Some(HistoryRequest { channel: "news".into(), limit: 10, ..HistoryRequest::default() });
    world.clients[attends].send(Command { id: 9, history, ..Command::default() });
    world.turn();
    for call in world.held.take().unwrap() {
        world.answer(call);
    }
    world.rest();
    let got = world.clients[attends].got();
    assert_eq!((got.offsets, got.errors.len()), (vec![1, 2, 3, 4], 0));
    assert_eq!(
        got.replies.iter().filter(|reply| reply.push.as_ref().is_some_and(|push| push.join.is_some())).count(),
        6
    );
    let kept = got.replies.into_iter().find_map(|reply| reply.history).unwrap();
    assert_eq!(kept.publications.len(), 4);
    let came = world.clients[late].got();
    assert_eq!(came.offsets, [3, 4]);
    assert_eq!(world.stats.gaps.iter().map(|count| count.get()).sum::<u64>(), 0);
}

#[test]
fn under_the_policy_latest_nobody_who_came_is_replaced() {
    let mut world = world(|config| config.channel.without_namespace.queue_policy = QueuePolicy::Latest);
    let slow = world.client(PLENTY, &[]);
    world.clients[slow].attend();
    world.rest();
    world.clients[slow].wire.lock().unwrap().room = 0;
    for _ in 0..3 {
        world.client(PLENTY, &["news"]);
        world.publish("news", "1");
        world.rest();
    }
    world.clients[slow].wire.lock().unwrap().room = PLENTY;
    world.rest();
    let told = world.clients[slow].told();
    assert_eq!(told.iter().filter(|one| one.starts_with('+')).count(), 4, "{told:?}");
    assert_eq!(told.iter().filter(|one| *one == "p").count(), 1, "{told:?}");
    assert_eq!(world.stats.conflated.get(), 2);
}
