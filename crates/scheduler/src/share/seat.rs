//! The handles of the task that shares devices: one for the server, and one for each endpoint on a device.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use litplex_core::{Pausing, Priority};
use tokio::sync::mpsc;

use super::task::{Message, SeatId, ShareTask};
use crate::event::{Event, WorkerId};

/// A device that endpoints share.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedDevice {
    /// The name, such as `cuda:0`, or the list of cores.
    pub name: String,
    /// The workers that may compute at the same time.
    pub capacity: Capacity,
}

/// The limit of the workers that compute on a device at the same time, while several endpoints want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// As many workers as use this number of cores, by their measured CPU time.
    Cores(usize),
    /// This number of workers.
    Workers(usize),
}

/// The handle of the task that shares the devices of a server. The task ends with its last handle.
#[derive(Clone)]
pub struct DeviceShares(mpsc::UnboundedSender<Message>);

impl DeviceShares {
    /// Starts the task. Must be called within a runtime.
    pub fn spawn() -> Self {
        // Bounded by the workers: each has at most one turn, and a turn has a bounded number of messages.
        let (messages, inbox) = mpsc::unbounded_channel();
        tokio::spawn(ShareTask::new(inbox).run());
        Self(messages)
    }

    /// Returns the seat of an endpoint on a device. The seats of one endpoint have one share, which is
    /// that of the last weight.
    pub fn seat(&self, device: SharedDevice, endpoint: &str, weight: f64) -> Seat {
        let (id, is_shared) = (SeatId::next(), Arc::<AtomicBool>::default());
        let counts_workers = matches!(device.capacity, Capacity::Workers(_));
        let endpoint = endpoint.to_owned();
        let joined =
            Message::Join { seat: id, device, endpoint, weight, is_shared: is_shared.clone() };
        // The task outlives its handles.
        let _ = self.0.send(joined);
        Seat(Arc::new(Seated { id, messages: self.0.clone(), counts_workers, is_shared }))
    }
}

impl fmt::Debug for DeviceShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceShares").finish_non_exhaustive()
    }
}

/// The seat of an endpoint on a device that it may share. It is left when it is dropped.
#[derive(Debug, Clone)]
pub struct Seat(Arc<Seated>);

struct Seated {
    id: SeatId,
    messages: mpsc::UnboundedSender<Message>,
    /// Whether the capacity of the device is a number of workers.
    counts_workers: bool,
    /// Whether another endpoint has a seat, as the task says.
    is_shared: Arc<AtomicBool>,
}

impl fmt::Debug for Seated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Leave(self.id));
    }
}

impl Seat {
    /// Returns whether another endpoint is on the device, so that workers must take turns.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.is_shared.load(Relaxed)
    }

    /// Returns whether a worker takes turns. One that cannot be interrupted is not measured, either: it may
    /// need no core at all.
    pub(crate) fn takes(&self, can_pause: bool) -> bool {
        can_pause || self.0.counts_workers
    }

    pub(crate) fn weigh(&self, weight: f64) {
        self.send(Message::Weigh { seat: self.0.id, weight });
    }

    /// Adds a worker, which `threads` CPU threads are meant for. The changes of its turns are sent to `events`.
    pub(crate) fn enter(
        &self,
        worker: WorkerId,
        pausing: Option<Arc<dyn Pausing>>,
        threads: usize,
        events: mpsc::WeakUnboundedSender<Event>,
    ) {
        self.send(Message::Enter { worker, seat: self.0.id, pausing, threads, events });
    }

    pub(crate) fn exit(&self, worker: WorkerId) {
        self.send(Message::Exit(worker));
    }

    pub(crate) fn ask(&self, worker: WorkerId, class: Priority) {
        self.send(Message::Ask(worker, class));
    }

    pub(crate) fn end(&self, worker: WorkerId) {
        self.send(Message::End(worker));
    }

    fn send(&self, message: Message) {
        let _ = self.0.messages.send(message);
    }
}
