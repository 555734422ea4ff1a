//! Settings.

mod rooms;
pub mod units;

pub use rooms::*;
