//! What can be measured.
//!
//! - [`idle`]: memory and CPU of sessions that only exist
//! - [`pattern`]: broadcast and unicast
//! - [`stall`]: readers that stop reading
//! - [`compare`]: the server beside the floor
//! - [`measure`]: one measurement, which the others are made of

pub(crate) mod compare;
pub(crate) mod hold;
pub(crate) mod idle;
pub(crate) mod measure;
pub(crate) mod pattern;
pub(crate) mod stall;
