//! A client as an SDK is one: it remembers where its subscriptions are, comes back, subscribes again. It checks everything
//! that it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use prost::Message;
use tidegate::shard::slab::Key;
use tidegate_protocol::codec::delimited::{Delimited, split_delimited};
use tidegate_protocol::delta;
use tidegate_protocol::message::{Command, Publication, Reply, SubscribeRequest, UnsubscribeRequest};

use crate::socket::Wire;

/// What a channel promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Every publication, from the subscription on.
    Plain,
    /// Every publication, also those of an absence, or it is told.
    Recovers,
    /// In order, with some left out.
    Thins,
}

pub(crate) fn promise(channel: &str) -> Promise {
    match channel.split_once(':').map_or("", |(namespace, _)| namespace) {
        "kept" | "short" => Promise::Recovers,
        "latest" | "oldest" => Promise::Thins,
        _ => Promise::Plain,
    }
}

/// Publications that the broker did not hand to a shard, by channel.
pub(crate) type Lost = BTreeMap<String, BTreeSet<u64>>;

#[derive(Debug, Default)]
pub(crate) struct Subscription {
    pub(crate) wanted: bool,
    pub(crate) live: bool,
    asked: bool,
    position: Option<(u64, String)>,
    /// The newest that it got; of a channel that recovers, everything up to it is known.
    pub(crate) last: Option<u64>,
    delta: bool,
    base: Option<Vec<u8>>,
    /// Clients that it was told have come, and have not gone.
    pub(crate) here: BTreeSet<String>,
    /// Clients that it was told have gone.
    pub(crate) gone: BTreeSet<String>,
}

pub(crate) struct Client {
    pub(crate) shard: usize,
    pub(crate) wire: Option<Arc<Mutex<Wire>>>,
    pub(crate) key: Option<Key>,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    pub(crate) stalled: bool,
    connected: bool,
    /// What the node calls it.
    pub(crate) name: String,
    ids: BTreeMap<u32, String>,
    next_id: u32,
    input: Vec<u8>,
    pub(crate) received: u64,
    pub(crate) recovered: u64,
    pub(crate) told: u64,
}

impl Client {
    pub(crate) fn new(shard: usize) -> Self {
        Self {
            shard,
            wire: None,
            key: None,
            subscriptions: BTreeMap::new(),
            stalled: false,
            connected: false,
            name: String::new(),
            ids: BTreeMap::new(),
            next_id: 1,
            input: Vec::new(),
            received: 0,
            recovered: 0,
            told: 0,
        }
    }

    fn send(&mut self, command: &Command) {
        if let Some(wire) = &self.wire {
            wire.lock().unwrap().to_shard.extend(command.encode_length_delimited_to_vec());
        }
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    /// A new connection: connects, and asks for everything it wants in the same breath.
    pub(crate) fn open(&mut self, wire: Arc<Mutex<Wire>>) {
        (self.wire, self.key, self.connected, self.stalled) = (Some(wire), None, true, false);
        self.input.clear();
        self.ids.clear();
        let id = self.id();
        self.send(&Command { id, connect: Some(Default::default()), ..Command::default() });
        let wanted = self.subscriptions.iter().filter(|(_, subscription)| subscription.wanted);
        let wanted: Vec<String> = wanted.map(|(channel, _)| channel.clone()).collect();
        for channel in wanted {
            self.ask(&channel);
        }
    }

    /// The connection is gone, whoever ended it.
    pub(crate) fn close(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.lock().unwrap().closed = true;
        }
        (self.key, self.connected) = (None, false);
        for subscription in self.subscriptions.values_mut() {
            (subscription.live, subscription.asked) = (false, false);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connected
    }

    pub(crate) fn subscribe(&mut self, channel: &str, delta: bool) {
        let subscription = self.subscriptions.entry(channel.to_owned()).or_default();
        if !subscription.wanted {
            *subscription = Subscription { wanted: true, delta, ..Subscription::default() };
            self.ask(channel);
        }
    }

    pub(crate) fn unsubscribe(&mut self, channel: &str) {
        let Some(subscription) = self.subscriptions.get_mut(channel).filter(|subscription| subscription.live) else {
            return;
        };
        *subscription = Subscription::default();
        let id = self.id();
        let unsubscribe = Some(UnsubscribeRequest { channel: channel.to_owned() });
        self.send(&Command { id, unsubscribe, ..Command::default() });
    }

    fn ask(&mut self, channel: &str) {
        let id = self.id();
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        if !self.connected || subscription.asked || subscription.live {
            return;
        }
        subscription.asked = true;
        subscription.base = None;
        let (offset, epoch) = subscription.position.clone().unwrap_or_default();
        let request = SubscribeRequest {
            channel: channel.to_owned(),
            recoverable: true,
            recover: subscription.position.is_some(),
            offset,
            epoch,
            delta: if subscription.delta { "fossil".into() } else { String::new() },
            ..SubscribeRequest::default()
        };
        self.ids.insert(id, channel.to_owned());
        self.send(&Command { id, subscribe: Some(request), ..Command::default() });
    }

    /// Reads what has come.
    pub(crate) fn read(&mut self, lost: &Lost) -> Result<(), String> {
        let Some(wire) = &self.wire else { return Ok(()) };
        self.input.append(&mut wire.lock().unwrap().to_client);
        let input = std::mem::take(&mut self.input);
        let mut done = 0;
        while let Ok(Delimited::Message { body, consumed }) = split_delimited(&input[done..], 1 << 30) {
            done += consumed;
            if body.is_empty() {
                if let Some(wire) = &self.wire {
                    wire.lock().unwrap().to_shard.push_back(0); // a pong
                }
                continue;
            }
            let reply = Reply::decode(body).map_err(|error| format!("bytes that are no reply: {error}"))?;
            self.take(reply, lost)?;
            if !self.connected {
                return Ok(());
            }
        }
        self.input = input[done..].to_vec();
        Ok(())
    }

    fn take(&mut self, reply: Reply, lost: &Lost) -> Result<(), String> {
        if let Some(channel) = self.ids.remove(&reply.id) {
            return self.answered(&channel, reply, lost);
        }
        if let Some(connected) = reply.connect {
            self.name = connected.client;
        }
        let Some(push) = reply.push else { return Ok(()) };
        if let Some(info) = push.join.and_then(|join| join.info) {
            self.attendance(&push.channel, &info.client, true)?;
        } else if let Some(info) = push.leave.and_then(|leave| leave.info) {
            self.attendance(&push.channel, &info.client, false)?;
        } else if push.disconnect.is_some() {
            self.close();
        } else if let Some(publication) = &push.r#pub {
            self.publication(&push.channel, publication, lost)?;
        } else if let Some(unsubscribe) = push.unsubscribe {
            if unsubscribe.code != 2500 {
                return Err(format!("unsubscribed with {}", unsubscribe.code));
            }
            // One that it has left since is nothing to it.
            if let Some(subscription) =
                self.subscriptions.get_mut(&push.channel).filter(|subscription| subscription.live)
            {
                subscription.live = false;
                self.ask(&push.channel);
            }
        }
        Ok(())
    }

    fn answered(&mut self, channel: &str, reply: Reply, lost: &Lost) -> Result<(), String> {
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return Ok(()) };
        subscription.asked = false;
        if let Some(error) = reply.error {
            if !error.temporary {
                return Err(format!("{channel}: {error:?}"));
            }
            self.ask(channel);
            return Ok(());
        }
        let result = reply.subscribe.ok_or_else(|| format!("{channel}: an answer without a result"))?;
        let recovers = promise(channel) == Promise::Recovers;
        if recovers != result.recoverable || result.delta && !subscription.delta {
            return Err(format!("{channel}: {result:?}"));
        }
        subscription.live = true;
        (subscription.here, subscription.gone) = Default::default();
        // Who recovered has everything up to where it was; who could not was told, and goes on from where the channel is.
        subscription.last = recovers.then_some(result.offset);
        subscription.position = recovers.then(|| (result.offset, result.epoch.clone()));
        self.recovered += result.publications.len() as u64;
        for publication in &result.publications {
            self.publication(channel, publication, lost)?;
        }
        Ok(())
    }

    fn publication(&mut self, channel: &str, publication: &Publication, lost: &Lost) -> Result<(), String> {
        let Some(subscription) = self.subscriptions.get_mut(channel).filter(|subscription| subscription.live) else {
            // It has unsubscribed since, and the answer is on its way.
            return Ok(());
        };
        let data = if publication.delta {
            let base = subscription.base.as_deref().ok_or_else(|| format!("{channel}: a delta to nothing"))?;
            delta::decode(base, &publication.data).map_err(|error| format!("{channel}: {error}"))?
        } else {
            publication.data.to_vec()
        };
        let number = number_of(&data).ok_or_else(|| format!("{channel}: not what was published: {data:?}"))?;
        subscription.base = Some(data);
        let missing = |from: u64| (from + 1..number).find(|n| !lost.get(channel).is_some_and(|lost| lost.contains(n)));
        match (promise(channel), subscription.last) {
            (Promise::Recovers, Some(last)) if number != last + 1 || publication.offset != number => {
                return Err(format!("{channel}: {number} (offset {}) behind {last}", publication.offset));
            }
            (_, Some(last)) if number <= last => return Err(format!("{channel}: {number} behind {last}")),
            (Promise::Plain, Some(last)) => {
                if let Some(missing) = missing(last) {
                    return Err(format!("{channel}: {missing} is missing between {last} and {number}"));
                }
            }
            _ => {}
        }
        subscription.last = Some(number);
        if let Some((offset, _)) = &mut subscription.position {
            *offset = publication.offset;
        }
        self.received += 1;
        Ok(())
    }
}

impl Client {
    /// Somebody has come or gone: each comes before it goes, and once.
    fn attendance(&mut self, channel: &str, who: &str, comes: bool) -> Result<(), String> {
        let Some(subscription) = self.subscriptions.get_mut(channel).filter(|subscription| subscription.live) else {
            return Ok(());
        };
        self.told += 1;
        let news = if comes {
            subscription.gone.remove(who);
            subscription.here.insert(who.to_owned())
        } else {
            subscription.here.remove(who);
            subscription.gone.insert(who.to_owned())
        };
        if news { Ok(()) } else { Err(format!("{channel}: {who} comes ({comes}) a second time")) }
    }
}

/// The number that a payload begins with.
pub(crate) fn number_of(data: &[u8]) -> Option<u64> {
    std::str::from_utf8(data).ok()?.split(' ').next()?.parse().ok()
}
