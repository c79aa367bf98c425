//! The watch over the stream of a call, from its first part to its end.

use std::task::{Context, Poll};

use litplex_core::Part;

use super::{Refusal, WatchedCall};

/// The watch over the stream of a call, whose first part has come.
#[derive(Debug)]
pub struct StreamWatch {
    /// `None` once the stream has ended.
    watched: Option<WatchedCall>,
    /// Whether the reader waits whenever it polls.
    polls: bool,
    /// The parts that were read.
    taken: u64,
}

impl StreamWatch {
    /// Returns the watch over a stream. `polls` says that its reader waits whenever it polls for a part that
    /// has not come; otherwise the reader reports its waits itself.
    pub fn new(watched: WatchedCall, polls: bool) -> Self {
        watched.pass_part_on();
        Self { watched: Some(watched), polls, taken: 1 }
    }

    /// Polls for the refusal of the call.
    pub fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        self.watched.as_mut().map_or(Poll::Pending, |watched| watched.poll_refused(cx))
    }

    /// Notes the result of a poll for the next part.
    pub fn note(&mut self, part: &Poll<Part>) {
        let Some(watched) = &self.watched else { return };
        match part {
            Poll::Pending if self.polls => watched.wait(self.taken),
            Poll::Pending => {}
            Poll::Ready(Part::Items(_)) => {
                watched.pass_part_on();
                self.taken += 1;
            }
            Poll::Ready(Part::End | Part::Failed(_)) => self.watched = None,
        }
    }
}
