//! The turn of a worker on a shared device, as its endpoint sees it.

use std::sync::Arc;

use litplex_core::{Pausing, Priority};
use tokio::sync::mpsc;

use crate::event::{Event, WorkerId};
use crate::share::{Change, Seat};

/// The seats of an endpoint on the devices of its slots, and where the changes of turns are sent.
#[derive(Debug, Clone)]
pub(crate) struct Seats {
    /// By slot; further slots begin again at the first.
    pub(crate) seats: Vec<Option<Seat>>,
    /// The CPU threads that each worker is meant to use.
    pub(crate) threads: usize,
    pub(crate) events: mpsc::WeakUnboundedSender<Event>,
}

impl Seats {
    /// Returns the turn of a new worker of a slot.
    pub(crate) fn turn(
        &self,
        slot: usize,
        worker: WorkerId,
        pausing: Option<Arc<dyn Pausing>>,
    ) -> WorkerTurn {
        let can_pause = pausing.is_some();
        let seat = self.seats.get(slot % self.seats.len().max(1)).cloned().flatten();
        let seat = seat.filter(|seat| seat.takes(can_pause));
        if let Some(seat) = &seat {
            seat.enter(worker, pausing, self.threads, self.events.clone());
        }
        WorkerTurn { seat, worker, can_pause, state: State::None }
    }

    /// Changes the weight of the endpoint.
    pub(crate) fn weigh(&self, weight: f64) {
        self.seats.iter().flatten().for_each(|seat| seat.weigh(weight));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    None,
    Asked,
    Held,
    Yielding,
}

/// The turn of a worker. The device is left when it is dropped.
#[derive(Debug)]
pub(crate) struct WorkerTurn {
    seat: Option<Seat>,
    worker: WorkerId,
    can_pause: bool,
    state: State,
}

impl WorkerTurn {
    /// Returns the turn of a worker that shares no device.
    pub(crate) fn unshared(worker: WorkerId) -> Self {
        Self { seat: None, worker, can_pause: false, state: State::None }
    }

    /// Returns whether an idle worker needs a turn before it is given a job. One that `makes_calls` and
    /// cannot be paused needs none: what it calls could wait for its turn to end.
    pub(crate) fn is_needed(&self, makes_calls: bool) -> bool {
        self.state == State::None
            && (self.can_pause || !makes_calls)
            && self.seat.as_ref().is_some_and(Seat::is_shared)
    }

    /// Asks for a turn.
    pub(crate) fn ask(&mut self, class: Priority) {
        if let Some(seat) = &self.seat {
            seat.ask(self.worker, class);
            self.state = State::Asked;
        }
    }

    /// Returns whether the worker waits for its turn.
    pub(crate) fn is_asked(&self) -> bool {
        self.state == State::Asked
    }

    /// Returns whether the worker must be given no jobs for now.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Asked | State::Yielding)
    }

    /// Applies a change that the device has decided on.
    pub(crate) fn change(&mut self, change: Change) {
        match (change, self.state) {
            (Change::Granted, State::Asked) => self.state = State::Held,
            (Change::Yield, State::Held) => self.state = State::Yielding,
            _ => {}
        }
    }

    /// Ends the turn of a worker that has no jobs; `yields` says that only one which must yield ends.
    pub(crate) fn end(&mut self, yields: bool) {
        let ends = self.state == State::Yielding || (self.state == State::Held && !yields);
        if let Some(seat) = self.seat.as_ref().filter(|_| ends) {
            seat.end(self.worker);
            self.state = State::None;
        }
    }
}

impl Drop for WorkerTurn {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.exit(self.worker);
        }
    }
}
