//! The jobs that a worker holds.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use litplex_core::{Job, Part, Reply, Response, SendError, Stages, StreamSender, Unanswered};
use litplex_wire::{Flags, Frame, Kind};
use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes that a stream may send before its client has taken any.
pub(crate) const STREAM_CREDIT: usize = 1 << 20;

/// What a client has taken is told in pieces of this size.
const CREDIT_STEP: usize = STREAM_CREDIT / 2;

/// The jobs that a worker holds, by the ids under which it knows them.
pub(crate) struct InFlight {
    jobs: Slab<Entry>,
    /// Counts what was dispatched; with the place in the slab it makes an id that is never used
    /// again.
    generation: u32,
    batch: u32,
    control: mpsc::UnboundedSender<Frame>,
}

struct Entry {
    generation: u32,
    /// The number of its batch.
    batch: u32,
    caller: Caller,
    is_cancelled: bool,
}

/// Whom an answer is for.
enum Caller {
    Waiting(Box<Job>),
    Streaming(StreamSender, Arc<AtomicUsize>),
    /// Left in the middle of a stream, at this time.
    Gone(Instant),
}

/// What a worker did that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun;

impl InFlight {
    /// Holds nothing yet; cancellations and credit go out through `control`.
    pub(crate) fn new(control: mpsc::UnboundedSender<Frame>) -> Self {
        Self { jobs: Slab::new(), generation: 0, batch: 0, control }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The jobs that are added from here on are another batch.
    pub(crate) fn begin_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1);
    }

    /// Returns the id that the next job will have.
    pub(crate) fn next_id(&self) -> u64 {
        id_of(self.generation.wrapping_add(1), self.jobs.vacant_key())
    }

    /// Adds a job.
    pub(crate) fn add(&mut self, job: Job) {
        self.generation = self.generation.wrapping_add(1);
        let (generation, batch) = (self.generation, self.batch);
        let caller = Caller::Waiting(Box::new(job));
        self.jobs.insert(Entry { generation, batch, caller, is_cancelled: false });
    }

    /// Tells whether a worker still owes an answer under this id. An answer to a place that has
    /// been used again since is too late for anybody.
    pub(crate) fn owes(&self, id: u64) -> bool {
        self.jobs.get(place_of(id)).is_some_and(|entry| entry.generation == generation_of(id))
    }

    /// Notes how many seconds the stages of a job took, as many as are known.
    pub(crate) fn took(&mut self, id: u64, seconds: &[f64]) {
        let trace = match &mut self.jobs[place_of(id)].caller {
            Caller::Waiting(job) => job.trace(),
            Caller::Streaming(sender, _) => sender.trace_mut(),
            Caller::Gone(_) => None,
        };
        let stage = |at| seconds.get(at).and_then(|took| Duration::try_from_secs_f64(*took).ok());
        let stages = Stages { decode: stage(0), predict: stage(1), encode: stage(2) };
        if let Some(trace) = trace {
            trace.took(stages);
        }
    }

    /// Answers a job, which ends it.
    pub(crate) fn answer(&mut self, id: u64, response: Response) {
        if let Caller::Waiting(job) = self.jobs.remove(place_of(id)).caller {
            job.reply.send(Ok(response));
        }
    }

    /// Passes on a part of a stream, and tells whether that ends the job.
    pub(crate) fn pass_on(&mut self, id: u64, part: Part) -> Result<bool, Overrun> {
        let is_last = !matches!(part, Part::Items(_));
        let entry = &mut self.jobs[place_of(id)];
        entry.caller.start_stream(id, &self.control);
        match entry.caller.send(part) {
            Ok(()) => {}
            Err(SendError::Full) => return Err(Overrun),
            Err(SendError::Abandoned) => entry.cancel(id, &self.control),
        }
        if is_last {
            self.jobs.remove(place_of(id));
        }
        Ok(is_last)
    }

    /// Cancels the jobs for which nobody waits any more.
    pub(crate) fn cancel_abandoned(&mut self) {
        for (place, entry) in &mut self.jobs {
            if entry.caller.is_abandoned() {
                let id = id_of(entry.generation, place);
                entry.cancel(id, &self.control);
            }
        }
    }

    /// Returns when the first job that the worker computes should long be done, its time over and
    /// everybody gone. Unless it computes several at a time that is the one that it has had
    /// longest: the others wait.
    pub(crate) fn overdue(&self, grace: Duration, several: bool) -> Option<Instant> {
        let entries = self.jobs.iter().map(|(_, entry)| entry);
        let until = if several {
            entries.filter_map(Entry::until).min()
        } else {
            entries.max_by_key(|entry| entry.age(self.generation)).and_then(Entry::until)
        };
        until.map(|until| until + grace)
    }

    /// Gives back the jobs that were not answered, in the order in which they came. A stream that
    /// has begun breaks.
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
            Caller::Streaming(..) | Caller::Gone(_) => None,
        };
        entries.into_iter().filter_map(unanswered).collect()
    }
}

impl Entry {
    /// How many jobs came since.
    fn age(&self, now: u32) -> u32 {
        now.wrapping_sub(self.generation)
    }

    /// Until when anybody can want it. A stream has no end; its client's patience between two
    /// chunks is known at the edge.
    fn until(&self) -> Option<Instant> {
        match &self.caller {
            Caller::Waiting(job) => Some(job.deadline),
            Caller::Gone(since) => Some(*since),
            Caller::Streaming(..) => None,
        }
    }

    fn cancel(&mut self, id: u64, control: &mpsc::UnboundedSender<Frame>) {
        if let Caller::Streaming(..) = self.caller {
            self.caller = Caller::Gone(Instant::now());
        }
        if !std::mem::replace(&mut self.is_cancelled, true) {
            let _ = control.send(Frame::bare(Kind::Cancel, id));
        }
    }
}

impl Caller {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Waiting(job) => job.reply.is_abandoned(),
            Self::Streaming(sender, _) => sender.is_abandoned(),
            Self::Gone(_) => false,
        }
    }

    /// The first part of a stream answers the job; its request is needed no more.
    fn start_stream(&mut self, id: u64, control: &mpsc::UnboundedSender<Frame>) {
        if let Self::Waiting(_) = self
            && let Self::Waiting(job) = std::mem::replace(self, Self::Gone(Instant::now()))
        {
            let unread = Arc::new(AtomicUsize::new(0));
            let sender = credited(job.reply, id, unread.clone(), control.clone());
            *self = Self::Streaming(sender, unread);
        }
    }

    fn send(&mut self, part: Part) -> Result<(), SendError> {
        // What a stream had sent when its client left is dropped.
        let Self::Streaming(sender, unread) = self else { return Ok(()) };
        if let Part::Items(items) = &part {
            // The worker learns of credit later than we give it: it has less, never more.
            if unread.fetch_add(items.packed_len(), Relaxed) >= STREAM_CREDIT {
                return Err(SendError::Full);
            }
        }
        sender.try_send(part)
    }
}

/// Makes a stream whose worker is given credit as the client reads.
fn credited(
    reply: Reply,
    id: u64,
    unread: Arc<AtomicUsize>,
    control: mpsc::UnboundedSender<Frame>,
) -> StreamSender {
    let mut untold = 0;
    reply.into_credited_stream(Box::new(move |bytes| {
        unread.fetch_sub(bytes, Relaxed);
        untold += bytes;
        if untold >= CREDIT_STEP {
            let payload = Bytes::copy_from_slice(&(untold as u32).to_le_bytes());
            let credit = Frame { kind: Kind::Credit, flags: Flags::NONE, status: 0, id, payload };
            let _ = control.send(credit);
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
