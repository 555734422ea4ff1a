//! Deltas in the format of the Fossil version control system: a payload as what is new, and what the one before it has.
//!
//! A delta is text but for the new bytes themselves: the target's length and a newline; then any number of copies
//! (`<count>@<offset>,`) and inserts (`<count>:<bytes>`); then `<checksum>;`. Numbers have the digits `0-9A-Z_a-z~`, the most
//! significant first. The checksum is the wrapping sum of the target's big-endian 32-bit words, the last filled with zeros.
//! (Source: Fossil's documentation of its delta format, and what the JavaScript SDK verifies.)
//!
//! Inserts begin and end at the boundaries of UTF-8 characters, wherever the target is UTF-8: a delta for a client with JSON
//! travels as a JSON string, in which half a character cannot stand. (Servers that split characters made such deltas
//! undecodable; SDKs then disconnect for good.)

/// Bytes of the source that are looked for in the target as a whole.
const BLOCK: usize = 16;

/// Places of the source with the same hash that are looked at, at most: bounds the time for payloads of few different bytes.
const CANDIDATES: usize = 32;

/// Numbers' digits, from 0 to 63.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// "No block."
const NONE: u32 = u32::MAX;

/// Appends the delta that makes `target` of `source`. It may be longer than the target: then send that.
///
/// Takes time in proportion to both lengths, and 8 bytes for each 16 of the source.
pub fn encode(source: &[u8], target: &[u8], out: &mut Vec<u8>) {
    put_number(target.len() as u32, out);
    out.push(b'\n');
    let index = Index::new(source);
    // Up to here the target is in the delta.
    let mut done = 0;
    let mut at = 0;
    let mut hash = Hash::of(target);
    while at + BLOCK <= target.len() {
        match index.longest(hash, source, target, done, at) {
            Some(copy) => {
                put_insert(&target[done..copy.to], out);
                put_number(copy.length as u32, out);
                out.push(b'@');
                put_number(copy.from as u32, out);
                out.push(b',');
                done = copy.to + copy.length;
                at = done;
                hash = Hash::of(&target[at..]);
            }
            None => {
                if let Some(next) = target.get(at + BLOCK) {
                    hash.roll(target[at], *next);
                }
                at += 1;
            }
        }
    }
    put_insert(&target[done..], out);
    put_number(checksum(target), out);
    out.push(b';');
}

/// A piece of the target that the source has.
#[derive(Debug, Clone, Copy)]
struct Copy {
    from: usize,
    to: usize,
    length: usize,
}

impl Copy {
    /// What the command takes in the delta, in bytes.
    fn cost(self) -> usize {
        digits(self.length as u32) + digits(self.from as u32) + 2
    }
}

/// The blocks of a source by their hashes.
struct Index {
    /// The first block with a hash.
    first: Vec<u32>,
    /// For each block the next one with the same hash.
    next: Vec<u32>,
}

impl Index {
    fn new(source: &[u8]) -> Self {
        let blocks = source.len() / BLOCK;
        let mut index = Self { first: vec![NONE; blocks.next_power_of_two()], next: vec![NONE; blocks] };
        // From the end: among blocks that are the same the first in the source comes first, and has most behind it.
        for (number, block) in (0..blocks).zip(source.chunks_exact(BLOCK)).rev() {
            let slot = index.slot(Hash::of(block));
            index.next[number] = std::mem::replace(&mut index.first[slot], number as u32);
        }
        index
    }

    fn slot(&self, hash: Hash) -> usize {
        hash.value() as usize & (self.first.len() - 1)
    }

    /// The longest piece around `at` that the source has, if copying it is shorter than inserting it. Nothing before `done` is
    /// part of it.
    fn longest(&self, hash: Hash, source: &[u8], target: &[u8], done: usize, at: usize) -> Option<Copy> {
        let mut candidate = self.first[self.slot(hash)];
        let mut best: Option<Copy> = None;
        for _ in 0..CANDIDATES {
            if candidate == NONE {
                break;
            }
            let from = candidate as usize * BLOCK;
            let forward = same(source[from..].iter(), target[at..].iter());
            if forward >= BLOCK {
                let backward = same(source[..from].iter().rev(), target[done..at].iter().rev());
                let copy = Copy { from: from - backward, to: at - backward, length: forward + backward };
                let copy = whole_characters(copy, target);
                if copy.length > best.map_or(copy.cost(), |best| best.length) {
                    best = Some(copy);
                }
            }
            candidate = self.next[candidate as usize];
        }
        best
    }
}

/// How many bytes are the same from the beginning on.
fn same<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}

/// The part of a copy that begins and ends between characters, so that the inserts around it do.
fn whole_characters(copy: Copy, target: &[u8]) -> Copy {
    let is_within = |at: usize| target.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let (mut begin, mut end) = (copy.to, copy.to + copy.length);
    while begin < end && is_within(begin) {
        begin += 1;
    }
    while end > begin && is_within(end) {
        end -= 1;
    }
    Copy { from: copy.from + (begin - copy.to), to: begin, length: end - begin }
}

/// A hash of a block that can be moved on by a byte.
#[derive(Debug, Clone, Copy)]
struct Hash {
    sum: u16,
    weighted: u16,
}

impl Hash {
    /// Of the first block of `bytes`; of fewer bytes, something.
    fn of(bytes: &[u8]) -> Self {
        let mut hash = Self { sum: 0, weighted: 0 };
        for (weight, byte) in (1..=BLOCK as u16).rev().zip(bytes) {
            hash.sum = hash.sum.wrapping_add(u16::from(*byte));
            hash.weighted = hash.weighted.wrapping_add(weight.wrapping_mul(u16::from(*byte)));
        }
        hash
    }

    /// Moves on: one byte leaves in front, one comes behind.
    fn roll(&mut self, leaves: u8, comes: u8) {
        self.sum = self.sum.wrapping_sub(u16::from(leaves)).wrapping_add(u16::from(comes));
        let weight = (BLOCK as u16).wrapping_mul(u16::from(leaves));
        self.weighted = self.weighted.wrapping_sub(weight).wrapping_add(self.sum);
    }

    /// Both halves, mixed, so that the low bits depend on all.
    fn value(self) -> u32 {
        (u32::from(self.weighted) << 16 | u32::from(self.sum)).wrapping_mul(0x9e37_79b1) >> 7
    }
}

fn put_insert(bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_number(bytes.len() as u32, out);
        out.push(b':');
        out.extend_from_slice(bytes);
    }
}

fn digits(n: u32) -> usize {
    (32 - n.leading_zeros()).div_ceil(6).max(1) as usize
}

fn put_number(n: u32, out: &mut Vec<u8>) {
    for place in (0..digits(n)).rev() {
        out.push(DIGITS[(n >> (6 * place)) as usize & 63]);
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(0_u32, |sum, word| {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_be_bytes(whole))
    })
}

/// Why a delta makes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It is not written in the format.
    #[error("not a delta")]
    Malformed,
    /// It copies what the source does not have.
    #[error("a copy beyond the source")]
    BeyondSource,
    /// What it makes is not of the length that it says.
    #[error("another length than announced")]
    Length,
    /// What it makes has another checksum: it belongs to another source.
    #[error("another checksum")]
    Checksum,
}

/// Makes the target of the source and a delta, as a client does.
///
/// # Errors
/// A delta that is none, or one of another source. No more is allocated than a copy of the source for each three bytes of the
/// delta, and nothing beyond the announced length.
pub fn decode(source: &[u8], delta: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let mut rest = delta;
    let length = take_number(&mut rest)?;
    take(&mut rest, b'\n')?;
    let mut target = Vec::new();
    loop {
        let number = take_number(&mut rest)?;
        let piece = match rest.split_first() {
            Some((b'@', behind)) => {
                rest = behind;
                let from = take_number(&mut rest)? as usize;
                take(&mut rest, b',')?;
                source.get(from..from.saturating_add(number as usize)).ok_or(DeltaError::BeyondSource)?
            }
            Some((b':', behind)) => {
                let (piece, behind) = behind.split_at_checked(number as usize).ok_or(DeltaError::Malformed)?;
                rest = behind;
                piece
            }
            Some((b';', [])) if target.len() != length as usize => return Err(DeltaError::Length),
            Some((b';', [])) if number != checksum(&target) => return Err(DeltaError::Checksum),
            Some((b';', [])) => return Ok(target),
            _ => return Err(DeltaError::Malformed),
        };
        if target.len() + piece.len() > length as usize {
            return Err(DeltaError::Length);
        }
        target.extend_from_slice(piece);
    }
}

fn take(rest: &mut &[u8], byte: u8) -> Result<(), DeltaError> {
    *rest = rest.strip_prefix(&[byte]).ok_or(DeltaError::Malformed)?;
    Ok(())
}

fn take_number(rest: &mut &[u8]) -> Result<u32, DeltaError> {
    let mut n: u64 = 0;
    let mut any = false;
    while let Some((first, behind)) = rest.split_first() {
        let Some(digit) = DIGITS.iter().position(|digit| digit == first) else { break };
        n = n << 6 | digit as u64;
        if n > u64::from(u32::MAX) {
            return Err(DeltaError::Malformed);
        }
        (*rest, any) = (behind, true);
    }
    if any { Ok(n as u32) } else { Err(DeltaError::Malformed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delta(source: &[u8], target: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(source, target, &mut out);
        out
    }

    #[test]
    fn numbers_are_written_as_the_format_says() {
        let written = |n| {
            let mut out = Vec::new();
            put_number(n, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            [0, 9, 10, 35, 36, 37, 62, 63, 64, u32::MAX].map(written),
            ["0", "9", "A", "Z", "_", "a", "z", "~", "10", "3~~~~~"]
        );
    }

    #[test]
    fn a_small_change_makes_a_small_delta() {
        let source = r#"{"price": 101.5, "name": "a thing that costs money", "stock": 12, "place": "shelf nine"}"#;
        let target = source.replace("101.5", "99.25");
        let made = delta(source.as_bytes(), target.as_bytes());
        assert!(made.len() < target.len() / 2, "{}", String::from_utf8_lossy(&made));
        assert_eq!(decode(source.as_bytes(), &made).unwrap(), target.as_bytes());
    }

    #[test]
    fn the_bytes_are_what_the_format_prescribes() {
        assert_eq!(delta(b"", b""), b"0\n0;");
        assert_eq!(delta(b"", b"ab"), b"2\n2:ab1XOW00;".as_slice());
        let source = b"0123456789abcdef0123456789ABCDEF";
        assert_eq!(delta(source, b"0123456789abcdef!").split(|byte| *byte == b'\n').nth(1).unwrap()[..7], *b"G@0,1:!");
    }

    #[test]
    fn characters_are_never_split() {
        // The letters differ in their second byte alone.
        let source = "Привет, мир! Это длинная строка текста, в которой меняется одна буква.";
        let target = source.replace('д', "г");
        let made = delta(source.as_bytes(), target.as_bytes());
        assert!(String::from_utf8(made.clone()).is_ok(), "{made:?}");
        assert_eq!(decode(source.as_bytes(), &made).unwrap(), target.as_bytes());
    }

    #[test]
    fn a_delta_of_another_source_or_none_is_an_error() {
        let made = delta(b"0123456789abcdef0123456789abcdef", b"0123456789abcdef0123456789abcdeX");
        assert_eq!(decode(b"0123456789abcdeX0123456789abcdef", &made), Err(DeltaError::Checksum));
        assert_eq!(decode(b"short", &made), Err(DeltaError::BeyondSource));
        assert_eq!(decode(b"", b"5\n2:ab1;"), Err(DeltaError::Length));
        assert_eq!(decode(b"", b"1\n2:ab1;"), Err(DeltaError::Length));
        for broken in [
            &b""[..],
            b"\n",
            b"2",
            b"2\n",
            b"2\n2:a",
            b"2\n2:ab",
            b"2\n2:ab1",
            b"2\n2?ab1;",
            b"zzzzzzzz\n0;",
            b"0\n0;x",
        ] {
            assert_eq!(decode(b"", broken), Err(DeltaError::Malformed), "{broken:?}");
        }
    }

    #[test]
    fn few_different_bytes_take_no_longer() {
        let (source, target) = (vec![b'a'; 200_000], vec![b'a'; 199_999]);
        assert!(delta(&source, &target).len() < 40);
        let target: Vec<u8> = (0..200_000_u32).map(|n| if n % 15 == 0 { b'b' } else { b'a' }).collect();
        assert_eq!(decode(&source, &delta(&source, &target)).unwrap(), target);
    }

    /// A text, and the same with some pieces of it changed.
    fn pair() -> impl Strategy<Value = (String, String)> {
        let piece = prop_oneof![".{0,40}", "[a-c]{0,40}", "(\\PC){0,20}"];
        (prop::collection::vec((piece, 0..4_u8), 0..12)).prop_map(|pieces| {
            let source: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
            let target = pieces.iter().map(|(text, change)| match change {
                0 => String::new(),
                1 => text.chars().rev().collect(),
                _ => text.clone(),
            });
            (source, target.collect())
        })
    }

    proptest! {
        #[test]
        fn what_is_made_of_a_delta_is_the_target(
            source in prop::collection::vec(0..4_u8, 0..300),
            target in prop::collection::vec(0..4_u8, 0..300),
        ) {
            let made = delta(&source, &target);
            prop_assert_eq!(decode(&source, &made), Ok(target));
        }

        #[test]
        fn a_delta_of_texts_is_text((source, target) in pair()) {
            let made = delta(source.as_bytes(), target.as_bytes());
            prop_assert_eq!(decode(source.as_bytes(), &made), Ok(target.into_bytes()));
            prop_assert!(String::from_utf8(made).is_ok());
        }

        #[test]
        fn arbitrary_bytes_never_panic(source in prop::collection::vec(any::<u8>(), 0..40), delta in ".{0,40}") {
            let _ = decode(&source, delta.as_bytes());
        }
    }
}
