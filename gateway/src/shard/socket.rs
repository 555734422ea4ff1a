//! A client's socket, as the turn sees it.

use std::io;

/// A socket that never blocks: `WouldBlock` where it would.
///
/// The reactor has TCP sockets; a test or a simulator brings its own.
pub trait Socket: Send + 'static {
    /// Reads what is there; 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; anything else ends the connection.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing; anything else ends the connection.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as much as the socket takes of several slices.
    ///
    /// # Errors
    /// As [`Socket::write`].
    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// Says that nothing more will be written. An error here is seen by the next read.
    fn shutdown_write(&mut self);
}

impl Socket for std::net::TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        io::Write::write_vectored(self, slices)
    }

    fn shutdown_write(&mut self) {
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}
