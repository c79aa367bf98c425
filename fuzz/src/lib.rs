//! Helpers of the fuzz targets: input pieces, and a limit of the memory that an input may allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

/// The bytes that any input may allocate: error messages, tables, the buffer of a long frame.
const FIXED_BYTES: usize = 16 << 20;

/// The bytes that each byte of an input may allocate.
const BYTES_PER_BYTE: usize = 64;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how much of it is held.
struct Meter;

#[global_allocator]
static METER: Meter = Meter;

impl Meter {
    fn add(bytes: usize) {
        let held = HELD.fetch_add(bytes, Relaxed).wrapping_add(bytes);
        PEAK.fetch_max(held, Relaxed);
    }
}

unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::add(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `target` on `data`; panics if it holds much more memory at a time than the data is worth.
pub fn bounded(data: &[u8], target: impl FnOnce(&[u8])) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    target(data);
    let used = PEAK.load(Relaxed).saturating_sub(before);
    let allowed = FIXED_BYTES + BYTES_PER_BYTE * data.len();
    assert!(used <= allowed, "{} bytes of input took {used} bytes of memory", data.len());
}

/// Cuts data into pieces; its last byte says how long they are.
pub fn pieces(data: &[u8]) -> Vec<Bytes> {
    let Some((length, data)) = data.split_last() else { return Vec::new() };
    data.chunks(usize::from(*length).max(1)).map(Bytes::copy_from_slice).collect()
}
