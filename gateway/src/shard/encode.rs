//! Publications as bytes: once for each wire and each way to receive, shared by all subscribers that are alike.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_broadcaster::{Content, Publication, PushKind};
use tidegate_protocol::codec::payload::json_form;
use tidegate_protocol::codec::{Format, PublicationParts, encode_publication, encode_reply};
use tidegate_protocol::delta;
use tidegate_protocol::message::{Join, Leave, Push, Reply};
use tidegate_protocol::websocket::frame::{BINARY, TEXT, write_header};
use tungstenite::protocol::frame::coding::OpCode;

use super::outbox::Queueing;
use super::palette::Cell;
use super::stats::Wire;
use crate::hub::fanout::weight;

/// How a subscription receives publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As they are.
    Plain,
    /// As deltas, but it has none yet that one could refer to.
    First,
    /// As deltas to the publication before.
    Delta,
}

/// One publication for one subscriber.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    /// As it is.
    Plain,
    /// Whole, for a subscription with deltas: JSON clients get the text as a string.
    Whole,
    /// What makes it of the one before.
    Patch(&'a [u8]),
}

const WIRES: usize = Wire::ALL.len();

/// What has been encoded of a round.
#[derive(Debug, Default)]
pub struct Encodings {
    plain: [Option<Cell>; WIRES],
    /// Where somebody receives deltas.
    deltas: Option<Box<Deltas>>,
}

/// A round for those who receive deltas.
#[derive(Debug, Default)]
struct Deltas {
    first: [Option<Cell>; WIRES],
    delta: [Option<Cell>; WIRES],
    /// The publication before the round's first.
    previous: Option<Arc<Publication>>,
    /// For each publication what makes it of the one before, if that is shorter.
    patches: Option<Vec<Option<Vec<u8>>>>,
}

impl Encodings {
    /// The place of a cell among those of a round.
    pub fn place(wire: Wire, kind: Kind) -> usize {
        kind as usize * WIRES + wire as usize
    }

    /// Somebody receives deltas, and this is the publication before the round's first.
    pub(super) fn refer_to(&mut self, previous: Option<Arc<Publication>>) {
        self.deltas = Some(Box::new(Deltas { previous, ..Deltas::default() }));
    }

    /// The round's publications for a wire and a way to receive them, joined.
    pub(super) fn cell(
        &mut self,
        wire: Wire,
        kind: Kind,
        publications: &[Arc<Publication>],
        queueing: Queueing,
        scratch: &mut Vec<u8>,
    ) -> &Cell {
        if kind == Kind::Plain {
            let plain = &mut self.plain[wire as usize];
            return plain.get_or_insert_with(|| encode(wire, publications, |_| Form::Plain, queueing, scratch));
        }
        let Deltas { first, delta, previous, patches } = &mut **self.deltas.get_or_insert_default();
        let cells = if kind == Kind::First { first } else { delta };
        cells[wire as usize].get_or_insert_with(|| {
            let patches = patches.get_or_insert_with(|| make_patches(previous.as_ref(), publications));
            let form = |at: usize| {
                let base = if at > 0 { publications.get(at - 1) } else { previous.as_ref() };
                // What the client could not be sent is nothing that it could refer to.
                let has_base = base.is_some_and(|base| can_carry(wire, base)) && (at > 0 || kind == Kind::Delta);
                match patches.get(at) {
                    Some(Some(patch)) if has_base => Form::Patch(patch),
                    _ => Form::Whole,
                }
            };
            encode(wire, publications, form, queueing, scratch)
        })
    }
}

/// The patches of a round, each computed once for all wires.
fn make_patches(previous: Option<&Arc<Publication>>, publications: &[Arc<Publication>]) -> Vec<Option<Vec<u8>>> {
    let bases = std::iter::once(previous).chain(publications.iter().map(Some));
    let patch = |(base, publication): (Option<&Arc<Publication>>, &Arc<Publication>)| {
        let (base, target) = (&base?.payload.data, &publication.payload.data);
        if !publication.delta {
            return None;
        }
        let mut patch = Vec::new();
        delta::encode(base, target, &mut patch);
        (patch.len() < target.len()).then_some(patch)
    };
    bases.zip(publications).map(patch).collect()
}

/// Whether a wire can carry the payload.
pub(super) fn can_carry(wire: Wire, publication: &Publication) -> bool {
    wire.format() != Format::Json || publication.payload.kind != Content::Binary
}

/// Encodes publications for one wire, joined.
fn encode<'a>(
    wire: Wire,
    publications: &[Arc<Publication>],
    form: impl Fn(usize) -> Form<'a>,
    queueing: Queueing,
    scratch: &mut Vec<u8>,
) -> Cell {
    let payload: usize = publications.iter().map(|publication| weight(publication)).sum();
    let mut out = Vec::with_capacity(payload);
    let (mut count, mut last) = (0, 0);
    for (at, publication) in publications.iter().enumerate() {
        let start = out.len();
        if encode_push(wire, publication, form(at), scratch, &mut out) {
            (count, last) = (count + 1, start as u32);
        }
    }
    out.shrink_to_fit();
    Cell { bytes: Bytes::from(out), publications: count, last, queueing }
}

/// Appends one push, framed; `false` where the wire cannot carry the payload.
pub(super) fn encode_push(
    wire: Wire,
    publication: &Publication,
    form: Form<'_>,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> bool {
    scratch.clear();
    if publication.kind != PushKind::Publication {
        encode_attendance(wire.format(), publication, scratch);
    } else if !encode_one(wire.format(), publication, form, scratch) {
        return false;
    }
    if wire.is_websocket() {
        write_header(opcode(wire.format()), scratch.len(), out);
    }
    out.extend_from_slice(scratch);
    true
}

/// Appends a push that tells who has come or gone.
fn encode_attendance(format: Format, publication: &Publication, out: &mut Vec<u8>) {
    let info = publication.info.as_deref().cloned();
    let push = Push { channel: publication.channel.to_string(), ..Push::default() };
    let push = match publication.kind {
        PushKind::Leave => Push { leave: Some(Leave { info }), ..push },
        PushKind::Join | PushKind::Publication => Push { join: Some(Join { info }), ..push },
    };
    encode_reply(format, &Reply { push: Some(push), ..Reply::default() }, out);
}

/// Appends one push; `false` where the format cannot carry the payload.
fn encode_one(format: Format, publication: &Publication, form: Form<'_>, out: &mut Vec<u8>) -> bool {
    let payload = &publication.payload;
    let (plain, text);
    let data = match (format, form) {
        (Format::Protobuf, Form::Patch(patch)) => patch,
        (Format::Protobuf, _) => &payload.data[..],
        (Format::Json, Form::Plain) => {
            plain = json_form(payload.kind, &payload.data);
            match &plain {
                Some(plain) => plain,
                None => return false,
            }
        }
        (Format::Json, Form::Whole | Form::Patch(_)) => {
            let bytes = if let Form::Patch(patch) = form { patch } else { &payload.data };
            text = as_string(bytes);
            match &text {
                Some(text) if payload.kind != Content::Binary => text,
                _ => return false,
            }
        }
    };
    let parts = PublicationParts {
        channel: &publication.channel,
        data,
        info: publication.info.as_deref(),
        offset: publication.offset,
        // A subscriber that has no epoch yet takes it from the first one.
        epoch: if publication.offset == 1 { &publication.epoch } else { "" },
        tags: &publication.tags,
        delta: matches!(form, Form::Patch(_)),
    };
    encode_publication(format, &parts, out);
    true
}

/// Text as a JSON string: what JSON clients with deltas get for any payload. `None` where it is no text.
pub(super) fn as_string(bytes: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(bytes).ok().and_then(|text| serde_json::to_vec(text).ok())
}

/// The frame type of a WebSocket with this format.
pub(super) fn opcode(format: Format) -> OpCode {
    match format {
        Format::Json => TEXT,
        Format::Protobuf => BINARY,
    }
}
