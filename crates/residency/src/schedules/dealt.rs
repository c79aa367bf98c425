//! Random memory and settings of endpoints.

use std::time::Duration;

use fastrand::Rng;

use crate::{KeepAlive, Memory, ResidencySettings};

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
    let kept = KeepAlive::For(Duration::from_secs(random.u64(1..20)));
    ResidencySettings {
        declared: None,
        keep_alive: [KeepAlive::Auto, kept, KeepAlive::Forever][random.usize(..3)],
        is_pinned: random.usize(..8) == 0,
        min_workers: [0, 0, 0, 1][random.usize(..4)],
        weight: [1.0, 1.0, 5.0, 0.0][random.usize(..4)],
    }
}
