//! Launches as the supervisor sees them: how workers start, are measured, and end.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::LiveCode;

/// A future that can be kept in a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to start workers, as the supervisor drives it. The supervisor learns that a worker is ready
/// or gone; it knows nothing of jobs, processes or Python.
pub trait Launch: Send + Sync {
    /// Starts the worker of this slot and resolves when it is ready to take work. A launch that can measure
    /// a worker while it loads its model passes the monitor to `loading`.
    fn launch(
        &self,
        slot: usize,
        loading: Loading,
    ) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>>;

    /// Returns whether a process is at hand that workers are forked from.
    fn has_template(&self) -> bool {
        false
    }

    /// Returns whether the next launch of this slot wakes a worker that hibernates.
    fn wakes(&self, slot: usize) -> bool {
        let _ = slot;
        false
    }

    /// Begins to end what [`Launched::release`] has kept and keeps later, by force after `grace`, and resolves when it
    /// is gone. There are no launches after it. May be called again, to wait.
    fn close(&self, grace: Duration) -> BoxFuture<'static, ()> {
        let _ = grace;
        Box::pin(async {})
    }
}

/// Takes the monitor of a worker that loads its model.
pub type Loading = Box<dyn FnOnce(Arc<dyn Monitor>) + Send>;

/// A worker that was launched and became ready.
pub trait Launched: Send {
    /// Returns the monitor of the worker; `None` if its launch cannot measure it.
    fn monitor(&self) -> Option<Arc<dyn Monitor>> {
        None
    }
    /// Returns whether it has hibernated and was woken, and not loaded.
    fn is_woken(&self) -> bool {
        false
    }
    /// Returns the time that its start took; `None` if that is the time since its launch.
    fn start_time(&self) -> Option<Duration> {
        None
    }
    /// Resolves when the worker is gone. May be awaited again.
    fn gone(&mut self) -> BoxFuture<'_, WorkerExit>;
    /// Resolves when the worker is gone. It gets no more jobs and answers those that it has; it is
    /// ended by force after `grace`.
    fn stop(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()>;
    /// Resolves when the slot of the worker is free, as `stop` does. The launch may keep what makes the next
    /// launch of the slot faster.
    fn release(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        self.stop(grace)
    }
    /// Resolves when the worker hibernates: it has answered its jobs, is stopped, and has given back its memory as
    /// far as it can. `None` if it cannot hibernate: it has then stopped, by force after `grace`.
    fn hibernate(
        self: Box<Self>,
        grace: Duration,
    ) -> BoxFuture<'static, Option<Box<dyn Hibernated>>> {
        let stopped = self.stop(grace);
        Box::pin(async {
            stopped.await;
            None
        })
    }
}

/// A worker that hibernates. It is killed when dropped.
pub trait Hibernated: Send {
    /// Resolves when the worker is gone. May be awaited again.
    fn gone(&mut self) -> BoxFuture<'_, WorkerExit>;
    /// Wakes the worker, and resolves when it is ready to take work.
    fn wake(self: Box<Self>) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>>;
    /// Resolves when the worker has ended as a worker that stops, by force after `grace`.
    fn end(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()>;
}

/// The monitor of a worker: its usage, measured by its launch, on the machine where it runs.
pub trait Monitor: fmt::Debug + Send + Sync {
    /// Returns the process id of the worker on its own machine. It is shown to operators; only the
    /// launch itself acts on it.
    fn pid(&self) -> Option<u32>;
    /// Measures the bytes of memory of the host that come back when the worker and the processes that it started
    /// end: pages shared with other processes count in part, as far as an exact measurement knew them. Blocks for up to
    /// 25 ms by gigabyte. `None` once it is gone.
    fn footprint(&self) -> Option<u64> {
        None
    }
    /// Measures what hibernation moves. Blocks for milliseconds by gigabyte. `None` if it cannot be measured.
    fn pageable(&self) -> Option<Pageable> {
        None
    }
    /// Measures the usage of the worker. Blocks for milliseconds: call it on a blocking thread.
    ///
    /// `gpu_memory` is given if the worker is on a GPU of this machine. A launch whose workers run
    /// elsewhere measures their GPUs there.
    fn usage(&self, gpu_memory: Option<&GpuMemory<'_>>) -> Usage;
    /// Returns the code of its model; `None` if the worker does not report it.
    fn code(&self) -> Option<Arc<dyn LiveCode>> {
        None
    }
    /// Returns the stacks of all threads of the worker, as text, also while it computes. Blocks for up to
    /// a second.
    ///
    /// # Errors
    /// The worker is gone, or the system refuses.
    fn stack(&self) -> io::Result<String>;
}

/// The memory of a worker and the processes that it started, as hibernation sees it, in bytes. Pages that processes
/// share count in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pageable {
    /// The memory on the host.
    pub resident: u64,
    /// The part of it that only swap can take: the rest is in files.
    pub anonymous: u64,
    /// The memory that is in swap.
    pub swapped: u64,
}

/// Returns the bytes that these processes have together on the GPUs of this machine; `None` if the
/// driver knows none of them.
pub type GpuMemory<'a> = dyn Fn(&[u32]) -> Option<u64> + 'a;

/// The usage of a worker; `None` for a value that was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The bytes of resident memory, without child processes.
    pub memory: Option<u64>,
    /// The bytes of GPU memory, child processes included.
    pub gpu_memory: Option<u64>,
}

/// The end of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExit {
    /// The cause, by which exits are counted.
    pub cause: Cause,
    /// The reason, as a text for operators.
    pub reason: String,
}

impl WorkerExit {
    /// Returns an exit of this cause.
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }

    /// Returns the text for clients.
    pub fn for_clients(&self) -> &str {
        match self.cause {
            // The reason is litplex's own, and says how much memory is missing.
            Cause::NoRoom => &self.reason,
            cause => cause.for_clients(),
        }
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The cause of a worker's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The worker did not become ready.
    Start,
    /// The worker ended by itself.
    Exit,
    /// A signal ended the worker.
    Signal,
    /// The worker was silent for too long.
    Hang,
    /// The worker computed past the deadline of a request.
    Overrun,
    /// The worker violated the protocol.
    Protocol,
    /// The worker used too much memory.
    Memory,
    /// The worker was not started, because there is no room for it in memory. It is not a failure.
    NoRoom,
}

impl Cause {
    /// The causes for which a worker is launched again: all but `NoRoom`.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Exit,
        Self::Signal,
        Self::Hang,
        Self::Overrun,
        Self::Protocol,
        Self::Memory,
    ];

    /// Returns the text for clients. The reason of most exits is for operators only: it may quote an
    /// exception of the model.
    fn for_clients(self) -> &'static str {
        match self {
            Self::Start => "its model cannot be loaded",
            Self::Exit | Self::Signal => "its worker has ended",
            Self::Hang | Self::Overrun => "its worker was stuck",
            Self::Protocol => "its worker failed",
            Self::Memory => "its worker needed too much memory",
            Self::NoRoom => "its model does not fit into memory",
        }
    }

    /// Returns the label of the cause in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NoRoom => "no_room",
            Self::Start => "start",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Hang => "hang",
            Self::Overrun => "overrun",
            Self::Protocol => "protocol",
        }
    }
}

/// The want of room in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// The time after which a start is tried again.
    pub retry_after: Duration,
    /// Whether there can be room as things are.
    pub is_in_vain: bool,
}

/// The reason why a worker did not become ready.
#[derive(Debug, Clone)]
pub struct LaunchError {
    /// One sentence: what failed and, if known, what to do.
    pub reason: String,
    /// The traceback of the model's own code, if there is one.
    pub traceback: Option<String>,
    /// Set if the worker was not started because there is no room for it in memory.
    pub no_room: Option<NoRoom>,
    /// The error of the launch, if there is one; it is not part of equality.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl LaunchError {
    /// Creates an error with a reason alone.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), traceback: None, no_room: None, source: None }
    }

    /// Creates the error that there is no room in memory.
    pub fn no_room(reason: impl Into<String>, no_room: NoRoom) -> Self {
        Self { no_room: Some(no_room), ..Self::new(reason) }
    }
}

impl PartialEq for LaunchError {
    fn eq(&self, other: &Self) -> bool {
        (&self.reason, &self.traceback) == (&other.reason, &other.traceback)
    }
}

impl Eq for LaunchError {}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
