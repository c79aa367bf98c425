//! Deadlocks among calls: found exactly, at the event that closes them, and ended by a refusal.
//!
//! A hook that calls an endpoint keeps its place in its worker while it waits. If all places of an
//! endpoint wait, over other calls, for that same endpoint, none of them is ever answered. All state
//! is in this process, so that this is decided and not guessed: of calls that wait for each other,
//! the newest is refused, with the chain `/a#0 → /b#0 → /a`. The hook that made it gets the error,
//! and the others move on.
//!
//! [`Deadlocks`] is told of events, from any thread, and decides at each of them. Its state is behind a
//! lock that is held for a few instructions: a task with an inbox would have to be woken for each of
//! several events of each call. What the state means is in `state.rs`, and the decision, a pure function,
//! in `find.rs`.
//!
//! Each generation of an endpoint has a queue of its own, which only its workers serve: what waits is told by
//! queue, so that the decision is exact while two generations overlap.
//!
//! Deliberately absent: deadlines. A call that ends for any reason is reported as [`ended`](Deadlocks::ended).

mod declared;
mod detector;
mod find;
mod state;
mod stream;

pub use declared::{DeclaredCalls, DeclaredCycle, declared_cycles};
pub use detector::{Deadlocks, WatchedCall, WatchedQueue};
pub use state::{Parent, Reads, Refusal};
pub use stream::StreamWatch;

#[cfg(test)]
mod brute;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
