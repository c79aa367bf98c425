//! The pipelines of a server: endpoints whose graphs run in the future of the request, and call other
//! endpoints.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::EndpointStatus;
use litplex_calls::{CallService, Composed, Inherited, WatchedQueue, off_thread};
use litplex_config::Source;
use litplex_core::{
    BoxFuture, Called, Identity, Invocation, ModelInfo, Origin, Outcome, Parent, Place, Request,
    Response, Waits,
};
use litplex_metrics::{Edge, StepOutcome, StepTimes};
use litplex_pipelines::{Caller, Delivery, Ended, Graph, PipelineError, StepCall, StepReport};
use serde::Serialize;
use serde_json::json;

/// A pipeline as the registry has it.
pub(crate) struct Pipeline {
    graph: Arc<Graph>,
    info: ModelInfo,
    steps: StepTimes,
    /// The name in the path of calls.
    name: Arc<str>,
    calls: CallService,
    /// The pipeline, as the detector of deadlocks among calls knows it.
    pub(crate) watched: WatchedQueue,
}

impl Pipeline {
    /// Returns the pipeline of an endpoint that is one; its steps make these calls.
    pub(crate) fn new(
        config: &litplex_config::Endpoint,
        steps: StepTimes,
        calls: &CallService,
    ) -> Option<Self> {
        let Source::Pipeline(graph) = &config.source else { return None };
        let info = info(graph);
        let (name, watched) = (config.label().into(), calls.watch(config.label(), 0));
        Some(Self { graph: graph.clone(), info, steps, name, calls: calls.clone(), watched })
    }

    /// Returns the graph.
    pub(crate) fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }
}

/// The state of a pipeline that operators read.
#[derive(Debug)]
pub(crate) struct PipelineState {
    pub(crate) identity: Arc<Identity>,
    /// The metrics of its requests at the HTTP edge.
    pub(crate) edge: Edge,
}

impl PipelineState {
    /// Returns the state that `litplex ps` shows.
    pub(crate) fn status(&self) -> EndpointStatus {
        EndpointStatus {
            label: self.identity.label.clone(),
            path: self.identity.path.clone(),
            name: self.identity.name.clone(),
            aliases: self.identity.aliases.clone(),
            kind: "pipeline".into(),
            state: "ready".into(),
            problem: None,
            wanted: 0,
            min_workers: None,
            max_workers: None,
            queued: 0,
            in_flight: usize::try_from(self.edge.inflight()).unwrap_or_default(),
            requests: self.edge.ended(),
            batches: None,
            residency: None,
            tier: None,
            workers: Vec::new(),
            generations: Vec::new(),
            sources: Vec::new(),
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// Returns the properties of a pipeline: it takes plain requests, and its description shows the graph.
fn info(graph: &Graph) -> ModelInfo {
    let description = format!("A pipeline of other endpoints:\n\n```text\n{graph}```");
    ModelInfo {
        max_batch_size: 1,
        batch_timeout: Duration::ZERO,
        concurrency: usize::MAX,
        places: 1,
        stream: false,
        context: false,
        watches_callers: false,
        has_cost: false,
        dialect: None,
        schema: Arc::new(json!({"description": description})),
        tool: None,
        base64: Default::default(),
        calls: graph.endpoints().into_iter().map(str::to_owned).collect(),
    }
}

impl Composed for Pipeline {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run<'a>(&'a self, call: Inherited, request: Request) -> BoxFuture<'a, Outcome<Called>> {
        let origin = call.origin.as_deref().cloned().unwrap_or_default();
        // The deadlock detector follows the calls of a pipeline from the call of it.
        let origin = Origin { call: origin.call, ..origin.child(self.name.clone()) };
        let Inherited { budget, trace, takes_items, .. } = call;
        let parent = Parent {
            origin,
            deadline: budget.deadline,
            id: request.id.clone(),
            trace: None,
            reservation: request.reservation.clone(),
            live: Vec::new(),
            hook: None,
        };
        let (calls, steps) = (self.calls.clone(), self.steps.clone());
        let caller = Arc::new(StepCaller { name: self.name.clone(), parent, calls, steps });
        Box::pin(async move {
            let called = self.graph.run(caller, request, trace, takes_items).await;
            Ok(called.unwrap_or_else(|failed| Called::Whole(error_response(&failed))))
        })
    }
}

/// Calls endpoints for the steps of one request.
struct StepCaller {
    name: Arc<str>,
    parent: Parent,
    calls: CallService,
    steps: StepTimes,
}

impl Caller for StepCaller {
    fn call(&self, call: StepCall<'_>) -> BoxFuture<'static, Outcome<Called>> {
        let StepCall { endpoint, request, timeout, trace, delivery, is_shadow } = call;
        let mut parent = Parent { trace, ..self.parent.clone() };
        if is_shadow {
            // Its calls are no reason to refuse requests, and use none of their retries.
            parent.origin.root = Arc::new(parent.origin.root.shadow());
        }
        let invocation = Invocation {
            caller: self.name.clone(),
            endpoint: endpoint.to_owned(),
            parent,
            request,
            timeout,
            waits: if is_shadow { Waits::Reported } else { Waits::Polling },
            stream: if delivery == Delivery::Whole { Some(false) } else { None },
            takes_items: delivery == Delivery::Items,
        };
        self.calls.call(invocation, Box::new(|_| {}))
    }

    fn off_thread(&self, bytes: usize, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(off_thread(bytes, work))
    }

    fn path(&self) -> Vec<String> {
        self.parent.origin.path().iter().map(ToString::to_string).collect()
    }

    fn ended(&self, step: StepReport<'_>) {
        let (outcome, failed) = match step.ended {
            Ended::Done => (StepOutcome::Ok, None),
            Ended::Failed(error) => (StepOutcome::Failed, Some(error.status())),
            Ended::Defaulted(error) => (StepOutcome::Default, Some(error.status())),
            Ended::Cancelled => (StepOutcome::Cancelled, None),
            Ended::Skipped => (StepOutcome::Skipped, None),
        };
        if !step.is_in_map {
            self.steps.observe(step.name, outcome, step.began.elapsed());
        }
        if let Some(trace) = step.trace {
            trace.end(Place::Pipeline { step: step.name.to_owned(), failed }, step.began);
        }
    }
}

/// Returns the response of a pipeline that failed: the step and the path of calls stand in its body.
fn error_response(failed: &PipelineError) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<&'a str>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        calls: &'a [String],
    }
    let PipelineError { error, step } = failed;
    let body = Body { detail: &error.detail, step: step.as_deref(), calls: &error.calls };
    let body = serde_json::to_vec(&body).expect("it is plain data. This is a bug.");
    let retry_after = error.retry_after.map(|seconds| ("retry-after".into(), seconds.to_string()));
    let headers = retry_after.into_iter().collect();
    Response { status: error.status(), headers, ..Response::json(body) }
}
