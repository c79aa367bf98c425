//! The jobs that a worker holds.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use litplex_core::{
    CallId, Job, JobTrace, Origin, Outcome, Parent, Part, Reply, Reservation, Response, Root,
    SendError, ServeError, Stages, StreamSender, Unanswered,
};
use litplex_wire::{Flags, Frame, Kind};
use slab::Slab;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// The bytes that a stream may send before its client has taken any.
pub(crate) const STREAM_CREDIT: usize = 1 << 20;

/// The size of the pieces in which credit is given, in bytes.
const CREDIT_STEP: usize = STREAM_CREDIT / 2;

/// The jobs that a worker holds, by their ids on the wire.
pub(crate) struct InFlight {
    jobs: Slab<Entry>,
    /// The bytes of the bodies of all jobs.
    bytes: usize,
    /// The number of dispatched jobs. With the place in the slab it makes an id that is never used
    /// again.
    generation: u32,
    batch: u32,
    control: mpsc::UnboundedSender<Frame>,
    /// When the worker last answered a job or a part of a stream.
    moved: Instant,
    /// The number of cancelled jobs that were not reported yet.
    newly_cancelled: usize,
}

struct Entry {
    generation: u32,
    /// The number of the job's batch.
    batch: u32,
    caller: Caller,
    /// The bytes of the body.
    bytes: usize,
    /// When the job was sent to the worker, or last had a part of its answer.
    moved: Instant,
    /// When its caller left, or its deadline passed.
    cancelled: Option<Instant>,
    /// Its place among the calls, which calls that are made for it inherit.
    origin: Option<Arc<Origin>>,
    /// The request id, once its stream has begun and the job is gone.
    id: Option<String>,
    /// Dropped when the job is answered or cancelled, which ends the calls that are made for it; `None`
    /// as long as there are none.
    live: Option<watch::Sender<()>>,
}

/// The caller that waits for an answer.
enum Caller {
    Waiting(Box<Job>),
    Streaming(StreamSender, Arc<Flow>),
    /// The caller left in the middle of a stream.
    Gone,
}

/// The credit of a stream, and how far its client has read.
struct Flow {
    unread: AtomicUsize,
    begun: Instant,
    /// The milliseconds from there until the worker last got credit.
    credited: AtomicU64,
}

impl Flow {
    fn new(begun: Instant) -> Self {
        Self { unread: AtomicUsize::new(0), begun, credited: AtomicU64::new(0) }
    }

    fn note_credit(&self) {
        self.credited.store(self.begun.elapsed().as_millis() as u64, Relaxed);
    }

    /// Returns when the worker last got credit.
    fn credited_at(&self) -> Instant {
        self.begun + Duration::from_millis(self.credited.load(Relaxed))
    }

    /// Returns whether the worker may be waiting for its client.
    fn may_wait(&self) -> bool {
        self.unread.load(Relaxed) >= STREAM_CREDIT - CREDIT_STEP
    }
}

/// The times that a worker may compute, as the endpoint sets them. The deadline of a client shortens
/// only the client's wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The time for an answer, from when the worker began the job.
    pub(crate) answer: Duration,
    /// The time for the next part of a stream.
    pub(crate) part: Duration,
}

/// The times that the workers of an endpoint may compute, which may change while they run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedPatience(Arc<[AtomicU64; 2]>);

impl SharedPatience {
    /// Returns the times for an answer, and for the next part of a stream.
    pub fn new(answer: Duration, part: Duration) -> Self {
        let shared = Self(Arc::default());
        shared.set(answer, part);
        shared
    }

    /// Sets the times, also for the jobs that workers compute.
    pub fn set(&self, answer: Duration, part: Duration) {
        for (shared, time) in self.0.iter().zip([answer, part]) {
            shared.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Patience {
        let [answer, part] = &*self.0;
        let time = |shared: &AtomicU64| Duration::from_micros(shared.load(Relaxed));
        Patience { answer: time(answer), part: time(part) }
    }
}

/// A worker sent more than its credit, which the protocol forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun;

impl InFlight {
    /// Returns an empty table; cancellations and credit are sent through `control`.
    pub(crate) fn new(control: mpsc::UnboundedSender<Frame>) -> Self {
        Self {
            jobs: Slab::new(),
            bytes: 0,
            generation: 0,
            batch: 0,
            control,
            moved: Instant::now(),
            newly_cancelled: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Returns the bytes of the bodies of all jobs.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records that the worker answers now.
    pub(crate) fn move_on(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Returns the number of jobs that were cancelled since the last call.
    pub(crate) fn take_newly_cancelled(&mut self) -> usize {
        std::mem::take(&mut self.newly_cancelled)
    }

    /// Returns the number of cancelled jobs.
    pub(crate) fn cancelled(&self) -> usize {
        self.jobs.iter().filter(|(_, entry)| entry.cancelled.is_some()).count()
    }

    /// Returns whether a job is cancelled.
    pub(crate) fn is_cancelled(&self, id: u64) -> bool {
        self.jobs[place_of(id)].cancelled.is_some()
    }

    /// Begins another batch, which the jobs belong to that are added next.
    pub(crate) fn begin_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1);
    }

    /// Returns the id of the next job.
    pub(crate) fn next_id(&self) -> u64 {
        id_of(self.generation.wrapping_add(1), self.jobs.vacant_key())
    }

    /// Adds a job that is sent to the worker now.
    pub(crate) fn add(&mut self, job: Job, moved: Instant) {
        self.generation = self.generation.wrapping_add(1);
        let (generation, batch) = (self.generation, self.batch);
        let bytes = job.request.body_len();
        self.bytes += bytes;
        let origin = job.origin.clone();
        let caller = Caller::Waiting(Box::new(job));
        let (cancelled, id, live) = (None, None, None);
        let entry = Entry { generation, batch, caller, bytes, moved, cancelled, origin, id, live };
        self.jobs.insert(entry);
    }

    /// Returns the calls whose jobs the worker holds, with their ids in the worker.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (CallId, u64)> {
        self.jobs.iter().filter_map(|(place, entry)| {
            Some((entry.origin.as_ref()?.call?, id_of(entry.generation, place)))
        })
    }

    /// Returns the names of the requests in the log, with a space between; `None` if none has one.
    pub(crate) fn request_names(&self) -> Option<String> {
        let names = self.jobs.iter().filter_map(|(_, entry)| entry.request_name());
        Some(names.collect::<Vec<_>>().join(" ")).filter(|names| !names.is_empty())
    }

    /// Returns the call that a job is of, if it is not a client's own.
    pub(crate) fn call(&self, id: u64) -> Option<CallId> {
        self.jobs[place_of(id)].origin.as_ref()?.call
    }

    /// Returns what these jobs, which one hook computes, hand down to a call that the hook makes as
    /// `caller`. The deadline is that of the job with the most time; after the first part of a stream it
    /// is `part` from now.
    ///
    /// # Errors
    /// No caller waits for any of them: they are answered or cancelled.
    pub(crate) fn parent(
        &mut self,
        ids: &[u64],
        caller: &Arc<str>,
        part: Duration,
        now: Instant,
    ) -> Outcome<Parent> {
        let places: Vec<_> = ids.iter().filter(|id| self.contains(**id)).copied().collect();
        if places.is_empty() {
            let detail = "the request that this call is made for is answered; call before the hook \
                          returns";
            return Err(ServeError::new(409, detail));
        }
        let is_wanted = |id: &u64| self.jobs[place_of(*id)].cancelled.is_none();
        let wanted: Vec<_> = places.into_iter().filter(is_wanted).collect();
        wanted.iter().for_each(|id| self.jobs[place_of(*id)].set_origin());
        let live = wanted.iter().map(|id| self.jobs[place_of(*id)].watch()).collect();
        let entries = || wanted.iter().map(|id| &self.jobs[place_of(*id)]);
        let Some(first) = entries().next() else { return Err(ServeError::cancelled()) };
        let deepest = entries().filter_map(|entry| entry.origin.as_deref()).max_by_key(|o| o.depth);
        let mut origin = deepest.cloned().unwrap_or_default().child(caller.clone());
        let known = entries().filter_map(|entry| entry.origin.as_ref());
        origin.root = Root::common(known.map(|origin| &origin.root));
        Ok(Parent {
            origin,
            deadline: entries().map(|entry| entry.deadline(part, now)).max().unwrap_or(now),
            id: first.request_id(),
            trace: entries().find_map(Entry::trace).map(JobTrace::for_calls),
            reservation: first.reservation(),
            live,
            hook: None,
        })
    }

    /// Returns whether the job with this id is unanswered. Its place in the slab may have been used
    /// again since: then the answer is too late.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.jobs.get(place_of(id)).is_some_and(|entry| entry.generation == generation_of(id))
    }

    /// Records the times of a job's stages in seconds, as far as they are known.
    pub(crate) fn record_stages(&mut self, id: u64, seconds: &[f64]) {
        let trace = match &mut self.jobs[place_of(id)].caller {
            Caller::Waiting(job) => job.trace(),
            Caller::Streaming(sender, _) => sender.trace_mut(),
            Caller::Gone => None,
        };
        let stage = |at| seconds.get(at).and_then(|took| Duration::try_from_secs_f64(*took).ok());
        let stages = Stages { decode: stage(0), predict: stage(1), encode: stage(2) };
        if let Some(trace) = trace {
            trace.took(stages);
        }
    }

    /// Answers a job, which ends it.
    pub(crate) fn answer(&mut self, id: u64, response: Response) {
        if let Caller::Waiting(job) = self.remove(id).caller {
            job.reply.send(Ok(response));
        }
    }

    /// Returns whether a part of a stream was passed on.
    pub(crate) fn has_begun(&self, id: u64) -> bool {
        !matches!(self.jobs[place_of(id)].caller, Caller::Waiting(_))
    }

    /// Passes on a part of a stream, and returns whether that ends the job.
    pub(crate) fn pass_on(&mut self, id: u64, part: Part) -> Result<bool, Overrun> {
        let is_last = !matches!(part, Part::Items(_));
        let now = self.moved;
        let entry = &mut self.jobs[place_of(id)];
        entry.start_stream(id, now, &self.control);
        if entry.cancelled.is_none() {
            entry.moved = now;
        }
        match entry.caller.send(part) {
            Ok(()) => {}
            Err(SendError::Full) => return Err(Overrun),
            Err(SendError::Abandoned) => {
                self.newly_cancelled += entry.cancel(id, now, &self.control);
            }
        }
        if is_last {
            self.remove(id);
        }
        Ok(is_last)
    }

    fn remove(&mut self, id: u64) -> Entry {
        let entry = self.jobs.remove(place_of(id));
        self.bytes -= entry.bytes;
        entry
    }

    /// Cancels the jobs whose callers have left.
    pub(crate) fn cancel_abandoned(&mut self, now: Instant) {
        for (place, entry) in &mut self.jobs {
            if entry.caller.is_abandoned() {
                let id = id_of(entry.generation, place);
                self.newly_cancelled += entry.cancel(id, now, &self.control);
            }
        }
    }

    /// Returns when the first job that the worker computes should be done. Unless the worker computes
    /// several at a time, that is its oldest job: it began with this job at its last answer, and the
    /// others wait.
    pub(crate) fn due(&self, patience: Patience, several: bool, now: Instant) -> Option<Instant> {
        let entries = self.jobs.iter().map(|(_, entry)| entry);
        if several {
            return entries.map(|entry| entry.due(entry.moved, patience, now)).min();
        }
        let oldest = entries.max_by_key(|entry| entry.age(self.generation))?;
        let begun = if oldest.cancelled.is_some() && matches!(oldest.caller, Caller::Gone) {
            oldest.moved
        } else {
            oldest.moved.max(self.moved)
        };
        Some(oldest.due(begun, patience, now))
    }

    /// Returns when the last job was cancelled, if all jobs are.
    pub(crate) fn given_up_since(&self) -> Option<Instant> {
        let since = self.jobs.iter().map(|(_, entry)| entry.cancelled);
        since.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Returns the jobs that were not answered, in the order in which they came. A stream that has
    /// begun is broken off.
    ///
    /// `in_order`: the worker computes one batch after the other, so that all but the first are
    /// untouched.
    pub(crate) fn give_back(&mut self, in_order: bool) -> Vec<Unanswered> {
        let now = self.generation;
        let mut entries: Vec<_> = self.jobs.drain().collect();
        entries.sort_by_key(|entry| Reverse(entry.age(now)));
        let first = entries.first().map(|entry| entry.batch);
        let unanswered = |entry: Entry| match entry.caller {
            Caller::Waiting(job) => {
                Some(Unanswered { job: *job, started: !in_order || Some(entry.batch) == first })
            }
            Caller::Streaming(..) | Caller::Gone => None,
        };
        entries.into_iter().filter_map(unanswered).collect()
    }
}

impl Entry {
    /// Returns the number of jobs that came since.
    fn age(&self, now: u32) -> u32 {
        now.wrapping_sub(self.generation)
    }

    /// Returns the time until which the job may be computed, if that began at `since`.
    fn due(&self, since: Instant, patience: Patience, now: Instant) -> Instant {
        match &self.caller {
            Caller::Waiting(_) => since + patience.answer,
            // The worker waits for the client, not the client for the worker.
            Caller::Streaming(_, flow) if flow.may_wait() => now + patience.part,
            Caller::Streaming(_, flow) => since.max(flow.credited_at()) + patience.part,
            Caller::Gone => since + patience.part,
        }
    }

    /// Returns a channel that closes when the job is answered or cancelled.
    fn watch(&mut self) -> watch::Receiver<()> {
        self.live.get_or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Sets the origin of a client's request of which nothing was known. The job keeps it if it returns
    /// to the queue: its calls then are made for the same root.
    fn set_origin(&mut self) {
        let origin = self.origin.get_or_insert_default();
        if let Caller::Waiting(job) = &mut self.caller {
            job.origin = Some(origin.clone());
        }
    }

    fn deadline(&self, part: Duration, now: Instant) -> Instant {
        match &self.caller {
            Caller::Waiting(job) => job.deadline,
            Caller::Streaming(..) | Caller::Gone => now + part,
        }
    }

    fn request_id(&self) -> Option<String> {
        match &self.caller {
            Caller::Waiting(job) => job.request.id.clone(),
            Caller::Streaming(..) | Caller::Gone => self.id.clone(),
        }
    }

    fn request_name(&self) -> Option<String> {
        self.request_id().or_else(|| Some(self.trace()?.request_name()))
    }

    fn trace(&self) -> Option<&JobTrace> {
        match &self.caller {
            Caller::Waiting(job) => job.reply.trace(),
            Caller::Streaming(sender, _) => sender.trace(),
            Caller::Gone => None,
        }
    }

    /// Returns an empty reservation of the budget of its request.
    fn reservation(&self) -> Reservation {
        match &self.caller {
            Caller::Waiting(job) => job.request.reservation.another(),
            Caller::Streaming(sender, _) => sender.reservation().another(),
            Caller::Gone => Reservation::default(),
        }
    }

    /// Answers the job with a stream at its first part. The request is no longer needed.
    fn start_stream(&mut self, id: u64, now: Instant, control: &mpsc::UnboundedSender<Frame>) {
        if let Caller::Waiting(_) = self.caller
            && let Caller::Waiting(job) = std::mem::replace(&mut self.caller, Caller::Gone)
        {
            let Job { request, reply, .. } = *job;
            self.id = request.id;
            let flow = Arc::new(Flow::new(now));
            let sender = credited(reply, id, flow.clone(), control.clone());
            self.caller = Caller::Streaming(sender, flow);
        }
    }

    /// Returns the number of jobs that this cancels: one, unless the job was cancelled before.
    fn cancel(&mut self, id: u64, now: Instant, control: &mpsc::UnboundedSender<Frame>) -> usize {
        if let Caller::Streaming(..) = self.caller {
            self.caller = Caller::Gone;
        }
        if self.cancelled.is_some() {
            return 0;
        }
        self.cancelled = Some(now);
        self.live = None;
        let _ = control.send(Frame::bare(Kind::Cancel, id));
        1
    }
}

impl Caller {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Waiting(job) => job.reply.is_abandoned(),
            Self::Streaming(sender, _) => sender.is_abandoned(),
            Self::Gone => false,
        }
    }

    fn send(&mut self, part: Part) -> Result<(), SendError> {
        // The items that arrive after the client left are dropped.
        let Self::Streaming(sender, flow) = self else { return Ok(()) };
        if let Part::Items(items) = &part {
            // The worker learns of credit after it is counted here: it has less, never more.
            if flow.unread.fetch_add(items.packed_len(), Relaxed) >= STREAM_CREDIT {
                return Err(SendError::Full);
            }
        }
        sender.try_send(part)
    }
}

/// Creates a stream whose worker gets credit as the client reads.
fn credited(
    reply: Reply,
    id: u64,
    flow: Arc<Flow>,
    control: mpsc::UnboundedSender<Frame>,
) -> StreamSender {
    let mut untold = 0;
    reply.into_credited_stream(Box::new(move |bytes| {
        flow.unread.fetch_sub(bytes, Relaxed);
        untold += bytes;
        if untold >= CREDIT_STEP {
            let payload = Bytes::copy_from_slice(&(untold as u32).to_le_bytes());
            let credit = Frame { kind: Kind::Credit, flags: Flags::NONE, status: 0, id, payload };
            let _ = control.send(credit);
            flow.note_credit();
            untold = 0;
        }
    }))
}

fn id_of(generation: u32, place: usize) -> u64 {
    u64::from(generation) << 32 | place as u64
}

fn place_of(id: u64) -> usize {
    (id & u64::from(u32::MAX)) as usize
}

fn generation_of(id: u64) -> u32 {
    (id >> 32) as u32
}
