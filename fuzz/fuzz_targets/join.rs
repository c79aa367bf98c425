//! A body in pieces of any size: joined it is the same, and it costs about what it weighs.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use litplex_core::MemoryBudget;
use litplex_fuzz::bounded;
use litplex_http::fuzzing;

/// The memory allowed for a few pieces that are shorter than their bookkeeping, in bytes.
const FIXED_BYTES: usize = 4096;

/// As much as the largest pieces that a connection reads.
const LONGEST: usize = 80_000;

fuzz_target!(|data: &[u8]| bounded(data, join));

/// Two bytes of the input say how long the next piece is, of a body that counts on.
fn join(data: &[u8]) {
    let mut counted = (0u8..=255).cycle();
    let pieces = data.chunks_exact(2).map(|length| {
        let length = usize::from(u16::from_le_bytes([length[0], length[1]])) * 2 % LONGEST;
        counted.by_ref().take(length).collect::<Bytes>()
    });
    // As much as an input may make the program hold.
    let mut room = 4 << 20;
    let pieces: Vec<Bytes> = pieces
        .take_while(|piece| {
            room -= piece.len() as i64;
            room >= 0
        })
        .collect();
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let budget = MemoryBudget::new(usize::MAX / 2);
    let (joined, reserved) = fuzzing::join(pieces, &budget).expect("there is room");
    assert!(joined.iter().flatten().copied().eq((0u8..=255).cycle().take(length)));
    assert!(joined.iter().all(|piece| !piece.is_empty()), "an empty piece costs too");
    assert!(reserved >= length && reserved <= FIXED_BYTES + 3 * length, "{reserved} for {length}");
    assert_eq!(budget.taken(), 0, "all is given back");
    let fits = MemoryBudget::new(reserved.saturating_sub(1));
    assert!(reserved == 0 || fuzzing::join(joined, &fits).is_ok() || fits.taken() == 0);
}
