//! Random bits for client ids and jitter, fetched many at a time: a system call for each would
//! cost as much as the rest of a connect.

use uuid::Uuid;

/// Bytes fetched at once.
const POOL: usize = 1024;

/// Fills a slice with random bytes.
type Source = Box<dyn FnMut(&mut [u8]) + Send>;

/// A pool of random bytes. The source is the caller's: the system's, or a seeded one.
pub struct Entropy {
    pool: Box<[u8; POOL]>,
    used: usize,
    source: Source,
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive() // the bytes stay secret
    }
}

impl Entropy {
    /// An empty pool over `source`, which fills the whole slice that it is given.
    pub fn new(source: impl FnMut(&mut [u8]) + Send + 'static) -> Self {
        Self { pool: Box::new([0; POOL]), used: POOL, source: Box::new(source) }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > POOL {
            (self.source)(&mut self.pool[..]);
            self.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.pool[self.used..self.used + N]);
        self.used += N;
        bytes
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A random UUID (version 4).
    pub fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.take()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_across_refills() {
        let mut state = 0_u8;
        let mut entropy = Entropy::new(move |bytes| {
            for byte in bytes {
                state = state.wrapping_mul(5).wrapping_add(3);
                *byte = state;
            }
        });
        // The sequence repeats after 256 bytes: sixteen ids.
        let ids: std::collections::HashSet<_> = (0..16).map(|_| entropy.uuid()).collect();
        assert_eq!(ids.len(), 16);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
        for _ in 0..1000 {
            entropy.bits();
        }
    }
}
