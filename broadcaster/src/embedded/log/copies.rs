//! Publications and channels as records, and back.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use tidegate_protocol::message;

use super::clock::Clock;
use super::record::{Entry, Place, Record, State};
use crate::embedded::streams::copy::StreamCopy;
use crate::publication::{Channel, Payload, Publication, PushKind};

/// Publisher and tags as a record has them.
pub(in crate::embedded) fn extra(publication: &Publication) -> Vec<u8> {
    if publication.info.is_none() && publication.tags.is_empty() {
        return Vec::new();
    }
    let info = publication.info.as_deref().cloned();
    let message = message::Publication { info, tags: publication.tags.clone(), ..message::Publication::default() };
    message.encode_to_vec()
}

/// A publication as a record has it.
pub(in crate::embedded) fn entry<'a>(publication: &'a Publication, extra: &'a [u8]) -> Entry<'a> {
    Entry {
        place: Place { channel: &publication.channel, epoch: &publication.epoch, offset: publication.offset },
        kind: publication.payload.kind,
        delta: publication.delta,
        data: &publication.payload.data,
        extra,
    }
}

/// The publication of a record, with bytes of its own. The checksum says that publisher and tags are what was written;
/// should they be no message all the same, the publication has none.
pub(super) fn publication(
    entry: &Entry<'_>,
    channel: &Channel,
    epoch: &Arc<str>,
    received: Instant,
) -> Arc<Publication> {
    let message::Publication { info, tags, .. } = message::Publication::decode(entry.extra).unwrap_or_default();
    Arc::new(Publication {
        kind: PushKind::Publication,
        channel: Channel::clone(channel),
        payload: Payload { data: Bytes::copy_from_slice(entry.data), kind: entry.kind },
        offset: entry.place.offset,
        epoch: Arc::clone(epoch),
        info: info.map(Arc::new),
        tags,
        delta: entry.delta,
        is_late: false,
        received,
    })
}

/// Appends the record of a channel, without its publications.
pub(super) fn put_stream(copy: &StreamCopy, clock: &Clock, out: &mut Vec<u8>) {
    let answered = copy.answered.iter().map(|(until, key, offset)| (clock.unix_ms(*until), &**key, *offset)).collect();
    let state = State {
        top: Place { channel: &copy.channel, epoch: &copy.epoch, offset: copy.top },
        publications_until: clock.unix_ms(copy.publications_until),
        until: clock.unix_ms(copy.until),
        version: (&copy.version).into(),
        answered,
    };
    Record::Stream(state).encode(out);
}

/// Appends the record of a channel's publication.
pub(super) fn put_kept(publication: &Publication, out: &mut Vec<u8>) {
    Record::Kept(entry(publication, &extra(publication))).encode(out);
}
