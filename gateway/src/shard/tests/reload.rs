//! Settings that change while sessions are there.

use tidegate_protocol::message::SubscribeRequest;

use super::*;
use crate::config::{Namespace, QueuePolicy};
use crate::shard::stats::ShardStats;

/// Two namespaces, `one` with these options, and `other`.
fn with_one(change: impl FnOnce(&mut ChannelOptions)) -> impl FnOnce(&mut Config) {
    |config| {
        let plain = config.channel.without_namespace.clone();
        let mut options = plain.clone();
        change(&mut options);
        let namespace = |name: &str, options| Namespace { name: name.to_owned(), options };
        config.channel.namespaces = vec![namespace("one", options), namespace("other", plain)];
    }
}

fn keeps(options: &mut ChannelOptions) {
    options.history_size = 10;
    options.history_ttl = Duration::from_secs(60);
    options.force_recovery = true;
}

impl World {
    fn reload(&mut self, change: impl FnOnce(&mut Config)) {
        let config = config(change);
        self.inbox.send(Message::Reload(Arc::new(resolve::settings(&config))));
        self.rules = ChannelRules(config.channel);
    }

    fn renewed(&self) -> u64 {
        let stats: &ShardStats = &self.stats;
        stats.renewed.get()
    }
}

#[test]
fn who_would_be_given_something_else_subscribes_again_and_nobody_else_notices() {
    let mut world = World::new(with_one(|_| {}));
    let client = world.client(PLENTY, &["one:a", "other:a"]);
    let bystander = world.client(PLENTY, &["other:a", "plain"]);
    world.reload(with_one(keeps));
    world.settle();
    assert_eq!(world.clients[client].got().unsubscribed, [2500]);
    assert!(world.clients[bystander].got().unsubscribed.is_empty());
    assert_eq!(world.renewed(), 1);
    world.clients[client].subscribe("one:a");
    world.settle();
    world.publish("one:a", "kept");
    world.publish("other:a", "too");
    world.settle();
    let got = world.clients[client].got();
    assert!(got.results.last().unwrap().recoverable, "{:?}", got.results);
    assert_eq!(got.data, ["kept", "too"]);
    assert_eq!(world.clients[bystander].got().data, ["too"]);
}

#[test]
fn what_counts_with_each_publication_ends_no_subscription() {
    let mut world = World::new(with_one(keeps));
    let client = world.client(PLENTY, &["one:a"]);
    world.reload(with_one(|options| {
        keeps(options);
        options.history_size = 20;
        options.allow_publish_for_client = true;
    }));
    world.publish("one:a", "1");
    world.settle();
    let got = world.clients[client].got();
    assert_eq!((got.unsubscribed, got.data), (vec![], vec!["1".to_owned()]));
    assert_eq!(world.renewed(), 0);
}

#[test]
fn who_comes_before_its_channel_has_been_looked_at_finds_it_renewed() {
    let mut world = World::new(with_one(|options| options.queue_policy = QueuePolicy::Latest));
    let others: Vec<String> = (0..300).map(|n| format!("other:{n}")).collect();
    for some in others.chunks(100) {
        world.client(PLENTY, &some.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let old = world.client(PLENTY, &["one:a"]);
    let new = world.client(PLENTY, &[]);
    world.reload(with_one(keeps));
    // The first turn gets as far as the others.
    world.turn();
    assert!(world.clients[old].got().unsubscribed.is_empty());
    world.clients[new].subscribe("one:a");
    world.turn();
    assert_eq!(world.clients[old].got().unsubscribed, [2500]);
    world.settle();
    let channel = world.shard.hub.find("one:a").unwrap();
    assert_eq!(world.shard.hub.traits(channel).policy, QueuePolicy::Disconnect);
    let got = world.clients[new].got();
    assert!(got.unsubscribed.is_empty() && got.results.iter().all(|result| result.recoverable), "{got:?}");
}

#[test]
fn who_is_being_brought_up_to_date_is_asked_to_try_again() {
    let mut world = World::new(with_one(keeps));
    world.held = Some(Vec::new());
    let client = world.client(PLENTY, &["one:a"]);
    world.reload(with_one(|_| {}));
    world.turn();
    let got = world.clients[client].got();
    assert_eq!((got.errors, got.results.len()), (vec![100], 0), "temporary: SDKs ask again");
    let held = world.held.take().unwrap();
    held.into_iter().for_each(|call| world.answer(call));
    world.clients[client].subscribe("one:a");
    world.settle();
    let got = world.clients[client].got();
    assert_eq!(got.results.len(), 1);
    assert!(!got.results[0].recoverable && got.errors.len() == 1, "{got:?}");
}

#[test]
fn whoever_is_in_a_channel_that_begins_to_remember_it_is_present_after_coming_again() {
    let mut world = World::new(with_one(|_| {}));
    let client = world.client(PLENTY, &["one:a"]);
    let present = |world: &World| world.broker.stats().present.load(std::sync::atomic::Ordering::Relaxed);
    world.reload(with_one(|options| options.presence = true));
    world.settle();
    world.clients[client].subscribe("one:a");
    world.settle();
    assert_eq!(present(&world), 1);
    world.reload(with_one(|_| {}));
    world.settle();
    assert_eq!(present(&world), 0, "it left under the rules under which it came");
}

#[test]
fn a_namespace_that_is_gone_lets_nobody_in_again() {
    let mut world = World::new(with_one(|_| {}));
    let client = world.client(PLENTY, &["one:a"]);
    world.reload(|_| {});
    world.settle();
    world.clients[client].subscribe("one:a");
    world.settle();
    let got = world.clients[client].got();
    assert_eq!((got.unsubscribed, got.errors), (vec![2500], vec![102]));
}

#[test]
fn many_channels_take_several_turns_and_two_reloads_follow_each_other() {
    let mut world = World::new(with_one(|_| {}));
    let names: Vec<String> = (0..1000).map(|n| format!("one:{n}")).collect();
    let clients: Vec<usize> = names
        .chunks(100)
        .map(|some| {
            let some: Vec<&str> = some.iter().map(String::as_str).collect();
            world.client(PLENTY, &some)
        })
        .collect();
    world.reload(with_one(keeps));
    world.turn();
    let after_one_turn = world.renewed();
    assert!((1..1000).contains(&after_one_turn), "{after_one_turn}");
    world.reload(with_one(|_| {}));
    world.settle();
    assert_eq!(world.renewed(), 1000);
    for client in clients {
        world.clients[client].ask(SubscribeRequest { channel: "one:0".into(), ..SubscribeRequest::default() });
    }
    world.settle();
    assert!(world.clients.iter().all(|client| !client.got().results.last().unwrap().recoverable));
}
