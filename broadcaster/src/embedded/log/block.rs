//! The frame around what is written at once, and what a file begins with. Pure.
//!
//! ```text
//! file    header, then blocks
//! header  54 47 4c 4f 47 31 0d 0a     "TGLOG1" and a newline, so that a transfer as text is noticed
//!         salt u32, fsync policy u8, machine's boot [u8; 36], checksum u32
//! block   salt u32, length u32, checksum u32 of these two, checksum u32 of the content, content: records
//! ```
//!
//! Numbers are little-endian, checksums CRC-32 as in IEEE 802.3. A block is what one write brought. Under
//! `always` it is durable before the next one begins, so that a crash can tear the last one only. The salt is chosen
//! anew by each process: it is how a reader finds the next block behind a damaged one, and no payload can guess it. The
//! header's own checksum tells a write that was cut short from one that was damaged later.

/// Bytes before a block's content.
pub(super) const BLOCK_HEADER: usize = 16;

/// Bytes before a file's first block.
pub(super) const FILE_HEADER: usize = MAGIC.len() + 4 + 1 + BOOT_LENGTH + 4;

const MAGIC: [u8; 8] = *b"TGLOG1\r\n";

const BOOT_LENGTH: usize = 36;

/// What a file says of the process that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// What this file's blocks begin with.
    pub(super) salt: u32,
    /// Each write was made durable before anybody heard of it (`fsync = always`).
    pub(super) always: bool,
    /// Which run of the machine's kernel it was written under; zeros where that is unknown.
    pub(super) boot: Boot,
}

/// A run of the machine's kernel, from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot([u8; BOOT_LENGTH]);

impl Boot {
    /// From the text that Linux has in `/proc/sys/kernel/random/boot_id`.
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.trim().as_bytes().try_into().unwrap_or([0; BOOT_LENGTH]))
    }

    /// Whether both are known, and the same one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self == other && self.0 != [0; BOOT_LENGTH]
    }
}

impl FileHeader {
    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_HEADER);
        bytes.extend(MAGIC);
        bytes.extend(self.salt.to_le_bytes());
        bytes.push(self.always.into());
        bytes.extend(self.boot.0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// The header at the beginning of a file; `None` where there is none, or a damaged one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (said, checksum) = bytes.get(..FILE_HEADER)?.split_last_chunk()?;
        if u32::from_le_bytes(*checksum) != crc32fast::hash(said) {
            return None;
        }
        let rest = said.strip_prefix(&MAGIC)?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (always, boot) = rest.split_first()?;
        Some(Self { salt: u32::from_le_bytes(*salt), always: *always == 1, boot: Boot(boot.try_into().ok()?) })
    }
}

/// The start of a block whose content is still to come.
pub(super) fn begin(block: &mut Vec<u8>) {
    block.clear();
    block.resize(BLOCK_HEADER, 0);
}

/// Whether nothing has been put into a block that was begun.
pub(super) fn is_empty(block: &[u8]) -> bool {
    block.len() <= BLOCK_HEADER
}

/// Ends a block that was begun with [`begin`]: fills its header in.
///
/// # Errors
/// Its content is longer than 4 GiB, which no header can say.
pub(super) fn seal(block: &mut [u8], salt: u32) -> Result<(), std::num::TryFromIntError> {
    let length = u32::try_from(block.len().saturating_sub(BLOCK_HEADER))?;
    let Some((header, content)) = block.split_first_chunk_mut::<BLOCK_HEADER>() else { return Ok(()) };
    let numbers = [salt, length, head_checksum(salt, length), crc32fast::hash(content)];
    for (part, number) in header.chunks_exact_mut(4).zip(numbers) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    Ok(())
}

/// A block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// Bytes of the content.
    pub(super) length: u32,
    checksum: u32,
}

impl BlockHeader {
    /// Reads a header; `None` where these bytes are none of a block with this salt.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let (words, _) = bytes.get(..BLOCK_HEADER)?.as_chunks::<4>();
        let [found, length, head, checksum] = <[[u8; 4]; 4]>::try_from(words).ok()?.map(u32::from_le_bytes);
        let good = found == salt && length > 0 && head == head_checksum(salt, length);
        good.then_some(Self { length, checksum })
    }

    /// Whether this is the content that the header was written for.
    pub(super) fn is_of(&self, content: &[u8]) -> bool {
        content.len() == self.length as usize && crc32fast::hash(content) == self.checksum
    }
}

fn head_checksum(salt: u32, length: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn block(content: &[u8], salt: u32) -> Vec<u8> {
        let mut block = Vec::new();
        begin(&mut block);
        block.extend_from_slice(content);
        seal(&mut block, salt).unwrap();
        block
    }

    fn reads(bytes: &[u8], salt: u32) -> bool {
        BlockHeader::decode(bytes, salt).is_some_and(|header| header.is_of(&bytes[BLOCK_HEADER..]))
    }

    proptest! {
        #[test]
        fn a_block_is_read_as_a_whole_or_not_at_all(
            content in vec(any::<u8>(), 1..100),
            salt in any::<u32>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let block = block(&content, salt);
            prop_assert!(reads(&block, salt));
            prop_assert!(!reads(&block, salt ^ 1));
            for end in 0..block.len() {
                prop_assert!(end < BLOCK_HEADER || !reads(&block[..end], salt));
            }
            let mut damaged = block.clone();
            damaged[at.index(block.len())] ^= 1_u8 << bit;
            prop_assert!(!reads(&damaged, salt));
        }

        #[test]
        fn a_file_header_is_read_as_a_whole_or_not_at_all(
            salt in any::<u32>(), always in any::<bool>(), at in 0..FILE_HEADER, bit in 0..8_u8,
        ) {
            let boot = Boot::from_text("6f9b4a53-3f83-4f1c-a1d9-5a3b8c7e2d10\n");
            let header = FileHeader { salt, always, boot };
            let mut bytes = header.encode();
            prop_assert_eq!(bytes.len(), FILE_HEADER);
            prop_assert_eq!(FileHeader::decode(&bytes), Some(header));
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(FileHeader::decode(&bytes), None);
        }
    }

    #[test]
    fn an_unknown_boot_is_never_the_same() {
        let (known, unknown) = (Boot::from_text("6f9b4a53-3f83-4f1c-a1d9-5a3b8c7e2d10"), Boot::from_text(""));
        assert!(known.is_same(&known) && !known.is_same(&unknown) && !unknown.is_same(&unknown));
    }
}
