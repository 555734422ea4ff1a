//! What the kernel says of the process, from `/proc` (proc(5)).

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::text::Text;

/// Clock ticks per second in `/proc`: `USER_HZ`, which Linux has fixed at 100 for every architecture that we build for.
const TICKS: f64 = 100.0;

/// Figures of the process. What could not be read is `None`, and its metric is left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// User and system CPU time in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Start, in seconds since 1970.
    pub start_seconds: Option<f64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// How many descriptors may be open; `None` also where there is no limit.
    pub max_fds: Option<u64>,
}

impl Process {
    /// Reads the figures now. May take milliseconds per 10,000 descriptors on kernels before 6.2.
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = Stat::parse(&stat);
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| number_after(&text, "btime"));
        Self {
            cpu_seconds: fields.map(|fields| fields.cpu_ticks as f64 / TICKS),
            start_seconds: fields.zip(boot).map(|(fields, boot)| boot as f64 + fields.start_ticks as f64 / TICKS),
            resident_bytes: fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|text| number_after(&text, "VmRSS:"))
                .map(|kibibytes| kibibytes * 1024),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }

    /// Writes the figures under the names that Prometheus's client libraries share, so that common dashboards find them.
    pub fn write(&self, text: &mut Text) {
        let figures = [
            ("process_cpu_seconds_total", "counter", "User and system CPU time of the process.", self.cpu_seconds),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory of the process.",
                self.resident_bytes.map(|n| n as f64),
            ),
            ("process_start_time_seconds", "gauge", "Start of the process in seconds since 1970.", self.start_seconds),
            ("process_open_fds", "gauge", "Open file descriptors.", self.open_fds.map(|n| n as f64)),
            ("process_max_fds", "gauge", "How many file descriptors may be open.", self.max_fds.map(|n| n as f64)),
        ];
        for (name, kind, help, value) in figures {
            if let Some(value) = value {
                text.family(name, kind, help);
                text.sample(name, &[], value);
            }
        }
    }
}

/// The fields of `/proc/self/stat` that are used, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
        let mut next = || fields.next()?.ok();
        let (user, system) = (next()?, next()?);
        // From field 15, system time, to field 22.
        let start_ticks = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { cpu_ticks: user + system, start_ticks })
    }
}

/// The number in the line that starts with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

/// Since Linux 6.2 the size of the directory is the number of descriptors; before that it is 0,
/// and they have to be counted.
fn open_fds() -> Option<u64> {
    let directory = "/proc/self/fd";
    match fs::metadata(directory).ok()?.len() {
        0 => Some(fs::read_dir(directory).ok()?.count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_hold_anything() {
        let numbers: Vec<_> = (4..=52).map(|n| n.to_string()).collect();
        let text = format!("77 (a ) b (c) S {}", numbers.join(" "));
        assert_eq!(Stat::parse(&text), Some(Stat { cpu_ticks: 14 + 15, start_ticks: 22 }));
        assert_eq!(Stat::parse("77 (a) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        let process = Process::read();
        assert!(process.cpu_seconds.unwrap() >= 0.0);
        assert!(process.resident_bytes.unwrap() > 100_000);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - process.start_seconds.unwrap();
        assert!((-5.0..86_400.0).contains(&age), "{age}");
        let held: Vec<_> = (0..20).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let open = Process::read().open_fds.unwrap();
        assert!(open >= held.len() as u64, "{open}");
    }
}
