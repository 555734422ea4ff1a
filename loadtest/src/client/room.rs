//! Whether this machine has room for so many sessions: descriptors, ports, memory. Asked before the first connection.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::target::Target;
use crate::error::{Error, Result};
use crate::sockstat;

/// Descriptors that a process needs beside its sessions.
const OTHER_DESCRIPTORS: u64 = 64;
/// What the kernel takes for a socket: its share of the slabs `TCP` (2.5 KB), `sock_inode_cache`, `filp`, `dentry` and
/// `eventpoll_epi` of Linux 6.18.
const KERNEL_BYTES: u64 = 4_000;
/// What this program takes for a session.
const CLIENT_BYTES: u64 = 128;
/// What a frugal server takes for one; a greedy one needs more, which nobody can know from here.
const SERVER_BYTES: u64 = 512;
/// What a client process takes for itself.
const PROCESS_BYTES: u64 = 5 << 20;

/// What the system has to give; `None` where it does not tell or sets no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Room {
    /// File descriptors of one process (`RLIMIT_NOFILE`).
    descriptors: Option<u64>,
    /// Open files of the whole machine that are left (`fs.file-max`).
    files: Option<u64>,
    /// Bytes of memory (`MemAvailable`).
    memory: Option<u64>,
    /// Ports for outgoing connections of one source address to one destination (`net.ipv4.ip_local_port_range`).
    ports: Option<u64>,
}

impl Room {
    /// Asks the system, after raising the soft limit of descriptors to the hard one.
    pub(crate) fn read() -> Self {
        let limit = getrlimit(Resource::Nofile);
        // Where that is refused, the limit stays and counts.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Self {
            descriptors: getrlimit(Resource::Nofile).current,
            files: files_left(&text("/proc/sys/fs/file-nr")),
            memory: sockstat::memory_available().ok(),
            ports: ports(&text("/proc/sys/net/ipv4/ip_local_port_range")),
        }
    }

    /// The fewest processes that hold so many sessions.
    pub(crate) fn processes(&self, sessions: u32) -> u32 {
        let Some(limit) = self.descriptors else { return 1 };
        let each = limit.saturating_sub(OTHER_DESCRIPTORS).max(1);
        u64::from(sessions).div_ceil(each).clamp(1, u64::from(u32::MAX)) as u32
    }

    /// Refuses sessions that cannot be held.
    ///
    /// # Errors
    /// Says what there is too little of, how much there is, and what would help.
    pub(crate) fn check(&self, sessions: u32, processes: u32, target: &Target) -> Result<()> {
        let processes = processes.max(1);
        self.descriptors(sessions, processes)
            .and_then(|()| self.files(sessions, target.is_loopback()))
            .and_then(|()| self.ports(sessions, target))
            .and_then(|()| self.memory(sessions, processes, target.is_loopback()))
            .map_err(Error::Usage)
    }

    fn descriptors(&self, sessions: u32, processes: u32) -> std::result::Result<(), String> {
        let Some(limit) = self.descriptors else { return Ok(()) };
        let needed = u64::from(sessions.div_ceil(processes)) + OTHER_DESCRIPTORS;
        if needed <= limit {
            return Ok(());
        }
        let (those, whose) = if processes == 1 {
            (String::new(), "this process".to_owned())
        } else {
            (format!(" in each of {processes} processes"), "a process".to_owned())
        };
        Err(format!(
            "{sessions} sessions need {needed} file descriptors{those}, but {whose} may open {limit}: spread them over \
             processes (--processes {}), raise the limit (ulimit -n {needed}), or ask for at most {} sessions",
            self.processes(sessions),
            limit.saturating_sub(OTHER_DESCRIPTORS) * u64::from(processes),
        ))
    }

    fn files(&self, sessions: u32, loopback: bool) -> std::result::Result<(), String> {
        let Some(left) = self.files else { return Ok(()) };
        let (ends, whose) = ends(loopback);
        let needed = u64::from(sessions) * ends;
        if needed <= left {
            return Ok(());
        }
        Err(format!(
            "{sessions} sessions need {needed} open files ({whose}), but the machine has {left} left: raise fs.file-max \
             (sysctl) or ask for at most {} sessions",
            left / ends
        ))
    }

    fn ports(&self, sessions: u32, target: &Target) -> std::result::Result<(), String> {
        let Some(ports) = self.ports else { return Ok(()) };
        // A source address of our choice is bound before its destination is known, so that its ports serve all servers
        // together; one of the system's choice has all ports for each server.
        let (count, what) = match target.sources.len() as u64 {
            0 => (u64::from(target.servers()), "an address of the server"),
            sources => (sources, "a source address"),
        };
        let needed = u64::from(sessions).div_ceil(count);
        if needed <= ports {
            return Ok(());
        }
        let help = if target.sources.is_empty() {
            format!("give the server {} addresses (--server several times)", u64::from(sessions).div_ceil(ports))
        } else {
            format!("raise --sources to {} or leave it out", u64::from(sessions).div_ceil(ports))
        };
        Err(format!(
            "{sessions} sessions need {needed} ports for {what}, but there are {ports} \
             (net.ipv4.ip_local_port_range): {help}"
        ))
    }

    fn memory(&self, sessions: u32, processes: u32, loopback: bool) -> std::result::Result<(), String> {
        let Some(available) = self.memory else { return Ok(()) };
        let (ends, whose) = ends(loopback);
        let server = if loopback { SERVER_BYTES } else { 0 };
        let each = KERNEL_BYTES * ends + CLIENT_BYTES + server;
        let needed = u64::from(sessions) * each + u64::from(processes) * PROCESS_BYTES;
        if needed <= available {
            return Ok(());
        }
        Err(format!(
            "{sessions} sessions need about {} of memory ({each} bytes each, {whose}), but {} is available: ask for at \
             most {} sessions",
            gib(needed),
            gib(available),
            available.saturating_sub(u64::from(processes) * PROCESS_BYTES) / each
        ))
    }
}

/// How many ends of a connection this machine has.
fn ends(loopback: bool) -> (u64, &'static str) {
    if loopback { (2, "both ends of a connection are on this machine") } else { (1, "the client's end alone") }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// From `file-nr`: in use, unused, at most.
fn files_left(text: &str) -> Option<u64> {
    let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (used, most) = (fields.next()?.ok()?, fields.nth(1)?.ok()?);
    Some(most.saturating_sub(used))
}

fn ports(text: &str) -> Option<u64> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.trim().parse().ok()?);
    Some((last + 1).saturating_sub(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::layout::Layout;
    use crate::wire::Wire;

    const ROOM: Room =
        Room { descriptors: Some(20_000), files: Some(2_400_000), memory: Some(20 << 30), ports: Some(28_232) };

    fn check(room: Room, sessions: u32, processes: u32, sources: u32) -> std::result::Result<(), String> {
        let mut target = Target::new(vec![([127, 0, 0, 1], 8000).into()], Wire::WsJson, "/", "c", Layout::even(1, 1));
        target.spread_sources(sources, sessions, processes);
        room.check(sessions, processes, &target).map_err(|error| error.to_string())
    }

    #[test]
    fn too_many_sessions_for_the_descriptors_are_refused_with_what_would_do() {
        assert!(check(ROOM, 19_000, 1, 0).is_ok());
        assert!(check(Room::default(), 1_000_000, 1, 0).is_ok());
        let text = check(ROOM, 20_000, 1, 0).unwrap_err();
        for part in ["--processes 2", "ulimit -n 20064", "at most 19936 sessions"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(check(ROOM, 20_000, 2, 0).is_ok());
        let text = check(ROOM, 50_000, 2, 0).unwrap_err();
        assert!(text.contains("each of 2 processes") && text.contains("--processes 3"), "{text}");
    }

    #[test]
    fn a_million_sessions_take_51_processes_of_20000_descriptors() {
        assert_eq!(ROOM.processes(1_000_000), 51);
        assert_eq!(ROOM.processes(1), 1);
        assert!(check(ROOM, 1_000_000, 51, 0).is_ok());
    }

    #[test]
    fn too_little_memory_is_refused_with_how_much_there_is_and_what_would_do() {
        let text = check(Room { memory: Some(4 << 30), ..ROOM }, 1_000_000, 51, 0).unwrap_err();
        for part in ["8.3 GiB", "4.0 GiB", "at most 466"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn too_few_open_files_and_too_few_ports_are_refused_with_what_would_do() {
        let text = check(Room { files: Some(1_000_000), ..ROOM }, 1_000_000, 51, 0).unwrap_err();
        assert!(text.contains("fs.file-max") && text.contains("at most 500000"), "{text}");
        let text = check(Room { descriptors: None, ..ROOM }, 60_000, 1, 2).unwrap_err();
        assert!(text.contains("--sources to 3"), "{text}");
    }

    #[test]
    fn the_systems_files_are_understood() {
        assert_eq!(files_left("845\t0\t2466186\n"), Some(2_465_341));
        assert_eq!(ports("32768\t60999\n"), Some(28_232));
        assert_eq!((files_left("x"), ports("1")), (None, None));
    }
}
