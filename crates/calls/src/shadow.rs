//! The shadows of a trial: copies of requests that a new generation computes beside the live one. Their answers
//! are compared with those of the live generation, and dropped.
//!
//! A shadow is a task of its own with its own time budget, so that no client waits for it or sees its errors.
//! Its memory is bounded here and not taken from the budget of clients. What its hooks call is called in
//! fact; such calls have a root that marks them, so that they lead to no further shadow.

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Origin, Part, Request, Reservation, ShadowRoom, Shadows, draw};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::service::meta;
use crate::trial::{Compared, CopyRequests, ReportSender, TrialReport};
use crate::{Call, ItemStream, Output, Target, TimeBudget, off_thread};

/// The longest time that the stream of a shadow is read.
const LONGEST_STREAM: Duration = Duration::from_secs(300);

/// The shadows of a generation.
#[derive(Debug)]
pub struct ShadowPlan {
    /// The target of the generation that gets the copies.
    pub shadow: Arc<Target>,
    /// The share of the requests that are copied, from 0 to 1.
    pub share: f64,
    /// The copies; the owner of the trial ends them.
    pub copies: Arc<Shadows>,
    /// The room for them.
    pub room: ShadowRoom,
    /// Takes the reports.
    pub reports: ReportSender,
}

impl CopyRequests for ShadowPlan {
    fn copy(
        &self,
        origin: Option<&Origin>,
        request: &Request,
        cost: f64,
    ) -> Option<oneshot::Sender<Compared>> {
        if origin.map_or_else(draw, |origin| origin.root.draw) >= self.share {
            return None;
        }
        let (answer, live) = oneshot::channel();
        let copy = ShadowCall {
            call: self.call(origin),
            request: copy_of(request),
            cost,
            live,
            reports: self.reports.clone(),
        };
        let bytes = request.body_len();
        self.copies.spawn(&self.room, bytes, copy.run()).then_some(answer)
    }
}

impl ShadowPlan {
    /// Returns the call of the shadow of a request. It has its own time, and no part in the trace and the
    /// calls of the request.
    fn call(&self, origin: Option<&Origin>) -> Call {
        let origin = origin.cloned().unwrap_or_default();
        let root = Arc::new(origin.root.shadow());
        Call {
            target: self.shadow.clone(),
            budget: TimeBudget::new(Instant::now(), self.shadow.timeout),
            trace: None,
            origin: Some(Arc::new(Origin { root, call: None, ..origin })),
            takes_items: false,
            is_split: false,
        }
    }
}

/// Returns a copy of a request whose lines in the log are told from those of the request.
fn copy_of(request: &Request) -> Request {
    let id = request.id.as_ref().map(|id| format!("shadow-{id}"));
    Request { id, reservation: Reservation::default(), ..request.clone() }
}

/// The call of a shadow.
struct ShadowCall {
    call: Call,
    request: Request,
    cost: f64,
    /// Receives the answer of the live generation.
    live: oneshot::Receiver<Compared>,
    reports: ReportSender,
}

/// The client has left.
struct Left;

impl ShadowCall {
    async fn run(self) {
        let Self { call, request, cost, live, reports } = self;
        let hasher = RandomState::new();
        let live = async {
            let answer = live.await.map_err(|_| Left)?;
            Ok::<_, Left>(digest(answer, hasher.clone()).await)
        };
        let shadow = async { Ok(digest(answer(&call, request, cost).await, hasher.clone()).await) };
        if let Ok((Some(live), Some(shadow))) = tokio::try_join!(live, shadow) {
            // A trial that has ended, or has enough to look at.
            let _ = reports.try_send(TrialReport::Answer { differs: live != shadow });
        }
    }
}

/// Returns the answer of a shadow, whose stream is read to its end. The job itself reports how it ended.
async fn answer(call: &Call, mut request: Request, cost: f64) -> Compared {
    let info = call.target.model_info().filter(|_| request.meta.is_none());
    request.meta = request.meta.or_else(|| meta(info?, call).map(Arc::new));
    let output = call.budget.bound(call.submit(request, cost).output()).await;
    match output {
        Ok(Output::Whole(response)) => Compared::response(&response),
        Ok(Output::Stream(_, rest)) => {
            let _ = timeout(LONGEST_STREAM, read(rest)).await;
            Compared(None)
        }
        Err(error) => Compared::error(&error),
    }
}

async fn read(mut rest: ItemStream) {
    while let Part::Items(_) = poll_fn(|cx| rest.poll(cx)).await {}
}

/// Returns a digest of an answer, so that its bytes are not held until the other answer is there.
async fn digest(answer: Compared, hasher: RandomState) -> Option<u64> {
    let compared = answer.0?;
    Some(off_thread(compared.1.len(), move || hasher.hash_one(&compared)).await)
}
