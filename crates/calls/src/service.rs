//! Calls that hooks and pipelines make.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use litplex_core::{
    Begun, BoxFuture, CallEnd, CallId, Called, Calls, Hook, Invocation, Meta, ModelInfo,
    ObservedCall, Origin, Outcome, Parent, Part, PartStream, Request, Response, ServeError, Waits,
    WorkerKey,
};
use litplex_metrics::{CallGuard, CallTimes};
use tokio::time::Instant;

use crate::deadlock::{self, Deadlocks, Reads, WatchedCall, WatchedQueue};
use crate::{Call, ItemStream, Output, Registry, StreamWatch, Target, TimeBudget};

/// A carrier of calls to endpoints whose clients speak a protocol of their own: the caller gets what a
/// client would get, as values.
pub trait DialectCalls: Send + Sync {
    /// Carries out a call. If the protocol leaves it to clients whether the result is a stream, `stream`
    /// says it, or the request where that is `None`.
    fn call(
        &self,
        call: Call,
        request: Request,
        stream: Option<bool>,
    ) -> BoxFuture<'_, Outcome<Called>>;

    /// Chooses the endpoint that a request is for, among those that share a path; returns its index, or the
    /// response that refuses the request.
    fn choose<'a>(
        &'a self,
        targets: &'a [Arc<Target>],
        request: &'a Request,
    ) -> BoxFuture<'a, Result<usize, Response>>;
}

/// The calls between the endpoints of a server. The callee's admission, batching, cost and metrics apply
/// to a call as to a request of a client; keys and rate limits do not, because the client behind the
/// call was admitted.
#[derive(Clone)]
pub struct CallService(Arc<Service>);

struct Service {
    registry: Registry,
    dialects: Box<dyn DialectCalls>,
    deadlocks: Deadlocks,
    times: CallTimes,
}

impl std::fmt::Debug for CallService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallService").field("registry", &self.0.registry).finish_non_exhaustive()
    }
}

impl CallService {
    /// Returns the calls of the targets in this registry, which are measured as `times`.
    pub fn new(
        registry: Registry,
        dialects: impl DialectCalls + 'static,
        times: CallTimes,
    ) -> Self {
        let (dialects, deadlocks) = (Box::new(dialects), Deadlocks::new());
        Self(Arc::new(Service { registry, dialects, deadlocks, times }))
    }

    /// Watches a queue of the endpoint with this name, which may have this many workers at the same time; 0
    /// for a pipeline.
    pub fn watch(&self, name: &str, most_workers: usize) -> WatchedQueue {
        self.0.deadlocks.watch(name, most_workers)
    }

    /// Returns the calls that workers of this queue make.
    pub fn for_workers(&self, queue: WatchedQueue) -> QueueCalls {
        QueueCalls { service: self.clone(), queue }
    }

    /// Returns the endpoint that a request is for, among those that share a path and that the client behind
    /// the call may call, or the response that refuses the request.
    async fn choose(
        &self,
        mut targets: Vec<Arc<Target>>,
        invocation: &Invocation,
    ) -> Result<Arc<Target>, Response> {
        targets.retain(|target| check_scopes(target, &invocation.parent).is_ok());
        let index = self.0.dialects.choose(&targets, &invocation.request).await?;
        Ok(targets.swap_remove(index))
    }

    fn begin(
        &self,
        target: Arc<Target>,
        invocation: Invocation,
        begun: Begun,
    ) -> Outcome<RunningCall> {
        let Invocation { parent, request, timeout, waits, stream, takes_items, .. } = invocation;
        let target = target.chosen(Some(&parent.origin.root));
        check_scopes(&target, &parent)?;
        let budget = budget(&target, &parent, timeout)?;
        let observed = parent.origin.root.begin_call(&target.identity.label);
        let hook = match &parent.hook {
            Some(Hook { worker, items }) => deadlock::Parent::Hook(*worker, items),
            None => parent.origin.call.map_or(deadlock::Parent::Client, deadlock::Parent::Call),
        };
        let reads = if stream == Some(false) { Reads::Whole } else { Reads::Parts };
        let waits_now = waits != Waits::Reported;
        let watched = target.watched.begin(hook, reads, waits_now);
        begun(watched.id());
        let Parent { origin, trace, .. } = parent;
        let origin = Some(Arc::new(Origin { call: Some(watched.id()), ..origin }));
        let call = Call { target, budget, trace, origin, takes_items, is_split: false };
        let polls = waits == Waits::Polling;
        Ok(RunningCall { call, request, watched, observed, polls, stream })
    }
}

impl CallService {
    /// Carries out a call. A drop of the future cancels the call. `begun` is called with its id: at once,
    /// unless the request decides which endpoint of a shared path it is for.
    pub fn call(
        &self,
        invocation: Invocation,
        begun: Begun,
    ) -> BoxFuture<'static, Outcome<Called>> {
        let (service, mut time) = (self.clone(), self.0.times.begin(invocation.caller.clone()));
        let mut targets = match self.0.registry.find_all(&invocation.endpoint) {
            Ok(targets) => targets,
            Err(error) => {
                let error = ServeError::not_found(error.to_string());
                time.ended(error.status());
                return Box::pin(async { Err(error) });
            }
        };
        if targets.len() == 1 {
            let target = targets.remove(0);
            time.set_callee(&target.identity.label);
            let call = self.begin(target, invocation, begun);
            return Box::pin(service.run(call, time));
        }
        Box::pin(async move {
            match service.choose(targets, &invocation).await {
                Ok(target) => {
                    time.set_callee(&target.identity.label);
                    let call = service.begin(target, invocation, begun);
                    service.run(call, time).await
                }
                Err(refusal) => {
                    time.ended(refusal.status);
                    Ok(Called::Whole(refusal))
                }
            }
        })
    }

    /// Carries out a call that was let in, or answers with the reason why not, and measures it.
    async fn run(self, mut call: Outcome<RunningCall>, time: CallGuard) -> Outcome<Called> {
        let observed = call.as_mut().ok().and_then(|call| call.observed.take());
        let mut measured = MeasuredCall { time, observed };
        let run = async { call?.run(&*self.0.dialects).await };
        let (called, watch) = run.await.inspect_err(|error| measured.ended(error.status()))?;
        Ok(match called {
            Called::Whole(response) => {
                measured.ended(response.status);
                Called::Whole(response)
            }
            Called::Stream(first, rest) => {
                let watch = watch();
                Called::Stream(first, Box::new(WatchedStream { rest, watch, measured }))
            }
        })
    }
}

/// The calls that the workers of one queue make, and the watch over them.
#[derive(Debug, Clone)]
pub struct QueueCalls {
    service: CallService,
    queue: WatchedQueue,
}

impl QueueCalls {
    fn deadlocks(&self) -> &Deadlocks {
        &self.service.0.deadlocks
    }
}

impl Calls for QueueCalls {
    fn attached(&self, slot: usize, places: usize) -> WorkerKey {
        self.queue.attached(slot, places)
    }

    fn retiring(&self, worker: WorkerKey) {
        self.deadlocks().retiring(worker);
    }

    fn gone(&self, worker: WorkerKey) {
        self.deadlocks().gone(worker);
    }

    fn held(&self, call: CallId, worker: WorkerKey, item: u64) {
        self.deadlocks().held(call, worker, item);
    }

    fn requeued(&self, call: CallId) {
        self.deadlocks().requeued(call);
    }

    fn resumed(&self, call: CallId) {
        self.deadlocks().add_part(call);
    }

    fn ended(&self, call: CallId) {
        self.deadlocks().ended(call);
    }

    fn waits(&self, call: CallId, taken: u64) {
        self.deadlocks().wait(call, taken);
    }

    fn call(&self, invocation: Invocation, begun: Begun) -> BoxFuture<'static, Outcome<Called>> {
        self.service.call(invocation, begun)
    }
}

/// A call that was let in.
struct RunningCall {
    call: Call,
    request: Request,
    watched: WatchedCall,
    observed: Option<ObservedCall>,
    /// Whether the caller waits whenever it polls for a part.
    polls: bool,
    stream: Option<bool>,
}

impl RunningCall {
    /// Returns the response, and the watch for deadlocks of a stream.
    async fn run(
        self,
        dialects: &dyn DialectCalls,
    ) -> Outcome<(Called, impl FnOnce() -> StreamWatch)> {
        let Self { mut call, mut request, mut watched, polls, stream, .. } = self;
        // A call of a generation that starts in place waits for its workers.
        let run = async {
            let budget = call.budget;
            call.target.ready(budget).await?;
            let info = call.target.info()?;
            request.meta = meta(info, &call).map(Arc::new);
            call.is_split = info.dialect.is_some();
            if call.is_split {
                return budget.bound(dialects.call(call, request, stream)).await;
            }
            Ok(match call.run(request).await? {
                Output::Whole(response) => Called::Whole(response),
                Output::Stream(first, rest) => Called::Stream(first, Box::new(rest)),
            })
        };
        let called = tokio::select! {
            biased;
            called = run => called?,
            refusal = watched.refused() => return Err(refusal.into()),
        };
        Ok((called, move || StreamWatch::new(watched, polls)))
    }
}

/// A call whose end its metrics and its root are told of.
struct MeasuredCall {
    time: CallGuard,
    observed: Option<ObservedCall>,
}

impl MeasuredCall {
    /// Notes that the call has ended with this status.
    fn ended(&mut self, status: u16) {
        self.time.ended(status);
        if let Some(observed) = self.observed.take() {
            // The callee, or one below it, had no time for the call.
            let is_late = matches!(status, 503 | 504);
            observed.end(if is_late { CallEnd::Failed } else { CallEnd::Answered });
        }
    }
}

/// The rest of a stream, whose call is watched and measured until its end.
struct WatchedStream {
    rest: Box<dyn PartStream>,
    watch: StreamWatch,
    measured: MeasuredCall,
}

impl PartStream for WatchedStream {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let Self { rest, watch, measured } = self;
        if let Poll::Ready(refusal) = watch.poll_refused(cx) {
            let error = ServeError::from(refusal);
            measured.ended(error.status());
            return Poll::Ready(Part::Failed(error));
        }
        let part = rest.poll_part(cx);
        watch.note(&part);
        match &part {
            Poll::Pending | Poll::Ready(Part::Items(_)) => {}
            Poll::Ready(Part::End) => measured.ended(200),
            Poll::Ready(Part::Failed(error)) => measured.ended(error.status()),
        }
        part
    }
}

impl PartStream for ItemStream {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        self.poll(cx)
    }
}

/// Returns an error unless the client behind the call may call this endpoint, too. A client without a
/// token has no scopes: its key, or that none is asked for, admitted it to the server.
fn check_scopes(target: &Target, parent: &Parent) -> Outcome<()> {
    let Some(scopes) = &parent.origin.root.scopes else { return Ok(()) };
    match target.scopes.iter().find(|scope| !scopes.contains(scope)) {
        None => Ok(()),
        Some(missing) => Err(ServeError::forbidden(format!(
            "the token of this request lacks the scope `{missing}`, which `{}` needs",
            target.identity.label
        ))),
    }
}

/// Returns the time budget of a call: the rest of the parent's, which the callee and the caller may
/// shorten.
fn budget(target: &Target, parent: &Parent, timeout: Option<Duration>) -> Outcome<TimeBudget> {
    let arrived = Instant::now();
    let longest = timeout.map_or(target.timeout, |timeout| timeout.min(target.timeout));
    let budget = TimeBudget::new(arrived, longest);
    let budget = TimeBudget { deadline: budget.deadline.min(parent.deadline), ..budget };
    if budget.deadline <= arrived { Err(ServeError::deadline()) } else { Ok(budget) }
}

/// Returns what hooks of the callee may ask for: what a client's request would have.
pub(crate) fn meta(info: &ModelInfo, call: &Call) -> Option<Meta> {
    let exported = call.trace.as_ref().filter(|trace| trace.context.is_sampled);
    let trace = exported.map(|trace| trace.context.to_string());
    let headers = trace.map(|trace| ("traceparent".to_owned(), trace)).into_iter().collect();
    info.context.then(|| Meta {
        method: "POST".into(),
        path: call.target.identity.path.clone(),
        query: String::new(),
        headers,
    })
}
