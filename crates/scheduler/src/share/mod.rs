//! The fair share of devices that several endpoints compute on.
//!
//! ```text
//! EndpointTask ──ask, end──► ShareTask ──pause, resume──► the worker's process
//!       ▲                        │
//!       └── granted, yield, … ───┘
//! ```
//!
//! A worker takes a *turn* from its first job to its last. One task owns all devices; which turns run is
//! decided by [`device`], and how much of a device a worker takes is measured by [`demand`]. Endpoints that
//! are alone on their devices take no turns.

mod demand;
mod device;
mod seat;
#[cfg(test)]
mod simulations;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use device::Change;
pub use seat::{Capacity, DeviceShares, Seat, SharedDevice};
