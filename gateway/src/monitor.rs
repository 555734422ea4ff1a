//! The driver of memory pressure: looks at the memory, and does what [`crate::pressure`] decides.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use crate::admission::Admission;
use crate::pressure::{Level, PressureStats, Thresholds, decide};
use crate::shard::inbox::{Inbox, Message};
use crate::shard::stats::ShardStats;

/// How often the memory is looked at while more than half of the limit is in use.
const NEAR: Duration = Duration::from_millis(100);

/// How often otherwise: an idle node has better to do, and half of the limit does not fill up in this time.
const FAR: Duration = Duration::from_millis(250);

/// Looks that pass between two evictions, so that the first one's effect is seen.
const EVICTION_EVERY: u32 = 2;

/// Where the memory in use is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usage {
    /// The process's own: resident memory; above half of the limit, less what the allocator holds ready for reuse.
    Process,
    /// The bytes that stand in this file (`memory.usage_file`): for tests and drills.
    File(PathBuf),
}

/// What the monitor works with.
pub struct Monitor {
    /// Where the memory in use is read.
    pub usage: Usage,
    /// The limit, in bytes.
    pub limit: u64,
    /// `memory.*`.
    pub thresholds: Thresholds,
    /// The door.
    pub admission: Arc<Admission>,
    /// The shards.
    pub inboxes: Arc<[Arc<Inbox<TcpStream>>]>,
    /// What they count: a shard's share of an eviction is its share of the queues.
    pub shards: Arc<[Arc<ShardStats>]>,
    /// What others see of it.
    pub stats: Arc<PressureStats>,
}

impl Monitor {
    /// Watches until `stop` is true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        self.stats.limit.store(self.limit, Relaxed);
        let mut pause = Duration::ZERO;
        let mut since_eviction = EVICTION_EVERY;
        let mut unreadable = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            match self.usage.read(self.limit) {
                Ok(used) => {
                    pause = if used > self.limit / 2 { NEAR } else { FAR };
                    unreadable = false;
                    since_eviction += 1;
                    if self.look(used, since_eviction >= EVICTION_EVERY) {
                        since_eviction = 0;
                    }
                }
                Err(error) if !unreadable => {
                    unreadable = true;
                    tracing::error!(%error, "the memory in use cannot be read; pressure stays as it is");
                }
                Err(_) => {}
            }
        }
    }

    /// Does what the memory in use asks for. Answers whether sessions were evicted.
    fn look(&self, used: u64, may_evict: bool) -> bool {
        let before = self.stats.level();
        let step = decide(before, used, self.limit, &self.thresholds);
        self.stats.used.store(used, Relaxed);
        if step.level != before {
            let (limit, level) = (self.limit, step.level);
            match level {
                Level::Normal => tracing::info!(used, limit, "memory is in order again"),
                _ => tracing::warn!(used, limit, ?level, "memory is short"),
            }
            self.stats.set_level(step.level);
            self.admission.set_memory_short(step.level != Level::Normal);
        }
        if step.evict == 0 || !may_evict {
            return false;
        }
        let queued: Vec<u64> = self.shards.iter().map(|shard| shard.queue_bytes.get()).collect();
        let total: u64 = queued.iter().sum();
        for (inbox, queued) in self.inboxes.iter().zip(queued) {
            let share = if total > 0 {
                (u128::from(step.evict) * u128::from(queued) / u128::from(total)) as u64
            } else {
                step.evict / self.inboxes.len() as u64
            };
            if share > 0 {
                inbox.send(Message::Evict(share.try_into().unwrap_or(usize::MAX)));
            }
        }
        true
    }
}

impl Usage {
    /// Reads the memory in use, in bytes; `limit` is what it will be compared with.
    ///
    /// # Errors
    /// Where the system does not tell, or the file holds no number.
    pub fn read(&self, limit: u64) -> std::io::Result<u64> {
        match self {
            Self::Process => process_memory(limit),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)?;
                text.trim().parse().map_err(|_| {
                    let message = format!("{} holds {text:?}, not a number of bytes", path.display());
                    std::io::Error::new(std::io::ErrorKind::InvalidData, message)
                })
            }
        }
    }
}

/// Resident memory, less the pages that the allocator has free: it gives those back to the system only seconds later,
/// but an eviction has to see at once what it has freed. The allocator takes 0.3 ms to say so, for all of its arenas,
/// which would be most of what an idle node spends: it is asked only above half of the limit.
fn process_memory(limit: u64) -> std::io::Result<u64> {
    use tikv_jemalloc_ctl::{epoch, stats};
    let resident = resident_memory()?;
    if resident <= limit / 2 {
        return Ok(resident);
    }
    let free =
        epoch::advance().and_then(|_| Ok(stats::resident::read()?.saturating_sub(stats::active::read()?))).unwrap_or(0); // another allocator is in use, as in tests
    Ok(resident.saturating_sub(free as u64))
}

fn resident_memory() -> std::io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "/proc/self/statm"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The limit that the process lives under: its cgroup's (version 2 or 1), else the machine's memory.
///
/// # Errors
/// Where none of them can be read.
pub fn system_limit() -> std::io::Result<u64> {
    let machine = machine_memory()?;
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Ok(cgroup_files(&cgroups)
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
        .fold(machine, u64::min))
}

/// The files that may hold a limit: of the process's own group, and of the mount's root, which is
/// what a container sees as its own.
fn cgroup_files(cgroups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let path = path.trim_end_matches('/');
        if id == "0" && controllers.is_empty() {
            files.push(format!("/sys/fs/cgroup{path}/memory.max"));
            files.push("/sys/fs/cgroup/memory.max".into());
        } else if controllers.split(',').any(|controller| controller == "memory") {
            files.push(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
            files.push("/sys/fs/cgroup/memory/memory.limit_in_bytes".into());
        }
    }
    files
}

fn machine_memory() -> std::io::Result<u64> {
    let info = std::fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "/proc/meminfo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_looked_at() {
        let files = cgroup_files("12:cpu,memory:/docker/abc\n0::/system.slice/tidegate.service\n");
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/system.slice/tidegate.service/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(cgroup_files("garbage"), Vec::<String>::new());
    }

    #[test]
    fn the_system_says_what_the_process_uses_and_may_use() {
        let used = Usage::Process.read(system_limit().unwrap()).unwrap();
        let limit = system_limit().unwrap();
        assert!(used > 0 && used < limit, "{used} of {limit}");
    }
}
