//! Settings: what there is, where it comes from, and whether it makes sense.
//!
//! - `rooms`: the settings as types ([`Config`]), a file per group, with their defaults;
//! - [`keys`]: the one table of all keys, own and the incumbent's (Centrifugo v6);
//! - [`value`], [`units`]: what a value must be, and how durations and sizes are written;
//! - [`settings`]: the layers (`--dev`, file, environment, flags), each value with its origin;
//! - [`source`]: reading files and variables into layers;
//! - [`load`](mod@load): all of it together, into a [`Config`] or the list of everything that is wrong;
//! - [`check`]: what must hold between keys;
//! - [`reload`]: what differs between two configurations;
//! - [`print`](mod@print): `default-config`, `check-config` and the table of the documentation.

pub mod check;
pub mod keys;
pub mod load;
pub mod print;
pub mod reload;
mod rooms;
pub mod settings;
pub mod source;
pub mod units;
pub mod value;

pub use load::{Flag, Loaded, Problems, Sources, load};
pub use rooms::*;
