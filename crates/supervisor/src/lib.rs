//! Slots: places for workers, each started, watched and stopped on its own.
//!
//! The supervisor sees workers through [`Launch`](litmux_core::Launch) alone: no job, process id or Python. What each
//! slot is doing is published on a watch; [`health`] is a pure reading of it. A slot whose worker
//! is gone stays empty: nothing is restarted here yet.

mod slot;
mod supervisor;

pub use slot::{Health, SlotState, health};
pub use supervisor::{Supervisor, supervise};
