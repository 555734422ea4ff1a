//! The messages of the client protocol, generated from `proto/client.proto`, and their small helpers.
#![allow(missing_docs, reason = "generated; the protocol's documentation describes the fields")]
#![allow(clippy::doc_markdown, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/centrifugal.centrifuge.protocol.rs"));
