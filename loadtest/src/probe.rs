//! What a process costs, read from `/proc`: CPU, memory, context switches, descriptors.
//!
//! CPU time comes from `/proc/PID/task/*/schedstat` in nanoseconds, because the ticks of `/proc/PID/stat` (10 ms) are
//! too coarse for a burst; where the kernel keeps no schedstat or a thread came or went in between, the ticks count.
//! Memory comes from `smaps_rollup`, which is exact, where `statm` may lag behind by some pages per thread.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::error::{Context, Error, Result};

/// A tick of `/proc/PID/stat` in ns: Linux shows 100 per second to user space on every architecture (`USER_HZ`).
const TICK: u64 = 10_000_000;

/// A process to be watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pid: u32,
}

/// A reading at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// User time in ns, to a tick.
    user: u64,
    /// System time in ns, to a tick.
    system: u64,
    /// Run time of each thread in ns, if the kernel tells.
    threads: BTreeMap<u32, u64>,
    /// Resident bytes.
    pub(crate) rss: u64,
    /// Context switches of all threads.
    switches: u64,
    /// Open file descriptors.
    pub(crate) descriptors: u64,
}

/// What a process used between two readings.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Usage {
    /// CPU time in ns, user and system.
    pub(crate) cpu_ns: u64,
    /// User time in ns, to 10 ms.
    pub(crate) user_ns: u64,
    /// System time in ns, to 10 ms.
    pub(crate) system_ns: u64,
    /// Context switches.
    pub(crate) context_switches: u64,
    /// Resident bytes at the end.
    pub(crate) rss_bytes: u64,
}

/// A reading for a timeline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brief {
    /// CPU time so far in ns, user and system.
    pub(crate) cpu_ns: u64,
    /// Resident bytes.
    pub(crate) rss: u64,
}

/// Bytes of this machine in TCP buffers, by the `mem` pages of `/proc/net/sockstat`; `None` where there is no such file.
pub(crate) fn socket_memory() -> Option<u64> {
    let pages = tcp_pages(&fs::read_to_string("/proc/net/sockstat").ok()?)?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Bytes of this machine in the kernel's slabs, where it keeps sockets, files and epoll items; `None` where
/// `/proc/meminfo` does not tell.
pub(crate) fn slab_memory() -> Option<u64> {
    Some(field_kib(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:")? * 1024)
}

fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    line.split(' ').skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

impl Probe {
    /// Watches a process.
    ///
    /// # Errors
    /// A process that does not exist or is another user's.
    pub(crate) fn new(pid: u32) -> Result<Self> {
        let probe = Self { pid };
        probe.sample().map_err(|error| Error::Usage(format!("--server-pid {pid}: {error}")))?;
        Ok(probe)
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self { pid: std::process::id() }
    }

    /// Reads everything.
    pub(crate) fn sample(&self) -> Result<Sample> {
        let stat = self.read("stat")?;
        let (user, system) =
            cpu_ticks(&stat).ok_or_else(|| Error::Run("the kernel's stat file is not understood".to_owned()))?;
        let rss = field_kib(&self.read("smaps_rollup")?, "Rss:")
            .ok_or_else(|| Error::Run("the kernel's smaps_rollup file has no Rss".to_owned()))?;
        let (mut threads, mut switches) = (BTreeMap::new(), 0);
        for task in self.list("task")? {
            let Some(tid) = task.parse().ok() else { continue };
            // A thread may end between the listing and here.
            if let Ok(schedstat) = self.read(&format!("task/{tid}/schedstat"))
                && let Some(run) = schedstat.split(' ').next().and_then(|run| run.parse().ok())
            {
                threads.insert(tid, run);
            }
            if let Ok(status) = self.read(&format!("task/{tid}/status")) {
                switches += context_switches(&status);
            }
        }
        let descriptors = self.list("fd")?.len() as u64;
        Ok(Sample { user: user * TICK, system: system * TICK, threads, rss: rss * 1024, switches, descriptors })
    }

    /// Reads what a timeline shows, from two small files; `None` once the process is gone. Less exact than
    /// [`Self::sample`]: CPU time to 10 ms, memory to some pages per thread.
    pub(crate) fn brief(&self) -> Option<Brief> {
        let (user, system) = cpu_ticks(&self.read("stat").ok()?)?;
        let rss = field_kib(&self.read("status").ok()?, "VmRSS:")? * 1024;
        Some(Brief { cpu_ns: (user + system) * TICK, rss })
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).context(|| format!("cannot read {path}"))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let path = format!("/proc/{}/{folder}", self.pid);
        let entries = fs::read_dir(&path).context(|| format!("cannot read {path}"))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }
}

impl Sample {
    /// What was used since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Usage {
        let user_ns = self.user.saturating_sub(earlier.user);
        let system_ns = self.system.saturating_sub(earlier.system);
        let same_threads = self.threads.keys().eq(earlier.threads.keys()) && !self.threads.is_empty();
        let sum = |sample: &Self| sample.threads.values().sum::<u64>();
        let exact = sum(self).saturating_sub(sum(earlier));
        // A kernel without schedstat shows zeros.
        let cpu_ns = if same_threads && exact > 0 { exact } else { user_ns + system_ns };
        Usage {
            cpu_ns,
            user_ns,
            system_ns,
            context_switches: self.switches.saturating_sub(earlier.switches),
            rss_bytes: self.rss,
        }
    }
}

/// User and system time of a `stat` line, in ticks. The name in brackets may hold anything, brackets as well.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

fn context_switches(status: &str) -> u64 {
    ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"].iter().filter_map(|name| field_kib(status, name)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_are_found_behind_a_name_with_brackets_and_spaces() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 71 5 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some((71, 5)));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn the_pages_of_tcp_buffers_are_found_among_the_sockets() {
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 2 alloc 8 mem 37\nUDP: inuse 3 mem 256\n";
        assert_eq!(tcp_pages(sockstat), Some(37));
        assert_eq!(tcp_pages("UDP: inuse 3 mem 256\n"), None);
    }

    #[test]
    fn both_kinds_of_context_switches_count() {
        assert_eq!(context_switches("Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n"), 9);
    }

    #[test]
    fn memory_that_this_process_takes_and_work_that_it_does_show() {
        let probe = Probe::own();
        let before = probe.sample().unwrap();
        let block = vec![1u8; 16 << 20];
        let mut work = 0u64;
        let after = loop {
            work = work.wrapping_add(block.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            let after = probe.sample().unwrap();
            if after.since(&before).cpu_ns > 0 {
                break after;
            }
        };
        assert!(work > 0 && after.rss >= before.rss + (12 << 20), "{before:?} {after:?}");
    }

    #[test]
    fn a_process_that_does_not_exist_is_named() {
        assert!(Probe::new(u32::MAX).unwrap_err().to_string().contains("--server-pid 4294967295"));
    }
}
