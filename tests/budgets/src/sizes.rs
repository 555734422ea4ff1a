//! What is measured without running: sizes of what there are many of, and the formula of `docs/architecture.md`.

use std::net::TcpStream;

use tidegate::hub::{Hub, Subscriber};
use tidegate::session::{Session, Subscription};
use tidegate::shard::connection::Connection;
use tidegate::shard::palette::{Cell, Marks};
use tidegate::shard::slab::{Key, Slab};
use tidegate_broadcaster::{InterestMap, Publication};

/// Names and bytes.
pub(crate) fn all() -> Vec<(&'static str, usize)> {
    let slot = Slab::<Connection<TcpStream>>::ENTRY_SIZE;
    let (ours, theirs, armed) = (size_of::<Subscription>(), size_of::<Subscriber>(), size_of::<Key>());
    vec![
        ("size.connection", size_of::<Connection<TcpStream>>()),
        ("size.slab_slot", slot),
        ("size.session", size_of::<Session>()),
        ("size.subscription", ours),
        ("size.subscriber", theirs),
        ("size.wheel_entry", armed),
        ("size.hub_entry", Hub::ENTRY_SIZE),
        ("size.hub_name", Hub::NAME_SIZE),
        ("size.interest_entry", InterestMap::ENTRY_SIZE),
        ("size.marks", size_of::<Marks>()),
        ("size.palette_cell", size_of::<Cell>()),
        ("size.publication", size_of::<Publication>()),
        // With one subscription of a shared channel. Vectors that double are counted at twice their content.
        ("formula.session", slot + ours + 2 * theirs + 2 * armed),
        ("formula.further_subscription", 2 * ours + 2 * theirs),
        ("formula.further_channel", further_channel(ours, theirs)),
    ]
}

/// A further channel with one subscriber, at its dearest: every table has just doubled.
fn further_channel(ours: usize, theirs: usize) -> usize {
    // Arc<str>: two counts and the name; jemalloc's size classes are 16 bytes apart here.
    const NAME: usize = 20;
    let name = (2 * size_of::<usize>() + NAME).next_multiple_of(16);
    // A table of hashbrown is at most 7/8 full, so just after doubling 7/16, and has a byte of control for each place.
    let table = |entry: usize| (entry + 1) * 16 / 7;
    name + table(Hub::NAME_SIZE) + 2 * Hub::ENTRY_SIZE + theirs + table(InterestMap::ENTRY_SIZE) + 2 * ours
}
