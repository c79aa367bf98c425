//! Random memory and settings of endpoints.

use fastrand::Rng;

use crate::{Memory, ResidencySettings};

/// Returns memory on the host, and often on one of two devices.
pub(super) fn memory(random: &mut Rng, bytes: std::ops::Range<u64>) -> Memory {
    let memory = Memory::on_host(random.u64(bytes.clone()));
    match random.usize(..4) {
        0 => memory,
        1 => memory.with_device(0, random.u64(bytes)),
        2 => memory.with_device(1, random.u64(bytes)),
        _ => memory.with_device(0, random.u64(bytes.clone())).with_device(1, random.u64(bytes)),
    }
}

pub(super) fn settings(random: &mut Rng) -> ResidencySettings {
    ResidencySettings {
        declared: None,
        is_kept: random.usize(..3) == 0,
        is_pinned: random.usize(..8) == 0,
        hibernates: random.bool(),
        min_workers: [0, 0, 0, 1][random.usize(..4)],
    }
}
