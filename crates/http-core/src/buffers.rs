//! A body in memory, in pieces that cost about as much as their bytes.

use bytes::{BufMut, Bytes, BytesMut};
use litplex_core::{Outcome, Reservation};

/// The number of bytes that a connection reads at once. A piece of a body shares the memory of one
/// read.
pub const READ_BYTES: usize = 64 * 1024;

/// Pieces of at least this size are kept; smaller ones are copied together, because each would keep
/// the memory of its whole read.
const KEPT_BYTES: usize = READ_BYTES - READ_BYTES / 8;

/// The smallest and the largest capacity for small pieces.
const ROOM: (usize, usize) = (64, READ_BYTES);

/// The memory of a piece in addition to its bytes.
const OVERHEAD: usize = 64;

/// A body while it arrives. It reserves the memory that it takes.
#[derive(Debug)]
pub struct Pieces {
    done: Vec<Bytes>,
    open: BytesMut,
    length: usize,
    reservation: Reservation,
}

impl Pieces {
    /// Returns an empty body that reserves its memory here.
    pub fn new(reservation: Reservation) -> Self {
        Self { done: Vec::new(), open: BytesMut::new(), length: 0, reservation }
    }

    /// Returns the length of all pieces.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Appends a piece, which may be kept as it is.
    pub fn push(&mut self, piece: Bytes) -> Outcome<()> {
        if piece.len() < KEPT_BYTES {
            return self.copy(&piece);
        }
        self.reservation.grow(piece.len() + OVERHEAD)?;
        self.close();
        self.length += piece.len();
        self.done.push(piece);
        Ok(())
    }

    /// Appends a copy of these bytes.
    pub fn copy(&mut self, mut bytes: &[u8]) -> Outcome<()> {
        let room = self.open.capacity() - self.open.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.open.put_slice(first);
        self.length += first.len();
        bytes = rest;
        if bytes.is_empty() {
            return Ok(());
        }
        let room = self.length.clamp(ROOM.0, ROOM.1).max(bytes.len());
        self.reservation.grow(room + OVERHEAD)?;
        self.close();
        self.open = BytesMut::with_capacity(room);
        self.open.put_slice(bytes);
        self.length += bytes.len();
        Ok(())
    }

    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        if !open.is_empty() {
            self.done.push(open.freeze());
        }
    }

    /// Returns the pieces.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.done
    }
}

/// Joins pieces into one. Each piece is dropped when it is copied.
pub fn join(pieces: Vec<Bytes>, reservation: &Reservation) -> Outcome<Bytes> {
    if let [_] = pieces.as_slice() {
        return Ok(pieces.into_iter().next().unwrap_or_default());
    }
    let length = pieces.iter().map(Bytes::len).sum();
    reservation.grow(length)?;
    let mut whole = BytesMut::with_capacity(length);
    for piece in pieces {
        whole.put_slice(&piece);
    }
    reservation.shrink(length);
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use litplex_core::MemoryBudget;

    use super::*;

    /// Returns the pieces of a body that arrived in pieces of this size, and the memory that it
    /// took.
    fn taken(piece: usize, count: usize) -> (Vec<Bytes>, usize) {
        let budget = MemoryBudget::new(1 << 30);
        let reservation = budget.reserve();
        let mut pieces = Pieces::new(reservation.clone());
        for _ in 0..count {
            pieces.push(Bytes::from(vec![b'a'; piece])).unwrap();
        }
        assert_eq!(pieces.length(), piece * count);
        let done = pieces.finish();
        assert_eq!(done.iter().map(Bytes::len).sum::<usize>(), piece * count);
        (done, reservation.bytes())
    }

    #[test]
    fn small_pieces_take_about_as_much_as_their_bytes() {
        for (piece, count) in [(1, 1 << 20), (100, 10_000), (5_000, 200), (33_000, 31)] {
            let (done, bytes) = taken(piece, count);
            let length = piece * count;
            assert!(done.len() < 64, "{} pieces", done.len());
            assert!(bytes >= length && bytes < length + length / 4, "{bytes} for {length}");
        }
    }

    #[test]
    fn a_body_of_one_piece_takes_its_length() {
        for length in [64, 3_000, 60_000, 1 << 20] {
            assert_eq!(taken(length, 1).1, length + OVERHEAD);
        }
        assert!(taken(0, 10).0.is_empty());
    }

    #[test]
    fn a_body_beyond_the_budget_is_refused_and_joining_takes_twice() {
        let budget = MemoryBudget::new(10_000);
        let reservation = budget.reserve();
        let mut pieces = Pieces::new(reservation.clone());
        let some = [0; 1_000];
        let error = (0..10).find_map(|_| pieces.copy(&some).err()).unwrap();
        assert_eq!(error.status(), 503);
        let done = pieces.finish();
        assert!(join(done, &reservation).is_err(), "both are there while they are copied");
        drop(reservation);
        assert_eq!(budget.taken(), 0);
    }
}
