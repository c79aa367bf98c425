//! The task that owns the generations of an endpoint: the live one, one that starts, and those that drain.
//!
//! A reload starts a new generation beside the live one. Once its workers are ready, it becomes the target
//! of new calls in one step. A call keeps the target that it began with, so that each generation serves
//! only its own queue and no batch mixes them. The old generation is stopped when no call has its target
//! any more. A generation that does not become ready is stopped, and the live one goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{EventKind, GenerationState, GenerationStatus, Refusal, Reloaded};
use litplex_calls::{Registry, Target};
use litplex_config::Source;
use litplex_core::{Identity, Mode};
use litplex_workers::endpoint_span;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Error;
use crate::controls::EndpointControls;
use crate::events::{Events, timestamp};
use crate::generation::{Generation, GenerationSpec, Size};
use crate::watch::{Milestone, follow};

/// The number of generations that are listed.
const LISTED: usize = 10;

/// The time between two looks whether a generation is still in use.
const LOOK: Duration = Duration::from_millis(50);

/// The time that the workers of a generation without requests have to exit.
const EXIT_TIME: Duration = Duration::from_secs(30);

/// The number of earlier generations whose specifications are kept.
const KEPT: usize = 5;

/// An order to replace the live generation by a new one.
pub(crate) struct Order {
    /// The specification of the new generation; `None` for that of the live one.
    pub(crate) spec: Option<Arc<GenerationSpec>>,
    /// The time that the new generation has to become ready.
    pub(crate) limit: Duration,
}

/// A command for the task.
pub(crate) enum Command {
    /// Replace the live generation by a new one.
    Reload(Order, oneshot::Sender<Result<Reloaded, Refusal>>),
    /// Stop all generations within this time.
    Stop(Duration),
}

/// The generations of an endpoint, as others see and change them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Generations {
    identity: Arc<Identity>,
    live: watch::Receiver<Arc<EndpointControls>>,
    listed: watch::Receiver<VecDeque<GenerationStatus>>,
    commands: mpsc::Sender<Command>,
}

impl Generations {
    /// Starts the task in `tasks`. The registry must have the target of the generation before a reload.
    pub(crate) fn spawn(
        first: Generation,
        registry: Registry,
        events: Events,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let identity = first.controls.identity.clone();
        let (commands, inbox) = mpsc::channel(1);
        let (live_sender, live) = watch::channel(first.controls.clone());
        let status = status(first.controls.generation, GenerationState::Live, None);
        let (listed_sender, listed) = watch::channel(VecDeque::from([status]));
        let (stopping, _) = watch::channel(None);
        let owner = Owner {
            earlier: VecDeque::new(),
            registry,
            events,
            last: first.controls.generation,
            live: first,
            shown: live_sender,
            listed: listed_sender,
            draining: JoinSet::new(),
            stopping,
            commands: inbox,
        };
        tasks.spawn(owner.run());
        Self { identity, live, listed, commands }
    }

    /// Returns the path and names of the endpoint.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the controls of the live generation.
    pub(crate) fn live(&self) -> Arc<EndpointControls> {
        self.live.borrow().clone()
    }

    /// Returns the generations, the latest last.
    pub(crate) fn listed(&self) -> Vec<GenerationStatus> {
        self.listed.borrow().iter().cloned().collect()
    }

    /// Replaces the live generation by a new one. A drop of the future does not end the reload.
    pub(crate) async fn reload(&self, order: Order) -> Result<Reloaded, Refusal> {
        let (done, result) = oneshot::channel();
        let busy = |_| in_progress(&self.identity.label);
        self.commands.try_send(Command::Reload(order, done)).map_err(busy)?;
        result.await.unwrap_or_else(|_| Err(Refusal::conflict("the server is stopping")))
    }

    /// Stops all generations within this time; they are gone when the task has ended.
    pub(crate) async fn stop(&self, grace: Duration) {
        // The task may have ended.
        let _ = self.commands.send(Command::Stop(grace)).await;
    }
}

/// The task.
struct Owner {
    /// The numbers and specifications of the last generations that were live before this one.
    earlier: VecDeque<(u64, Arc<GenerationSpec>)>,
    registry: Registry,
    events: Events,
    /// The number of the last generation that was started.
    last: u64,
    live: Generation,
    shown: watch::Sender<Arc<EndpointControls>>,
    listed: watch::Sender<VecDeque<GenerationStatus>>,
    /// The generations that finish their requests; each task returns the number of its generation.
    draining: JoinSet<u64>,
    /// The time that generations which drain have left once the server stops.
    stopping: watch::Sender<Option<Duration>>,
    commands: mpsc::Receiver<Command>,
}

/// The end of a start of a generation.
enum Started {
    Ready,
    Failed(String),
    /// The server stops, with this grace.
    Stopped(Duration),
}

impl Owner {
    async fn run(mut self) {
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Reload(order, done)) => {
                        let (result, stop) = self.reload(order).await;
                        // The client may have left.
                        let _ = done.send(result);
                        if let Some(grace) = stop {
                            return self.stop(grace).await;
                        }
                    }
                    Some(Command::Stop(grace)) => return self.stop(grace).await,
                    None => return,
                },
                Some(ended) = self.draining.join_next() => self.ended(ended.ok()),
            }
        }
    }

    /// Replaces the live generation. Also returns the grace, if the server stops meanwhile.
    async fn reload(&mut self, order: Order) -> (Result<Reloaded, Refusal>, Option<Duration>) {
        let Order { spec, limit } = order;
        let mode = match self.check().await {
            Ok(mode) => mode,
            Err(refusal) => return (Err(refusal), None),
        };
        let began = Instant::now();
        self.last += 1;
        let number = self.last;
        let spec = spec.unwrap_or_else(|| self.live.controls.spec.clone());
        let size = Size::successor(&self.live.controls, &spec);
        self.note(number, GenerationState::Starting, None);
        let mut generation = Generation::launch(&spec, None, number, size);
        match self.start(&mut generation, limit).await {
            Started::Ready => {
                generation.controls.endpoint.set_mode(mode);
                self.switch(generation);
                let (endpoint, seconds) = (self.label().to_owned(), began.elapsed().as_secs_f64());
                (Ok(Reloaded { endpoint, generation: number, seconds }), None)
            }
            Started::Failed(reason) => {
                generation.supervisor.stop(Duration::ZERO).await;
                self.note(number, GenerationState::Failed, Some(&reason));
                let live = self.live.controls.generation;
                let refusal = format!(
                    "generation {number} of `{}` did not become ready; generation {live} goes on: {reason}",
                    self.label()
                );
                (Err(Refusal::conflict(refusal)), None)
            }
            Started::Stopped(grace) => {
                (Err(Refusal::conflict("the server is stopping")), Some(grace))
            }
        }
    }

    /// Returns the mode of the live generation, if it can be replaced.
    async fn check(&self) -> Result<Mode, Refusal> {
        let label = self.label();
        if !matches!(self.live.controls.spec.config.source, Source::Python(_)) {
            return Err(Refusal::conflict(format!(
                "`{label}` is a part of this program, in Rust; restart the program"
            )));
        }
        if self.live.controls.endpoint.model_info().is_none() {
            return Err(Refusal::conflict(format!("`{label}` is still starting")));
        }
        match self.live.controls.endpoint.load().await.mode {
            // The requests that it holds would wait on the old generation.
            Mode::Paused => {
                Err(Refusal::conflict(format!("`{label}` is paused; `litplex resume` it first")))
            }
            mode => Ok(mode),
        }
    }

    /// Waits until all workers of a new generation are ready.
    async fn start(&mut self, generation: &mut Generation, limit: Duration) -> Started {
        let controls = &generation.controls;
        // Bounded: a generation reports at most once for each worker.
        let (milestones, mut reached) = mpsc::unbounded_channel();
        generation.following.spawn(follow(
            controls.label().to_owned(),
            controls.endpoint.clone(),
            controls.view.clone(),
            controls.limits.as_ref().map(watch::Sender::subscribe),
            self.events.clone(),
            milestones,
        ));
        let ready = timeout(limit, reached.recv());
        tokio::pin!(ready);
        loop {
            tokio::select! {
                milestone = &mut ready => return match milestone {
                    Ok(Some(Milestone::Ready)) => Started::Ready,
                    Ok(Some(Milestone::Failed(Error::Launch { cause, .. }))) => {
                        Started::Failed(cause.to_string())
                    }
                    Ok(Some(Milestone::Failed(error))) => Started::Failed(error.to_string()),
                    Ok(None) => Started::Failed("its supervision ended".into()),
                    Err(_) => {
                        let seconds = limit.as_secs_f64();
                        Started::Failed(format!("it was not ready after {seconds} s"))
                    }
                },
                command = self.commands.recv() => match command {
                    Some(Command::Reload(_, done)) => {
                        let _ = done.send(Err(in_progress(self.label())));
                    }
                    Some(Command::Stop(grace)) => return Started::Stopped(grace),
                    None => return Started::Stopped(Duration::ZERO),
                },
                Some(ended) = self.draining.join_next() => self.ended(ended.ok()),
            }
        }
    }

    /// Makes a generation the target of new calls, and lets the one before it finish its requests.
    fn switch(&mut self, generation: Generation) {
        let number = generation.controls.generation;
        let before = self.registry.get(self.label());
        let target = generation.target(before.as_deref());
        self.registry.replace_one(Arc::new(target));
        self.shown.send_replace(generation.controls.clone());
        let old = std::mem::replace(&mut self.live, generation);
        self.earlier.push_back((old.controls.generation, old.controls.spec.clone()));
        if self.earlier.len() > KEPT {
            self.earlier.pop_front();
        }
        self.note(number, GenerationState::Live, None);
        self.note(old.controls.generation, GenerationState::Draining, None);
        self.draining.spawn(drain(old, before, self.stopping.subscribe()));
    }

    fn ended(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            self.note(number, GenerationState::Ended, None);
        }
    }

    async fn stop(mut self, grace: Duration) {
        self.stopping.send_replace(Some(grace));
        self.live.supervisor.stop(grace).await;
        while self.draining.join_next().await.is_some() {}
    }

    /// Records the state of a generation: in the log, the events and the list.
    fn note(&self, number: u64, state: GenerationState, reason: Option<&str>) {
        let label = self.label();
        let word = state.word();
        endpoint_span(label).in_scope(|| match reason {
            None => tracing::info!("generation {number} is {word}"),
            Some(reason) => tracing::error!("generation {number} is {word}: {reason}"),
        });
        let (endpoint, reason) = (label.to_owned(), reason.map(str::to_owned));
        let status = status(number, state, reason.clone());
        self.listed.send_modify(|listed| {
            match listed.iter_mut().find(|listed| listed.generation == number) {
                Some(listed) => *listed = status,
                None => listed.push_back(status),
            }
            while listed.len() > LISTED {
                listed.pop_front();
            }
        });
        self.events.record(EventKind::Generation { endpoint, generation: number, state, reason });
    }

    fn label(&self) -> &str {
        self.live.controls.label()
    }
}

/// Returns the refusal of a reload while another one is in progress.
fn in_progress(label: &str) -> Refusal {
    Refusal::conflict(format!("`{label}` is being reloaded; wait for its end"))
}

fn status(generation: u64, state: GenerationState, reason: Option<String>) -> GenerationStatus {
    GenerationStatus { generation, state, since: timestamp(), reason }
}

/// Waits until no call has the target of a generation any more, then stops its workers. Returns the number
/// of the generation.
async fn drain(
    generation: Generation,
    target: Option<Arc<Target>>,
    mut stopping: watch::Receiver<Option<Duration>>,
) -> u64 {
    let number = generation.controls.generation;
    let unused = async {
        while !is_unused(&generation, target.as_ref()).await {
            sleep(LOOK).await;
        }
    };
    let stopped = async {
        match stopping.wait_for(Option::is_some).await.map(|grace| *grace) {
            Ok(Some(grace)) => grace,
            // The owner is gone without a stop.
            _ => Duration::ZERO,
        }
    };
    let grace = tokio::select! {
        () = unused => EXIT_TIME,
        grace = stopped => grace,
    };
    generation.supervisor.stop(grace).await;
    number
}

/// Returns whether no call can use a generation, now or later. The registry has another target, so that
/// only calls which began before hold this one.
async fn is_unused(generation: &Generation, target: Option<&Arc<Target>>) -> bool {
    let load = generation.controls.endpoint.load().await;
    let is_held = target.is_some_and(|target| Arc::strong_count(target) > 1);
    !is_held && load.queued == 0 && load.in_flight == 0
}
