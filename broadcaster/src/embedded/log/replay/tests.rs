use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::clock::Clock;
use super::super::copies;
use super::super::record::Raw;
use super::*;
use crate::broker::Version;
use crate::embedded::streams::copy::StreamCopy;
use crate::embedded::streams::{Appended, Moment, Streams};
use crate::history::{HistoryQuery, Position, Retention};
use crate::publication::{Payload, Publication};

const CHANNELS: u8 = 3;

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Publish { channel: u8, size: u32, ttl: u64, key: Option<u8>, version: Option<(u64, u8)> },
    Remove(u8),
    Read(u8),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let channel = 0..CHANNELS;
    let publish = (channel.clone(), 1..5_u32, 1..3000_u64, option(0..4_u8), option((1..5_u64, 0..2_u8)))
        .prop_map(|(channel, size, ttl, key, version)| Event::Publish { channel, size, ttl, key, version });
    prop_oneof![
        6 => publish,
        1 => channel.clone().prop_map(Event::Remove),
        1 => channel.prop_map(Event::Read),
        2 => (0..2000_u64).prop_map(Event::Pass),
        1 => (0..400_000_u64).prop_map(Event::Pass),
    ]
}

fn option<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.3, value)
}

/// The memory, and what the log is told of it.
struct Model {
    streams: Streams,
    clock: Clock,
    now: Instant,
    records: Vec<Vec<u8>>,
}

impl Model {
    fn new() -> Self {
        let clock = Clock::new();
        let now = clock.instant(clock.unix_ms(Instant::now()) + 1);
        Self { streams: Streams::new(7), clock, now, records: Vec::new() }
    }

    fn note(&mut self, record: &Record<'_>) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.records.push(bytes);
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Publish { channel, size, ttl, key, version } => {
                let (name, now) = (name(*channel), self.now);
                let ttl = Duration::from_millis(*ttl);
                let retention = Retention { size: *size, ttl, meta_ttl: ttl * 3 };
                let key = key.map(|key| key.to_string());
                let version = version.map(|(number, epoch)| Version { number, epoch: epoch.to_string() });
                let condition = (key.as_deref(), version.as_ref());
                let mut kept = None;
                let moment = Moment { now, batch: 0 };
                let appended = self.streams.append(&name, retention, condition, moment, |offset, epoch| {
                    Arc::clone(kept.insert(publication(&name, offset, epoch, now)))
                });
                let (Appended::Kept(_), Some(kept)) = (appended, kept) else { return self.note_position(&name) };
                let terms = Terms {
                    unix_ms: self.clock.unix_ms(now),
                    retention,
                    idempotency_key: key.as_deref(),
                    version: version.as_ref().map(Into::into),
                };
                self.note(&Record::Publish(copies::entry(&kept, &[]), terms));
            }
            Event::Remove(channel) => {
                let name = name(*channel);
                let Some(Position { offset, epoch }) = self.streams.remove(&name, 0) else { return };
                self.note(&Record::Remove(Place { channel: &name, epoch: &epoch, offset }));
            }
            Event::Read(channel) => {
                let name = name(*channel);
                self.streams.read(&name, HistoryQuery::top(Duration::from_secs(8)), self.now);
                self.note_position(&name);
            }
            Event::Pass(ms) => self.now += Duration::from_millis(*ms),
        }
    }

    /// Here it is noted each time, so that replay and memory know the same to the millisecond.
    fn note_position(&mut self, name: &Channel) {
        let Some(StreamCopy { epoch, top, until, .. }) = self.streams.copy(name, self.now) else { return };
        let place = Place { channel: name, epoch: &epoch, offset: top };
        let until = self.clock.unix_ms(until);
        self.note(&Record::Position(place, until));
    }

    /// What a snapshot has now.
    fn snapshot(&self) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        for copy in (0..CHANNELS).filter_map(|channel| self.streams.copy(&name(channel), self.now)) {
            let mut stream = Vec::new();
            copies::put_stream(&copy, &self.clock, &mut stream);
            records.push(stream);
            records.extend(copy.publications.iter().map(|publication| {
                let mut kept = Vec::new();
                copies::put_kept(publication, &mut kept);
                kept
            }));
        }
        records
    }

    /// What memory has, as it can be compared.
    fn kept(&self) -> Vec<String> {
        let copies = (0..CHANNELS).filter_map(|channel| self.streams.copy(&name(channel), self.now));
        let ms = |instant| self.clock.unix_ms(instant);
        let each = copies.map(|copy| {
            let StreamCopy { channel, epoch, top, publications, answered, version, .. } = copy;
            let offsets: Vec<_> = publications.iter().map(|publication| publication.offset).collect();
            let answered: Vec<_> = answered.into_iter().map(|(until, key, offset)| (ms(until), key, offset)).collect();
            let version = (version.number, version.epoch);
            format!("{channel} {epoch} {top} {offsets:?} {answered:?} {version:?}")
        });
        each.collect()
    }

    /// The same of a replay of these records.
    fn replayed(&self, records: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
        let mut replay = Replay::default();
        for (at, record) in (0..).zip(records) {
            let raw = Raw::next(&mut &record[..]).unwrap();
            replay.apply(raw.read().unwrap(), Spot { file: 0, at, length: 0 });
        }
        let (mut channels, has_gap) = replay.finish(self.clock.unix_ms(self.now));
        assert!(!has_gap);
        channels.sort_by(|(one, _), (other, _)| one.cmp(other));
        let each = channels.into_iter().map(|(channel, replayed)| {
            let Replayed { epoch, top, spots, answered, version, .. } = replayed;
            assert!(spots.iter().is_sorted());
            let offsets: Vec<_> = (top + 1 - spots.len() as u64..=top).collect();
            format!("{channel} {epoch} {top} {offsets:?} {:?} {version:?}", Vec::from(answered))
        });
        each.collect()
    }
}

fn name(channel: u8) -> Channel {
    format!("c{channel}").into()
}

fn publication(channel: &Channel, offset: u64, epoch: Arc<str>, received: Instant) -> Arc<Publication> {
    let (channel, payload) = (Channel::clone(channel), Payload::new("1".into()));
    let (info, tags, delta) = (None, Default::default(), false);
    let kind = crate::publication::PushKind::Publication;
    Arc::new(Publication { channel, kind, payload, offset, epoch, info, tags, delta, is_late: false, received })
}

proptest! {
    #[test]
    fn a_replay_comes_to_what_memory_had(events in vec(event(), 0..60), again in any::<prop::sample::Index>()) {
        let mut model = Model::new();
        events.iter().for_each(|event| model.happen(event));
        let records = model.records.clone();
        prop_assert_eq!(model.replayed(records.clone()), model.kept());
        // A batch that was written again, because it was not known whether it had been written.
        let again = again.index(records.len() + 1);
        let twice = records.iter().chain(&records[again..]).cloned();
        prop_assert_eq!(model.replayed(twice), model.kept());
    }

    #[test]
    fn a_snapshot_may_be_further_than_the_segments_behind_it(
        events in vec(event(), 1..60), at in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(),
    ) {
        let mut model = Model::new();
        let taken = at.index(events.len());
        events[..taken].iter().for_each(|event| model.happen(event));
        let snapshot = model.snapshot();
        let from = from.index(model.records.len() + 1);
        events[taken..].iter().for_each(|event| model.happen(event));
        let records = snapshot.into_iter().chain(model.records[from..].to_vec());
        prop_assert_eq!(model.replayed(records), model.kept());
    }
}

#[test]
fn a_gap_in_the_numbers_is_noticed_and_nothing_before_it_is_kept() {
    let mut model = Model::new();
    let publish = Event::Publish { channel: 0, size: 9, ttl: 3000, key: None, version: None };
    (0..5).for_each(|_| model.happen(&publish));
    model.records.remove(2);
    let mut replay = Replay::default();
    for record in &model.records {
        let raw = Raw::next(&mut &record[..]).unwrap();
        replay.apply(raw.read().unwrap(), Spot { file: 0, at: 0, length: 0 });
    }
    let (channels, has_gap) = replay.finish(model.clock.unix_ms(model.now));
    assert!(has_gap);
    assert_eq!((channels[0].1.top, channels[0].1.spots.len()), (5, 2));
}
