//! What a process costs, read from `/proc`: CPU, memory, context switches, descriptors.
//!
//! CPU time comes from `/proc/PID/task/*/schedstat` in nanoseconds, because the ticks of `/proc/PID/stat` (10 ms) are
//! too coarse for a burst; where the kernel keeps no schedstat or a thread came or went in between, the ticks count.
//! Memory comes from `smaps_rollup`, which is exact, where `statm` may lag behind by some pages per thread.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// A tick of `/proc/PID/stat` in ns: Linux shows 100 per second to user space on every architecture (`USER_HZ`).
const TICK: u64 = 10_000_000;

/// Processes to be watched; their costs are added up.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pids: Vec<u32>,
}

/// A reading of all of them at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it was taken.
    at: Instant,
    /// In the order of the probe's processes.
    parts: Vec<Part>,
    /// Resident bytes of all.
    pub(crate) rss: u64,
    /// Open file descriptors of all.
    pub(crate) descriptors: u64,
}

/// A reading of one process.
#[derive(Debug, Clone)]
struct Part {
    /// User time in ns, to a tick.
    user: u64,
    /// System time in ns, to a tick.
    system: u64,
    /// Run time of each thread in ns, if the kernel tells.
    threads: BTreeMap<u32, u64>,
    /// Resident bytes.
    rss: u64,
    /// Context switches of all threads.
    switches: u64,
    /// Open file descriptors.
    descriptors: u64,
}

/// What processes used between two readings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Time between the readings.
    pub(crate) elapsed: Duration,
    /// CPU time in ns, user and system.
    pub(crate) cpu_ns: u64,
    /// The part of it in user mode, from 0 to 1; `None` without a tick to tell.
    pub(crate) user_share: Option<f64>,
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

impl Probe {
    /// Watches processes, at least one.
    ///
    /// # Errors
    /// A process that does not exist, is another user's, or is named twice.
    pub(crate) fn new(pids: &[u32]) -> Result<Self> {
        for (index, pid) in pids.iter().enumerate() {
            if pids[..index].contains(pid) {
                return Err(Error::Usage(format!("--server-pid {pid}: is named twice")));
            }
            Part::read(*pid).map_err(|error| Error::Usage(format!("--server-pid {pid}: {error}")))?;
        }
        Ok(Self { pids: pids.to_vec() })
    }

    /// Watches processes of this program.
    pub(crate) fn trusted(pids: Vec<u32>) -> Self {
        Self { pids }
    }

    /// The watched processes.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Reads what a timeline shows, from two small files of each process; `None` once one is gone. Less exact than
    /// [`Self::sample`]: CPU time to 10 ms, memory to some pages per thread.
    pub(crate) fn brief(&self) -> Option<Brief> {
        let mut sum = Brief { cpu_ns: 0, rss: 0 };
        for pid in &self.pids {
            let (user, system) = cpu_ticks(&read(*pid, "stat").ok()?)?;
            sum.cpu_ns += (user + system) * TICK;
            sum.rss += field_kib(&read(*pid, "status").ok()?, "VmRSS:")? * 1024;
        }
        Some(sum)
    }

    /// Reads everything.
    ///
    /// # Errors
    /// A process that is gone.
    pub(crate) fn sample(&self) -> Result<Sample> {
        let parts = self.pids.iter().map(|pid| Part::read(*pid)).collect::<Result<Vec<_>>>()?;
        Ok(Sample {
            at: Instant::now(),
            rss: parts.iter().map(|part| part.rss).sum(),
            descriptors: parts.iter().map(|part| part.descriptors).sum(),
            parts,
        })
    }
}

impl Part {
    fn read(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        let (user, system) =
            cpu_ticks(&stat).ok_or_else(|| Error::Run("the kernel's stat file is not understood".to_owned()))?;
        let rss = field_kib(&read(pid, "smaps_rollup")?, "Rss:")
            .ok_or_else(|| Error::Run("the kernel's smaps_rollup file has no Rss".to_owned()))?;
        let (mut threads, mut switches) = (BTreeMap::new(), 0);
        for task in list(pid, "task")? {
            let Some(tid) = task.parse().ok() else { continue };
            // A thread may end between the listing and here.
            if let Ok(schedstat) = read(pid, &format!("task/{tid}/schedstat"))
                && let Some(run) = schedstat.split(' ').next().and_then(|run| run.parse().ok())
            {
                threads.insert(tid, run);
            }
            if let Ok(status) = read(pid, &format!("task/{tid}/status")) {
                switches += context_switches(&status);
            }
        }
        let descriptors = list(pid, "fd")?.len() as u64;
        Ok(Self { user: user * TICK, system: system * TICK, threads, rss: rss * 1024, switches, descriptors })
    }

    /// CPU time in ns since an earlier reading: exact, and by ticks the user's part and all.
    fn cpu_since(&self, earlier: &Self) -> (u64, u64, u64) {
        let user = self.user.saturating_sub(earlier.user);
        let ticks = user + self.system.saturating_sub(earlier.system);
        let same_threads = self.threads.keys().eq(earlier.threads.keys()) && !self.threads.is_empty();
        let sum = |part: &Self| part.threads.values().sum::<u64>();
        let exact = sum(self).saturating_sub(sum(earlier));
        // A kernel without schedstat shows zeros.
        (if same_threads && exact > 0 { exact } else { ticks }, user, ticks)
    }
}

impl Sample {
    /// Resident bytes of each process, in the order in which they were named.
    pub(crate) fn rss_of_each(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.rss)
    }

    /// What was used since an earlier reading of the same probe.
    pub(crate) fn since(&self, earlier: &Self) -> Usage {
        let (mut cpu_ns, mut user, mut ticks, mut context_switches) = (0, 0, 0, 0);
        for (part, earlier) in self.parts.iter().zip(&earlier.parts) {
            let (part_cpu, part_user, part_ticks) = part.cpu_since(earlier);
            cpu_ns += part_cpu;
            user += part_user;
            ticks += part_ticks;
            context_switches += part.switches.saturating_sub(earlier.switches);
        }
        Usage {
            elapsed: self.at.saturating_duration_since(earlier.at),
            cpu_ns,
            user_share: (ticks > 0).then(|| user as f64 / ticks as f64),
            context_switches,
            rss_bytes: self.rss,
        }
    }
}

impl Usage {
    /// CPU time in us for each of so many things; `None` for none.
    pub(crate) fn cpu_us_per(&self, count: f64) -> Option<f64> {
        (count > 0.0).then(|| self.cpu_ns as f64 / 1e3 / count)
    }

    /// Context switches per second; `None` between two readings at the same moment.
    pub(crate) fn context_switches_per_second(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (seconds > 0.0).then(|| self.context_switches as f64 / seconds)
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).context(|| format!("cannot read {path}"))
}

fn list(pid: u32, folder: &str) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/{folder}");
    let entries = fs::read_dir(&path).context(|| format!("cannot read {path}"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// User and system time of a `stat` line, in ticks. The name in brackets may hold anything, brackets as well.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The number behind a name at the beginning of a line, as `/proc` has it: `Rss:   12 kB`.
pub(crate) fn field_kib(text: &str, name: &str) -> Option<u64> {
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

    fn sample(at: Instant, user: u64, system: u64, run: u64, switches: u64) -> Sample {
        let threads = BTreeMap::from([(1, run)]);
        let part = Part { user, system, threads, rss: 0, switches, descriptors: 0 };
        Sample { at, parts: vec![part], rss: 0, descriptors: 0 }
    }

    #[test]
    fn the_exact_time_counts_and_the_ticks_only_share_it_out() {
        let start = Instant::now();
        let before = sample(start, 0, 0, 1_000, 10);
        let after = sample(start + Duration::from_secs(2), TICK, 3 * TICK, 38_001_000, 110);
        let usage = after.since(&before);
        assert_eq!((usage.cpu_ns, usage.user_share), (38_000_000, Some(0.25)));
        assert_eq!(usage.cpu_us_per(1_000.0), Some(38.0));
        assert_eq!(usage.context_switches_per_second(), Some(50.0));
    }

    #[test]
    fn nothing_is_shared_out_without_a_tick_and_nothing_divided_by_none() {
        let start = Instant::now();
        let usage = sample(start, 0, 0, 9_000, 1).since(&sample(start, 0, 0, 0, 0));
        assert_eq!((usage.cpu_ns, usage.user_share), (9_000, None));
        assert_eq!(usage.cpu_us_per(0.0), None);
        assert_eq!(usage.context_switches_per_second(), None);
    }

    #[test]
    fn both_kinds_of_context_switches_count() {
        assert_eq!(context_switches("Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n"), 9);
    }

    #[test]
    fn memory_that_this_process_takes_and_work_that_it_does_show() {
        let probe = Probe::new(&[std::process::id()]).unwrap();
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
        let error = Probe::new(&[std::process::id(), u32::MAX]).unwrap_err().to_string();
        assert!(error.contains("--server-pid 4294967295"), "{error}");
    }

    #[test]
    fn a_process_that_is_named_twice_would_count_twice_and_is_refused() {
        let own = std::process::id();
        assert!(Probe::new(&[own, own]).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn the_costs_of_several_processes_are_added_up() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let both = Probe::new(&[std::process::id(), child.id()]).unwrap();
        let (one, sample) = (Probe::trusted(vec![child.id()]).sample().unwrap(), both.sample().unwrap());
        let each: Vec<_> = sample.rss_of_each().collect();
        assert_eq!((each.len(), each.iter().sum::<u64>()), (2, sample.rss));
        assert!(sample.descriptors > one.descriptors, "{sample:?} {one:?}");
        assert_eq!(sample.since(&sample).rss_bytes, sample.rss);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
