use std::sync::Arc;

use litplex_core::{Answer, Answers, Job, Outcome, Request, Trace, reply};
use litplex_scheduler::Endpoint;
use tokio::time::Instant;

use crate::app::Route;
use crate::off_thread::off_thread;

/// A request whose body was read, and what it may take.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) route: &'a Route,
    pub(crate) path: &'a str,
    pub(crate) request: Request,
    pub(crate) times: Times,
    /// Where to note what is done for it, where it is traced.
    pub(crate) trace: Option<Arc<Trace>>,
}

impl<'a> Call<'a> {
    /// Returns what a request to this endpoint costs, as its body tells, or else its model.
    ///
    /// # Errors
    /// What the model raised.
    pub(crate) async fn cost(&self, request: &Request) -> Outcome<f64> {
        let (endpoint, bytes) = (&self.route.endpoint, request.body_len());
        match &self.route.cost {
            Some(cost) => {
                let (cost, request) = (cost.clone(), request.clone());
                let read = move || cost.of(&request.content, &request.body);
                Ok(off_thread(bytes, read).await)
            }
            None if endpoint.traits().is_some_and(|traits| traits.measures) => {
                endpoint.measure(request.clone()).await
            }
            None => Ok(1.0),
        }
    }

    /// Submits a request of this cost with the times of this one.
    pub(crate) fn submit(&self, request: Request, cost: f64) -> Caller<'a> {
        Caller::submit(&self.route.endpoint, request, cost, self.times, self.trace.clone())
    }
}

/// Somebody who waits for an answer. Dropped before the answer is complete, it has left, and the
/// endpoint is told: what nobody waits for is not computed.
pub(crate) struct Caller<'e> {
    // The order counts: a caller must be gone before the endpoint looks who is.
    answers: Answers,
    waiting: Waiting<'e>,
}

impl<'e> Caller<'e> {
    /// Submits a request and waits for its answer.
    pub(crate) fn submit(
        endpoint: &'e Endpoint,
        request: Request,
        cost: f64,
        times: Times,
        trace: Option<Arc<Trace>>,
    ) -> Self {
        let (reply, answers) = reply();
        let reply = reply.traced(trace).reserving(request.reservation.clone());
        let job = Job { cost, ..Job::new(request, times.arrived, times.deadline, reply) };
        endpoint.submit(job);
        Self { answers, waiting: Waiting(Some(endpoint)) }
    }

    /// Returns the answer, and what says that its client is still there: of use with a stream.
    pub(crate) async fn answer(mut self) -> Outcome<(Answer, Presence)> {
        let answer = self.answers.recv().await;
        let endpoint = self.waiting.0.take();
        let answer = answer?;
        let is_stream = matches!(answer, Answer::Stream(..));
        Ok((answer, Presence(endpoint.filter(|_| is_stream).cloned())))
    }
}

struct Waiting<'e>(Option<&'e Endpoint>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.0 {
            endpoint.caller_left();
        }
    }
}

/// The time budget of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) arrived: Instant,
    pub(crate) deadline: Instant,
}

/// Says that a client is there, until it is dropped; after [`end`](Self::end) nobody cares.
#[derive(Debug)]
pub(crate) struct Presence(Option<Endpoint>);

impl Presence {
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    /// Says that the client is there no more.
    pub(crate) fn leave(&mut self) {
        if let Some(endpoint) = self.0.take() {
            endpoint.caller_left();
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.leave();
    }
}
