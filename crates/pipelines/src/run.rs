//! The run of a graph for one request.
//!
//! All steps run inside the future of the request, or the stream of its response, so that dropping it, or
//! one step, drops the calls below it. Only shadows have tasks of their own, which outlive the response.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_util::stream::{FuturesUnordered, TryStreamExt};
use litplex_core::{
    BoxFuture, Called, Content, ErrorCause, ItemKind, Items, Outcome, Part, PartStream, Request,
    Reservation, ServeError, Shadows, Trace,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::caller::{Caller, Delivery, Ended, StepCall, StepReport};
use crate::draw::random;
use crate::error::{Done, PipelineError, StepError, as_callers, refusal_of};
use crate::graph::{Dependency, Graph, Map, Node, Shadow, Splitter, SwitchBranch, Work};
use crate::map::{List, MapStream, collect, items_at, joined};
use crate::path::excerpt;
use crate::read::{ITEM, REQUEST};
use crate::scope::Scope;
use crate::template::{RESPONSE, separate};
use crate::value::{Value, refusal};

/// The largest number of bytes that are read at once, in place.
const SMALL_BYTES: usize = 64 * 1024;

impl Graph {
    /// Answers a request. The last step's stream is passed on as it comes; streams of other steps are
    /// collected. If `takes_items` is set, the responses of a map that is the last step are a stream,
    /// too. The spans of steps are below that of `trace`.
    ///
    /// # Errors
    /// The error of the step that failed.
    pub async fn run(
        &self,
        caller: Arc<dyn Caller>,
        request: Request,
        trace: Option<Arc<Trace>>,
        takes_items: bool,
    ) -> Result<Called, PipelineError> {
        let Request { content, body, id, reservation, .. } = request;
        let sent = Value { content, body, is_from_client: true };
        let scope = Scope::default().with(REQUEST.into(), sent.clone());
        let delivery = if takes_items { Delivery::Items } else { Delivery::Any };
        let at = At { scope, trace, delivery, is_in_map: false };
        let shadows = Shadows::default();
        let run = Arc::new(Run { caller, id, reservation, is_shadow: false, shadows });
        let called = run.response(&self.steps, at, sent).await?;
        run.shadows.outlive();
        Ok(called)
    }
}

/// What a step gives.
enum Output {
    /// The response to a call, not looked at.
    Called(Called),
    Value(Value),
    /// The values of parallel branches.
    Branches(Vec<(Arc<str>, Value)>),
}

/// The surroundings of a step.
#[derive(Clone)]
struct At {
    /// The values that it may select from.
    scope: Scope,
    /// The trace whose span is that of the step around it.
    trace: Option<Arc<Trace>>,
    delivery: Delivery,
    /// Whether it runs for an item of a map.
    is_in_map: bool,
}

impl At {
    /// Returns the surroundings with one more value.
    fn with(&self, name: Arc<str>, value: Value) -> Self {
        Self { scope: self.scope.with(name, value), ..self.clone() }
    }

    /// Returns the surroundings of a step whose response is needed as a value.
    fn whole(&self) -> Self {
        Self { delivery: Delivery::Whole, ..self.clone() }
    }
}

/// One request in a graph.
struct Run {
    caller: Arc<dyn Caller>,
    id: Option<String>,
    reservation: Reservation,
    /// Whether this is the run of a shadow.
    is_shadow: bool,
    shadows: Shadows,
}

impl Run {
    async fn response(self: &Arc<Self>, steps: &[Node], at: At, sent: Value) -> Done<Called> {
        Ok(match self.sequence(steps, at, sent).await? {
            Output::Called(called) => called,
            other => Called::Whole(self.value(other).await?.into_response()?),
        })
    }

    async fn sequence(self: &Arc<Self>, steps: &[Node], mut at: At, sent: Value) -> Done<Output> {
        let Some((last, steps)) = steps.split_last() else { return Ok(Output::Value(sent)) };
        let mut response = sent;
        for step in steps {
            let output = self.step(step, at.whole(), response).await?;
            if let Output::Branches(branches) = &output {
                for (name, value) in branches {
                    at = at.with(name.clone(), value.clone());
                }
            }
            response = self.value(output).await.map_err(|error| error.in_step(step))?;
            if let Some(name) = &step.name {
                at = at.with(name.clone(), response.clone());
            }
        }
        self.step(last, at, response).await
    }

    /// Runs a step on the response of the one before it, within its timeout and with its default.
    fn step<'a>(
        self: &'a Arc<Self>,
        step: &'a Node,
        at: At,
        response: Value,
    ) -> BoxFuture<'a, Done<Output>> {
        Box::pin(async move {
            let mut running = RunningStep::begin(step, &*self.caller, &at);
            let mut at = at.with(RESPONSE.into(), response);
            if running.trace.is_some() {
                at.trace.clone_from(&running.trace);
            }
            let work = self.work(step, at);
            let outcome = match step.timeout {
                // A call has the same limit, and may be the first to tell.
                Some(limit) => match timeout(limit, work).await {
                    Ok(Err(error)) if running.is_late(error.error(), limit) => Err(late(limit)),
                    Ok(outcome) => outcome,
                    Err(_) => Err(late(limit)),
                },
                None => work.await,
            };
            match (outcome.map_err(|error| error.in_step(step)), &step.dependency) {
                (Ok(output), _) => {
                    running.end(Ended::Done);
                    Ok(output)
                }
                (Err(error), Dependency::Soft(default)) => {
                    running.end(Ended::Defaulted(error.error()));
                    Ok(Output::Value(Value::json(default.clone())))
                }
                (Err(error), Dependency::Hard) => {
                    running.end(Ended::Failed(error.error()));
                    Err(error)
                }
            }
        })
    }

    async fn work(self: &Arc<Self>, step: &Node, at: At) -> Done<Output> {
        let (template, values) = (step.input.clone(), at.scope.clone());
        let input = self.compute(template.bytes(&at.scope), move || template.fill(&values)).await?;
        match &step.work {
            Work::Value => Ok(Output::Value(input)),
            Work::Call(endpoint) => self.call(step, endpoint, &at, input).await,
            Work::Sequence(steps) => self.sequence(steps, at, input).await,
            Work::Parallel(branches) => self.parallel(branches, &at, &input).await,
            Work::Switch(branches) => self.switch(branches, at, input).await,
            Work::Splitter(splitter) => self.splitter(splitter, at, input).await,
            Work::Map(map) => self.map(step, map, at.with(RESPONSE.into(), input)).await,
        }
    }

    async fn call(&self, step: &Node, endpoint: &str, at: &At, input: Value) -> Done<Output> {
        let Value { content, body, is_from_client } = input;
        let (id, reservation) = (self.id.clone(), self.reservation.clone());
        let request = Request { content, body, meta: None, id, takes_values: false, reservation };
        let call = StepCall {
            endpoint,
            request,
            timeout: step.timeout,
            trace: at.trace.clone(),
            delivery: at.delivery,
            is_shadow: self.is_shadow,
        };
        let error = match self.caller.call(call).await {
            Ok(Called::Whole(response)) if response.status >= 400 => refusal_of(&response),
            Ok(called @ Called::Stream(..)) if at.delivery == Delivery::Whole => {
                return self.value(Output::Called(called)).await.map(Output::Value);
            }
            Ok(called) => return Ok(Output::Called(called)),
            Err(error) => error,
        };
        let mut error = as_callers(error, is_from_client);
        let mut path = self.caller.path();
        path.push(endpoint.to_owned());
        if error.calls.len() < path.len() {
            error.calls = path.into();
        }
        Err(error.into())
    }

    /// Runs branches at the same time; the first error drops the others.
    async fn parallel(
        self: &Arc<Self>,
        branches: &[(Arc<str>, Node)],
        at: &At,
        input: &Value,
    ) -> Done<Output> {
        let branches = branches.iter().enumerate();
        let running: FuturesUnordered<_> = branches
            .clone()
            .map(|(number, (_, step))| {
                let (at, input) = (at.whole(), input.clone());
                async move {
                    let output = self.step(step, at, input).await?;
                    let value = self.value(output).await.map_err(|error| error.in_step(step))?;
                    Ok::<_, StepError>((number, value))
                }
            })
            .collect();
        let mut done: Vec<(usize, Value)> = running.try_collect().await?;
        done.sort_by_key(|(number, _)| *number);
        let named = branches.zip(done).map(|((_, (name, _)), (_, value))| (name.clone(), value));
        Ok(Output::Branches(named.collect()))
    }

    async fn switch(
        self: &Arc<Self>,
        branches: &[SwitchBranch],
        at: At,
        input: Value,
    ) -> Done<Output> {
        let scope = at.scope.with(RESPONSE.into(), input.clone());
        for SwitchBranch { when, step: branch } in branches {
            let holds = match when {
                Some(when) => {
                    let (when, values) = (when.clone(), scope.clone());
                    self.compute(when.bytes(&scope), move || when.holds(&values)).await?
                }
                None => true,
            };
            if holds {
                return self.step(branch, at, input).await;
            }
        }
        Err(unmatched(branches, &scope).into())
    }

    async fn splitter(self: &Arc<Self>, splitter: &Splitter, at: At, input: Value) -> Done<Output> {
        for shadow in splitter.shadows.iter().filter(|shadow| random() < shadow.share) {
            self.begin_shadow(shadow, &at.whole(), input.clone());
        }
        let branch = &splitter.branches[splitter.weights.branch(random())];
        self.step(branch, at, input).await
    }

    /// Begins a shadow, as a run of its own, if there is room for it.
    fn begin_shadow(&self, Shadow { room, step, .. }: &Shadow, at: &At, input: Value) {
        let run = Arc::new(Self {
            caller: self.caller.clone(),
            id: self.id.clone(),
            reservation: self.reservation.clone(),
            is_shadow: true,
            shadows: Shadows::default(),
        });
        let (running, shadow_at) = (step.clone(), at.clone());
        // Its memory is in the reservation of the request.
        let has_begun = self.shadows.spawn(room, 0, async move {
            if let Err(error) = run.step(&running, shadow_at, input).await {
                let (step, request_id) = (&*running.label, run.id.as_deref());
                tracing::debug!(step, request_id, "the shadow failed: {}", error.error());
            }
        });
        if !has_begun {
            RunningStep::begin(step, &*self.caller, at).end(Ended::Skipped);
        }
    }

    /// Runs a step for each item of a list; the first error drops the others.
    async fn map(self: &Arc<Self>, step: &Node, map: &Map, at: At) -> Done<Output> {
        let (over, values) = (map.over.clone(), at.scope.clone());
        let bytes = at.scope.unread_bytes(&over);
        let List { items, is_from_client } =
            self.compute(bytes, move || items_at(&over, &values)).await?;
        let is_stream = at.delivery == Delivery::Items;
        let (run, label) = (self.clone(), step.label.clone());
        let (each, at) = (map.step.clone(), At { is_in_map: true, ..at.whole() });
        let works = items.into_iter().enumerate().map(move |(number, item)| {
            let item = Value { is_from_client, ..Value::json(item) };
            let work = run.clone().item(each.clone(), at.with(ITEM.into(), item.clone()), item);
            let label = label.clone();
            async move { work.await.map_err(|error| error.in_item(number, label)) }
        });
        if is_stream {
            let mut results = MapStream::new(works, map.in_flight);
            let called = match poll_fn(|cx| results.poll_results(cx)).await? {
                Part::Items(first) => Called::Stream(first, Box::new(results)),
                _ => Called::Stream(Items::empty(), Box::new(results)),
            };
            return Ok(Output::Called(called));
        }
        let done = collect(works, map.in_flight).await?;
        let list = self.held(joined(done.iter().map(|text| &text[..])).into())?;
        Ok(Output::Value(Value::json(list)))
    }

    /// Runs the step of a map for one item; returns the JSON of its response.
    async fn item(self: Arc<Self>, step: Arc<Node>, at: At, item: Value) -> Done<Bytes> {
        let output = self.step(&step, at, item).await?;
        let text = match self.value(output).await {
            Ok(value) => value.text().map_err(StepError::from),
            Err(error) => Err(error),
        };
        text.map_err(|error| error.in_step(&step))
    }

    /// Returns the value of an output: collects a stream, and merges branches by name.
    async fn value(&self, output: Output) -> Done<Value> {
        match output {
            Output::Value(value) => Ok(value),
            Output::Called(Called::Whole(response)) => Ok(Value::from_response(response)),
            Output::Called(Called::Stream(first, rest)) => Ok(self.collect(first, rest).await?),
            Output::Branches(branches) => {
                let bytes = branches.iter().map(|(_, value)| value.bytes()).sum();
                let merged = self.compute(bytes, move || merge(&branches)).await?;
                Ok(Value::json(self.held(merged.into())?))
            }
        }
    }

    /// Returns the items of a stream as one value: a list of JSON, or a text, or bytes.
    async fn collect(&self, first: Items, mut rest: Box<dyn PartStream>) -> Outcome<Value> {
        let kind = first.kind();
        let reservation = self.reservation.another();
        let (mut body, mut number) = (Vec::new(), 0);
        let mut part = Part::Items(first);
        loop {
            match part {
                Part::Items(items) => {
                    reservation.grow(items.packed_len())?;
                    for item in items.iter() {
                        if kind == ItemKind::Json {
                            body.push(if number == 0 { b'[' } else { b',' });
                        }
                        body.extend_from_slice(item);
                        number += 1;
                    }
                }
                Part::End => break,
                Part::Failed(error) => return Err(error),
            }
            part = poll_fn(|cx| rest.poll_part(cx)).await;
        }
        if kind == ItemKind::Json {
            body.extend_from_slice(if number == 0 { b"[]" } else { b"]" });
        }
        drop(reservation);
        let body = self.held(body.into())?;
        let content = match kind {
            ItemKind::Json => Content::Json,
            ItemKind::Text => Content::Raw("text/plain; charset=utf-8".into()),
            ItemKind::Bytes => Content::Raw("application/octet-stream".into()),
        };
        Ok(Value { content, ..Value::json(body) })
    }

    /// Runs work that depends on the length of values: of long ones, where it blocks no other request.
    async fn compute<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes <= SMALL_BYTES {
            return work();
        }
        let (done, result) = oneshot::channel();
        self.caller.off_thread(bytes, Box::new(move || drop(done.send(work())))).await;
        result.await.expect("the work was done. This is a bug.")
    }

    /// Counts data that was derived from responses in the budget of the request.
    fn held(&self, data: Bytes) -> Outcome<Bytes> {
        self.reservation.another().hold(data)
    }
}

/// Returns a JSON object of the branches.
fn merge(branches: &[(Arc<str>, Value)]) -> Outcome<Vec<u8>> {
    let mut merged = vec![b'{'];
    for (number, (name, value)) in branches.iter().enumerate() {
        separate(number, &mut merged);
        // Names are identifiers, so that they need no escapes.
        merged.put_slice(format!("\"{name}\":").as_bytes());
        let text = value.text().map_err(|error| {
            let detail = format!("the branch `{name}` of a parallel: {}", error.detail);
            ServeError { detail, ..error }
        })?;
        merged.put_slice(&text);
    }
    merged.push(b'}');
    Ok(merged)
}

/// Returns the error of a switch without a branch for its value.
fn unmatched(branches: &[SwitchBranch], scope: &Scope) -> ServeError {
    let conditions = branches.iter().filter_map(|branch| branch.when.as_ref());
    let mut names: Vec<&str> = conditions.clone().flat_map(|when| when.variables()).collect();
    names.sort_unstable();
    names.dedup();
    let conditions: Vec<_> = conditions.map(|when| format!("`{}`", when.source)).collect();
    let mut is_from_client = true;
    let mut shown = Vec::new();
    for name in names {
        let Some(value) = scope.get(name) else { continue };
        is_from_client &= value.is_from_client;
        let text = value.text().unwrap_or_default();
        shown.push(format!("`{name}` is {}", excerpt(&text)));
    }
    let detail = format!("no condition holds: {}; {}", conditions.join(", "), shown.join(", "));
    refusal(detail, is_from_client)
}

/// Returns the error of a step whose limit has passed.
fn late(limit: Duration) -> StepError {
    let detail = format!("no response within {limit:?}");
    ServeError { detail, ..ServeError::deadline() }.into()
}

/// A step that runs. Dropped before its end, it is noted as cancelled.
struct RunningStep<'a> {
    step: &'a Node,
    caller: &'a dyn Caller,
    began: Instant,
    is_in_map: bool,
    /// The trace whose span is that of the step. A call for an item has none: its map has one, and the
    /// queue and the worker have theirs.
    trace: Option<Arc<Trace>>,
    has_ended: bool,
}

impl<'a> RunningStep<'a> {
    fn begin(step: &'a Node, caller: &'a dyn Caller, at: &At) -> Self {
        let is_bare = at.is_in_map && step.name.is_none() && matches!(step.work, Work::Call(_));
        let trace = at.trace.as_ref().filter(|_| !is_bare).map(|trace| trace.child());
        let (began, is_in_map) = (Instant::now(), at.is_in_map);
        Self { step, caller, began, is_in_map, trace, has_ended: false }
    }

    /// Returns whether an error says that the limit of the step has passed.
    fn is_late(&self, error: &ServeError, limit: Duration) -> bool {
        error.cause == ErrorCause::Deadline && self.began.elapsed() >= limit
    }

    fn end(&mut self, ended: Ended<'_>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            let (name, trace) = (&*self.step.label, self.trace.as_deref());
            let Self { began, is_in_map, .. } = *self;
            self.caller.ended(StepReport { name, began, is_in_map, trace, ended });
        }
    }
}

impl Drop for RunningStep<'_> {
    fn drop(&mut self) {
        self.end(Ended::Cancelled);
    }
}
