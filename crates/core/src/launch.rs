use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A future that can be kept in a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to start one more copy of a model, as the supervisor drives it: it can tell that a
/// launch is ready or gone, and knows nothing of jobs, processes or Python.
pub trait Launch: Send + Sync {
    /// Starts the worker of this slot and resolves when it is ready to take work.
    fn launch(&self, slot: usize) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>>;
}

/// A worker that was launched and became ready.
pub trait Launched: Send {
    /// Resolves when the worker is gone, with the reason in words. May be awaited again.
    fn gone(&mut self) -> BoxFuture<'_, String>;
    /// Resolves when the worker is gone. It gets no more jobs and answers those that it has; it is
    /// ended by force after `grace`.
    fn stop(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()>;
}

/// Why a worker did not become ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchError {
    /// One sentence: what failed and, where it is known, what to do.
    pub reason: String,
    /// The traceback of the model's own code, if it came to that.
    pub traceback: Option<String>,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for LaunchError {}
