//! The controls of one endpoint: its state, as others read it, and the number of its workers.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};

use litplex_admin::{EndpointStatus, Mode, Refusal, Tier, WorkerCount, WorkerStatus};
use litplex_calls::WatchedQueue;
use litplex_config::{Source, Workers};
use litplex_core::{Device, Identity, Launch, LoadedFile};
use litplex_metrics::Edge;
use litplex_scheduler::{Endpoint, EndpointLoad};
use litplex_supervisor::{Limits, SlotState, View, Wanted};
use litplex_workers::{SharedPatience, UnhealthyCount, endpoint_span};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::call_types::types;
use crate::events::reason;
use crate::fits::Description;
use crate::generation_spec::GenerationSpec;
use crate::problem::problem_in_full;
use crate::residency::Member;
use crate::size::Size;

/// The state of one endpoint that others read, and the number of workers that they may set.
#[derive(Clone)]
pub(crate) struct EndpointControls {
    /// The number of the generation; the first is 1.
    pub(crate) generation: u64,
    pub(crate) identity: Arc<Identity>,
    pub(crate) kind: &'static str,
    pub(crate) workers: Workers,
    pub(crate) devices: Vec<Device>,
    /// The share of its GPU's memory that each worker may take, from 0 to 1.
    pub(crate) gpu_memory_fraction: Option<f64>,
    pub(crate) endpoint: Endpoint,
    pub(crate) view: View,
    pub(crate) wanted: Wanted,
    /// The size that the configuration or an operator has set.
    pub(crate) size: watch::Sender<Size>,
    pub(crate) unwell: UnhealthyCount,
    /// The memory of its workers.
    pub(crate) memory: Arc<Member>,
    /// The launch of its workers, which lives as long as their supervisor.
    pub(crate) launch: Weak<dyn Launch>,
    /// The queue, as the detector of deadlocks among calls knows it.
    pub(crate) watched: WatchedQueue,
    /// The metrics of its requests at the HTTP edge.
    pub(crate) edge: Edge,
    /// The times that its workers may compute, if they are processes.
    pub(crate) patience: Option<SharedPatience>,
    /// The specification that the generation was launched from.
    pub(crate) spec: Arc<GenerationSpec>,
}

impl EndpointControls {
    pub(crate) fn label(&self) -> &str {
        &self.identity.label
    }

    /// Sets the number of workers, which the load no longer changes, or gives it back to the configuration.
    /// Returns the number of wanted workers from now on.
    pub(crate) fn scale(&self, to: WorkerCount) -> usize {
        let configured = Size::configured(&self.spec.config, self.devices.len());
        let size = match to {
            WorkerCount::Number(workers) => configured.by_hand(workers),
            WorkerCount::Cold => configured.cold(),
            WorkerCount::Auto => {
                let Limits { min, max } = configured.limits;
                Size { workers: self.view.wanted().clamp(min, max), ..configured }
            }
        };
        self.resize(size);
        endpoint_span(self.label()).in_scope(|| match (to, size.workers) {
            (WorkerCount::Number(0) | WorkerCount::Cold, _) => {
                tracing::info!("asleep: it was scaled to none by hand");
            }
            (WorkerCount::Number(_), workers) => tracing::info!("the target is {workers} workers"),
            (WorkerCount::Auto, workers) => {
                tracing::info!("the target is {workers} workers, as configured");
            }
        });
        size.workers
    }

    /// Sets the number of workers and its limits.
    pub(crate) fn resize(&self, size: Size) {
        self.watched.set_most_workers(size.limits.max.max(1));
        self.wanted.set(size.workers);
        self.size.send_replace(size);
    }

    fn is_asleep(&self) -> bool {
        self.view.wanted() == 0
    }

    /// Returns the size of a generation that takes the place of this one: the same, also if it was set by hand,
    /// unless its configuration asks for another one.
    pub(crate) fn size_of_successor(&self, spec: &GenerationSpec) -> Size {
        let (before, after) = (&self.spec, spec);
        let has_other_size = before.config.workers != after.config.workers
            || before.placement.devices != after.placement.devices;
        if has_other_size {
            return Size::configured(&after.config, after.placement.devices.len()).awake();
        }
        let limits = self.size.borrow().limits;
        let workers = self.view.wanted().max(1);
        Size { workers, limits, residency: after.config.residency }
    }

    /// Sets what the endpoint does with requests.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.endpoint.set_mode(mode.into());
        let mode = mode.word();
        endpoint_span(self.label()).in_scope(|| tracing::info!("the mode is `{mode}`"));
    }

    /// Returns the stacks of all threads of a worker.
    pub(crate) async fn stack(&self, slot: usize) -> Result<String, Refusal> {
        let label = self.label();
        let states = self.view.states();
        let Some(state) = states.get(slot) else {
            return Err(Refusal::not_found(format!(
                "there is no worker `{label}#{slot}`; there are {} workers",
                states.len()
            )));
        };
        let Some(monitor) = self.view.monitor(slot) else {
            let state = state.label().replace('_', " ");
            let reason = match self.kind {
                "rust" => format!("`{label}#{slot}` is a thread of this process, not of Python"),
                _ => format!("`{label}#{slot}` has no process that shows its stacks: {state}"),
            };
            return Err(Refusal::conflict(reason));
        };
        let stack = spawn_blocking(move || monitor.stack()).await.map_err(io::Error::other);
        stack.and_then(|stack| stack).map_err(|error| {
            Refusal::conflict(format!("`{label}#{slot}` does not show its stacks: {error}"))
        })
    }

    /// Returns whether its first workers still start: none was ready, and none has failed.
    pub(crate) fn is_new(&self) -> bool {
        let has_failed = |state: &SlotState| matches!(state, SlotState::Failed(_));
        let is_unknown = self.endpoint.model_info().is_none() && !self.is_asleep();
        is_unknown && !self.view.states().iter().any(has_failed)
    }

    /// Returns the source files that its workers have loaded, as they were then.
    pub(crate) fn sources(&self) -> BTreeSet<LoadedFile> {
        let slots = 0..self.view.states().len();
        let codes = slots.filter_map(|slot| self.view.monitor(slot)?.code());
        codes.flat_map(|code| code.sources()).collect()
    }

    /// Returns the description of its model, as far as it is known.
    pub(crate) fn description(&self) -> Description {
        let info = self.endpoint.model_info();
        let declared = info.map_or(&Value::Null, |info| &info.schema);
        let types = types(&self.spec.schema, declared, info.map(|info| info.stream));
        Description { types, calls: info.map(|info| info.calls.clone()).unwrap_or_default() }
    }

    /// Returns the state that `litplex ps` shows, with this load of its queue.
    pub(crate) fn status(&self, load: &EndpointLoad) -> EndpointStatus {
        let residency = self.memory.status();
        let is_waiting = residency.as_ref().is_some_and(|it| it.is_waiting);
        let problem = problem_in_full(&self.view, &self.unwell).map(|problem| match &*problem {
            "starting" if is_waiting => "it waits for memory".into(),
            _ => problem,
        });
        let (min_workers, max_workers) = match self.workers {
            Workers::PerDevice(_) => (None, None),
            Workers::Between { min, max } => (Some(min), Some(max)),
        };
        let states = self.view.states();
        let workers = states.iter().enumerate();
        EndpointStatus {
            label: self.label().to_owned(),
            path: self.identity.path.clone(),
            name: self.identity.name.clone(),
            aliases: self.identity.aliases.clone(),
            kind: self.kind.into(),
            state: match Mode::from(load.mode) {
                Mode::Serving if problem.is_none() && self.is_asleep() => "asleep",
                Mode::Serving if problem.is_none() => "ready",
                Mode::Serving => "unavailable",
                mode => mode.word(),
            }
            .into(),
            problem,
            wanted: self.view.wanted(),
            min_workers,
            max_workers,
            queued: load.queued,
            in_flight: load.in_flight,
            requests: self.edge.ended(),
            batches: self.endpoint.learned().map(|learned| learned.to_string()),
            tier: self.tier(),
            residency,
            workers: workers.map(|(slot, state)| self.worker(slot, state, load)).collect(),
            generations: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Returns how near the model is to serve, if its workers are processes.
    pub(crate) fn tier(&self) -> Option<Tier> {
        let launch = self.launch.upgrade().filter(|_| self.kind == "python")?;
        let is_ready = |state: &SlotState| matches!(state, SlotState::Ready(_));
        Some(if self.view.states().iter().any(is_ready) {
            Tier::Hot
        } else if self.memory.status().is_some_and(|it| it.hibernated > 0) {
            Tier::Hibernated
        } else if launch.has_template() {
            Tier::Template
        } else {
            Tier::Cold
        })
    }

    fn worker(&self, slot: usize, state: &SlotState, load: &EndpointLoad) -> WorkerStatus {
        let worker = load.workers.iter().find(|worker| worker.slot == slot);
        let restarts = self.view.record().restarts.get(slot).copied();
        WorkerStatus {
            slot,
            state: state.label().replace('_', " "),
            pid: self.view.monitor(slot).and_then(|monitor| monitor.pid()),
            device: self.devices[slot % self.devices.len()].to_string(),
            threads: self.spec.threads(),
            in_flight: worker.map_or(0, |worker| worker.in_flight),
            restarts: restarts.unwrap_or_default(),
            ready_for: worker.map(|worker| worker.since.elapsed().as_secs_f64()),
            starting_for: match state {
                SlotState::Starting { since, .. } => Some(since.elapsed().as_secs_f64()),
                _ => None,
            },
            reason: reason(state).map(str::to_owned),
            memory: None,
            gpu_memory: None,
            last_line: None,
        }
    }
}

/// Returns the kind of a model, as status pages show it.
pub(crate) fn kind(source: &Source) -> &'static str {
    match source {
        Source::Rust => "rust",
        Source::Python(_) => "python",
        Source::Pipeline(_) => "pipeline",
    }
}
