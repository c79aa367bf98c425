//! The run of a graph for one request.
//!
//! All steps run inside the future of the request, so that dropping it, or one step, drops the calls
//! below it. Only shadows have tasks of their own, which outlive the response.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use litplex_core::{
    BoxFuture, Called, Content, ErrorCause, ItemKind, Items, Outcome, Part, PartStream, Request,
    Reservation, ServeError,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::caller::{Caller, Ended, StepCall, StepReport};
use crate::condition::refusal;
use crate::draw::random;
use crate::graph::{Dependency, Graph, Map, Node, Splitter, SwitchBranch, Work};
use crate::path::{Path, excerpt, items};
use crate::read::{ITEM, REQUEST};
use crate::template::{RESPONSE, separate, value_at};
use crate::value::{Scope, Value};

/// The largest number of bytes that are read at once, in place.
const SMALL_BYTES: usize = 64 * 1024;

impl Graph {
    /// Answers a request. The last step's stream is passed on as it comes; streams of other steps are
    /// collected.
    ///
    /// # Errors
    /// The error of the step that failed, with its name.
    pub async fn run(&self, caller: Arc<dyn Caller>, request: Request) -> Outcome<Called> {
        let Request { content, body, id, reservation, .. } = request;
        let sent = Value { content, body, is_from_client: true };
        let scope = Scope::default().with(REQUEST.into(), sent.clone());
        let run = Run { caller, id, reservation, is_shadow: false, shadows: Shadows::new() };
        let output = run.sequence(&self.steps, scope, sent, true).await?;
        let called = match output {
            Output::Called(called) => called,
            other => Called::Whole(run.value(other).await?.into_response()),
        };
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
    async fn sequence(
        &self,
        steps: &[Node],
        mut scope: Scope,
        mut response: Value,
        is_last: bool,
    ) -> Outcome<Output> {
        let Some((last, steps)) = steps.split_last() else { return Ok(Output::Value(response)) };
        for step in steps {
            let output = self.step(step, scope.clone(), response, false).await?;
            if let Output::Branches(branches) = &output {
                for (name, value) in branches {
                    scope = scope.with(name.clone(), value.clone());
                }
            }
            response = self.value(output).await.map_err(|error| in_step(step, error))?;
            if let Some(name) = &step.name {
                scope = scope.with(name.clone(), response.clone());
            }
        }
        self.step(last, scope, response, is_last).await
    }

    /// Runs a step on the response of the one before it, within its timeout and with its default.
    fn step<'a>(
        &'a self,
        step: &'a Node,
        scope: Scope,
        response: Value,
        is_last: bool,
    ) -> BoxFuture<'a, Outcome<Output>> {
        Box::pin(async move {
            let mut running = RunningStep::begin(step, &*self.caller);
            let scope = scope.with(RESPONSE.into(), response);
            let work = self.work(step, scope, is_last);
            let outcome = match step.timeout {
                // A call has the same limit, and may be the first to tell.
                Some(limit) => match timeout(limit, work).await {
                    Ok(Err(error)) if running.is_late(&error, limit) => Err(late(step, limit)),
                    Ok(outcome) => outcome,
                    Err(_) => Err(late(step, limit)),
                },
                None => work.await,
            };
            match (outcome, &step.dependency) {
                (Ok(output), _) => {
                    running.end(Ended::Done);
                    Ok(output)
                }
                (Err(error), Dependency::Soft(default)) => {
                    running.end(Ended::Defaulted(&error));
                    Ok(Output::Value(Value::json(default.clone())))
                }
                (Err(error), Dependency::Hard) => {
                    running.end(Ended::Failed(&error));
                    Err(error)
                }
            }
        })
    }

    async fn work(&self, step: &Node, scope: Scope, is_last: bool) -> Outcome<Output> {
        let (template, values) = (step.input.clone(), scope.clone());
        let filled = self.compute(template.bytes(&scope), move || template.fill(&values)).await;
        let input = filled.map_err(|error| in_step(step, error))?;
        match &step.work {
            Work::Value => Ok(Output::Value(input)),
            Work::Call(endpoint) => self.call(step, endpoint, input, is_last).await,
            Work::Sequence(steps) => self.sequence(steps, scope, input, is_last).await,
            Work::Parallel(branches) => self.parallel(branches, &scope, &input).await,
            Work::Switch(branches) => self.switch(step, branches, scope, input, is_last).await,
            Work::Splitter(splitter) => self.splitter(splitter, scope, input, is_last).await,
            Work::Map(map) => self.map(step, map, &scope.with(RESPONSE.into(), input)).await,
        }
    }

    async fn call(
        &self,
        step: &Node,
        endpoint: &str,
        input: Value,
        is_last: bool,
    ) -> Outcome<Output> {
        let Value { content, body, is_from_client } = input;
        let (id, reservation) = (self.id.clone(), self.reservation.clone());
        let request = Request { content, body, meta: None, id, takes_values: false, reservation };
        let (timeout, is_shadow) = (step.timeout, self.is_shadow);
        let call = StepCall { endpoint, request, timeout, is_last, is_shadow };
        let called = self.caller.call(call).await;
        let called = called.and_then(refuse_status);
        let called = called.map_err(|error| named(step, &as_callers(error, is_from_client)))?;
        if is_last || matches!(called, Called::Whole(_)) {
            return Ok(Output::Called(called));
        }
        let value = self.value(Output::Called(called)).await;
        value.map(Output::Value).map_err(|error| in_step(step, error))
    }

    /// Runs branches at the same time; the first error drops the others.
    async fn parallel(
        &self,
        branches: &[(Arc<str>, Node)],
        scope: &Scope,
        input: &Value,
    ) -> Outcome<Output> {
        let branches = branches.iter().enumerate();
        let running: FuturesUnordered<_> = branches
            .clone()
            .map(|(number, (_, step))| {
                let (scope, input) = (scope.clone(), input.clone());
                async move {
                    let output = self.step(step, scope, input, false).await?;
                    let value = self.value(output).await.map_err(|error| in_step(step, error))?;
                    Ok::<_, ServeError>((number, value))
                }
            })
            .collect();
        let mut done: Vec<(usize, Value)> = running.try_collect().await?;
        done.sort_by_key(|(number, _)| *number);
        let named = branches.zip(done).map(|((_, (name, _)), (_, value))| (name.clone(), value));
        Ok(Output::Branches(named.collect()))
    }

    async fn switch(
        &self,
        step: &Node,
        branches: &[SwitchBranch],
        scope: Scope,
        input: Value,
        is_last: bool,
    ) -> Outcome<Output> {
        let scope = scope.with(RESPONSE.into(), input.clone());
        for SwitchBranch { when, step: branch } in branches {
            let holds = match when {
                Some(when) => {
                    let (when, values) = (when.clone(), scope.clone());
                    let holds = self.compute(when.bytes(&scope), move || when.holds(&values)).await;
                    holds.map_err(|error| in_step(step, error))?
                }
                None => true,
            };
            if holds {
                return self.step(branch, scope, input, is_last).await;
            }
        }
        Err(in_step(step, unmatched(branches, &scope)))
    }

    async fn splitter(
        &self,
        splitter: &Splitter,
        scope: Scope,
        input: Value,
        is_last: bool,
    ) -> Outcome<Output> {
        for shadow in splitter.shadows.iter().filter(|shadow| random() < shadow.share) {
            let run = self.shadow();
            let (step, scope, input) = (shadow.step.clone(), scope.clone(), input.clone());
            self.shadows.spawn(async move {
                let output = run.step(&step, scope, input, false).await;
                if let Err(error) = output {
                    tracing::debug!(step = &*step.label, "the shadow failed: {error}");
                }
            });
        }
        let branch = &splitter.branches[splitter.weights.branch(random())];
        self.step(branch, scope, input, is_last).await
    }

    /// Returns a run of its own for a shadow.
    fn shadow(&self) -> Self {
        Self {
            caller: self.caller.clone(),
            id: self.id.clone(),
            reservation: self.reservation.clone(),
            is_shadow: true,
            shadows: Shadows::new(),
        }
    }

    /// Runs a step for each item of a list; the first error drops the others.
    async fn map(&self, step: &Node, map: &Map, scope: &Scope) -> Outcome<Output> {
        let in_this = |error| in_step(step, error);
        let (over, values) = (map.over.clone(), scope.clone());
        let bytes = scope.get(&over.name).map_or(0, Value::bytes);
        let list = self.compute(bytes, move || items_at(&over, &values)).await.map_err(in_this)?;
        let List { items, is_from_client } = list;
        let run = |(number, item)| {
            let item = Value { is_from_client, ..Value::json(item) };
            let scope = scope.with(ITEM.into(), item.clone());
            async move {
                let output = self.step(&map.step, scope, item, false).await?;
                let text = self.value(output).await?.text();
                Ok::<_, ServeError>((number, text.map_err(|error| in_step(&map.step, error))?))
            }
        };
        let running = stream::iter(items.into_iter().enumerate().map(run));
        let running = running.buffer_unordered(map.in_flight);
        let mut done: Vec<(usize, Bytes)> = running.try_collect().await?;
        done.sort_by_key(|(number, _)| *number);
        let list = joined(done.iter().map(|(_, text)| &text[..]));
        self.held(list.into()).map(|list| Output::Value(Value::json(list)))
    }

    /// Returns the value of an output: collects a stream, and merges branches by name.
    async fn value(&self, output: Output) -> Outcome<Value> {
        match output {
            Output::Value(value) => Ok(value),
            Output::Called(Called::Whole(response)) => Ok(Value::from_response(response)),
            Output::Called(Called::Stream(first, rest)) => self.collect(first, rest).await,
            Output::Branches(branches) => {
                let bytes = branches.iter().map(|(_, value)| value.bytes()).sum();
                let merged = self.compute(bytes, move || merge(&branches)).await?;
                self.held(merged.into()).map(Value::json)
            }
        }
    }

    /// Returns the items of a stream as one value: a list of JSON, or a text, or bytes.
    async fn collect(&self, first: Items, mut rest: Box<dyn PartStream>) -> Outcome<Value> {
        let kind = first.kind();
        let reservation = self.reservation.another();
        let mut collected = Vec::new();
        let mut part = Part::Items(first);
        loop {
            match part {
                Part::Items(items) => {
                    reservation.grow(items.packed_len())?;
                    collected.extend(items.iter().map(Bytes::copy_from_slice));
                }
                Part::End => break,
                Part::Failed(error) => return Err(error),
            }
            part = poll_fn(|cx| rest.poll_part(cx)).await;
        }
        let body = match kind {
            ItemKind::Json => joined(collected.iter().map(|item| &item[..])),
            ItemKind::Text | ItemKind::Bytes => collected.concat(),
        };
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

/// The items of a list, and whether the client sent them.
struct List {
    items: Vec<Bytes>,
    is_from_client: bool,
}

/// Returns the items of the list at a path.
fn items_at(over: &Path, scope: &Scope) -> Outcome<List> {
    let list = value_at(over, scope)?;
    let text = list.text()?;
    match items(&text) {
        Some(items) => Ok(List { items, is_from_client: list.is_from_client }),
        None => {
            let detail = format!("`{over}` is not a list, but {}", excerpt(&text));
            Err(refusal(detail, list.is_from_client))
        }
    }
}

/// Returns a JSON list of these texts.
fn joined<'t>(items: impl Iterator<Item = &'t [u8]>) -> Vec<u8> {
    let mut list = vec![b'['];
    for (number, item) in items.enumerate() {
        separate(number, &mut list);
        list.put_slice(item);
    }
    list.push(b']');
    list
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

/// Makes an error of a response with the status of one.
fn refuse_status(called: Called) -> Outcome<Called> {
    match called {
        Called::Whole(response) if response.status >= 400 => {
            let json: Option<serde_json::Value> = serde_json::from_slice(&response.body).ok();
            let detail = json.as_ref().and_then(|json| json.get("detail"));
            let detail = match detail {
                Some(serde_json::Value::String(detail)) => detail.clone(),
                Some(detail) => detail.to_string(),
                None => excerpt(&response.body).into_owned(),
            };
            Err(ServeError::new(response.status, detail))
        }
        called => Ok(called),
    }
}

/// Returns the error of a callee as that of the pipeline. What the client sent, the client must mend; a
/// refusal of what a step made is the pipeline's fault.
fn as_callers(error: ServeError, is_from_client: bool) -> ServeError {
    match error.status() {
        401 | 403 | 429 | 503 | 504 | 508 => error,
        400..500 if is_from_client => error,
        status => {
            let detail = format!("status {status}: {}", error.detail);
            ServeError { cause: ErrorCause::Internal, detail, retry_after: None, ..error }
        }
    }
}

/// Returns the error of a step whose limit has passed.
fn late(step: &Node, limit: Duration) -> ServeError {
    let detail = format!("no response within {limit:?}");
    in_step(step, ServeError { detail, ..ServeError::deadline() })
}

/// Adds the name of the step to an error, unless a step has done so.
fn in_step(step: &Node, error: ServeError) -> ServeError {
    if error.detail.starts_with("step `") { error } else { named(step, &error) }
}

/// Adds the name of the step to an error: for that of a callee, which may be a pipeline, too.
fn named(step: &Node, error: &ServeError) -> ServeError {
    let endpoint = match &step.work {
        Work::Call(endpoint) if **endpoint != *step.label => format!(" ({endpoint})"),
        _ => String::new(),
    };
    ServeError {
        detail: format!("step `{}`{endpoint}: {}", step.label, error.detail),
        ..error.clone()
    }
}

/// A step that runs. Dropped before its end, it is noted as cancelled.
struct RunningStep<'a> {
    step: &'a Node,
    caller: &'a dyn Caller,
    began: Instant,
    has_ended: bool,
}

impl<'a> RunningStep<'a> {
    fn begin(step: &'a Node, caller: &'a dyn Caller) -> Self {
        Self { step, caller, began: Instant::now(), has_ended: false }
    }

    /// Returns whether an error says that the limit of the step has passed.
    fn is_late(&self, error: &ServeError, limit: Duration) -> bool {
        error.cause == ErrorCause::Deadline && self.began.elapsed() >= limit
    }

    fn end(&mut self, ended: Ended<'_>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.caller.ended(&StepReport { name: &self.step.label, began: self.began, ended });
        }
    }
}

impl Drop for RunningStep<'_> {
    fn drop(&mut self) {
        self.end(Ended::Cancelled);
    }
}

/// The shadows of a request. They end with it if it fails or is cancelled, and otherwise outlive its
/// response.
struct Shadows(watch::Sender<bool>);

impl Shadows {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    fn spawn(&self, shadow: impl Future<Output = ()> + Send + 'static) {
        let outlives = self.0.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = shadow => {}
                () = cancelled(outlives) => {}
            }
        });
    }

    /// Lets the shadows go on after the request.
    fn outlive(&self) {
        self.0.send_replace(true);
    }
}

/// Resolves when the request is dropped before its response.
async fn cancelled(mut outlives: watch::Receiver<bool>) {
    if outlives.wait_for(|outlives| *outlives).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
