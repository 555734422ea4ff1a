//! What goes over the pipes between the coordinator and a client process: frames of a length (4 bytes, big-endian) and
//! so many bytes of JSON.

use std::io::{ErrorKind, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::Counts;
use super::super::command::Command;
use super::super::tally::Tally;
use super::super::target::Target;

/// The longest frame in bytes: the counts of 16 million channels fit.
const MAX_FRAME: u32 = 192 << 20;

/// From the coordinator to a client process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first: start the threads.
    Start {
        /// Servers, and this process's source addresses.
        target: Target,
        /// How many threads.
        threads: u32,
    },
    /// Any other.
    Run(Command),
}

/// From a client process to the coordinator.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The running counts; comes at any time.
    Counts(Counts),
    /// The answer to a request, with what was counted if that was asked for.
    Done(Option<Box<Tally>>),
    /// The answer to a request that could not be carried out.
    Failed(String),
}

/// A frame's bytes.
///
/// # Errors
/// More than [`MAX_FRAME`] bytes.
pub(super) fn encode(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|length| *length <= MAX_FRAME).ok_or_else(too_long)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Writes a frame.
pub(super) fn write(output: &mut impl Write, message: &impl Serialize) -> std::io::Result<()> {
    output.write_all(&encode(message)?)?;
    output.flush()
}

/// Reads a frame; `None` where the other side has closed the pipe between two frames.
///
/// # Errors
/// A pipe that fails or ends within a frame, a frame that is too long or is no such message.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl Read) -> std::io::Result<Option<T>> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match input.read(&mut length[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(length);
    if length > MAX_FRAME {
        return Err(too_long());
    }
    // Grows as bytes come: the length alone allocates nothing.
    let mut body = Vec::new();
    input.take(length.into()).read_to_end(&mut body)?;
    if body.len() < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&body)?))
}

fn too_long() -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, format!("a frame of more than {MAX_FRAME} bytes"))
}

#[cfg(test)]
mod tests {
    use crate::client::count::Schedule;
    use crate::client::layout::Layout;
    use std::sync::Arc;

    use super::super::super::tally::count;
    use super::*;
    use crate::wire::Wire;

    #[test]
    fn requests_come_out_as_they_went_in() {
        let mut target =
            Target::new(vec![([127, 0, 0, 1], 8000).into()], Wire::WsJson, "/", "news", Layout::even(1, 1));
        target.spread_sources(0, 10, 1);
        let mut pipe = Vec::new();
        write(&mut pipe, &Request::Start { target: target.clone(), threads: 3 }).unwrap();
        write(
            &mut pipe,
            &Request::Run(Command::Collect { published: Arc::from([7, 0, 9]), schedule: Schedule::default() }),
        )
        .unwrap();
        let mut input = &pipe[..];
        let Some(Request::Start { target: read_target, threads: 3 }) = read(&mut input).unwrap() else {
            panic!("a start");
        };
        assert_eq!(format!("{read_target:?}"), format!("{target:?}"));
        let Some(Request::Run(Command::Collect { published, .. })) = read(&mut input).unwrap() else {
            panic!("a command");
        };
        assert_eq!(*published, [7, 0, 9]);
        assert!(read::<Request>(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_tally_comes_out_as_it_went_in_to_the_last_bucket() {
        let mut tally = Tally::new();
        tally.delivered = 12;
        tally.lost = 3;
        tally.last_delivery = u64::MAX / 3;
        count(&mut tally.ended, "closed with 3008", 4);
        for value in [0, 1, 999, 1_000, 123_456, 600_000_000_000, u64::MAX] {
            tally.latency.saturating_record(value);
            tally.setup.saturating_record(value / 2);
        }
        let (latency, setup) = (tally.latency.clone(), tally.setup.clone());
        let frame = encode(&Report::Done(Some(Box::new(tally)))).unwrap();
        let Some(Report::Done(Some(copy))) = read(&mut &frame[..]).unwrap() else { panic!("a tally") };
        assert_eq!((copy.delivered, copy.lost, copy.last_delivery), (12, 3, u64::MAX / 3));
        assert_eq!(copy.ended["closed with 3008"], 4);
        assert_eq!((&copy.latency, &copy.setup), (&latency, &setup));
        assert_eq!(copy.latency.len(), 7);
    }

    #[test]
    fn a_frame_that_is_cut_or_too_long_or_something_else_is_an_error() {
        let frame = encode(&Request::Run(Command::Resume)).unwrap();
        for cut in 1..frame.len() {
            assert_eq!(read::<Request>(&mut &frame[..cut]).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
        }
        let long = (MAX_FRAME + 1).to_be_bytes();
        assert_eq!(read::<Request>(&mut &long[..]).unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(read::<Report>(&mut &frame[..]).is_err());
    }
}
