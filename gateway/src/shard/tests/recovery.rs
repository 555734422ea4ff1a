//! Sessions with a position.

use tidegate_broadcaster::{Event, Payload, Publication, PushKind};
use tidegate_protocol::message::{Command, HistoryRequest, Reply, SubscribeRequest, SubscribeResult};

use super::*;
use crate::config::RecoveryMode;

/// What a client has got: results of subscribes, and publications with their offsets; `data` as the application sees it.
#[derive(Debug, Default)]
pub(super) struct Got {
    pub(super) data: Vec<String>,
    patches: usize,
    pub(super) results: Vec<SubscribeResult>,
    pub(super) offsets: Vec<u64>,
    pub(super) unsubscribed: Vec<u32>,
    pub(super) errors: Vec<u32>,
    pub(super) replies: Vec<Reply>,
}

impl Client {
    pub(super) fn got(&self) -> Got {
        use prost::Message as _;
        let wire = self.wire.lock().unwrap();
        let (mut rest, mut got) = (&wire.to_client[..], Got::default());
        while let Ok(reply) = Reply::decode_length_delimited(&mut rest) {
            if let Some(result) = &reply.subscribe {
                got.offsets.extend(result.publications.iter().map(|publication| publication.offset));
                got.results.push(result.clone());
            }
            let replied = reply.subscribe.iter().flat_map(|result| &result.publications);
            for publication in replied.chain(reply.push.iter().filter_map(|push| push.r#pub.as_ref())) {
                let data = if publication.delta {
                    got.patches += 1;
                    let base = got.data.last().map(String::as_bytes).unwrap_or_default();
                    tidegate_protocol::delta::decode(base, &publication.data).unwrap()
                } else {
                    publication.data.to_vec()
                };
                got.data.push(String::from_utf8(data).unwrap());
            }
            got.errors.extend(reply.error.iter().map(|error| error.code));
            if let Some(push) = &reply.push {
                got.offsets.extend(push.r#pub.iter().map(|publication| publication.offset));
                got.unsubscribed.extend(push.unsubscribe.iter().map(|unsubscribe| unsubscribe.code));
            }
            got.replies.push(reply);
        }
        got
    }

    fn recover(&self, offset: u64, epoch: &str) {
        self.ask(SubscribeRequest {
            channel: "news".into(),
            recover: true,
            recoverable: true,
            offset,
            epoch: epoch.into(),
            ..SubscribeRequest::default()
        });
    }

    pub(super) fn ask(&self, request: SubscribeRequest) {
        self.send(Command { id: 2, subscribe: Some(request), ..Command::default() });
    }
}

fn world(change: impl FnOnce(&mut ChannelOptions)) -> World {
    World::new(|config| {
        // Before the first pong is due: these clients answer no pings.
        config.client.channel_position_check_delay = Duration::from_secs(2);
        let options = &mut config.channel.without_namespace;
        options.history_size = 10;
        options.history_ttl = Duration::from_secs(60);
        options.force_recovery = true;
        change(options);
    })
}

impl World {
    fn publish_some(&mut self, count: u64) {
        (0..count).for_each(|n| self.publish("news", &n.to_string()));
        self.settle();
    }

    /// A publication that no broker has numbered so.
    fn arrives(&mut self, offset: u64, epoch: &str) {
        self.inbox.push(Event::Publications(vec![Arc::new(Publication {
            channel: "news".into(),
            kind: PushKind::Publication,
            payload: Payload::new("{}".into()),
            offset,
            epoch: epoch.into(),
            info: None,
            tags: Default::default(),
            delta: false,
            is_late: false,
            received: self.now,
        })]));
        self.settle();
    }

    fn answer_all(&mut self) {
        for call in self.held.take().unwrap_or_default() {
            self.answer(call);
        }
        self.settle();
    }
}

#[test]
fn a_subscription_says_where_it_begins_and_gets_what_follows() {
    let mut world = world(|_| {});
    world.publish_some(3);
    let client = world.client(PLENTY, &["news"]);
    world.settle();
    world.publish_some(2);
    let got = world.clients[client].got();
    let result = &got.results[0];
    assert!(result.recoverable && result.positioned && !result.recovered && !result.was_recovering);
    assert_eq!((result.offset, got.offsets), (3, vec![4, 5]));
    assert!(!result.epoch.is_empty());
}

#[test]
fn who_comes_back_gets_exactly_what_was_missed() {
    let mut world = world(|_| {});
    world.publish_some(8);
    let client = world.client(PLENTY, &[]);
    world.clients[client].recover(3, "");
    world.settle();
    world.publish_some(1);
    let got = world.clients[client].got();
    assert_eq!(got.offsets, [4, 5, 6, 7, 8, 9]);
    assert!(got.results[0].recovered && got.results[0].was_recovering);
    assert_eq!(got.results[0].offset, 3, "the client counts on from where it was");
    assert_eq!((world.stats.recoveries[0].get(), world.stats.recoveries[1].get()), (1, 0));
    assert_eq!(world.stats.delivered.get(), 6, "what a reply carries is delivered as well");
}

#[test]
fn who_missed_too_much_or_knows_another_numbering_is_told_the_truth() {
    let mut world = world(|_| {});
    world.publish_some(20);
    for (offset, epoch) in [(3, ""), (20, "other"), (30, "")] {
        let client = world.client(PLENTY, &[]);
        world.clients[client].recover(offset, epoch);
        world.settle();
        let got = world.clients[client].got();
        let result = &got.results[0];
        assert!(!result.recovered && result.was_recovering, "{offset} {epoch:?}: {result:?}");
        assert_eq!((result.offset, got.offsets), (20, vec![]));
    }
    assert_eq!(world.stats.recoveries[1].get(), 3);
}

#[test]
fn who_would_rather_have_an_error_gets_112_and_no_subscription() {
    let mut world = world(|_| {});
    world.publish_some(20);
    let client = world.client(PLENTY, &[]);
    let request = SubscribeRequest {
        channel: "news".into(),
        recover: true,
        recoverable: true,
        offset: 1,
        flag: 2,
        ..SubscribeRequest::default()
    };
    world.clients[client].ask(request);
    world.settle();
    world.publish_some(1);
    let got = world.clients[client].got();
    assert_eq!((got.errors, got.offsets), (vec![112], vec![]));
    assert_eq!(world.stats.subscriptions.get(), 0);
}

#[test]
fn what_comes_while_the_history_is_read_comes_once_and_nobody_else_waits() {
    let mut world = world(|_| {});
    world.publish_some(3);
    let other = world.client(PLENTY, &["news"]);
    world.settle();
    let client = world.client(PLENTY, &[]);
    world.held = Some(Vec::new());
    world.clients[client].recover(1, "");
    world.settle();
    world.publish_some(2);
    assert_eq!(world.clients[other].got().offsets, [4, 5], "a broadcast waits for nobody");
    assert_eq!(world.clients[client].got().offsets, [0_u64; 0]);
    world.answer_all();
    world.publish_some(1);
    assert_eq!(world.clients[client].got().offsets, [2, 3, 4, 5, 6]);
    assert_eq!(world.clients[other].got().offsets, [4, 5, 6]);
}

#[test]
fn who_comes_first_counts_on_from_what_came_while_the_history_was_read() {
    let mut world = world(|_| {});
    world.publish_some(3);
    let client = world.client(PLENTY, &[]);
    world.held = Some(Vec::new());
    world.clients[client].recover(1, "");
    world.settle();
    world.publish_some(2);
    world.answer_all();
    world.publish_some(1);
    let got = world.clients[client].got();
    assert_eq!((got.offsets, got.unsubscribed), (vec![2, 3, 4, 5, 6], vec![]));
    assert_eq!(world.stats.gaps.iter().map(|count| count.get()).sum::<u64>(), 0, "nothing was missing");
}

#[test]
fn a_late_answer_finds_nobody_where_the_session_has_gone() {
    for polite in [true, false] {
        let mut world = world(|_| {});
        let client = world.client(PLENTY, &[]);
        world.held = Some(Vec::new());
        world.clients[client].recover(0, "");
        world.settle();
        if polite {
            world.clients[client].unsubscribe("news");
        } else {
            world.clients[client].wire.lock().unwrap().closed = true;
        }
        world.settle();
        world.answer_all();
        world.publish_some(1);
        assert_eq!(world.stats.subscriptions.get(), 0, "polite: {polite}");
        assert_eq!(world.stats.channels.get(), 0, "the channel is let go");
    }
}

#[test]
fn many_who_come_back_at_once_ask_once() {
    let mut world = world(|_| {});
    world.publish_some(5);
    world.held = Some(Vec::new());
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let client = world.client(PLENTY, &[]);
            world.clients[client].recover(2, "");
            world.settle();
            client
        })
        .collect();
    assert_eq!(world.held.as_ref().map(Vec::len), Some(1));
    world.answer_all();
    for client in clients {
        assert_eq!(world.clients[client].got().offsets, [3, 4, 5]);
    }
}

#[test]
fn who_comes_in_within_a_round_gets_the_rest_of_it_once() {
    let mut world = world(|_| {});
    let first = world.client(PLENTY, &["news"]);
    world.settle();
    let client = world.client(PLENTY, &[]);
    // Published, and in the inbox, when the history is read: in the reply, and in the round that follows.
    (0..3).for_each(|n| world.publish("news", &n.to_string()));
    world.clients[client].recover(0, "");
    world.settle();
    world.publish_some(1);
    assert_eq!(world.clients[client].got().offsets, [1, 2, 3, 4]);
    assert_eq!(world.clients[first].got().offsets, [1, 2, 3, 4]);
}

#[test]
fn a_gap_is_told_to_those_who_have_a_position_and_only_to_them() {
    for (offset, epoch) in [(7, None), (4, Some("other"))] {
        let mut world = world(|options| {
            options.force_recovery = false;
            options.allow_recovery = true;
        });
        world.publish_some(3);
        let positioned = world.client(PLENTY, &[]);
        world.clients[positioned].recover(3, "");
        let other = world.client(PLENTY, &["news"]);
        world.settle();
        let known = world.clients[positioned].got().results[0].epoch.clone();
        world.arrives(offset, epoch.unwrap_or(&known));
        assert_eq!(world.clients[positioned].got().unsubscribed, [2500]);
        assert_eq!(world.clients[positioned].got().offsets, [0_u64; 0]);
        assert_eq!(
            (world.clients[other].got().unsubscribed, world.clients[other].got().offsets),
            (vec![], vec![offset])
        );
        assert_eq!(world.stats.insufficient.get(), 1);
        assert_eq!(world.stats.subscriptions.get(), 1);
    }
}

#[test]
fn what_comes_again_is_passed_over() {
    let mut world = world(|_| {});
    let client = world.client(PLENTY, &["news"]);
    world.publish_some(2);
    let epoch = world.clients[client].got().results[0].epoch.clone();
    world.arrives(2, &epoch);
    world.arrives(1, &epoch);
    world.publish_some(1);
    assert_eq!(world.clients[client].got().offsets, [1, 2, 3]);
    assert_eq!(world.stats.repeated.get(), 2);
    assert_eq!(world.inbox.bytes(), 0, "nothing is left in the inbox's books");
}

#[test]
fn a_position_that_fell_behind_is_found_without_any_message() {
    let mut world = world(|_| {});
    let client = world.client(PLENTY, &["news"]);
    world.publish_some(1);
    world.pass(Duration::from_secs(3));
    assert!(world.stats.position_checks.get() > 0);
    assert_eq!(world.clients[client].got().unsubscribed, [0_u32; 0], "nothing is missing");
    // The broker has it, and it never comes.
    world.publish("news", "lost");
    let lost = world.inbox.take(Vec::new());
    let weight = world.inbox.bytes();
    world.inbox.release(weight);
    drop(lost);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.clients[client].got().unsubscribed, [2500]);
    assert_eq!(world.stats.gaps[2].get(), 1);
}

#[test]
fn after_an_interruption_positions_are_compared_at_once() {
    for event in [Event::Resumed, Event::ChannelResumed("news".into())] {
        let mut world = world(|_| {});
        let client = world.client(PLENTY, &["news"]);
        world.publish_some(1);
        world.publish("news", "lost");
        drop(world.inbox.take(Vec::new()));
        world.inbox.release(world.inbox.bytes());
        world.inbox.push(Event::ChannelResumed("unknown".into()));
        world.inbox.push(event);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.clients[client].got().unsubscribed, [2500]);
    }
}

#[test]
fn a_cache_gives_the_newest() {
    let mut world = world(|options| options.force_recovery_mode = RecoveryMode::Cache);
    world.publish_some(5);
    let client = world.client(PLENTY, &[]);
    world.clients[client].recover(2, "");
    world.settle();
    world.publish_some(1);
    let got = world.clients[client].got();
    assert!(got.results[0].recovered);
    assert_eq!(got.offsets, [5, 6]);
}

#[test]
fn a_cache_may_give_the_newest_to_those_who_did_not_ask() {
    let mut world = world(|options| {
        options.force_recovery_mode = RecoveryMode::Cache;
        options.auto_cache_recover = true;
    });
    let early = world.client(PLENTY, &["news"]);
    world.settle();
    world.publish_some(2);
    let late = world.client(PLENTY, &["news"]);
    world.settle();
    world.publish_some(1);
    let results = |world: &World, client: usize| world.clients[client].got().results[0].clone();
    assert!(results(&world, late).recovered && results(&world, late).was_recovering);
    assert!(!results(&world, early).recovered, "there was none yet");
    assert_eq!(world.clients[late].got().offsets, [2, 3]);
    assert_eq!(world.clients[early].got().offsets, [1, 2, 3]);
}

#[test]
fn a_filter_lets_through_what_it_says_live_and_in_recovery() {
    use tidegate_protocol::message::FilterNode;
    let mut world = world(|options| options.allow_tags_filter = true);
    let filter = FilterNode { key: "n".into(), cmp: "gte".into(), val: "3".into(), ..FilterNode::default() };
    let request = |offset| SubscribeRequest {
        channel: "news".into(),
        recover: offset > 0,
        recoverable: true,
        offset,
        tf: Some(filter.clone()),
        ..SubscribeRequest::default()
    };
    let live = world.client(PLENTY, &[]);
    world.clients[live].ask(request(0));
    world.settle();
    for n in 1..=4 {
        world.publish_tagged("news", [("n".to_owned(), n.to_string())].into());
    }
    world.settle();
    let late = world.client(PLENTY, &[]);
    world.clients[late].ask(request(1));
    world.settle();
    world.publish_tagged("news", Default::default());
    world.publish_tagged("news", [("n".to_owned(), "10".to_owned())].into());
    world.settle();
    assert_eq!(world.clients[live].got().offsets, [3, 4, 6]);
    assert_eq!(world.clients[late].got().offsets, [3, 4, 6]);
    assert_eq!(world.stats.dropped[Dropped::Filtered as usize].get(), 3 + 2);
    world.clients[live].unsubscribe("news");
    world.settle();
    assert_eq!(world.stats.subscriptions.get(), 1);
}

#[test]
fn a_filter_that_makes_no_sense_or_is_not_allowed_is_107() {
    use tidegate_protocol::message::FilterNode;
    for (allowed, cmp) in [(false, "eq"), (true, "like")] {
        let mut world = world(|options| options.allow_tags_filter = allowed);
        let client = world.client(PLENTY, &[]);
        let filter = FilterNode { key: "n".into(), cmp: cmp.into(), val: "3".into(), ..FilterNode::default() };
        world.clients[client].ask(SubscribeRequest {
            channel: "news".into(),
            tf: Some(filter),
            ..SubscribeRequest::default()
        });
        world.settle();
        assert_eq!(world.clients[client].got().errors, [107]);
    }
}

#[test]
fn deltas_make_what_was_published_of_what_came_before() {
    let mut world = world(|options| options.allowed_delta_types = vec!["fossil".to_owned()]);
    let subscribe = |delta: &str, from: Option<u64>| SubscribeRequest {
        channel: "news".into(),
        delta: delta.into(),
        recover: from.is_some(),
        recoverable: true,
        offset: from.unwrap_or_default(),
        ..SubscribeRequest::default()
    };
    let text = |n: u32| format!("{{\"n\":{n},\"text\":\"{}\"}}", "what all of them have in common ".repeat(5));
    let mut expected = Vec::new();
    let mut publish = |world: &mut World, numbers: std::ops::Range<u32>, at_once: bool| {
        for n in numbers {
            world.publish("news", &text(n));
            expected.push(text(n));
            if !at_once {
                world.settle();
            }
        }
        world.settle();
        expected.clone()
    };
    let [with, without, late] = [(); 3].map(|()| world.client(PLENTY, &[]));
    world.clients[with].ask(subscribe("fossil", None));
    world.clients[without].ask(subscribe("", None));
    world.settle();
    publish(&mut world, 0..3, false);
    publish(&mut world, 3..6, true);
    world.clients[late].ask(subscribe("fossil", Some(2)));
    world.settle();
    let all = publish(&mut world, 6..9, true);
    let got = world.clients[with].got();
    assert!(got.results[0].delta);
    assert_eq!((got.data, got.patches), (all.clone(), 8), "all but the first");
    let got = world.clients[without].got();
    assert_eq!((got.data, got.patches, got.results[0].delta), (all.clone(), 0, false));
    let got = world.clients[late].got();
    assert_eq!((&got.data[..], got.patches), (&all[2..], 2), "what was recovered is whole, and the first behind it");
}

#[test]
fn who_recovered_nothing_gets_the_first_one_whole() {
    let mut world = world(|options| options.allowed_delta_types = vec!["fossil".to_owned()]);
    let text = |n: u32| format!("{} {n}", "what all of them have in common ".repeat(5));
    let first = world.client(PLENTY, &[]);
    let request = |from| SubscribeRequest {
        channel: "news".into(),
        delta: "fossil".into(),
        recover: true,
        offset: from,
        ..SubscribeRequest::default()
    };
    world.clients[first].ask(request(0));
    world.settle();
    world.publish("news", &text(1));
    world.settle();
    // Up to date when it comes in, with a publication that is in the history and has not gone out yet.
    let client = world.client(PLENTY, &[]);
    world.publish("news", &text(2));
    let on_their_way = world.inbox.take(Vec::new());
    world.held = Some(Vec::new());
    world.clients[client].ask(request(2));
    world.settle();
    on_their_way.into_iter().for_each(|message| world.inbox.send(message));
    world.answer_all();
    assert_eq!(world.clients[client].got().data, [""; 0], "it has that one");
    world.publish("news", &text(3));
    world.publish("news", &text(4));
    world.settle();
    let got = world.clients[client].got();
    assert_eq!((got.data, got.patches), (vec![text(3), text(4)], 1));
    assert_eq!(world.clients[first].got().data, (1..=4).map(text).collect::<Vec<_>>());
}

#[test]
fn a_delta_that_is_not_shorter_is_not_one() {
    let mut world = world(|options| options.allowed_delta_types = vec!["fossil".to_owned()]);
    let client = world.client(PLENTY, &[]);
    let request = SubscribeRequest { channel: "news".into(), delta: "fossil".into(), ..SubscribeRequest::default() };
    world.clients[client].ask(request);
    world.settle();
    world.publish_some(3);
    let got = world.clients[client].got();
    assert_eq!((got.data, got.patches), (vec!["0".to_owned(), "1".into(), "2".into()], 0));
}

#[test]
fn a_history_command_reads_both_ways() {
    let mut world = world(|options| {
        options.allow_history_for_client = true;
        options.allow_history_for_anonymous = true;
    });
    world.publish_some(15);
    let client = world.client(PLENTY, &[]);
    let since = |offset| tidegate_protocol::message::StreamPosition { offset, epoch: String::new() };
    let ask = |limit, since, reverse| HistoryRequest { channel: "news".into(), limit, since, reverse };
    let asked = [
        ask(0, None, false),
        ask(-1, None, false),
        ask(2, None, true),
        ask(2, Some(since(7)), false),
        ask(2, Some(since(7)), true),
    ];
    for (request, id) in asked.into_iter().zip(10..) {
        world.clients[client].send(Command { id, history: Some(request), ..Command::default() });
    }
    world.settle();
    let replies = world.clients[client].got().replies;
    let results: Vec<_> = replies.iter().filter_map(|reply| reply.history.as_ref()).collect();
    let offsets: Vec<Vec<u64>> = results
        .iter()
        .map(|result| result.publications.iter().map(|publication| publication.offset).collect())
        .collect();
    assert_eq!(offsets, [vec![], (6..=15).collect(), vec![15, 14], vec![8, 9], vec![6]]);
    assert!(results.iter().all(|result| result.offset == 15 && !result.epoch.is_empty()));
}
