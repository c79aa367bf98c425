//! Whether a new generation fits beside the live one, by the measured memory of the live one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use litplex_core::size_in_words;
use litplex_devices::{Gpu, free_memory};
use tokio::task::spawn_blocking;

use crate::controls::EndpointControls;
use crate::gpus::gpus_of;

/// The part of the free memory that a new generation may take.
const SAFE_PART: f64 = 0.9;

/// The memory of a device or of the machine, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Room {
    place: String,
    /// The memory that the live generation takes.
    used: u64,
    free: u64,
}

/// Returns why a second generation of this size does not fit beside the live one; `None` if it does, or if
/// that is not known.
pub(crate) async fn obstacle(controls: Arc<EndpointControls>) -> Option<String> {
    let gpus = match gpus_of(std::slice::from_ref(&controls)) {
        Some(gpus) => gpus.read().await,
        None => Vec::new(),
    };
    let measured = spawn_blocking(move || rooms(&controls, &gpus)).await;
    too_small(&measured.ok()?)
}

/// Returns the first place that has no room for a second generation, in words.
fn too_small(rooms: &[Room]) -> Option<String> {
    let is_small = |room: &&Room| room.used as f64 > SAFE_PART * room.free as f64;
    let Room { place, used, free } = rooms.iter().find(is_small)?;
    let (used, free) = (size_in_words(*used), size_in_words(*free));
    Some(format!("its workers use {used} of {place}, of which {free} are free"))
}

fn rooms(controls: &EndpointControls, gpus: &[Gpu]) -> Vec<Room> {
    // Only the processes are asked for: the figures of each GPU are read here.
    let processes = Mutex::new(HashSet::new());
    let note = |ids: &[u32]| {
        processes.lock().unwrap_or_else(PoisonError::into_inner).extend(ids.iter().copied());
        None
    };
    let slots = 0..controls.view.states().len();
    let monitors = slots.filter_map(|slot| controls.view.monitor(slot));
    let used = monitors.filter_map(|monitor| monitor.usage(Some(&note)).memory).sum();
    let free = free_memory();
    let processes = processes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let on_gpu = |gpu: &Gpu| Room {
        place: format!("the memory of GPU {}", gpu.index),
        used: gpu.processes.iter().filter(|(id, _)| processes.contains(id)).map(|it| it.1).sum(),
        free: gpu.total.saturating_sub(gpu.used),
    };
    let machine = free.map(|free| Room { place: "the memory".into(), used, free });
    machine.into_iter().chain(gpus.iter().map(on_gpu)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_without_room_is_named() {
        let room = |place: &str, used, free| Room { place: place.into(), used, free };
        let gb = 1_000_000_000;
        assert_eq!(too_small(&[]), None);
        assert_eq!(too_small(&[room("the memory", 4 * gb, 8 * gb)]), None);
        let rooms = [room("the memory", 4 * gb, 8 * gb), room("the memory of GPU 1", 10, 9)];
        assert!(too_small(&rooms).unwrap().contains("GPU 1"));
        // Nearly as much as there is.
        let reason = too_small(&[room("the memory", 12 * gb, 13 * gb)]).unwrap();
        assert_eq!(reason, "its workers use 12.0 GB of the memory, of which 13.0 GB are free");
    }
}
