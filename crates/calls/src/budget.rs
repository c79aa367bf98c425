//! The time that a request may take.

use std::time::Duration;

use litplex_core::{Outcome, ServeError};
use tokio::time::{Instant, timeout_at};

/// The time budget of a request, from its arrival to its deadline.
#[derive(Debug, Clone, Copy)]
pub struct TimeBudget {
    /// The instant at which the request arrived.
    pub arrived: Instant,
    /// The instant at which it must have its response.
    pub deadline: Instant,
}

impl TimeBudget {
    /// Returns the budget of a request that arrived at this instant.
    pub fn new(arrived: Instant, length: Duration) -> Self {
        Self { arrived, deadline: arrived + length }
    }

    /// Runs work until the deadline; dropping the work is what cancels its jobs.
    ///
    /// # Errors
    /// The error of the work, or a 504 at the deadline.
    pub async fn bound<T>(self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(ServeError::deadline()))
    }
}
