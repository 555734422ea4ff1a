//! Memory pressure: when to refuse, when and whom to evict. Pure; [`crate::monitor`] is its driver.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// `memory.*`, as shares of the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// From here on new connections are refused.
    pub refuse_at: f64,
    /// From here on sessions are evicted ...
    pub evict_from: f64,
    /// ... down to here.
    pub evict_to: f64,
}

/// What the memory monitor does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    #[default]
    Normal = 0,
    /// New connections are refused.
    Refusing = 1,
    /// Sessions are evicted as well.
    Evicting = 2,
}

/// What the memory monitor last saw and did. One writer, the monitor.
#[derive(Debug, Default)]
pub struct PressureStats {
    /// Memory of the process in bytes, at the monitor's last look.
    pub used: AtomicU64,
    /// The limit in bytes that it is compared with.
    pub limit: AtomicU64,
    level: AtomicU8,
}

impl PressureStats {
    /// Notes a new level.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Relaxed);
    }

    /// The level now.
    pub fn level(&self) -> Level {
        match self.level.load(Relaxed) {
            0 => Level::Normal,
            1 => Level::Refusing,
            _ => Level::Evicting,
        }
    }
}

/// What is to be done at one look at the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The level from now on.
    pub level: Level,
    /// Bytes to free by evicting sessions; 0 where none are to go.
    pub evict: u64,
}

/// Decides from the level so far and the memory used now.
///
/// Eviction begins at `evict_from` and goes on until `evict_to`, so that it does not flicker
/// around one threshold. Refusing ends as soon as `refuse_at` is passed downwards.
pub fn decide(level: Level, used: u64, limit: u64, thresholds: &Thresholds) -> Step {
    let share = |threshold: f64| (limit as f64 * threshold) as u64;
    let floor = share(thresholds.evict_to);
    let evicting = used >= share(thresholds.evict_from) || (level == Level::Evicting && used > floor);
    if evicting {
        return Step { level: Level::Evicting, evict: used.saturating_sub(floor) };
    }
    let level = if used >= share(thresholds.refuse_at) { Level::Refusing } else { Level::Normal };
    Step { level, evict: 0 }
}

/// What a session costs, and how long it has made no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost<K> {
    /// The session.
    pub session: K,
    /// Bytes in its queue.
    pub queued: usize,
    /// Ticks since bytes last went in or out.
    pub silent_for: u32,
}

/// Memory that an evicted session frees beside its queue, roughly: what user space and the kernel
/// hold for an idle one.
const BASE: usize = 4096;

/// Chooses whom to evict until about `bytes` are free, at most `most` of them: the largest queues
/// first, and among equal ones whoever has made no progress for longest.
pub fn choose<K: Copy>(mut sessions: Vec<Cost<K>>, bytes: usize, most: usize) -> Vec<K> {
    sessions.sort_unstable_by_key(|cost| std::cmp::Reverse((cost.queued, cost.silent_for)));
    let mut freed = 0;
    let enough = sessions.iter().take(most).take_while(|cost| {
        let go_on = freed < bytes;
        freed += cost.queued + BASE;
        go_on
    });
    enough.map(|cost| cost.session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { refuse_at: 0.80, evict_from: 0.85, evict_to: 0.80 };

    fn at(level: Level, used: u64) -> Step {
        decide(level, used, 1000, &THRESHOLDS)
    }

    #[test]
    fn each_threshold_starts_its_step() {
        assert_eq!(at(Level::Normal, 799), Step { level: Level::Normal, evict: 0 });
        assert_eq!(at(Level::Normal, 800), Step { level: Level::Refusing, evict: 0 });
        assert_eq!(at(Level::Refusing, 849), Step { level: Level::Refusing, evict: 0 });
        assert_eq!(at(Level::Refusing, 850), Step { level: Level::Evicting, evict: 50 });
    }

    #[test]
    fn eviction_goes_on_down_to_its_lower_threshold() {
        assert_eq!(at(Level::Evicting, 820), Step { level: Level::Evicting, evict: 20 });
        assert_eq!(at(Level::Evicting, 800), Step { level: Level::Refusing, evict: 0 });
        assert_eq!(at(Level::Evicting, 700), Step { level: Level::Normal, evict: 0 });
    }

    fn cost(session: char, queued: usize, silent_for: u32) -> Cost<char> {
        Cost { session, queued, silent_for }
    }

    #[test]
    fn the_largest_queues_go_first_then_the_longest_silent() {
        let sessions = vec![cost('a', 0, 5), cost('b', 10_000, 1), cost('c', 0, 50), cost('d', 90_000, 0)];
        assert_eq!(choose(sessions.clone(), 1, 10), ['d']);
        assert_eq!(choose(sessions.clone(), 100_000, 10), ['d', 'b']);
        assert_eq!(choose(sessions.clone(), usize::MAX, 10), ['d', 'b', 'c', 'a']);
        assert_eq!(choose(sessions.clone(), usize::MAX, 1), ['d']);
        assert!(choose(sessions, 0, 10).is_empty());
    }
}
