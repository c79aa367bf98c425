//! The recording of a request: its steps are noted where they happen and read once, when the request
//! ends. `history` remembers them, `traces` makes spans of them; this module knows neither.

use std::fmt;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Identity;

/// The identity of one span, as in W3C's trace context. Its `Display` form is a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// The id of the trace; not 0.
    pub trace_id: u128,
    /// The id of the span in the trace; not 0.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
}

impl SpanContext {
    /// Reads a `traceparent`, of this version or a later one.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.splitn(5, '-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let span_id = hex(fields.next()?, 16)? as u64;
        let flags = hex(fields.next()?, 2)?;
        let is_known = version < 0xff && (version > 0 || fields.next().is_none());
        let is_valid = is_known && trace_id != 0 && span_id != 0;
        is_valid.then_some(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
    }
}

fn hex(digits: &str, length: usize) -> Option<u128> {
    let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let is_sound = digits.len() == length && digits.bytes().all(is_hex);
    is_sound.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, is_sampled } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*is_sampled))
    }
}

/// A request that is recorded, or a step of a pipeline below it, and the steps of the request's jobs.
#[derive(Debug)]
pub struct Trace {
    /// The span of the request, or of the step. It is not sampled if the request is not exported.
    pub context: SpanContext,
    /// The id of the span around that of the step; 0 for the request.
    parent: u64,
    /// The place, among the steps, of the job whose hook made the calls that are noted here.
    caller: Option<usize>,
    /// The state that the traces of a request share.
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The number of the request in this server.
    request: u64,
    /// The id of the request, if its client or the server has given it one.
    id: Option<Box<str>>,
    /// `None` after `take`: later steps are dropped.
    steps: Mutex<Option<Vec<Step>>>,
    /// The state from which the ids of the spans of steps are made.
    ids: AtomicU64,
}

impl Trace {
    /// Returns the trace of the request with this number in the server, without steps.
    pub fn new(context: SpanContext, request: u64) -> Self {
        let (steps, ids) = (Mutex::new(Some(Vec::new())), AtomicU64::new(context.span_id));
        let shared = Arc::new(Shared { request, id: None, steps, ids });
        Self { context, parent: 0, caller: None, shared }
    }

    /// Sets the id of the request, if it has one. Without effect once the trace is shared.
    #[must_use]
    pub fn with_id(mut self, id: Option<&str>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.id = id.map(Box::from);
        }
        self
    }

    /// Returns the trace of a step that begins below this span; [`end`](Self::end) notes it.
    #[must_use]
    pub fn child(&self) -> Arc<Self> {
        let state = self.shared.ids.fetch_add(SPLIT_MIX, Relaxed).wrapping_add(SPLIT_MIX);
        let context = SpanContext { span_id: mixed(state), ..self.context };
        let (parent, caller, shared) = (self.context.span_id, self.caller, self.shared.clone());
        Arc::new(Self { context, parent, caller, shared })
    }

    /// Returns the number of the request in this server.
    pub fn request(&self) -> u64 {
        self.shared.request
    }

    /// Returns the name under which operators find the request: its id, or one made of its number.
    pub fn name(&self) -> String {
        let Shared { id, request, .. } = &*self.shared;
        id.as_deref().map_or_else(|| numbered_request(*request), str::to_owned)
    }

    /// Returns the steps until now; called when the request ends.
    pub fn take(&self) -> Vec<Step> {
        self.steps().take().unwrap_or_default()
    }

    /// Returns how long the last job of the endpoint with this label was computed: its stages if its worker has
    /// reported them, otherwise the time since its dispatch. `None` if it was not dispatched.
    pub fn computed(&self, endpoint: &str) -> Option<Duration> {
        let steps = self.steps();
        let is_its = |step: &&Step| step.endpoint.as_ref().is_some_and(|it| it.label == endpoint);
        let time = |step: &Step| {
            let Place::Worker { stages: Stages { decode, predict, encode }, .. } = step.place
            else {
                return None;
            };
            let ended = step.ended.unwrap_or_else(Instant::now);
            let stages = || [decode, predict, encode].into_iter().flatten().sum();
            Some(predict.map_or_else(|| ended - step.began, |_| stages()))
        };
        steps.as_ref()?.iter().rev().filter(is_its).find_map(time)
    }

    /// Adds the steps of a request that this one led to, which are exported with that request.
    pub fn adopt(&self, steps: &[Step]) {
        if let Some(own) = &mut *self.steps() {
            let before = own.len();
            own.extend(steps.iter().map(|step| Step {
                caller: step.caller.map(|caller| before + caller),
                is_adopted: true,
                ..step.clone()
            }));
        }
    }

    /// Notes that the step whose trace this is has ended now.
    pub fn end(&self, place: Place, began: Instant) {
        if let Some(steps) = &mut *self.steps() {
            let step = self.step(place, None, Some(self.context.span_id), self.parent, began);
            steps.push(Step { ended: Some(Instant::now()), ..step });
        }
    }

    fn step(
        &self,
        place: Place,
        endpoint: Option<Arc<Identity>>,
        span: Option<u64>,
        parent: u64,
        began: Instant,
    ) -> Step {
        let (caller, ended, is_adopted) = (self.caller, None, false);
        Step { place, endpoint, span, parent, caller, began, ended, is_adopted }
    }

    fn steps(&self) -> MutexGuard<'_, Option<Vec<Step>>> {
        self.shared.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The increment of the generator `SplitMix64` (Steele, Lea and Flood 2014).
const SPLIT_MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the name of a request without an id, by its number in the server.
pub fn numbered_request(number: u64) -> String {
    format!("r{number}")
}

/// Returns the output of `SplitMix64` for this state, but never 0. Other states have other outputs.
fn mixed(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

/// One period in which a job waited or was in a worker, or in which a step of a pipeline ran.
#[derive(Debug, Clone)]
pub struct Step {
    /// The place of the job.
    pub place: Place,
    /// The endpoint of the job; `None` for a step of a pipeline.
    pub endpoint: Option<Arc<Identity>>,
    /// The id of its span, if that was chosen when it began.
    pub span: Option<u64>,
    /// The id of the span that it is below.
    pub parent: u64,
    /// The place, among the steps, of the job whose hook made the call that it belongs to.
    pub caller: Option<usize>,
    /// The start of the period.
    pub began: Instant,
    /// The end of the period, if it has ended.
    pub ended: Option<Instant>,
    /// Whether it is a step of another request, which exports it.
    pub is_adopted: bool,
}

/// The place of a job, or what ran for the request.
#[derive(Debug, Clone)]
pub enum Place {
    /// The queue of its endpoint.
    Queue {
        /// When the first worker of the queue was ready, if there was one; set at the dispatch.
        ready: Option<Instant>,
        /// Whether it is there again because its worker was lost.
        is_retry: bool,
    },
    /// A step of a pipeline, which may have several jobs.
    Pipeline {
        /// The name of the step.
        step: String,
        /// The status of the error with which it failed, if it did.
        failed: Option<u16>,
    },
    /// A worker.
    Worker {
        /// The slot of the worker.
        slot: usize,
        /// The generation of the worker.
        generation: u64,
        /// The batch of the job, if the endpoint batches.
        batch: Option<Arc<BatchTrace>>,
        /// The stages that the worker reported.
        stages: Stages,
    },
}

/// The durations of a job's stages, or of its batch's, as the worker reported them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// From the request to the model's input.
    pub decode: Option<Duration>,
    /// The computation; for a stream, the whole stream.
    pub predict: Option<Duration>,
    /// From the model's output to the response.
    pub encode: Option<Duration>,
}

impl Stages {
    /// Returns the stages that are known, in the time of a job in its worker: one after the other, the
    /// last one ending with the response. A worker reports their durations, not their times.
    pub fn placed(
        &self,
        began: Instant,
        ended: Instant,
    ) -> impl Iterator<Item = (&'static str, Instant, Instant)> + use<> {
        let mut until = ended;
        let mut place = |took: Option<Duration>| {
            let from = until.checked_sub(took?).unwrap_or(began).max(began);
            Some((from, std::mem::replace(&mut until, from)))
        };
        let encode = place(self.encode);
        let predict = place(self.predict);
        let decode = place(self.decode);
        let placed = [("decode", decode), ("predict", predict), ("encode", encode)];
        placed.into_iter().filter_map(|(name, placed)| placed.map(|(from, to)| (name, from, to)))
    }
}

/// A batch of which some jobs are recorded.
#[derive(Debug)]
pub struct BatchTrace {
    /// The time of its dispatch.
    pub began: Instant,
    /// The number of its jobs, recorded or not.
    pub size: usize,
    /// The slot of its worker.
    pub slot: usize,
    /// The endpoint.
    pub endpoint: Arc<Identity>,
    /// The jobs of it that are recorded.
    pub members: Vec<Member>,
    context: OnceLock<SpanContext>,
    nanoseconds: AtomicU64,
    /// The number of jobs whose spans are not exported yet.
    unexported: AtomicUsize,
}

/// A recorded job in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The number of its request in this server.
    pub request: u64,
    /// The span that it is below.
    pub span: SpanContext,
}

impl BatchTrace {
    /// Returns the trace of a batch of this size that is dispatched now to the worker of this slot.
    pub(crate) fn new(
        size: usize,
        slot: usize,
        endpoint: Arc<Identity>,
        members: Vec<Member>,
        now: Instant,
    ) -> Self {
        let (context, nanoseconds) = (OnceLock::new(), AtomicU64::new(0));
        let unexported = members.iter().filter(|member| member.span.is_sampled).count();
        let unexported = AtomicUsize::new(unexported);
        Self { began: now, size, slot, endpoint, members, context, nanoseconds, unexported }
    }

    /// Returns the spans of its jobs that are exported.
    pub fn exported(&self) -> impl Iterator<Item = SpanContext> {
        self.members.iter().map(|member| member.span).filter(|span| span.is_sampled)
    }

    /// Notes that one of its jobs is exported; returns whether it is the last one.
    pub fn is_last_export(&self) -> bool {
        self.unexported.fetch_sub(1, AcqRel) == 1
    }

    /// Returns the span of the batch, created at the first call.
    pub fn context(&self, make: impl FnOnce() -> SpanContext) -> SpanContext {
        *self.context.get_or_init(make)
    }

    /// Notes the end of one of its jobs.
    pub fn ended(&self, at: Instant) {
        self.nanoseconds.fetch_max((at - self.began).as_nanos() as u64, Relaxed);
    }

    /// Returns the end of the last job of which an end was noted.
    pub fn end(&self) -> Instant {
        self.began + Duration::from_nanos(self.nanoseconds.load(Relaxed))
    }
}

/// The dispatch of jobs to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    /// The slot of the worker.
    pub slot: usize,
    /// The generation of the worker.
    pub generation: u64,
    /// When the first worker of the queue was ready, if that is known.
    pub ready: Option<Instant>,
    /// The time of the dispatch.
    pub now: Instant,
}

/// Follows one job of a request that is recorded. Dropped, the job has ended.
#[derive(Debug)]
pub struct JobTrace {
    trace: Arc<Trace>,
    endpoint: Arc<Identity>,
    /// The place of the step that goes on.
    current: usize,
}

impl JobTrace {
    /// Follows a job of this endpoint that begins to wait now.
    pub fn new(trace: Arc<Trace>, endpoint: Arc<Identity>) -> Self {
        let mut job = Self { trace, endpoint, current: usize::MAX };
        job.begin(Place::Queue { ready: None, is_retry: false }, Instant::now());
        job
    }

    /// Returns the trace that calls of its hooks belong to.
    #[must_use]
    pub fn for_calls(&self) -> Arc<Trace> {
        let Trace { context, parent, ref shared, .. } = *self.trace;
        Arc::new(Trace { context, parent, caller: Some(self.current), shared: shared.clone() })
    }

    /// Returns the name under which operators find the request.
    pub fn request_name(&self) -> String {
        self.trace.name()
    }

    /// Returns the job as a member of its batch.
    pub(crate) fn member(&self) -> Member {
        Member { request: self.trace.shared.request, span: self.trace.context }
    }

    /// Returns the endpoint of the job.
    pub(crate) fn endpoint(&self) -> &Arc<Identity> {
        &self.endpoint
    }

    /// Notes that the job is dispatched, in this batch if in one.
    pub(crate) fn dispatched(&mut self, to: Dispatch, batch: Option<Arc<BatchTrace>>) {
        let Dispatch { slot, generation, ready, now } = to;
        if let Some(Step { place: Place::Queue { ready: noted, .. }, .. }) =
            self.trace.steps().as_mut().and_then(|steps| steps.get_mut(self.current))
        {
            *noted = ready;
        }
        let stages = Stages::default();
        self.begin(Place::Worker { slot, generation, batch, stages }, now);
    }

    /// Notes that its worker was lost and it waits again.
    pub fn requeued(&mut self, now: Instant) {
        self.begin(Place::Queue { ready: None, is_retry: true }, now);
    }

    /// Notes what the worker says of it.
    pub fn took(&mut self, took: Stages) {
        let mut steps = self.trace.steps();
        let current = steps.as_mut().and_then(|steps| steps.get_mut(self.current));
        if let Some(Step { place: Place::Worker { stages, .. }, .. }) = current {
            *stages = took;
        }
    }

    fn begin(&mut self, place: Place, now: Instant) {
        if let Some(steps) = &mut *self.trace.steps() {
            if let Some(current) = steps.get_mut(self.current) {
                current.ended = Some(now);
            }
            self.current = steps.len();
            let (endpoint, parent) = (Some(self.endpoint.clone()), self.trace.context.span_id);
            steps.push(self.trace.step(place, endpoint, None, parent, now));
        }
    }
}

impl Drop for JobTrace {
    fn drop(&mut self) {
        let mut steps = self.trace.steps();
        if let Some(current) = steps.as_mut().and_then(|steps| steps.get_mut(self.current)) {
            current.ended.get_or_insert_with(Instant::now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Job, Request, Response, reply, trace_dispatch};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = SpanContext::parse(PARENT).unwrap();
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), PARENT);
        let unsampled = SpanContext::parse(&PARENT.replace("-01", "-00")).unwrap();
        assert!(!unsampled.is_sampled);
        let later = format!("{}-more", PARENT.replacen("00", "01", 1));
        assert_eq!(SpanContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_no_traceparent_is_not_read() {
        let upper = PARENT.to_uppercase();
        let more = format!("{PARENT}-more");
        let no_trace = format!("00-{:032}-00f067aa0ba902b7-01", 0);
        let no_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let unknown = PARENT.replacen("00", "ff", 1);
        for wrong in ["", "00", &PARENT[1..], &upper, &more, &no_trace, no_span, &unknown] {
            assert_eq!(SpanContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_time_of_a_job_is_that_of_its_stages_or_else_since_its_dispatch() {
        let trace = Arc::new(Trace::new(SpanContext::parse(PARENT).unwrap(), 1));
        let endpoint = Arc::new(Identity { label: "/a".into(), ..Identity::default() });
        let began = Instant::now();
        let mut job = JobTrace::new(trace.clone(), endpoint);
        assert_eq!(trace.computed("/a"), None);
        let now = began + Duration::from_secs(1);
        job.dispatched(Dispatch { slot: 0, generation: 1, ready: None, now: began }, None);
        job.requeued(now);
        assert_eq!(trace.computed("/a"), Some(Duration::from_secs(1)));
        job.dispatched(Dispatch { slot: 0, generation: 1, ready: None, now }, None);
        let predict = Some(Duration::from_millis(20));
        job.took(Stages { predict, encode: Some(Duration::from_millis(1)), decode: None });
        assert_eq!(trace.computed("/a"), Some(Duration::from_millis(21)));
        assert_eq!(trace.computed("/b"), None);
    }

    #[test]
    fn stages_end_with_the_response_and_stay_within_the_job() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let took = |ms| Some(Duration::from_millis(ms));
        let stages = Stages { decode: took(1), predict: took(20), encode: None };
        let placed = Vec::from_iter(stages.placed(began, at(30)));
        assert_eq!(placed, [("decode", at(9), at(10)), ("predict", at(10), at(30))]);
        let stages = Stages { decode: took(1), predict: took(1000), encode: took(2) };
        let placed = Vec::from_iter(stages.placed(began, at(30)));
        assert_eq!(
            placed,
            [("decode", began, began), ("predict", began, at(28)), ("encode", at(28), at(30))]
        );
    }

    fn job(trace: &Arc<Trace>) -> Job {
        let (reply, _) = reply();
        let now = Instant::now();
        Job::new(Request::json("1"), now, now, reply.traced(Some(trace.clone()), &Arc::default()))
    }

    #[tokio::test]
    async fn steps_are_below_the_span_around_them() {
        let trace = Arc::new(Trace::new(SpanContext::parse(PARENT).unwrap(), 7));
        let (outer, beside) = (trace.child(), trace.child());
        let inner = outer.child();
        let ids = [&trace, &outer, &beside, &inner].map(|trace| trace.context.span_id);
        assert!((1..4).all(|at| ids[at] != 0 && !ids[..at].contains(&ids[at])), "{ids:?}");
        drop(job(&inner));
        let place = |step: &str| Place::Pipeline { step: step.into(), failed: None };
        inner.end(place("inner"), Instant::now());
        outer.end(place("outer"), Instant::now());
        let steps = trace.take();
        let spans: Vec<_> = steps.iter().map(|step| (step.span, step.parent)).collect();
        assert_eq!(spans, [(None, ids[3]), (Some(ids[3]), ids[1]), (Some(ids[1]), ids[0])]);
    }

    #[tokio::test]
    async fn the_steps_of_jobs_follow_each_other() {
        let trace = Arc::new(Trace::new(SpanContext::parse(PARENT).unwrap(), 7));
        let mut jobs = [job(&trace), job(&trace)];
        let (now, ready) = (Instant::now(), Some(Instant::now()));
        let to = Dispatch { slot: 3, generation: 2, ready, now };
        trace_dispatch(&mut jobs, true, to);
        let [mut first, second] = jobs;
        let stages = Stages { predict: Some(Duration::from_millis(5)), ..Stages::default() };
        first.trace().unwrap().took(stages);
        first.reply.send(Ok(Response::json("1")));
        let steps = trace.take();
        let ended: Vec<_> = steps.iter().map(|step| step.ended.is_some()).collect();
        assert_eq!(ended, [true, true, true, false], "the second is still with its worker");
        let Place::Queue { ready: noted, is_retry } = &steps[0].place else { panic!() };
        assert_eq!((*noted, *is_retry), (ready, false));
        let Place::Worker { slot, generation, batch, stages: said } = &steps[2].place else {
            panic!()
        };
        assert_eq!((*slot, *generation, *said), (3, 2, stages));
        let batch = batch.as_ref().unwrap();
        assert_eq!((batch.size, batch.members.len()), (2, 2));
        assert!(batch.members.iter().all(|member| member.request == 7));
        assert!(!batch.is_last_export() && batch.is_last_export());
        // Another request shows the same steps.
        let outer = Trace::new(SpanContext::parse(PARENT).unwrap(), 8);
        outer.adopt(&steps[..1]);
        outer.adopt(&steps);
        let adopted = outer.take();
        assert!(adopted.len() == 5 && adopted.iter().all(|step| step.is_adopted));
        // Steps after the end are dropped.
        drop(second);
        assert!(trace.take().is_empty());
    }
}
