//! A virtual socket: of the shard's tests, and of the simulator.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use super::Socket;

/// Both ends.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "each of the two reads its own part")]
pub(crate) struct Wire {
    /// From the client, not read by the shard yet.
    pub(crate) to_shard: VecDeque<u8>,
    /// Written by the shard.
    pub(crate) to_client: Vec<u8>,
    /// How many more bytes the socket takes.
    pub(crate) room: usize,
    /// Calls to write.
    pub(crate) writes: usize,
    /// The client has closed its end.
    pub(crate) closed: bool,
    /// The shard has closed its end.
    pub(crate) shut: bool,
}

/// The shard's end.
#[derive(Debug, Clone)]
pub(crate) struct Virtual(pub(crate) Arc<Mutex<Wire>>);

impl Socket for Virtual {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.lock().unwrap();
        if wire.to_shard.is_empty() {
            return if wire.closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        io::Read::read(&mut wire.to_shard, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.0.lock().unwrap();
        wire.writes += 1;
        if wire.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut taken = 0;
        for slice in slices {
            let n = slice.len().min(wire.room);
            wire.to_client.extend_from_slice(&slice[..n]);
            wire.room -= n;
            taken += n;
        }
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn shutdown_write(&mut self) {
        self.0.lock().unwrap().shut = true;
    }
}
