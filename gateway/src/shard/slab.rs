//! Where a shard keeps its connections: a slab in chunks, with generations.
//!
//! Chunks, because a vector that doubles would hold up to twice what it needs and copy every
//! connection when it grows. Generations, because a key outlives its connection in the wheel,
//! in epoll's events and in answers that are under way.

/// Entries in a chunk.
const CHUNK: usize = 256;

/// Names one entry for as long as it lives; never again after that (a slot's generation wraps
/// around after 2^32 uses).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The slot.
    pub index: u32,
    generation: u32,
}

impl Key {
    /// The key as the 64 bits that epoll carries.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The reverse of [`Key::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Entries at stable indices.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// Bytes that an entry takes in its chunk.
    pub const ENTRY_SIZE: usize = size_of::<Slot<T>>();

    /// Puts a value into a free slot.
    pub fn insert(&mut self, value: T) -> Key {
        if self.free.is_empty() {
            self.grow();
        }
        let index = self.free.pop().unwrap_or_default();
        let slot = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        debug_assert!(slot.value.is_none(), "a free slot is empty");
        slot.value = Some(value);
        self.len += 1;
        Key { index, generation: slot.generation }
    }

    fn grow(&mut self) {
        let base = (self.chunks.len() * CHUNK) as u32;
        self.chunks.push((0..CHUNK).map(|_| Slot { generation: 0, value: None }).collect());
        // Popped from the end: low indices first.
        self.free.extend((base..base + CHUNK as u32).rev());
    }

    /// The entry of this key, unless it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot_mut(key.index).filter(|slot| slot.generation == key.generation)?.value.as_mut()
    }

    /// The entry of this key, unless it is gone.
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.chunks.get(key.index as usize / CHUNK)?.get(key.index as usize % CHUNK)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    /// The entry in this slot, with its key.
    pub fn at_mut(&mut self, index: u32) -> Option<(Key, &mut T)> {
        let slot = self.slot_mut(index)?;
        let key = Key { index, generation: slot.generation };
        slot.value.as_mut().map(|value| (key, value))
    }

    /// Takes the entry out; its key is void from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot_mut(key.index).filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every entry with its key, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.chunks.iter().flatten().enumerate().filter_map(|(index, slot)| {
            let key = Key { index: index as u32, generation: slot.generation };
            slot.value.as_ref().map(|value| (key, value))
        })
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_void_once_its_entry_is_gone() {
        let mut slab = Slab::default();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("b");
        assert_eq!(first.index, second.index, "the slot is used again");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"b"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn entries_keep_their_places_while_the_slab_grows() {
        let mut slab = Slab::default();
        let keys: Vec<_> = (0..3 * CHUNK).map(|n| slab.insert(n)).collect();
        assert!(keys.iter().enumerate().all(|(n, key)| slab.get(*key) == Some(&n) && key.index as usize == n));
        assert_eq!(slab.iter().count(), 3 * CHUNK);
    }

    #[test]
    fn a_key_survives_the_way_through_64_bits() {
        let mut slab = Slab::default();
        let first = slab.insert(());
        slab.remove(first);
        let key = slab.insert(());
        assert_eq!(Key::from_bits(key.to_bits()), key);
        assert_ne!(Key::from_bits(first.to_bits()), key);
    }
}
