//! A change of the code in the running workers of an endpoint: in all of them, or in none.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, LiveCode, PatchRefusal, PatchStep, Patched, SourceText};
use litplex_supervisor::{SlotState, View};
use tokio::time::{Instant, timeout, timeout_at};

/// The time that workers which start have to become ready.
const START_TIME: Duration = Duration::from_secs(10);

/// The time that workers have to compare texts, or to make a change.
const STEP_TIME: Duration = Duration::from_secs(5);

/// The time that requests in progress have before the change is not made: all others wait meanwhile.
const HOLD_TIME: Duration = Duration::from_secs(1);

type Answer = Result<Patched, PatchRefusal>;

/// Changes the code of all workers that are ready.
///
/// # Errors
/// The change cannot be made in a running worker, or one of the texts is not Python, which the traceback
/// shows. No worker is changed then.
pub(crate) async fn patch(view: &View, texts: Arc<[SourceText]>) -> Answer {
    settle(view.clone()).await;
    let workers = codes(view)?;
    let answers = take(&workers, &PatchStep::Prepare(texts), STEP_TIME).await;
    let refusals = || answers.iter().filter_map(|answer| answer.as_ref().err());
    // What a person wrote wrong comes before what a worker cannot do.
    let worst = refusals().find(|refusal| refusal.traceback.is_some()).or(refusals().next());
    if let Some(refusal) = worst {
        abort(&workers).await;
        return Err(refusal.clone());
    }
    let answered = workers.iter().zip(&answers);
    let stale = answered.filter(|(_, answer)| matches!(answer, Ok(Patched::Done)));
    let stale: Vec<_> = stale.map(|(worker, _)| worker.clone()).collect();
    if stale.is_empty() {
        return Ok(Patched::Unchanged);
    }
    let held = take(&stale, &PatchStep::Hold, HOLD_TIME).await;
    if let Some(Err(refusal)) = held.into_iter().find(Result::is_err) {
        abort(&workers).await;
        return Err(refusal);
    }
    let committed = take(&stale, &PatchStep::Commit, STEP_TIME).await;
    committed.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Patched::Done)
}

/// Waits a while for workers that start: they load the present files, and are then compared with them.
async fn settle(mut view: View) {
    let settled = async { while is_starting(&view.states()) && view.changed().await {} };
    // Otherwise a new generation is started.
    let _ = timeout(START_TIME, settled).await;
}

/// Returns whether a worker loads its model.
pub(crate) fn is_starting(states: &[SlotState]) -> bool {
    states.iter().any(|state| matches!(state, SlotState::Starting { .. }))
}

/// Returns the code of each worker.
fn codes(view: &View) -> Result<Vec<Arc<dyn LiveCode>>, PatchRefusal> {
    let mut codes = Vec::new();
    for (slot, state) in view.states().iter().enumerate() {
        match state {
            SlotState::Ready(_) => {
                let code = view.monitor(slot).and_then(|monitor| monitor.code());
                codes.push(
                    code.ok_or_else(|| PatchRefusal::new("a worker does not tell its code"))?,
                );
            }
            SlotState::Starting { .. } | SlotState::BackingOff { .. } => {
                return Err(PatchRefusal::new("a worker is starting"));
            }
            // The present code may mend it.
            SlotState::Failed(_) => return Err(PatchRefusal::new("a worker has failed")),
            SlotState::Draining | SlotState::Stopped => {}
        }
    }
    Ok(codes)
}

/// Has all workers take a step at the same time, and returns their answers.
async fn take(workers: &[Arc<dyn LiveCode>], step: &PatchStep, limit: Duration) -> Vec<Answer> {
    let until = Instant::now() + limit;
    let asked: Vec<BoxFuture<'_, Answer>> =
        workers.iter().map(|worker| worker.patch(step.clone()) as _).collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(within(until, limit, answer).await);
    }
    answers
}

async fn within(until: Instant, limit: Duration, answer: impl Future<Output = Answer>) -> Answer {
    timeout_at(until, answer).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        Err(PatchRefusal::new(format!("requests in progress take longer than {seconds} s")))
    })
}

/// Lets the workers go on without the change.
async fn abort(workers: &[Arc<dyn LiveCode>]) {
    // One that is gone needs none.
    let _ = take(workers, &PatchStep::Abort, STEP_TIME).await;
}
