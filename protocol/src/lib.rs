//! The wire formats of Tidegate. No I/O and no clock: bytes in, messages out, and back.

pub mod code;
pub mod message;
