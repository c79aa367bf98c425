//! Calls between endpoints: what a call inherits from the request it is made for, and the seam between
//! the workers that make calls and the part of the server that carries them out.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::{BoxFuture, Items, Outcome, Part, Priority, Request, Reservation, Response, Trace};

/// The times that some hop of a root request may be computed again after the loss of its worker.
const RETRIES: u32 = 1;

/// The number of a call of a hook or a pipeline, unique within this process. A later call has a
/// larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// The number of an attached worker, unique within this process. It is never used for another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerKey(pub u64);

/// The root of a tree of calls: the part that all calls for one request of a client share.
#[derive(Debug)]
pub struct Root {
    /// The scopes of the client's token; `None` if it was admitted without a token.
    pub scopes: Option<Arc<[String]>>,
    /// A random number from 0 to 1, by which all calls for the request choose between the generations of an
    /// endpoint.
    pub draw: f64,
    /// Whether the request is a shadow, whose response is dropped.
    pub is_shadow: bool,
    /// The priority class of the client's request, which all calls for it inherit.
    pub priority: Priority,
    retries: AtomicU32,
    /// Each is told of every call: several if calls are made for a batch of requests.
    observers: Vec<Arc<dyn ObserveCalls>>,
}

/// An observer of the calls that are made for a request of a client, by its hook and those below.
pub trait ObserveCalls: fmt::Debug + Send + Sync {
    /// Notes that a call of the endpoint with this label begins; `share` is the part of it that is made
    /// for this request.
    fn begun(&self, endpoint: &str, share: f64);

    /// Notes that such a call has ended, and how.
    fn ended(&self, endpoint: &str, share: f64, ended: CallEnd);
}

/// The end of a call, as far as its callee's load is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The callee answered.
    Answered,
    /// The callee refused it, or was not done in time, or the call was cancelled before.
    Failed,
}

/// A call that is observed for its root. If it is dropped, the call was cancelled.
#[derive(Debug)]
pub struct ObservedCall {
    root: Arc<Root>,
    endpoint: String,
    has_ended: bool,
}

impl ObservedCall {
    /// Notes the end of the call.
    pub fn end(mut self, ended: CallEnd) {
        self.note(ended);
    }

    fn note(&mut self, ended: CallEnd) {
        if !std::mem::replace(&mut self.has_ended, true) {
            let (root, share) = (&self.root, self.root.share());
            root.observers.iter().for_each(|it| it.ended(&self.endpoint, share, ended));
        }
    }
}

impl Drop for ObservedCall {
    fn drop(&mut self) {
        self.note(CallEnd::Failed);
    }
}

impl Root {
    /// Returns the root of a request whose client has a token with these scopes, if it has one.
    pub fn new(scopes: Option<Arc<[String]>>) -> Self {
        let (retries, observers) = (AtomicU32::new(RETRIES), Vec::new());
        let (is_shadow, priority) = (false, Priority::default());
        Self { scopes, draw: draw(), is_shadow, priority, retries, observers }
    }

    /// Returns the root with this class.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Returns the root of a shadow of a request with this one. Its calls are not observed, and use none of
    /// the request's retries.
    #[must_use]
    pub fn shadow(&self) -> Self {
        Self { is_shadow: true, priority: self.priority, ..Self::new(self.scopes.clone()) }
    }

    /// Adds an observer of all calls that are made for it.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn ObserveCalls>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Tells the observers that a call of the endpoint with this label begins. Returns a guard for its
    /// end, unless none observes.
    pub fn begin_call(self: &Arc<Self>, endpoint: &str) -> Option<ObservedCall> {
        if self.observers.is_empty() {
            return None;
        }
        let share = self.share();
        self.observers.iter().for_each(|observer| observer.begun(endpoint, share));
        Some(ObservedCall { root: self.clone(), endpoint: endpoint.to_owned(), has_ended: false })
    }

    /// Returns the part of a call that is made for each of the requests.
    fn share(&self) -> f64 {
        1.0 / self.observers.len().max(1) as f64
    }

    /// Takes one of the retries that all hops share; returns whether there was one.
    pub fn take_retry(&self) -> bool {
        self.retries.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

impl Root {
    /// Returns a root for a call that is made for requests of all of these roots: it may do what each
    /// of them may.
    pub fn common<'a>(mut roots: impl Iterator<Item = &'a Arc<Self>> + Clone) -> Arc<Self> {
        let Some(first) = roots.clone().next() else { return Arc::default() };
        if roots.clone().all(|root| Arc::ptr_eq(root, first)) {
            return first.clone();
        }
        let is_shadow = roots.clone().all(|root| root.is_shadow);
        let priority = roots.clone().map(|root| root.priority).min().unwrap_or_default();
        let observers = roots.clone().flat_map(|root| &root.observers).cloned().collect();
        let limited = roots.clone().filter_map(|root| root.scopes.as_deref());
        let in_all = |scope: &&String| limited.clone().all(|scopes| scopes.contains(scope));
        let scopes = roots
            .find_map(|root| root.scopes.as_deref())
            .map(|scopes| scopes.iter().filter(in_all).cloned().collect());
        Arc::new(Self { is_shadow, priority, observers, ..Self::new(scopes) })
    }
}

/// Returns a random number from 0 to 1, as [`Root::draw`] is.
pub fn draw() -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    let bits = RandomState::new().hash_one(0) >> (u64::BITS - BITS);
    bits as f64 / (1_u64 << BITS) as f64
}

impl Default for Root {
    fn default() -> Self {
        Self::new(None)
    }
}

/// The place of a request in the tree of calls below a request of a client.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The root.
    pub root: Arc<Root>,
    /// The worker or pipeline that made this call, and those before it; `None` for a client's request.
    pub caller: Option<Arc<Hop>>,
    /// The number of calls between the client's request and this one: 0 for the client's request.
    pub depth: u32,
    /// The call, once it has begun; `None` for a client's request.
    pub call: Option<CallId>,
}

/// A part of the path of calls, as a list from its end.
#[derive(Debug)]
pub struct Hop {
    /// The name of the caller: `/ask#0` for a worker, the path of a pipeline.
    pub name: Arc<str>,
    /// The hop before.
    pub before: Option<Arc<Hop>>,
}

impl Origin {
    /// Returns the origin of a client's request of this class.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        let root = Root { draw: self.root.draw, ..Root::new(self.root.scopes.clone()) };
        Self { root: Arc::new(root.with_priority(priority)), ..self }
    }

    /// Returns the origin of the request of a client whose token has these scopes.
    pub fn with_scopes(scopes: Arc<[String]>) -> Self {
        Self { root: Arc::new(Root::new(Some(scopes))), ..Self::default() }
    }

    /// Returns the origin of calls that `name` makes for this request.
    #[must_use]
    pub fn child(&self, name: Arc<str>) -> Self {
        let before = self.caller.clone();
        let caller = Some(Arc::new(Hop { name, before }));
        Self { root: self.root.clone(), caller, depth: self.depth + 1, call: None }
    }

    /// Returns the path of calls, from the first caller to the last.
    pub fn path(&self) -> Vec<Arc<str>> {
        let hops = std::iter::successors(self.caller.as_deref(), |hop| hop.before.as_deref());
        let mut path: Vec<_> = hops.map(|hop| hop.name.clone()).collect();
        path.reverse();
        path
    }
}

/// The properties that a running request hands down to a call that is made for it.
#[derive(Debug, Clone)]
pub struct Parent {
    /// The origin of the call.
    pub origin: Origin,
    /// The end of the time budget.
    pub deadline: Instant,
    /// The request id, if requests have ids.
    pub id: Option<String>,
    /// The trace, if the request is traced.
    pub trace: Option<Arc<Trace>>,
    /// The memory budget.
    pub reservation: Reservation,
    /// The requests that the call is made for; each closes when it is answered or cancelled.
    pub live: Vec<watch::Receiver<()>>,
    /// The hook that calls; `None` for a pipeline, which holds no worker.
    pub hook: Option<Hook>,
}

impl Parent {
    /// Resolves when none of the requests that the call is made for needs it.
    pub async fn ended(&mut self) {
        for live in &mut self.live {
            while live.changed().await.is_ok() {}
        }
    }
}

/// A running hook, named by its worker and the items that it computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The worker.
    pub worker: WorkerKey,
    /// The ids of the items in the worker: one, or all of a batch.
    pub items: Vec<u64>,
}

/// A call that begins.
#[derive(Debug)]
pub struct Invocation {
    /// The label of the endpoint that calls.
    pub caller: Arc<str>,
    /// The path or name of the endpoint that is called.
    pub endpoint: String,
    /// The request that the call is made for.
    pub parent: Parent,
    /// The request, as a client would have sent it; its memory is counted here.
    pub request: Request,
    /// The longest time for the call; the time of the parent bounds it.
    pub timeout: Option<Duration>,
    /// When the caller waits for the call.
    pub waits: Waits,
    /// Whether the caller reads a stream, for callees that leave that to their clients; `None`: as the
    /// request says, in the way of a client.
    pub stream: Option<bool>,
    /// Whether the caller reads the items of a list as they come, where the callee can give them so.
    pub takes_items: bool,
}

/// A function that is told the id of a call when it begins.
pub type Begun = Box<dyn FnOnce(CallId) + Send>;

/// When a caller waits for its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// As [`Calls::waits`] says.
    Reported,
    /// From its beginning, and again as [`Calls::waits`] says.
    FromBeginning,
    /// From its beginning, and whenever a poll for the next part of its stream finds none.
    Polling,
}

/// The result of a call.
pub enum Called {
    /// A whole response. One with a status of 400 or more is the callee's own error.
    Whole(Response),
    /// The first items of a stream, and the rest of it.
    Stream(Items, Box<dyn PartStream>),
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(response) => f.debug_tuple("Whole").field(response).finish(),
            Self::Stream(first, _) => f.debug_tuple("Stream").field(first).finish_non_exhaustive(),
        }
    }
}

/// The parts of a stream after its first items; a drop before the end cancels the call.
pub trait PartStream: Send {
    /// Polls for the next part. After [`Part::End`] or [`Part::Failed`] there is none.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part>;
}

/// The part of the server that carries out calls, as the workers of one queue see it.
///
/// A worker reports what becomes of the calls that it computes, so that calls that wait for each other
/// are found; each report comes before the frame or job that it is about is passed on.
pub trait Calls: Send + Sync {
    /// Notes a worker of the queue in this slot, which computes this many batches, or single jobs, at a
    /// time.
    fn attached(&self, slot: usize, places: usize) -> WorkerKey;

    /// Notes that a worker takes no more jobs and finishes those that it has.
    fn retiring(&self, worker: WorkerKey);

    /// Notes that a worker is gone.
    fn gone(&self, worker: WorkerKey);

    /// Notes that a worker is given the job of a call as this item.
    fn held(&self, call: CallId, worker: WorkerKey, item: u64);

    /// Notes that a call is in the queue again, because its worker was lost.
    fn requeued(&self, call: CallId);

    /// Notes that a part of the stream of a call has come from its worker.
    fn resumed(&self, call: CallId);

    /// Notes that a worker has answered the job of a call.
    fn ended(&self, call: CallId);

    /// Notes that a hook waits for a call, of whose stream it has taken this many parts.
    fn waits(&self, call: CallId, taken: u64);

    /// Carries out a call. A drop of the future cancels the call. `begun` is called with its id: at once,
    /// unless the request decides which endpoint of a shared path it is for.
    fn call(&self, invocation: Invocation, begun: Begun) -> BoxFuture<'static, Outcome<Called>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_calls_is_read_from_its_beginning() {
        let root = Origin::default();
        assert!(root.path().is_empty());
        let second = root.child("/a#0".into()).child("/b#1".into());
        assert_eq!(second.path(), [Arc::from("/a#0"), Arc::from("/b#1")]);
        assert_eq!(second.depth, 2);
    }

    #[test]
    fn a_call_for_several_requests_may_do_what_each_of_them_may() {
        let scoped = |scopes: &[&str]| {
            Arc::new(Root::new(Some(scopes.iter().map(|scope| (*scope).to_owned()).collect())))
        };
        let (both, one, open) =
            (scoped(&["a", "b"]), scoped(&["b", "c"]), Arc::new(Root::default()));
        let common = |roots: &[&Arc<Root>]| Root::common(roots.iter().copied()).scopes.clone();
        assert_eq!(common(&[&both, &open, &one]).as_deref(), Some(&["b".to_owned()][..]));
        assert_eq!(common(&[&open, &open]), None);
        assert!(Arc::ptr_eq(&Root::common([&both, &both].into_iter()), &both));
    }

    #[test]
    fn a_call_for_shadows_alone_is_one_of_a_shadow() {
        let client = Arc::new(Root::new(Some(["a".to_owned()].into())));
        let shadows = [Arc::new(client.shadow()), Arc::new(client.shadow())];
        assert_eq!(shadows[0].scopes, client.scopes);
        assert!(Root::common(shadows.iter()).is_shadow);
        assert!(!Root::common([&shadows[0], &client].into_iter()).is_shadow);
    }

    #[test]
    fn all_hops_share_the_retries_of_the_root() {
        let root = Origin::default();
        let (first, second) = (root.child("/a#0".into()), root.child("/a#0".into()));
        assert!(first.root.take_retry());
        assert!(!second.root.take_retry());
    }
}
