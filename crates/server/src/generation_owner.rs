//! The task that owns the generations of an endpoint: the live one, one that starts or is on trial, and those
//! that drain.
//!
//! A reload starts a new generation beside the live one. Once its workers are ready and warm, it becomes the
//! target of new calls in one step, or is on trial first: as a canary, or as a shadow. A call keeps the target that it
//! began with, so that each generation serves only its own queue and no batch mixes them. The old generation
//! is stopped when no call has its target any more. A generation that fails at any step is stopped, and the
//! live one goes on.
//!
//! In place, the queue of the new generation is live first and holds requests, within their time; then the old
//! workers stop and the new ones start. If they fail, workers of the old specification serve that queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{
    ComparedAnswers, EventKind, GenerationState, GenerationStatus, Refusal, Reloaded, Swap,
};
use litplex_calls::{Registry, Target, TimeBudget};
use litplex_config::Source;
use litplex_core::Mode;
use litplex_scheduler::Outlook;
use litplex_workers::endpoint_span;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::Error;
use crate::canary::{Canary, Decision, TrialShare, differences};
use crate::controls::EndpointControls;
use crate::events::{Events, timestamp};
use crate::fits::Neighbours;
use crate::generation::Generation;
use crate::generation_spec::GenerationSpec;
use crate::generations::{Command, Done, Order, Published, in_progress, next_swap};
use crate::size::Size;
use crate::warmup::warm_up;
use crate::watch::{Milestone, follow, stopping};

/// The number of generations that are listed.
const LISTED: usize = 10;

/// The number of earlier generations whose specifications are kept.
const KEPT: usize = 5;

/// The time between two looks whether a generation is still in use.
const LOOK: Duration = Duration::from_millis(50);

/// The time that the workers of a generation without requests have to exit.
const EXIT_TIME: Duration = Duration::from_secs(30);

/// The owner.
pub(crate) struct Owner {
    registry: Registry,
    events: Events,
    /// The number of the last generation that was started.
    last: u64,
    live: Generation,
    canary: Option<Canary>,
    /// The numbers and specifications of the last generations that were live before this one.
    earlier: VecDeque<(u64, Arc<GenerationSpec>)>,
    published: watch::Sender<Published>,
    /// The generations that finish their requests; each task returns the number of its generation.
    draining: JoinSet<u64>,
    /// The time that generations which drain have left once the server stops.
    stopping: watch::Sender<Option<Duration>>,
    commands: mpsc::Receiver<Command>,
}

/// The server stops, with this grace.
struct Stopped(Duration);

/// The result of a command, unless the server stops meanwhile.
type Obeyed = Result<Result<Reloaded, Refusal>, Stopped>;

/// A generation that starts.
struct Starting {
    controls: Arc<EndpointControls>,
    target: Target,
    milestones: mpsc::UnboundedReceiver<Milestone>,
    /// When it must be ready.
    deadline: Instant,
    limit: Duration,
    /// Whether an operator can end the start.
    can_end: bool,
}

/// The end of a wait of the owner.
enum Waited<T> {
    Done(T),
    /// An operator ends the start of a generation.
    Ended,
}

impl Owner {
    /// Returns an owner, and what it publishes.
    pub(crate) fn new(
        first: Generation,
        state: GenerationState,
        registry: Registry,
        events: Events,
        commands: mpsc::Receiver<Command>,
    ) -> (Self, watch::Receiver<Published>) {
        let number = first.controls.generation;
        let listed = VecDeque::from([status(number, state, None, None)]);
        let (published, receiver) = watch::channel(Published {
            live: first.controls.clone(),
            canary: None,
            listed,
            earlier: Vec::new(),
        });
        let owner = Self {
            registry,
            events,
            last: number,
            live: first,
            canary: None,
            earlier: VecDeque::new(),
            published,
            draining: JoinSet::new(),
            stopping: watch::Sender::new(None),
            commands,
        };
        (owner, receiver)
    }

    /// Obeys commands until the server stops.
    pub(crate) async fn run(mut self) {
        loop {
            let obeyed = tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Leave) => return self.leave().await,
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                Some(ended) = self.draining.join_next() => {
                    self.ended(ended.ok());
                    Ok(())
                }
                decision = decided(&mut self.canary, &self.live.controls) => {
                    self.decide(decision);
                    Ok(())
                }
            };
            if let Err(Stopped(grace)) = obeyed {
                return self.stop(grace).await;
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), Stopped> {
        let (obeyed, done) = match command {
            Command::Reload(order, done) => (self.reload(order).await, done),
            Command::Promote(done) => (Ok(self.promote("an operator")), done),
            Command::RollBack(number, limit, among, done) => {
                (self.roll_back_to(number, limit, among).await, done)
            }
            Command::NoteFirst(state, done) => {
                self.note_first(state);
                let _ = done.send(());
                return Ok(());
            }
            Command::Apply(spec, done) => {
                self.apply(spec);
                let _ = done.send(());
                return Ok(());
            }
            Command::Leave => return Err(Stopped(Duration::ZERO)),
            Command::Stop(grace) => return Err(Stopped(grace)),
        };
        let (result, stopped) = match obeyed {
            Ok(result) => (result, Ok(())),
            Err(stopped) => (Err(Refusal::conflict("the server is stopping")), Err(stopped)),
        };
        // The client may have left.
        let _ = done.send(result);
        stopped
    }

    /// Applies a specification that needs no new workers. It is not the one that a canary is compared with.
    fn apply(&mut self, spec: Arc<GenerationSpec>) {
        self.end_trial("the options of the endpoint have changed", None);
        self.live.apply(spec);
        let before = self.registry.get(self.label());
        self.registry.replace_one(Arc::new(self.live.target(before.as_deref())));
        self.publish();
    }

    /// Finishes the requests of all generations.
    async fn leave(mut self) {
        self.end_trial("the endpoint is removed", None);
        let label = self.label().to_owned();
        self.note(self.live.controls.generation, GenerationState::Draining, None, None);
        let Self { live, mut draining, stopping: stop, mut commands, .. } = self;
        draining.spawn(drain(live, None, stop.subscribe()));
        loop {
            tokio::select! {
                ended = draining.join_next() => if ended.is_none() {
                    endpoint_span(&label).in_scope(|| tracing::info!("removed"));
                    return;
                },
                Some(command) = commands.recv() => match command {
                    Command::Stop(grace) => drop(stop.send_replace(Some(grace))),
                    Command::Reload(_, done)
                    | Command::Promote(done)
                    | Command::RollBack(_, _, _, done) => {
                        let refusal = Refusal::conflict(format!("`{label}` is removed"));
                        let _ = done.send(Err(refusal));
                    }
                    Command::Apply(..) | Command::NoteFirst(..) | Command::Leave => {}
                },
            }
        }
    }

    /// Replaces the live generation.
    async fn reload(&mut self, order: Order) -> Obeyed {
        let mode = match self.check(&order).await {
            Ok(mode) => mode,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let spec = order.spec.clone().unwrap_or_else(|| self.live.controls.spec.clone());
        let next = next_swap(&self.live.controls, &spec).await;
        let reason = order.swap.is_none().then_some(next.reason).flatten();
        if let Some(TrialShare::Shadow { allows_effects: false, .. }) = order.trial
            && spec.config.idempotent == Some(false)
        {
            return Ok(Err(Refusal::conflict(format!(
                "`{}` is not idempotent, and a shadow computes requests once more; `--allow-effects` allows \
                 that, and `--canary` computes each request once",
                self.label()
            ))));
        }
        match (order.swap.unwrap_or(next.swap), order.trial) {
            (Swap::InPlace, Some(trial)) => Ok(Err(Refusal::conflict(format!(
                "`{}` is reloaded in place, which allows no {}{}; reload it without one",
                self.label(),
                trial.state().word(),
                reason.map(|reason| format!(": {reason}")).unwrap_or_default()
            )))),
            (Swap::InPlace, None) => {
                self.replace_in_place(&spec, &order, mode, reason, next.seconds).await
            }
            (Swap::Overlap, _) => self.start_beside(&spec, &order, mode).await,
        }
    }

    /// Returns the mode of the live generation, if it can be replaced.
    async fn check(&self, order: &Order) -> Result<Mode, Refusal> {
        let label = self.label();
        let refuse = |text: String| Err(Refusal::conflict(text));
        if !matches!(self.live.controls.spec.config.source, Source::Python(_)) {
            return refuse(format!(
                "`{label}` is a part of this program, in Rust; restart the program"
            ));
        }
        if let Some(canary) = &self.canary {
            let (number, word) =
                (canary.generation.controls.generation, canary.share.state().word());
            return refuse(format!(
                "generation {number} of `{label}` is a {word}; `litplex promote` it, or \
                 `litplex rollback`"
            ));
        }
        if self.live.controls.is_new() {
            return refuse(format!("`{label}` is still starting"));
        }
        match self.live.controls.endpoint.load().await.mode {
            // The requests that it holds would wait on the old generation.
            Mode::Paused => refuse(format!("`{label}` is paused; `litplex resume` it first")),
            Mode::Draining if order.trial.is_some() => {
                refuse(format!("`{label}` is drained; `litplex resume` it first"))
            }
            mode => Ok(mode),
        }
    }

    /// Starts a generation beside the live one, and switches to it or begins its trial.
    async fn start_beside(
        &mut self,
        spec: &Arc<GenerationSpec>,
        order: &Order,
        mode: Mode,
    ) -> Obeyed {
        let (number, began) = (self.next_number(), Instant::now());
        let size = self.live.controls.size_of_successor(spec);
        self.note(number, GenerationState::Starting, None, None);
        let mut generation = Generation::launch(spec, None, number, size);
        let starting = self.starting(&mut generation, None, order.limit);
        let started = self.start(starting).await?;
        let started = started.and_then(|()| check_fit(&generation.controls, &order.among));
        let changes = differences(&self.live, &generation);
        let started = started.and_then(|()| match (&changes, order.trial) {
            (Some(changes), Some(trial)) => Err(format!(
                "it changes {changes}, so that its responses cannot be compared with those of the live \
                 generation; reload it without `--{}`",
                trial.state().word()
            )),
            _ => Ok(()),
        });
        if let Err(reason) = started {
            generation.supervisor.stop(Duration::ZERO).await;
            self.note(number, GenerationState::Failed, Some(&reason), None);
            let live = self.live.controls.generation;
            return Ok(Err(Refusal::conflict(format!(
                "generation {number} of `{}` did not become ready; generation {live} goes on: {reason}",
                self.label()
            ))));
        }
        if let Some(changes) = &changes {
            endpoint_span(self.label())
                .in_scope(|| tracing::warn!("generation {number} changes {changes}"));
        }
        generation.controls.endpoint.set_mode(mode);
        match order.trial {
            Some(share) => self.begin_trial(generation, share),
            None => self.switch(generation),
        }
        Ok(Ok(self.reloaded(number, began.elapsed(), changes)))
    }

    /// Stops the live generation, and starts one in its place. Requests wait for it.
    async fn replace_in_place(
        &mut self,
        spec: &Arc<GenerationSpec>,
        order: &Order,
        mode: Mode,
        reason: Option<String>,
        seconds: Option<f64>,
    ) -> Obeyed {
        let limit = order.limit;
        let (number, began) = (self.next_number(), Instant::now());
        let size = self.live.controls.size_of_successor(spec);
        let expected = seconds.map(|it| format!("; about {it:.0} s")).unwrap_or_default();
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("in place{expected}{reason}");
        self.note(number, GenerationState::Starting, Some(&text), None);
        let held = watch::Sender::new(true);
        let mut generation = Generation::hold(spec, None, number, size);
        generation.controls.watched.start_after(&self.live.controls.watched);
        let starting = self.starting(&mut generation, Some(&held), limit);
        self.hold(&generation, mode, seconds);
        let old = self.take_place(generation);
        let (old_spec, old_size) =
            (old.controls.spec.clone(), old.controls.size_of_successor(spec));
        let drained = timeout(old_spec.config.timeout, unused(&old));
        self.wait(drained, false).await?;
        let old_number = old.controls.generation;
        stop_workers(old, EXIT_TIME).await;
        self.note(old_number, GenerationState::Ended, None, None);
        self.live.begin(size);
        let started = self.start(starting).await?;
        let started = started.and_then(|()| check_fit(&self.live.controls, &order.among));
        let Err(reason) = started else {
            held.send_replace(false);
            self.serve(&old_spec, old_number);
            self.note(number, GenerationState::Live, None, None);
            return Ok(Ok(self.reloaded(number, began.elapsed(), None)));
        };
        self.note(number, GenerationState::Failed, Some(&reason), None);
        self.relaunch(&old_spec, old_number, old_size, limit).await.map(|relaunched| {
            let then = match relaunched {
                Ok(again) => {
                    format!("generation {again} has the options of generation {old_number}")
                }
                Err(again) => format!("generation {old_number} did not start again: {again}"),
            };
            Err(Refusal::conflict(format!(
                "generation {number} of `{}` did not become ready; {then}: {reason}",
                self.label()
            )))
        })
    }

    /// Starts workers of an earlier specification on the queue of the live generation, which has failed.
    /// Returns the number of the generation, or the reason why it failed, too.
    async fn relaunch(
        &mut self,
        spec: &Arc<GenerationSpec>,
        before: u64,
        size: Size,
        limit: Duration,
    ) -> Result<Result<u64, String>, Stopped> {
        let number = self.next_number();
        let text = format!("with the options of generation {before}");
        self.note(number, GenerationState::Starting, Some(&text), None);
        let (queue, watched) =
            (self.live.controls.endpoint.clone(), self.live.controls.watched.clone());
        let held = watch::Sender::new(true);
        let mut generation = Generation::prepare(queue, watched, spec, None, number, size);
        let starting = self.starting(&mut generation, Some(&held), limit);
        let mut failed = self.take_place(generation);
        // Its end must not refuse the requests that wait.
        failed.following.shutdown().await;
        failed.supervisor.stop(Duration::ZERO).await;
        self.live.begin(size);
        let started = self.start(starting).await?;
        held.send_replace(false);
        Ok(match started {
            Ok(()) => {
                self.note(number, GenerationState::Live, None, None);
                Ok(number)
            }
            Err(reason) => {
                self.note(number, GenerationState::Failed, Some(&reason), None);
                // There is no worker to wait for.
                let before = self.registry.get(self.label());
                let target = self.live.target(before.as_deref());
                self.registry.replace_one(Arc::new(target));
                Err(reason)
            }
        })
    }

    /// Lets the queue of a generation without workers hold jobs that can wait so many seconds.
    fn hold(&self, generation: &Generation, mode: Mode, seconds: Option<f64>) {
        let within = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let queue = &generation.controls.endpoint;
        queue.set_outlook(Outlook::Coming { within, is_asleep: false });
        queue.set_mode(mode);
    }

    /// Makes a generation without workers the live one, whose requests wait. Returns the one before.
    fn take_place(&mut self, generation: Generation) -> Generation {
        let before = self.registry.get(self.label());
        let target = generation.target(before.as_deref());
        self.registry.replace_one(Arc::new(Target { waits_for_first_worker: true, ..target }));
        let old = std::mem::replace(&mut self.live, generation);
        self.publish();
        old
    }

    /// Begins to follow the workers of a generation that starts.
    fn starting(
        &self,
        generation: &mut Generation,
        held: Option<&watch::Sender<bool>>,
        limit: Duration,
    ) -> Starting {
        let controls = generation.controls.clone();
        // Bounded: a generation reports at most once for each worker.
        let (sender, milestones) = mpsc::unbounded_channel();
        let (events, watched) = (self.events.clone(), held.map(watch::Sender::subscribe));
        generation.following.spawn(follow(controls.clone(), watched, events, sender));
        let (target, deadline) = (generation.target(None), Instant::now() + limit);
        Starting { controls, target, milestones, deadline, limit, can_end: held.is_none() }
    }

    /// Waits until all workers of a generation are ready and warm. Returns the reason why they are not.
    async fn start(&mut self, mut starting: Starting) -> Result<Result<(), String>, Stopped> {
        let can_end = starting.can_end;
        let ended = || Ok(Err("an operator ended its start".to_owned()));
        let ready = match self.wait(starting.ready(), can_end).await? {
            Waited::Done(ready) => ready,
            Waited::Ended => return ended(),
        };
        if let Err(reason) = ready {
            return Ok(Err(reason));
        }
        self.note(starting.controls.generation, GenerationState::Warming, None, None);
        match self.wait(starting.warm(), can_end).await? {
            Waited::Done(warm) => Ok(warm),
            Waited::Ended => ended(),
        }
    }

    /// Waits for a future while a generation starts: commands are refused, except for a stop and, if that is
    /// possible, the end of the start.
    async fn wait<T>(
        &mut self,
        future: impl Future<Output = T>,
        can_end: bool,
    ) -> Result<Waited<T>, Stopped> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Ok(Waited::Done(output)),
                command = self.commands.recv() => match command {
                    Some(Command::RollBack(None, _, _, done)) if can_end => {
                        let live = self.live.controls.generation;
                        let _ = done.send(Ok(self.reloaded(live, Duration::ZERO, None)));
                        return Ok(Waited::Ended);
                    }
                    Some(
                        Command::Reload(_, done)
                        | Command::Promote(done)
                        | Command::RollBack(_, _, _, done),
                    ) => self.refuse(done),
                    Some(Command::NoteFirst(state, done)) => {
                        self.note_first(state);
                        let _ = done.send(());
                    }
                    // A generation that starts has its own specification.
                    Some(Command::Apply(spec, done)) => {
                        self.apply(spec);
                        let _ = done.send(());
                    }
                    Some(Command::Leave) => return Err(Stopped(Duration::ZERO)),
                    Some(Command::Stop(grace)) => return Err(Stopped(grace)),
                    None => return Err(Stopped(Duration::ZERO)),
                },
                Some(ended) = self.draining.join_next() => self.ended(ended.ok()),
            }
        }
    }

    fn refuse(&self, done: Done) {
        let _ = done.send(Err(in_progress(self.label())));
    }

    /// Gives a generation a share of the requests, or copies of it.
    fn begin_trial(&mut self, generation: Generation, share: TrialShare) {
        let number = generation.controls.generation;
        let Some(live) = self.registry.get(self.label()) else { return };
        let (canary, target) = Canary::new(generation, share, &live, &self.live.controls);
        self.registry.replace_one(Arc::new(target));
        self.canary = Some(canary);
        self.publish();
        let percent = 100.0 * share.share();
        let text = match share {
            TrialShare::Canary(_) => format!("{percent} % of the requests"),
            TrialShare::Shadow { .. } => format!("copies of {percent} % of the requests"),
        };
        self.note(number, share.state(), Some(&text), Some(share.share()));
    }

    fn decide(&mut self, decision: Decision) {
        match decision {
            Decision::Promote => drop(self.promote("it is no worse than the live generation")),
            Decision::RollBack(reason) => self.end_trial(&reason, None),
            Decision::Stop(reason) => self.end_trial(&reason, Some(Duration::ZERO)),
            Decision::Counted => self.publish_answers(),
        }
    }

    /// Makes the generation on trial the live one.
    fn promote(&mut self, reason: &str) -> Result<Reloaded, Refusal> {
        let label = self.label().to_owned();
        let Some(canary) = self.canary.take() else {
            let refusal = format!(
                "`{label}` has no canary and no shadow; `litplex reload` starts one with `--canary` or \
                 `--shadow`"
            );
            return Err(Refusal::conflict(refusal));
        };
        let (number, began) = (canary.generation.controls.generation, canary.began);
        self.list_answers(number, canary.answers());
        endpoint_span(&label)
            .in_scope(|| tracing::info!("generation {number} is promoted: {reason}"));
        let (generation, _) = canary.end();
        generation.set_shadow(false);
        self.switch(generation);
        Ok(self.reloaded(number, began.elapsed(), None))
    }

    /// Ends a trial: the live generation gets all requests, and the other one finishes its own,
    /// within `grace` if that is given.
    fn end_trial(&mut self, reason: &str, grace: Option<Duration>) {
        let Some(canary) = self.canary.take() else { return };
        let answers = canary.answers();
        let (generation, live) = canary.end();
        self.registry.replace_one(live);
        self.publish();
        self.list_answers(generation.controls.generation, answers);
        self.note(generation.controls.generation, GenerationState::Failed, Some(reason), None);
        self.draining.spawn(drain(generation, grace, self.stopping.subscribe()));
    }

    /// Ends the trial, or returns to an earlier generation.
    async fn roll_back_to(
        &mut self,
        number: Option<u64>,
        limit: Duration,
        among: Neighbours,
    ) -> Obeyed {
        if number.is_none() && self.canary.is_some() {
            self.end_trial("an operator rolled it back", None);
            return Ok(Ok(self.reloaded(self.live.controls.generation, Duration::ZERO, None)));
        }
        let found = match number {
            None => self.earlier.back(),
            Some(number) => self.earlier.iter().find(|(kept, _)| *kept == number),
        };
        let Some((_, spec)) = found else {
            let label = self.label();
            let kept = self.earlier.iter().map(|(kept, _)| kept.to_string());
            let kept = Vec::from_iter(kept).join(", ");
            let kept = if kept.is_empty() { "none".to_owned() } else { kept };
            return Ok(Err(Refusal::not_found(match number {
                None => format!("`{label}` has no earlier generation to return to"),
                Some(number) => {
                    format!("`{label}` cannot return to generation {number}; there are: {kept}")
                }
            })));
        };
        let order = Order { spec: Some(spec.clone()), limit, trial: None, swap: None, among };
        self.reload(order).await
    }

    /// Makes a generation the target of new calls, and lets the one before it finish its requests.
    fn switch(&mut self, generation: Generation) {
        let number = generation.controls.generation;
        let before = self.registry.get(self.label());
        let target = generation.target(before.as_deref());
        self.registry.replace_one(Arc::new(target));
        let old = std::mem::replace(&mut self.live, generation);
        self.serve(&old.controls.spec.clone(), old.controls.generation);
        self.note(number, GenerationState::Live, None, None);
        self.note(old.controls.generation, GenerationState::Draining, None, None);
        self.draining.spawn(drain(old, None, self.stopping.subscribe()));
    }

    /// Keeps the specification of the generation that was live before, and publishes the live one.
    fn serve(&mut self, before: &Arc<GenerationSpec>, number: u64) {
        self.earlier.push_back((number, before.clone()));
        if self.earlier.len() > KEPT {
            self.earlier.pop_front();
        }
        self.publish();
    }

    /// Publishes the counts of answers that were compared.
    fn publish_answers(&self) {
        if let Some(canary) = &self.canary {
            self.list_answers(canary.generation.controls.generation, canary.answers());
        }
    }

    fn list_answers(&self, number: u64, answers: Option<ComparedAnswers>) {
        self.published.send_modify(|Published { listed, .. }| {
            if let Some(listed) = listed.iter_mut().find(|listed| listed.generation == number) {
                listed.answers = answers;
            }
        });
    }

    fn publish(&self) {
        self.published.send_modify(|published| {
            published.live = self.live.controls.clone();
            published.canary = self.canary.as_ref().map(|it| it.generation.controls.clone());
            published.earlier = self.earlier.iter().map(|(number, _)| *number).collect();
        });
    }

    fn ended(&mut self, number: Option<u64>) {
        let Some(number) = number else { return };
        let is_failed =
            |it: &GenerationStatus| it.generation == number && it.state == GenerationState::Failed;
        // The reason why it failed stays.
        if !self.published.borrow().listed.iter().any(is_failed) {
            self.note(number, GenerationState::Ended, None, None);
        }
    }

    async fn stop(mut self, grace: Duration) {
        self.stopping.send_replace(Some(grace));
        if let Some(canary) = self.canary.take() {
            self.draining.spawn(drain(canary.end().0, None, self.stopping.subscribe()));
        }
        self.live.supervisor.stop(grace).await;
        while self.draining.join_next().await.is_some() {}
    }

    /// Records the state of a generation: in the log, the events and the list.
    fn note(&self, number: u64, state: GenerationState, reason: Option<&str>, share: Option<f64>) {
        let label = self.label();
        let word = state.word();
        let text = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        endpoint_span(label).in_scope(|| match state {
            GenerationState::Failed => tracing::error!("generation {number} is {word}{text}"),
            _ => tracing::info!("generation {number} is {word}{text}"),
        });
        let (endpoint, reason) = (label.to_owned(), reason.map(str::to_owned));
        let status = status(number, state, reason.clone(), share);
        let answers = self.list(status);
        let generation = number;
        self.events.record(EventKind::Generation { endpoint, generation, state, reason, answers });
    }

    /// Lists the status of a generation, with the counts of its answers. Returns these.
    fn list(&self, status: GenerationStatus) -> Option<ComparedAnswers> {
        let mut answers = None;
        self.published.send_modify(|Published { listed, .. }| {
            match listed.iter_mut().find(|listed| listed.generation == status.generation) {
                Some(listed) => {
                    answers = listed.answers;
                    *listed = GenerationStatus { answers, ..status };
                }
                None => listed.push_back(status),
            }
            while listed.len() > LISTED {
                listed.pop_front();
            }
        });
        answers
    }

    /// Lists how far the first generation has come, unless another one has taken its place. The log and the
    /// events have its workers.
    fn note_first(&self, state: GenerationState) {
        let is_starting = |it: &GenerationStatus| {
            it.generation == 1
                && matches!(it.state, GenerationState::Starting | GenerationState::Warming)
        };
        if self.published.borrow().listed.iter().any(is_starting) {
            self.list(status(1, state, None, None));
        }
    }

    fn reloaded(&self, generation: u64, took: Duration, changes: Option<String>) -> Reloaded {
        let tried = self.canary.as_ref();
        let tried = tried.filter(|canary| canary.generation.controls.generation == generation);
        let state = tried.map_or(GenerationState::Live, |canary| canary.share.state());
        let (endpoint, seconds) = (self.label().to_owned(), took.as_secs_f64());
        Reloaded { endpoint, generation, state, seconds, changes }
    }

    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn label(&self) -> &str {
        self.live.controls.label()
    }
}

impl Starting {
    /// Waits until all workers are ready. Returns the reason why one is not.
    async fn ready(&mut self) -> Result<(), String> {
        match timeout_at(self.deadline, self.milestones.recv()).await {
            Ok(Some(Milestone::Ready)) => Ok(()),
            Ok(Some(Milestone::Failed(Error::Launch { cause, .. }))) => {
                if let Some(traceback) = &cause.traceback {
                    let span = endpoint_span(self.controls.label());
                    span.in_scope(|| tracing::error!("{cause}\n\n{traceback}"));
                }
                Err(cause.to_string())
            }
            Ok(Some(Milestone::Failed(error))) => Err(error.to_string()),
            Ok(None) => Err("its supervision ended".into()),
            Err(_) => Err(format!("it was not ready after {} s", self.limit.as_secs_f64())),
        }
    }

    async fn warm(&self) -> Result<(), String> {
        let budget = TimeBudget { arrived: Instant::now(), deadline: self.deadline };
        let rounds = self.controls.spec.config.warmup;
        warm_up(&self.controls, self.target.clone(), rounds, budget).await
    }
}

/// Returns the reason why a generation does not fit the other endpoints, if it does not.
fn check_fit(generation: &EndpointControls, among: &Neighbours) -> Result<(), String> {
    let errors = among.clone().errors_with(&generation.spec.config, generation.description());
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// Waits for the decision about the generation on trial, if there is one.
async fn decided(canary: &mut Option<Canary>, live: &EndpointControls) -> Decision {
    match canary {
        Some(canary) => canary.decided(live).await,
        None => std::future::pending().await,
    }
}

fn status(
    generation: u64,
    state: GenerationState,
    reason: Option<String>,
    share: Option<f64>,
) -> GenerationStatus {
    GenerationStatus { generation, state, since: timestamp(), share, reason, answers: None }
}

/// Waits until no call has the target of a generation any more, or for `grace` if that is given; then stops
/// its workers. Returns the number of the generation.
async fn drain(
    generation: Generation,
    grace: Option<Duration>,
    mut stopping: watch::Receiver<Option<Duration>>,
) -> u64 {
    let number = generation.controls.generation;
    let stopped = async {
        match stopping.wait_for(Option::is_some).await.map(|grace| *grace) {
            Ok(Some(grace)) => grace,
            // The owner is gone without a stop.
            _ => Duration::ZERO,
        }
    };
    let grace = match grace {
        Some(grace) => grace,
        None => tokio::select! {
            () = unused(&generation) => EXIT_TIME,
            grace = stopped => grace,
        },
    };
    stop_workers(generation, grace).await;
    number
}

async fn unused(generation: &Generation) {
    while !generation.is_unused().await {
        sleep(LOOK).await;
    }
}

/// Stops the workers of a generation. Jobs that are left are refused.
async fn stop_workers(generation: Generation, grace: Duration) {
    generation.supervisor.stop(grace).await;
    generation.controls.endpoint.set_outlook(stopping());
}
