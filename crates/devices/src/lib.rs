//! The machine on which a server runs: its GPUs and cores, the placement of workers on them, and
//! limits on memory that the kernel keeps.
//!
//! Placement and threads are pure functions. The crate knows no endpoint, worker or metric.

mod cgroup;
mod gpus;
mod inventory;
mod memory;
mod nvml;
mod placement;
mod threads;

pub use cgroup::Cgroup;
pub use gpus::{Gpu, Gpus, memory_share, used_by};
pub use inventory::{available_cores, count_gpus, visible_gpus};
pub use memory::{free_memory, free_swap, total_memory};
pub use placement::{Shares, Slots, isolate, overcommitted, place};
pub use threads::{Threads, affinity_problem, default_threads, thread_variables};
