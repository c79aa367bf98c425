//! One call of a target, from its request to its response.

use std::sync::Arc;

use litplex_core::{
    Answer, Answers, Called, Items, Job, Origin, Outcome, Request, Response, Root, ServeError,
    StreamReceiver, Trace, reply,
};
use tokio::time::Instant;

use tokio::sync::{oneshot, watch};

use crate::deadlock::{self, Reads, StreamWatch, WatchedCall};
use crate::trial::{Compared, ObservedJob, has_failed, untold_trace};
use crate::{
    Backend, Inherited, ItemStream, ObservedRequest, Registry, Target, TimeBudget, Trial, base64,
    off_thread,
};

/// A call of a target. Each request that it submits is a job of its own; all of them have its time
/// budget and its trace.
#[derive(Debug)]
pub struct Call {
    /// The target; a call keeps it when the registry is replaced.
    pub target: Arc<Target>,
    /// The time that the call may take.
    pub budget: TimeBudget,
    /// The trace that records the steps of its jobs, if the request is traced.
    pub trace: Option<Arc<Trace>>,
    /// The place of its jobs among the calls of endpoints; `None` if nothing is known.
    pub origin: Option<Arc<Origin>>,
    /// Whether the caller reads the items of a list as they come, where the callee can give them so.
    pub takes_items: bool,
    /// Whether a call of a hook may need several jobs: each is then a call of its own.
    pub is_split: bool,
}

/// The response to a call.
#[derive(Debug)]
pub enum Output {
    /// A whole response.
    Whole(Response),
    /// The first items of a stream, and the rest of it.
    Stream(Items, ItemStream),
}

impl Call {
    /// Admits the request of a client that leads to calls, or refuses it if an endpoint that it needs
    /// will not be able to answer it in time. Returns the observer of its calls, which is to be told of
    /// the response; `None` if the endpoint makes no calls.
    ///
    /// # Errors
    /// A counted 503 with `Retry-After`.
    pub fn admit(&mut self, registry: &Registry) -> Outcome<Option<Arc<ObservedRequest>>> {
        if !self.target.makes_calls() {
            return Ok(None);
        }
        let observed = ObservedRequest::admit(&self.target, registry, self.budget, Instant::now())?;
        let observed = Arc::new(observed);
        let scopes = self.origin.as_ref().and_then(|origin| origin.root.scopes.clone());
        let origin = self.origin.as_deref().cloned().unwrap_or_default();
        let root = Root::new(scopes).with_priority(origin.root.priority);
        let root = root.observed_by(observed.clone());
        self.origin = Some(Arc::new(Origin { root: Arc::new(root), ..origin }));
        Ok(Some(observed))
    }

    /// Sends a request and returns its response, or the first items of a stream. A drop before the end
    /// cancels the job.
    ///
    /// # Errors
    /// The error that the request was answered with, or a 504 at the deadline.
    pub async fn run(&self, request: Request) -> Outcome<Output> {
        match &self.target.backend {
            Backend::Queue(_) => {
                self.budget.bound(async { self.submit_priced(request).await?.output().await }).await
            }
            Backend::Composed(composed) => {
                let called = self.budget.bound(composed.run(self.inherited(), request)).await?;
                let answer = match called {
                    Called::Whole(response) => Answer::Whole(response),
                    Called::Stream(first, rest) => {
                        Answer::Stream(first, StreamReceiver::relaying(rest))
                    }
                };
                Ok(self.output(answer, None, None, None))
            }
        }
    }

    /// Returns the parts that the calls below this one inherit.
    fn inherited(&self) -> Inherited {
        let (trace, origin) = (self.trace.clone(), self.origin.clone());
        Inherited { budget: self.budget, trace, origin, takes_items: self.takes_items }
    }

    /// Returns an answer as the output of this call. The rest of a stream keeps `live` open.
    fn output(
        &self,
        answer: Answer,
        watched: Option<WatchedCall>,
        live: Option<watch::Sender<()>>,
        observed: Option<Box<ObservedJob>>,
    ) -> Output {
        match answer {
            Answer::Whole(response) => Output::Whole(response),
            Answer::Stream(first, rest) => {
                let watch = watched.map(|watched| Box::new(StreamWatch::new(watched, true)));
                let rest = ItemStream::new(&first, rest, self, watch, live, observed);
                Output::Stream(first, rest)
            }
        }
    }

    async fn submit_priced(&self, request: Request) -> Outcome<Caller<'_>> {
        let cost = self.cost(&request).await?;
        let request = self.decoded(request).await?;
        Ok(self.submit(request, cost))
    }

    /// Returns a request whose fields are bytes where the model declares them as base64.
    ///
    /// # Errors
    /// The memory budget has no room for the decoded body.
    pub async fn decoded(&self, request: Request) -> Outcome<Request> {
        match self.target.model_info() {
            // Boxed: the future of a request is copied at each level while it is built.
            Some(info) if !info.base64.is_empty() => {
                Box::pin(base64::decode(request, info.base64.clone())).await
            }
            _ => Ok(request),
        }
    }

    /// Returns the cost of a request: read from its body, or computed by the model.
    ///
    /// # Errors
    /// The error that the model raised.
    pub async fn cost(&self, request: &Request) -> Outcome<f64> {
        let computed = self.cost_on(&self.target, request).await;
        match (&self.target.trial, computed) {
            // What the canary cannot price, the live generation can.
            (Some(Trial::Canary { live, .. }), Err(_)) => {
                Box::pin(self.cost_on(live, request)).await
            }
            (_, computed) => computed,
        }
    }

    async fn cost_on(&self, target: &Target, request: &Request) -> Outcome<f64> {
        let Target { backend, cost, .. } = target;
        let Backend::Queue(endpoint) = backend else { return Ok(1.0) };
        match cost {
            Some(cost) => {
                let (bytes, cost, request) = (request.body_len(), cost.clone(), request.clone());
                let read = move || cost.read(&request.content, &request.body);
                Ok(off_thread(bytes, read).await)
            }
            None if endpoint.model_info().is_some_and(|info| info.has_cost) => {
                endpoint.cost(request.clone()).await
            }
            None => Ok(1.0),
        }
    }

    /// Queues a request of this cost.
    pub fn submit(&self, request: Request, cost: f64) -> Caller<'_> {
        self.submit_job(request, cost, false)
    }

    /// Queues one of several requests of this call, all of which must be computed.
    pub fn submit_part(&self, request: Request, cost: f64) -> Caller<'_> {
        self.submit_job(request, cost, true)
    }

    fn submit_job(&self, request: Request, cost: f64, is_part: bool) -> Caller<'_> {
        let trial = self.target.trial.as_ref().map(|trial| {
            let is_canary = matches!(trial, Trial::Canary { .. });
            Box::new(Tried {
                observed: Some(Box::new(trial.observe(self.budget.deadline))),
                request: is_canary.then(|| (request.clone(), cost)),
                trace: self.trace.clone().unwrap_or_else(untold_trace),
                shadow: match trial {
                    Trial::Shadowed { copies, .. } => {
                        copies.copy(self.origin.as_deref(), &request, cost)
                    }
                    _ => None,
                },
            })
        });
        let trace = trial.as_ref().map(|trial| trial.trace.clone());
        let trace = trace.or_else(|| self.trace.clone());
        Caller { trial, ..self.submit_to(&self.target, trace, (request, cost), is_part) }
    }

    fn submit_to<'c>(
        &'c self,
        target: &'c Target,
        trace: Option<Arc<Trace>>,
        (request, cost): (Request, f64),
        is_part: bool,
    ) -> Caller<'c> {
        let (reply, answers) = reply();
        let reply = reply.traced(trace, &target.identity);
        let reply = reply.reserving(request.reservation.clone());
        let TimeBudget { arrived, deadline } = self.budget;
        let watched = self.watch(target);
        let origin = match (&watched, &self.origin) {
            (Some(watched), Some(origin)) => {
                Some(Arc::new(Origin { call: Some(watched.id()), ..(**origin).clone() }))
            }
            _ => self.origin.clone(),
        };
        let live = live(target);
        let watch = live.as_ref().map(watch::Sender::subscribe);
        let job = Job::new(request, arrived, deadline, reply);
        let priority = origin.as_ref().map(|origin| origin.root.priority).unwrap_or_default();
        let job = Job { cost, priority, is_part, origin, live: watch, ..job };
        match &target.backend {
            Backend::Queue(endpoint) => endpoint.submit(job),
            Backend::Composed(_) => job.reply.send(Err(no_queue())),
        }
        let waiting = Waiting(Some(target));
        Caller { call: self, answers, waiting, watched, live, is_part, trial: None }
    }

    /// Begins a call for one of several jobs.
    fn watch(&self, target: &Target) -> Option<WatchedCall> {
        let call = self.origin.as_ref()?.call.filter(|_| self.is_split)?;
        Some(target.watched.begin(deadlock::Parent::Call(call), Reads::Parts, true))
    }
}

/// Returns the watch on the caller of a job, if the model needs one.
fn live(target: &Target) -> Option<watch::Sender<()>> {
    let info = target.model_info();
    info.is_some_and(|info| info.watches_callers).then(|| watch::Sender::new(()))
}

/// The side that waits for a job's response. A drop before the response cancels the job.
#[derive(Debug)]
pub struct Caller<'c> {
    call: &'c Call,
    // The order of the drops matters: the endpoint must find that the caller has left.
    answers: Answers,
    waiting: Waiting<'c>,
    watched: Option<WatchedCall>,
    /// Dropped with the caller, which the model may watch.
    live: Option<watch::Sender<()>>,
    /// Whether the request has further jobs.
    is_part: bool,
    /// Present while a new generation is on trial.
    trial: Option<Box<Tried>>,
}

/// A job on trial.
#[derive(Debug)]
struct Tried {
    observed: Option<Box<ObservedJob>>,
    /// The request and its cost, if another generation may compute it again.
    request: Option<(Request, f64)>,
    trace: Arc<Trace>,
    /// Takes the answer, if a copy of the request is computed whose answer is compared with it.
    shadow: Option<oneshot::Sender<Compared>>,
}

impl Caller<'_> {
    /// Returns the response, or the first items of a stream.
    ///
    /// # Errors
    /// The error that the job was answered with.
    pub async fn output(mut self) -> Outcome<Output> {
        match self.trial.take() {
            None => {
                let answer = self.answer().await;
                self.answered(answer, None)
            }
            // Boxed: the future of a request is copied at each level while it is built.
            Some(trial) => Box::pin(self.tried(trial)).await,
        }
    }

    async fn answer(&mut self) -> Outcome<Answer> {
        match &mut self.watched {
            None => self.answers.recv().await,
            Some(watched) => tokio::select! {
                biased;
                answer = self.answers.recv() => answer,
                refusal = watched.refused() => Err(refusal.into()),
            },
        }
    }

    fn answered(
        mut self,
        answer: Outcome<Answer>,
        observed: Option<Box<ObservedJob>>,
    ) -> Outcome<Output> {
        // From here on the stream itself tells the endpoint when its caller leaves.
        self.waiting.0 = None;
        let (watched, live) = (self.watched.take(), self.live.take());
        answer.map(|answer| self.call.output(answer, watched, live, observed))
    }

    /// Returns the response to a job on trial: that of the live generation, if the canary failed.
    async fn tried(mut self, trial: Box<Tried>) -> Outcome<Output> {
        let answer = self.answer().await;
        let Tried { observed, request, trace, shadow } = *trial;
        let (call, is_part) = (self.call, self.is_part);
        if let Some(shadow) = shadow {
            // It may have ended.
            let _ = shadow.send(Compared::answer(&answer));
        }
        let took = trace.computed(&call.target.identity.label);
        let replacement = call.target.trial.as_ref().and_then(|trial| trial.replacement(&answer));
        if let (Some(live), Some(request)) = (replacement, request)
            && has_meta(live, &request.0)
        {
            drop(self);
            let watched = call.origin.as_ref().and_then(|origin| origin.call);
            if let Some(watched) = watched.filter(|_| !call.is_split) {
                live.watched.take_over(watched);
            }
            let mut caller = call.submit_to(live, call.trace.clone(), request, is_part);
            let answer = caller.answer().await;
            if let Some(mut observed) = observed {
                // A request that fails on any generation says nothing about this one.
                if has_failed(&answer) { observed.forget() } else { observed.end(true) }
            }
            return caller.answered(answer, None);
        }
        let is_outcome = |trial: &Trial| trial.is_outcome(&answer);
        let counts = call.target.trial.as_ref().is_none_or(is_outcome);
        let observed =
            observed.filter(|_| counts).and_then(|observed| observed.note(&answer, took));
        self.answered(answer, observed)
    }
}

/// Returns whether a request has what the hooks of a target may ask for.
fn has_meta(target: &Target, request: &Request) -> bool {
    request.meta.is_some() || target.model_info().is_none_or(|info| !info.context)
}

/// Returns the error for a job of an endpoint without a queue: its requests are not split into jobs.
fn no_queue() -> ServeError {
    ServeError::unsupported("this endpoint has no workers; send it a plain request")
}

/// A guard that tells the endpoint on drop that the caller has left. It borrows the target; only a
/// stream needs a clone.
#[derive(Debug)]
struct Waiting<'c>(Option<&'c Target>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(target) = self.0 {
            target.caller_left();
        }
    }
}
