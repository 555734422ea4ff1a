//! The hub against a plain model, under arbitrary sequences of subscribe, unsubscribe and visit.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn subscriber(session: u32) -> Subscriber {
    Subscriber::new(session, 0)
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe,
    Unsubscribe(prop::sample::Index),
    Begin,
    Visit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Subscribe),
        3 => any::<prop::sample::Index>().prop_map(Step::Unsubscribe),
        1 => Just(Step::Begin),
        3 => (1_usize..6).prop_map(Step::Visit),
    ]
}

proptest! {
    /// Whoever was there at the start of a fan-out and stayed is visited once, nobody else ever is.
    #[test]
    fn a_fan_out_visits_whoever_stays_exactly_once(steps in prop::collection::vec(step(), 1..200)) {
        let mut hub = Hub::default();
        let id = hub.open("c".into(), Status::Live, Traits::default());
        let mut positions: BTreeMap<u32, u32> = BTreeMap::new();
        let mut expected: BTreeSet<u32> = BTreeSet::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Subscribe => {
                    positions.insert(next, hub.subscribe(id, subscriber(next)));
                    next += 1;
                }
                Step::Unsubscribe(which) if !positions.is_empty() => {
                    let (session, position) = positions.iter().nth(which.index(positions.len())).map(|(s, p)| (*s, *p)).unwrap();
                    positions.remove(&session);
                    expected.remove(&session);
                    for moved in hub.unsubscribe(id, position).into_iter().flatten() {
                        positions.insert(moved.subscriber.session, moved.position);
                    }
                }
                Step::Begin if !hub.is_visiting(id) => {
                    prop_assert!(expected.is_empty(), "not visited: {expected:?}");
                    prop_assert_eq!(hub.begin_visit(id), positions.len());
                    expected = positions.keys().copied().collect();
                }
                Step::Visit(most) => {
                    for visited in hub.visit(id, most).subscribers {
                        prop_assert!(expected.remove(&visited.session), "{} came twice or too late", visited.session);
                    }
                    prop_assert_eq!(hub.is_visiting(id), !expected.is_empty());
                }
                Step::Unsubscribe(_) | Step::Begin => {}
            }
        }
    }
}

#[test]
fn a_closed_channel_leaves_nothing_behind() {
    let mut hub = Hub::default();
    let id = hub.open("c".into(), Status::Pending, Traits::default());
    let position = hub.subscribe(id, subscriber(1));
    assert!(!hub.is_unused(id));
    hub.unsubscribe(id, position);
    assert!(hub.is_unused(id));
    assert_eq!(hub.close(id).as_deref(), Some("c"));
    assert_eq!((hub.find("c"), hub.len(), hub.status(id)), (None, 0, None));
    assert_eq!(hub.open("d".into(), Status::Live, Traits::default()), id, "the number is used again");
}

#[test]
fn whoever_waits_is_answered_once() {
    let mut slab = crate::shard::slab::Slab::default();
    let waiter = Waiter { session: slab.insert(()), command: 7, wishes: None };
    let mut hub = Hub::default();
    let id = hub.open("c".into(), Status::Pending, Traits::default());
    hub.wait(id, waiter.clone());
    assert!(!hub.is_unused(id));
    assert_eq!(hub.settle(id), vec![waiter]);
    assert_eq!(hub.status(id), Some(Status::Live));
    assert_eq!(hub.settle(id), vec![]);
}
