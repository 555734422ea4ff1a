//! What one turn sends, and to whom.
//!
//! A message for many sessions is encoded once into a shared cell; a reply goes into the turn's
//! private bytes. A session holds only the ends of its list of marks, eight bytes, and is written
//! once at the end of the turn. The list is what keeps the order between replies and
//! publications.

use std::time::Instant;

use bytes::Bytes;

use super::outbox::Queueing;

/// "No mark".
const NONE: u32 = u32::MAX;

/// A session's list of marks in this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    first: u32,
    last: u32,
}

impl Default for Marks {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl Marks {
    /// Whether the session has nothing to be written in this turn.
    pub fn is_empty(self) -> bool {
        self.first == NONE
    }
}

/// Encoded messages that many sessions receive.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Framed for one wire; empty where that wire can carry none of the publications.
    pub bytes: Bytes,
    /// Publications in it.
    pub publications: u32,
    /// Where the last of them begins.
    pub last: u32,
    /// What becomes of them where they have to wait.
    pub queueing: Queueing,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Shared(u32),
    Private { start: u32, end: u32, messages: u32, publications: u32 },
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    what: What,
    next: u32,
}

/// One piece of a session's output.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// Bytes that other sessions may have too.
    Shared(&'a Cell),
    /// Bytes of this session alone.
    Private {
        /// The bytes.
        bytes: &'a [u8],
        /// Messages in them.
        messages: u32,
        /// Publications among these, or within them.
        publications: u32,
    },
}

impl Piece<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(cell) => &cell.bytes,
            Self::Private { bytes, .. } => bytes,
        }
    }

    /// Messages in the piece.
    pub fn messages(&self) -> u32 {
        match self {
            Self::Shared(cell) => cell.publications,
            Self::Private { messages, .. } => *messages,
        }
    }

    /// Publications among them.
    pub fn publications(&self) -> u32 {
        match self {
            Self::Shared(cell) => cell.publications,
            Self::Private { publications, .. } => *publications,
        }
    }
}

/// Everything that one turn sends.
#[derive(Debug, Default)]
pub struct Palette {
    cells: Vec<Cell>,
    private: Vec<u8>,
    marks: Vec<Mark>,
    /// When publications whose first write happens at the end of this turn were received, with the
    /// number of sessions: for the latency histogram.
    pub sent: Vec<(Instant, u32)>,
}

/// Private bytes kept between turns; a burst of replies gives the rest back.
const PRIVATE_KEPT: usize = 256 * 1024;

impl Palette {
    /// Adds shared bytes; the number names them until the end of the turn.
    pub fn share(&mut self, cell: Cell) -> u32 {
        self.cells.push(cell);
        (self.cells.len() - 1) as u32
    }

    /// Marks a session for shared bytes.
    pub fn mark(&mut self, marks: &mut Marks, cell: u32) {
        self.append(marks, What::Shared(cell));
    }

    /// Marks a session for bytes of its own: one message, written by `write`, that carries so many publications.
    pub fn mark_private(&mut self, marks: &mut Marks, publications: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.private.len() as u32;
        write(&mut self.private);
        let end = self.private.len() as u32;
        // One reply behind the other is one piece.
        if let Some(Mark { what: What::Private { end: last, messages, publications: before, .. }, .. }) =
            self.marks.get_mut(marks.last as usize)
            && *last == start
        {
            *last = end;
            *messages += 1;
            *before += publications;
            return;
        }
        self.append(marks, What::Private { start, end, messages: 1, publications });
    }

    fn append(&mut self, marks: &mut Marks, what: What) {
        let at = self.marks.len() as u32;
        self.marks.push(Mark { what, next: NONE });
        match self.marks.get_mut(marks.last as usize) {
            Some(last) => last.next = at,
            None => marks.first = at,
        }
        marks.last = at;
    }

    /// A session's pieces, in order.
    pub fn pieces(&self, marks: Marks) -> impl Iterator<Item = Piece<'_>> {
        let mut at = marks.first;
        std::iter::from_fn(move || {
            let mark = self.marks.get(at as usize)?;
            at = mark.next;
            Some(match mark.what {
                What::Shared(cell) => Piece::Shared(&self.cells[cell as usize]),
                What::Private { start, end, messages, publications } => {
                    Piece::Private { bytes: &self.private[start as usize..end as usize], messages, publications }
                }
            })
        })
    }

    /// Ends the turn. Every session's marks have been written or queued by now.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.marks.clear();
        self.sent.clear();
        self.private.clear();
        self.private.shrink_to(PRIVATE_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(palette: &Palette, marks: Marks) -> Vec<Vec<u8>> {
        palette.pieces(marks).map(|piece| piece.bytes().to_vec()).collect()
    }

    #[test]
    fn replies_and_publications_keep_their_order() {
        let mut palette = Palette::default();
        let (mut one, mut two) = (Marks::default(), Marks::default());
        assert!(one.is_empty());
        palette.mark_private(&mut one, 0, |out| out.extend(b"reply"));
        let cell = palette.share(Cell { bytes: Bytes::from_static(b"push"), publications: 1, ..Cell::default() });
        palette.mark(&mut one, cell);
        palette.mark(&mut two, cell);
        palette.mark_private(&mut one, 0, |out| out.extend(b"reply 2"));
        assert_eq!(bytes(&palette, one), [&b"reply"[..], b"push", b"reply 2"]);
        assert_eq!(bytes(&palette, two), [b"push"]);
    }

    #[test]
    fn replies_in_a_row_are_one_piece() {
        let mut palette = Palette::default();
        let (mut one, mut two) = (Marks::default(), Marks::default());
        palette.mark_private(&mut one, 0, |out| out.extend(b"a"));
        palette.mark_private(&mut one, 0, |out| out.extend(b"b"));
        palette.mark_private(&mut two, 0, |out| out.extend(b"x"));
        palette.mark_private(&mut one, 0, |out| out.extend(b"c"));
        assert_eq!(bytes(&palette, one), [&b"ab"[..], b"c"]);
        assert_eq!(palette.pieces(one).map(|piece| piece.messages()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(bytes(&palette, two), [b"x"]);
    }
}
