//! What runs within Redis (`functions.lua`), how it gets there, and what its answers mean.
//!
//! Where the server has functions (Redis 7, Valkey) they are loaded as a library, which backends can call too:
//! `FCALL push_publish 1 push:<channel> <payload> [option value ...]`. Elsewhere the same text runs as scripts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::Value;
use prost::Message;
use tidegate_protocol::message::ClientInfo;

use super::client::command;
use crate::broker::{BrokerError, PublishRequest, Published};
use crate::envelope::{self, Content};
use crate::history::{History, HistoryQuery, Position, Retention};
use crate::presence::{Presence, PresenceStats};
use crate::publication::{Channel, Payload, Publication, PushKind};

/// The functions themselves.
const BODY: &str = include_str!("functions.lua");

/// The name of the library.
const LIBRARY: &str = "tidegate";

/// As in `push_version` of the library.
const VERSION: i64 = 4;

/// A function of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Publish,
    History,
    RemoveHistory,
    UpdatePresence,
    Presence,
    PresenceStats,
}

impl Function {
    const COUNT: usize = 6;
    const ALL: [Self; Self::COUNT] =
        [Self::Publish, Self::History, Self::RemoveHistory, Self::UpdatePresence, Self::Presence, Self::PresenceStats];

    /// Its name in Redis.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "push_publish",
            Self::History => "push_history",
            Self::RemoveHistory => "push_history_remove",
            Self::UpdatePresence => "push_presence_update",
            Self::Presence => "push_presence",
            Self::PresenceStats => "push_presence_stats",
        }
    }
}

/// How the functions of a server are called.
#[derive(Debug, Clone)]
pub(crate) enum Loaded {
    /// By their names.
    Functions,
    /// As scripts with these digests, in the order of [`Function::ALL`].
    Scripts([String; Function::COUNT]),
    /// Not at all, for this reason.
    Unavailable(Arc<str>),
}

impl Loaded {
    /// The command's name, and what stands before the number of keys; the reason where there is none.
    pub(crate) fn call(&self, function: Function) -> Result<(&'static str, String), Arc<str>> {
        match self {
            Self::Functions => Ok(("FCALL", function.name().to_owned())),
            Self::Scripts(digests) => Ok(("EVALSHA", digests[function as usize].clone())),
            Self::Unavailable(reason) => Err(Arc::clone(reason)),
        }
    }
}

/// Whether the server has lost the functions since they were loaded (a new primary, a flush).
pub(crate) fn is_missing(error: &Error) -> bool {
    error.details().contains("Function not found") || error.details().contains("NOSCRIPT")
}

/// Loads the functions, unless the server has them; as scripts where it knows no functions or refuses them. An error is
/// about the connection.
pub(crate) async fn load(client: &Client) -> Result<Loaded, Error> {
    let refused = match load_library(client).await {
        Ok(()) => return Ok(Loaded::Functions),
        Err(error) if is_answer(&error) => error,
        Err(error) => return Err(error),
    };
    let mut digests: [String; Function::COUNT] = Default::default();
    for function in Function::ALL {
        let script = format!("{BODY}\nreturn {}(KEYS, ARGV)\n", function.name());
        match client.custom(command("SCRIPT"), vec![Value::from("LOAD"), Value::from(script)]).await {
            Ok(digest) => digests[function as usize] = digest,
            Err(error) if is_answer(&error) => {
                let reason = format!(
                    "history and presence need functions or scripts, and Redis refuses both: {}; {}",
                    refused.details(),
                    error.details()
                );
                tracing::warn!(reason, "channels with a history or presence cannot be served");
                return Ok(Loaded::Unavailable(reason.into()));
            }
            Err(error) => return Err(error),
        }
    }
    tracing::info!(reason = refused.details(), "Redis takes no functions; scripts do the same");
    Ok(Loaded::Scripts(digests))
}

async fn load_library(client: &Client) -> Result<(), Error> {
    let mut library = format!("#!lua name={LIBRARY}\n{BODY}\n");
    for name in Function::ALL.map(Function::name).into_iter().chain(["push_version"]) {
        library += &format!("redis.register_function('{name}', {name})\n");
    }
    let load = |replace: bool| {
        let words = if replace { vec!["LOAD", "REPLACE"] } else { vec!["LOAD"] };
        words.into_iter().map(Value::from).chain([Value::from(library.clone())]).collect::<Vec<_>>()
    };
    let first: Result<Value, Error> = client.custom(command("FUNCTION"), load(false)).await;
    match first {
        Ok(_) => Ok(()),
        Err(error) if error.details().contains("already exists") => {
            let version: Result<i64, Error> =
                client.custom(command("FCALL"), vec![Value::from("push_version"), Value::from(0)]).await;
            // A later version than ours does all that ours does.
            if version.is_ok_and(|version| version >= VERSION) {
                return Ok(());
            }
            client.custom(command("FUNCTION"), load(true)).await.map(|_: Value| ())
        }
        Err(error) => Err(error),
    }
}

/// Whether the server has answered, and the connection is good.
pub(crate) fn is_answer(error: &Error) -> bool {
    use fred::error::ErrorKind::{Backpressure, Canceled, IO, Protocol, Routing, Timeout};
    !matches!(error.kind(), IO | Canceled | Routing | Protocol | Backpressure | Timeout)
}

/// Arguments of `push_publish` behind the key.
pub(crate) fn publish_args(request: PublishRequest, retention: Retention, sharded: bool) -> Vec<Bytes> {
    let PublishRequest { data, info, tags, delta, idempotency_key, version, .. } = request;
    let mut args = vec![envelope::encode(Content { data, info, tags, ..Content::default() })];
    let mut option = |name: &'static str, value: Bytes| args.extend([Bytes::from_static(name.as_bytes()), value]);
    option("size", number(retention.size.into()));
    option("ttl", seconds(retention.ttl));
    option("meta_ttl", seconds(retention.meta_ttl));
    if delta {
        option("delta", number(1));
    }
    if sharded {
        option("sharded", number(1));
    }
    if let Some(key) = idempotency_key {
        option("idempotency_key", key.into());
    }
    if let Some(version) = version {
        option("version", number(version.number));
        option("version_epoch", version.epoch.into());
    }
    args
}

/// Arguments of `push_history` behind the key.
pub(crate) fn history_args(query: HistoryQuery) -> Vec<Bytes> {
    vec![
        query.since.map_or_else(Bytes::new, number),
        number(query.limit.into()),
        number(query.reverse.into()),
        seconds(query.meta_ttl),
    ]
}

pub(super) fn number(n: u64) -> Bytes {
    n.to_string().into()
}

/// Whole seconds, at least one: what keys in Redis live for.
pub(super) fn seconds(duration: Duration) -> Bytes {
    number(duration.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX))
}

/// What `push_publish` has answered.
pub(crate) fn published(answer: Value) -> Result<Published, BrokerError> {
    let [offset, epoch, _fresh] = parts(answer)?;
    Ok(Published { offset: integer(&offset)?, epoch: text(epoch)? })
}

/// What `push_history` has answered.
pub(crate) fn history(channel: &Channel, answer: Value) -> Result<History, BrokerError> {
    let [offset, epoch, entries] = parts(answer)?;
    let top = Position { offset: integer(&offset)?, epoch: text(epoch)?.into() };
    let received = Instant::now();
    let entries = if entries.is_null() { Vec::new() } else { entries.into_array() };
    let mut publications = Vec::with_capacity(entries.len() / 3);
    let mut entries = entries.into_iter();
    while let (Some(offset), Some(payload), Some(_ms)) = (entries.next(), entries.next(), entries.next()) {
        let payload = payload.into_bytes().ok_or_else(|| strange("an entry without a payload"))?;
        // One that cannot be read is left out, and so the history is not complete: the client is told.
        let Ok(Content { data, info, tags, .. }) = envelope::decode(payload) else { continue };
        publications.push(Arc::new(Publication {
            channel: Channel::clone(channel),
            kind: PushKind::Publication,
            payload: Payload::new(data),
            offset: integer(&offset)?,
            epoch: Arc::clone(&top.epoch),
            info: info.map(Arc::new),
            tags: BTreeMap::from_iter(tags),
            delta: false,
            is_late: false,
            received,
        }));
    }
    Ok(History { publications, top })
}

/// A client as a value in Redis: the user with its length, so that the functions can read it, and the rest.
pub(crate) fn member(info: &ClientInfo) -> Bytes {
    let rest = ClientInfo { user: String::new(), client: String::new(), ..info.clone() };
    [format!("{}:{}", info.user.len(), info.user).into_bytes(), rest.encode_to_vec()].concat().into()
}

/// The client of a value of [`member`].
fn read_member(client: String, value: &[u8]) -> Option<ClientInfo> {
    let colon = value.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&value[..colon]).ok()?.parse().ok()?;
    let (user, rest) = value[colon + 1..].split_at_checked(length)?;
    let user = String::from_utf8(user.to_vec()).ok()?;
    Some(ClientInfo { user, client, ..ClientInfo::decode(rest).ok()? })
}

/// What `push_presence_update` has answered: how many members the node has in the channel now, and whether there are members of
/// nodes that are gone still to be taken out.
pub(crate) fn updated(answer: Value) -> Result<(u64, bool), BrokerError> {
    let [members, more] = parts(answer)?;
    Ok((integer(&members)?, integer(&more)? > 0))
}

/// What `push_presence` has answered.
pub(crate) fn presence(answer: Value) -> Result<Presence, BrokerError> {
    let [clients, entries] = parts(answer)?;
    let clients = integer(&clients)?;
    let mut entries = if entries.is_null() { Vec::new() } else { entries.into_array() }.into_iter();
    let mut members = Vec::new();
    while let (Some(client), Some(value)) = (entries.next(), entries.next()) {
        let value = value.into_bytes().ok_or_else(|| strange("a member without a value"))?;
        let member = read_member(text(client)?, &value).ok_or_else(|| strange("a member that cannot be read"))?;
        members.push(Arc::new(member));
    }
    Ok(Presence { clients, members })
}

/// What `push_presence_stats` has answered.
pub(crate) fn presence_stats(answer: Value) -> Result<PresenceStats, BrokerError> {
    let [clients, users] = parts(answer)?;
    Ok(PresenceStats { clients: integer(&clients)?, users: integer(&users)? })
}

fn parts<const N: usize>(answer: Value) -> Result<[Value; N], BrokerError> {
    answer.into_array().try_into().map_err(|_| strange("another number of parts"))
}

fn integer(value: &Value) -> Result<u64, BrokerError> {
    value.as_u64().ok_or_else(|| strange("a number that is none"))
}

fn text(value: Value) -> Result<String, BrokerError> {
    value.into_string().ok_or_else(|| strange("a text that is none"))
}

fn strange(what: &str) -> BrokerError {
    BrokerError::Refused(format!("an answer of {LIBRARY}'s functions that makes no sense: {what}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_as_it_was_written() {
        let info = ClientInfo {
            user: "ü:7".into(),
            client: "c".into(),
            conn_info: "{}".into(),
            chan_info: Bytes::from_static(b"\0"),
        };
        for info in [info, ClientInfo { client: "d".into(), ..ClientInfo::default() }] {
            assert_eq!(read_member(info.client.clone(), &member(&info)), Some(info));
        }
        for broken in ["", ":", "1:", "x:a", "99999999999999999999:a", "1:aff"] {
            assert_eq!(read_member(String::new(), broken.as_bytes()), None, "{broken:?}");
        }
    }
}
