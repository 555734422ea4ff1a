//! What the kernel of this machine holds for sockets, which no process's memory shows.
//!
//! Two views, because each misses what the other has:
//!
//! - [`Sockstat`], from `/proc/net/sockstat`: how many TCP sockets there are, and the pages charged to their buffers
//!   (`tcp_mem`'s account). It grows with unsent and unread data. An idle socket has empty buffers and counts nothing.
//! - [`Slabs`]: the sockets themselves. Each is an object in the kernel's slabs (the socket, its inode, its `file`, a
//!   dentry, the epoll entry), about 3.7 KB. From `/proc/slabinfo`, which takes root, the slabs that sockets are made
//!   of; else from `Slab:` of `/proc/meminfo`, which has all slabs, so that any other work on the machine shows in it.
//!
//! Both are of the whole network namespace or machine: take differences while nothing else comes and goes, and mind
//! that a load generator on the same machine holds the other end of each connection.
//! Sources: the kernel's `Documentation/filesystems/proc.rst`, `net/ipv4/proc.c` and `mm/slab_common.c`.

use std::fs;

use crate::error::{Context, Error, Result};
use crate::probe::field_kib;

/// The slab caches that an open connection and its place in an epoll set are made of.
const SOCKET_CACHES: &[&str] =
    &["TCP", "TCPv6", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "eventpoll_pwq"];

/// A reading of `/proc/net/sockstat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sockstat {
    /// TCP sockets that a process holds and that are connected or listen; IPv4 only.
    pub(crate) tcp_inuse: u64,
    /// TCP sockets that no process holds any more, but whose connection has not ended.
    pub(crate) tcp_orphan: u64,
    /// Connections in TIME_WAIT.
    pub(crate) tcp_time_wait: u64,
    /// TCP sockets that are allocated in any state, IPv6 among them.
    pub(crate) tcp_alloc: u64,
    /// Bytes of pages charged to TCP buffers, both directions.
    pub(crate) tcp_memory_bytes: u64,
}

impl Sockstat {
    /// Reads it.
    ///
    /// # Errors
    /// A machine without it, such as one that is not Linux.
    pub(crate) fn read() -> Result<Self> {
        let path = "/proc/net/sockstat";
        let text = fs::read_to_string(path).context(|| format!("cannot read {path}"))?;
        Self::parse(&text, rustix::param::page_size() as u64)
            .ok_or_else(|| Error::Run(format!("{path} is not understood: it has no line for TCP")))
    }

    fn parse(text: &str, page: u64) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let value = |name: &str| words.chunks_exact(2).find(|pair| pair[0] == name)?[1].parse::<u64>().ok();
        Some(Self {
            tcp_inuse: value("inuse")?,
            tcp_orphan: value("orphan")?,
            tcp_time_wait: value("tw")?,
            tcp_alloc: value("alloc")?,
            tcp_memory_bytes: value("mem")?.checked_mul(page)?,
        })
    }
}

/// Memory in the kernel's slabs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slabs {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Whether these are only the slabs that sockets are made of, or all of the machine's.
    pub(crate) of_sockets: bool,
}

impl Slabs {
    /// Reads them, as exactly as this user may.
    ///
    /// # Errors
    /// A machine that shows neither file.
    pub(crate) fn read() -> Result<Self> {
        let of_sockets = fs::read_to_string("/proc/slabinfo").ok().and_then(|text| socket_slabs(&text));
        if let Some(bytes) = of_sockets {
            return Ok(Self { bytes, of_sockets: true });
        }
        let path = "/proc/meminfo";
        let text = fs::read_to_string(path).context(|| format!("cannot read {path}"))?;
        let kib = field_kib(&text, "Slab:").ok_or_else(|| Error::Run(format!("{path} has no line for Slab")))?;
        Ok(Self { bytes: kib * 1024, of_sockets: false })
    }
}

/// Bytes of the objects in use in the caches of sockets, with what their slabs waste; `None` without such a cache, as
/// where the kernel has merged them into unnamed ones.
fn socket_slabs(slabinfo: &str) -> Option<u64> {
    let mut bytes = None;
    for line in slabinfo.lines() {
        let mut fields = line.split_ascii_whitespace();
        if !fields.next().is_some_and(|name| SOCKET_CACHES.contains(&name)) {
            continue;
        }
        // active_objs num_objs objsize objperslab pagesperslab, then the tunables.
        let numbers: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let [active, _, _, per_slab, pages, ..] = numbers[..] else { continue };
        let slab = pages.saturating_mul(rustix::param::page_size() as u64);
        let used = active.saturating_mul(slab).checked_div(per_slab)?;
        bytes = Some(bytes.unwrap_or(0u64).saturating_add(used));
    }
    bytes
}

/// Memory in bytes that this machine could still give to programs, by the kernel's estimate (`MemAvailable`).
///
/// # Errors
/// A machine that does not tell.
pub(crate) fn memory_available() -> Result<u64> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).context(|| format!("cannot read {path}"))?;
    let kib = field_kib(&text, "MemAvailable:").ok_or_else(|| Error::Run(format!("{path} has no MemAvailable")))?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// From a Linux 6.18 with 15,000 connections over loopback.
    const SOCKSTAT: &str = "sockets: used 30026\n\
        TCP: inuse 30007 orphan 303 tw 28093 alloc 30008 mem 1416\n\
        UDP: inuse 0 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n";

    /// Lines of the same machine's slabinfo.
    const SLABINFO: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n\
        btrfs_inode         1000   1200   1136   14    4 : tunables    0    0    0 : slabdata     86     86      0\n\
        TCP                  130    143   2496   13    8 : tunables    0    0    0 : slabdata     11     11      0\n\
        filp                1600   1700    256   16    1 : tunables    0    0    0 : slabdata    106    106      0\n";

    #[test]
    fn pages_become_bytes_and_each_count_keeps_its_name() {
        let read = Sockstat::parse(SOCKSTAT, 4096).unwrap();
        assert_eq!(
            (read.tcp_inuse, read.tcp_orphan, read.tcp_time_wait, read.tcp_alloc),
            (30_007, 303, 28_093, 30_008)
        );
        assert_eq!(read.tcp_memory_bytes, 1416 * 4096);
    }

    #[test]
    fn a_file_without_the_line_or_with_a_word_for_a_number_is_not_understood() {
        assert_eq!(Sockstat::parse("sockets: used 3\n", 4096), None);
        assert_eq!(Sockstat::parse("TCP: inuse many orphan 0 tw 0 alloc 1 mem 1\n", 4096), None);
        assert_eq!(Sockstat::parse("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem\n", 4096), None);
    }

    #[test]
    fn only_the_slabs_of_sockets_count_each_object_with_its_share_of_the_slab() {
        let page = rustix::param::page_size() as u64;
        assert_eq!(socket_slabs(SLABINFO), Some(130 * 8 * page / 13 + 1600 * page / 16));
        assert_eq!(socket_slabs("slabinfo - version: 2.1\nbtrfs_inode 1 1 1 1 1\n"), None);
        assert_eq!(socket_slabs("TCP 1 1 1 0 1\n"), None);
    }

    #[test]
    fn sockets_that_this_process_holds_are_counted_and_their_unread_data_is_charged() {
        use std::io::Write;
        const PAIRS: u64 = 200;
        const UNREAD: u64 = 32 << 10;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = |_| {
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stream.write_all(&[0u8; UNREAD as usize]).unwrap();
            (listener.accept().unwrap().0, stream)
        };
        let held: Vec<_> = (0..PAIRS).map(pair).collect();
        // Other processes of this machine can only add to what is held here, whatever they open and close meanwhile. The
        // kernel counts pages in batches for each processor, so that a part of them may not show yet.
        let now = Sockstat::read().unwrap();
        assert!(now.tcp_inuse > 2 * PAIRS && now.tcp_alloc > 2 * PAIRS, "{now:?}");
        assert!(now.tcp_memory_bytes > PAIRS * UNREAD / 4, "{now:?}");
        assert!(Slabs::read().unwrap().bytes > 2 * PAIRS * 2048);
        drop(held);
    }
}
