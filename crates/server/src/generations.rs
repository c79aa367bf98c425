//! The generations of an endpoint, as others see and change them; `generation_owner.rs` owns them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{
    EndpointGenerations, GenerationState, GenerationStatus, Mode, NextSwap, Refusal, Reloaded, Swap,
};
use litplex_calls::Registry;
use litplex_core::Identity;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::canary::TrialShare;
use crate::controls::EndpointControls;
use crate::events::Events;
use crate::fits::Neighbours;
use crate::generation::Generation;
use crate::generation_owner::Owner;
use crate::generation_spec::GenerationSpec;
use crate::in_place::obstacle;

/// An order to replace the live generation by a new one.
pub(crate) struct Order {
    /// The specification of the new generation; `None` for that of the live one.
    pub(crate) spec: Option<Arc<GenerationSpec>>,
    /// The time that the new generation has to become ready.
    pub(crate) limit: Duration,
    /// The share of the requests that it gets on trial; `None`: it is live at once.
    pub(crate) trial: Option<TrialShare>,
    /// The way in which it takes the place of the live one; `None`: as the configuration says, else by its memory.
    pub(crate) swap: Option<Swap>,
    /// The endpoints that it must fit.
    pub(crate) among: Neighbours,
}

/// Takes the result of a command.
pub(crate) type Done = oneshot::Sender<Result<Reloaded, Refusal>>;

/// A command for the owner.
pub(crate) enum Command {
    /// Replace the live generation by a new one.
    Reload(Order, Done),
    /// Make the canary the live generation.
    Promote(Done),
    /// End the canary or the start of a generation, or return to this earlier one within this time. It must
    /// fit these endpoints.
    RollBack(Option<u64>, Duration, Neighbours, Done),
    /// Apply this specification to the live generation. It differs only in options that need no new workers.
    Apply(Arc<GenerationSpec>, oneshot::Sender<()>),
    /// List the first generation, which starts with the server, in this state.
    NoteFirst(GenerationState, oneshot::Sender<()>),
    /// Finish the requests of a removed endpoint, then stop. The registry no longer has its target.
    Leave,
    /// Stop all generations within this time.
    Stop(Duration),
}

/// The published state of the generations.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) live: Arc<EndpointControls>,
    pub(crate) canary: Option<Arc<EndpointControls>>,
    /// The last generations, the latest last.
    pub(crate) listed: VecDeque<GenerationStatus>,
    /// The earlier generations that can be returned to.
    pub(crate) earlier: Vec<u64>,
}

/// The generations of an endpoint. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Generations {
    published: watch::Receiver<Published>,
    commands: mpsc::Sender<Command>,
}

impl Generations {
    /// Starts the owner in `tasks`; the first generation is in this state. The registry must have the target of the generation before a reload.
    pub(crate) fn spawn(
        first: Generation,
        state: GenerationState,
        registry: Registry,
        events: Events,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (commands, inbox) = mpsc::channel(1);
        let (owner, published) = Owner::new(first, state, registry, events, inbox);
        tasks.spawn(owner.run());
        Self { published, commands }
    }

    /// Returns the path and names of the endpoint.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.published.borrow().live.identity.clone()
    }

    /// Returns the controls of the live generation.
    pub(crate) fn live(&self) -> Arc<EndpointControls> {
        self.published.borrow().live.clone()
    }

    /// Returns the generations, the latest last.
    pub(crate) fn listed(&self) -> Vec<GenerationStatus> {
        self.published.borrow().listed.iter().cloned().collect()
    }

    /// Returns the generations, and how the next one takes the place of the live one.
    pub(crate) async fn overview(&self) -> EndpointGenerations {
        let Published { live, listed, earlier, .. } = self.published.borrow().clone();
        let next = next_swap(&live, &live.spec).await;
        let (endpoint, generations) = (live.label().to_owned(), listed.into_iter().collect());
        EndpointGenerations { endpoint, generations, earlier, next }
    }

    /// Sets what the endpoint does with requests.
    pub(crate) fn set_mode(&self, mode: Mode) {
        let Published { live, canary, .. } = self.published.borrow().clone();
        [Some(live), canary].into_iter().flatten().for_each(|controls| controls.set_mode(mode));
    }

    /// Replaces the live generation by a new one. A drop of the future does not end the reload.
    pub(crate) async fn reload(&self, order: Order) -> Result<Reloaded, Refusal> {
        self.command(|done| Command::Reload(order, done)).await
    }

    /// Makes the canary the live generation.
    pub(crate) async fn promote(&self) -> Result<Reloaded, Refusal> {
        self.command(Command::Promote).await
    }

    /// Ends the canary or the start of a generation, or returns to an earlier one.
    pub(crate) async fn roll_back(
        &self,
        generation: Option<u64>,
        limit: Duration,
        among: Neighbours,
    ) -> Result<Reloaded, Refusal> {
        self.command(|done| Command::RollBack(generation, limit, among, done)).await
    }

    async fn command(&self, command: impl FnOnce(Done) -> Command) -> Result<Reloaded, Refusal> {
        let (done, result) = oneshot::channel();
        let busy = |_| in_progress(&self.identity().label);
        self.commands.try_send(command(done)).map_err(busy)?;
        result.await.unwrap_or_else(|_| Err(Refusal::conflict("the server is stopping")))
    }

    /// Applies a specification to the live generation, without new workers. Returns once new calls have it. A
    /// canary of the endpoint ends.
    pub(crate) async fn apply(&self, spec: Arc<GenerationSpec>) {
        let (done, applied) = oneshot::channel();
        // The task may have ended.
        let _ = self.commands.send(Command::Apply(spec, done)).await;
        let _ = applied.await;
    }

    /// Tells how far the start of the first generation has come. Returns once it is listed.
    pub(crate) async fn note_first(&self, state: GenerationState) {
        let (done, noted) = oneshot::channel();
        // The task may have ended.
        let _ = self.commands.send(Command::NoteFirst(state, done)).await;
        let _ = noted.await;
    }

    /// Lets all generations finish their requests, and stops them. Resolves when they are gone.
    pub(crate) async fn leave(&self) {
        let _ = self.commands.send(Command::Leave).await;
        self.commands.closed().await;
    }

    /// Stops all generations within this time; they are gone when the owner has ended.
    pub(crate) async fn stop(&self, grace: Duration) {
        // The task may have ended.
        let _ = self.commands.send(Command::Stop(grace)).await;
    }
}

/// Returns the refusal of a reload while another one is in progress.
pub(crate) fn in_progress(label: &str) -> Refusal {
    Refusal::conflict(format!("`{label}` is being reloaded; wait for its end"))
}

/// Returns how a generation with this specification takes the place of the live one.
pub(crate) async fn next_swap(live: &Arc<EndpointControls>, spec: &GenerationSpec) -> NextSwap {
    let seconds = live.view.record().start_time.map(|time| time.as_secs_f64());
    let (swap, reason) = match spec.config.swap {
        Some(litplex_config::Swap::InPlace) => (Swap::InPlace, None),
        Some(litplex_config::Swap::Overlap) => (Swap::Overlap, None),
        None => match obstacle(live.clone()).await {
            Some(reason) => (Swap::InPlace, Some(reason)),
            None => (Swap::Overlap, None),
        },
    };
    NextSwap { swap, reason, seconds }
}
