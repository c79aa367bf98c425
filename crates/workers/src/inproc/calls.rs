//! Calls that Rust models make of other endpoints.
//!
//! A model runs on a thread of its own and blocks while it waits. What its calls inherit comes from the
//! jobs that the thread computes, which are known on that thread only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use litplex_core::{
    BoxFuture, CallError, CallId, Called, Calls, Hook, Invocation, Job, JobTrace, MediaType,
    Origin, Outcome, Parent, Part, PartStream, Request, Response, Root, ServeError, Waits,
    WorkerKey,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

thread_local! {
    /// The jobs that the thread computes, as their calls see them.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The jobs that a thread computes.
#[derive(Clone)]
struct Current {
    parent: Parent,
    /// The label of the endpoint.
    caller: Arc<str>,
}

/// The endpoints of a server, as Rust models call them.
#[derive(Clone)]
pub struct Callees {
    calls: Arc<dyn Calls>,
    runtime: Handle,
}

impl fmt::Debug for Callees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callees").finish_non_exhaustive()
    }
}

impl Callees {
    /// Returns the callees of models whose calls are carried out by the tasks of this runtime.
    pub fn new(calls: Arc<dyn Calls>, runtime: Handle) -> Self {
        Self { calls, runtime }
    }

    /// Returns a handle of the endpoint with this path or name.
    pub fn endpoint(&self, endpoint: impl Into<String>) -> Callee {
        Callee { callees: self.clone(), endpoint: endpoint.into(), timeout: None }
    }
}

/// A handle of another endpoint of the server. Its calls have the time budget, the request id, the trace
/// and the scopes of the requests that the model computes; they block the model's thread.
#[derive(Debug, Clone)]
pub struct Callee {
    callees: Callees,
    endpoint: String,
    timeout: Option<Duration>,
}

impl Callee {
    /// Sets the longest time of a call. Default: what is left of the time of the request.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Returns a handle of another endpoint, by path or name: one that is known only now, and that the
    /// program does not declare.
    #[must_use]
    pub fn other(&self, endpoint: impl Into<String>) -> Self {
        self.callees.endpoint(endpoint)
    }

    /// Calls the endpoint with an input as JSON, and returns its response. The response to a stream is a
    /// list of its items.
    ///
    /// # Errors
    /// The error of the endpoint, with its status; 500 if one of the two values has another form than its
    /// type; 409 outside of `predict`; 499 if the client leaves.
    pub fn call<I: Serialize, O: DeserializeOwned>(&self, input: &I) -> Result<O, CallError> {
        let call = self.begin(input, false)?;
        self.callees.runtime.block_on(self.value(call))
    }

    /// Calls the endpoint once for each input, all at the same time, and returns the result of each, in
    /// their order.
    pub fn map<'i, I: Serialize + 'i, O: DeserializeOwned>(
        &self,
        inputs: impl IntoIterator<Item = &'i I>,
    ) -> Vec<Result<O, CallError>> {
        let calls = inputs.into_iter().map(|input| {
            let call = self.begin(input, false);
            async move { self.value(call?).await }
        });
        self.callees.runtime.block_on(join_all(calls.collect::<Vec<_>>()))
    }

    /// Calls the endpoint and returns an iterator over the items of its stream as they come. A drop of the
    /// iterator cancels the call.
    ///
    /// # Errors
    /// The error of the endpoint before its first item; as for [`call`](Self::call).
    pub fn stream<I: Serialize, O: DeserializeOwned>(
        &self,
        input: &I,
    ) -> Result<impl Iterator<Item = Result<O, CallError>> + use<I, O>, CallError> {
        let RunningCall { future, mut ends } = self.begin(input, true)?;
        let runtime = self.callees.runtime.clone();
        let called = runtime.block_on(ends.unless_ended(future));
        let (mut ready, mut rest) = called.and_then(|it| self.parts(it)).map_err(ends.naming())?;
        let endpoint = self.endpoint.clone();
        Ok(std::iter::from_fn(move || {
            loop {
                if let Some(item) = ready.pop_front() {
                    return Some(parsed(&endpoint, &item).map_err(ends.naming()));
                }
                let parts = rest.as_mut()?;
                match runtime.block_on(ends.next_part(&mut **parts)) {
                    Part::Items(items) => ready.extend(items.iter().map(<[u8]>::to_vec)),
                    Part::End => rest = None,
                    Part::Failed(error) => {
                        rest = None;
                        return Some(Err(ends.naming()(error)));
                    }
                }
            }
        }))
    }

    /// Begins a call.
    fn begin<I: Serialize>(&self, input: &I, stream: bool) -> Result<RunningCall, CallError> {
        let Some(Current { parent, caller }) = CURRENT.with_borrow(Clone::clone) else {
            let detail = "this call is made for no request; call within `predict`";
            return Err(CallError::new(ServeError::new(409, detail), vec![self.endpoint.clone()]));
        };
        let path = parent.origin.path();
        let path = path.iter().map(ToString::to_string).chain([self.endpoint.clone()]).collect();
        let ends = CallEnds { parent, path };
        let request = self.request(input, &ends.parent).map_err(ends.naming())?;
        let invocation = Invocation {
            caller,
            endpoint: self.endpoint.clone(),
            parent: ends.parent.clone(),
            request,
            timeout: self.timeout,
            waits: Waits::Polling,
            stream: Some(stream),
            takes_items: stream,
        };
        let future = self.callees.calls.call(invocation, Box::new(|_| {}));
        Ok(RunningCall { future, ends })
    }

    fn request<I: Serialize>(&self, input: &I, parent: &Parent) -> Outcome<Request> {
        let body = serde_json::to_vec(input).map_err(|error| {
            failed(&self.endpoint, &format!("its input cannot be written as JSON: {error}"))
        })?;
        let reservation = parent.reservation.clone();
        reservation.grow(body.len())?;
        Ok(Request { id: parent.id.clone(), reservation, ..Request::json(body) })
    }

    /// Returns the response of a call.
    async fn value<O: DeserializeOwned>(&self, call: RunningCall) -> Result<O, CallError> {
        let RunningCall { future, mut ends } = call;
        let text = ends.unless_ended(async { self.text(future.await?).await }).await;
        text.and_then(|text| parsed(&self.endpoint, &text)).map_err(ends.naming())
    }

    /// Returns the response to a call as JSON: a stream as a list of its items.
    async fn text(&self, called: Called) -> Outcome<Vec<u8>> {
        let (first, rest) = match called {
            Called::Whole(response) => return self.whole(response),
            Called::Stream(first, rest) => (first, rest),
        };
        let (mut list, mut part, mut rest) = (b"[".to_vec(), Part::Items(first), rest);
        loop {
            match part {
                Part::Items(items) => {
                    for item in items.iter() {
                        if list.len() > 1 {
                            list.push(b',');
                        }
                        list.extend_from_slice(item);
                    }
                }
                Part::End => break,
                Part::Failed(error) => return Err(error),
            }
            part = poll_fn(|cx| rest.poll_part(cx)).await;
        }
        list.push(b']');
        Ok(list)
    }

    /// Returns the first items of a stream, and the rest of it.
    fn parts(&self, called: Called) -> Outcome<Parts> {
        Ok(match called {
            Called::Whole(response) => ([self.whole(response)?].into(), None),
            Called::Stream(first, rest) => (first.iter().map(<[u8]>::to_vec).collect(), Some(rest)),
        })
    }

    /// Returns the JSON text of a response.
    fn whole(&self, response: Response) -> Outcome<Vec<u8>> {
        if response.status >= 400 {
            return Err(refusal(response));
        }
        if response.media_type != MediaType::Json {
            return Err(failed(&self.endpoint, "its response is not JSON"));
        }
        Ok(response.body.into())
    }
}

type Parts = (VecDeque<Vec<u8>>, Option<Box<dyn PartStream>>);

/// A call that was begun.
struct RunningCall {
    future: BoxFuture<'static, Outcome<Called>>,
    ends: CallEnds,
}

/// The parent of a call, whose end is that of the call, and the path that names it in an error.
struct CallEnds {
    parent: Parent,
    /// The path of calls.
    path: Vec<String>,
}

impl CallEnds {
    /// Returns the outcome of a part of the call, unless no client needs it any longer.
    async fn unless_ended<T>(&mut self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            () = self.parent.ended() => Err(ServeError::cancelled()),
        }
    }

    async fn next_part(&mut self, rest: &mut dyn PartStream) -> Part {
        let part = self.unless_ended(async { Ok(poll_fn(|cx| rest.poll_part(cx)).await) }).await;
        part.unwrap_or_else(Part::Failed)
    }

    /// Returns a function that adds the path of calls to an error.
    fn naming(&self) -> impl FnOnce(ServeError) -> CallError {
        let path = self.path.clone();
        move |error| CallError::new(error, path)
    }
}

/// Returns the error that a callee has answered with.
fn refusal(response: Response) -> ServeError {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Body {
        detail: serde_json::Value,
        calls: Vec<String>,
    }
    let Response { status, headers, body, .. } = response;
    let Body { detail, calls } = serde_json::from_slice(&body).unwrap_or_default();
    let detail = match detail {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => "it failed".into(),
        other => other.to_string(),
    };
    let retry_after = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    let retry_after = retry_after.and_then(|(_, seconds)| seconds.parse().ok());
    ServeError { retry_after, calls: calls.into(), ..ServeError::new(status, detail) }
}

fn parsed<O: DeserializeOwned>(endpoint: &str, json: &[u8]) -> Outcome<O> {
    serde_json::from_slice(json)
        .map_err(|error| failed(endpoint, &format!("its response has another form: {error}")))
}

fn failed(endpoint: &str, reason: &str) -> ServeError {
    ServeError::new(500, format!("the call of {endpoint} failed: {reason}"))
}

/// A worker, as the calls of its model know it.
pub(super) struct Calling {
    calls: Arc<dyn Calls>,
    worker: WorkerKey,
    endpoint: Arc<str>,
    name: Arc<str>,
}

impl Calling {
    /// Adds the worker of a slot of this endpoint.
    pub(super) fn attach(callees: &Callees, endpoint: &str, slot: usize, name: &str) -> Self {
        let calls = callees.calls.clone();
        let worker = calls.attached(slot, 1);
        Self { calls, worker, endpoint: endpoint.into(), name: name.into() }
    }

    /// Begins to compute jobs on this thread. Their calls end with the returned guard.
    pub(super) fn begin(&self, jobs: &[Job]) -> Computing<'_> {
        let held: Vec<_> = jobs.iter().filter_map(|job| job.origin.as_ref()?.call).collect();
        held.iter().for_each(|call| self.calls.held(*call, self.worker, 0));
        let (live, watch) = watch::channel(());
        CURRENT.set(jobs.first().map(|first| Current {
            parent: self.parent(first, jobs, watch),
            caller: self.endpoint.clone(),
        }));
        Computing { calling: self, held, _live: live }
    }

    /// Returns the properties that calls for these jobs inherit. `computing` closes after they were
    /// computed.
    fn parent(&self, first: &Job, jobs: &[Job], computing: watch::Receiver<()>) -> Parent {
        let origins = jobs.iter().filter_map(|job| job.origin.as_deref());
        let deepest = origins.clone().max_by_key(|origin| origin.depth).cloned();
        let deepest = deepest.unwrap_or_default().child(self.name.clone());
        let origin = Origin { root: Root::common(origins.map(|it| &it.root)), ..deepest };
        let trace = jobs.iter().find_map(|job| job.reply.trace());
        let live: Option<_> = jobs.iter().map(|job| job.live.clone()).collect();
        Parent {
            origin,
            deadline: jobs.iter().map(|job| job.deadline).max().unwrap_or_else(Instant::now),
            id: first.request.id.clone(),
            trace: trace.map(JobTrace::for_calls),
            reservation: first.request.reservation.another(),
            live: live.unwrap_or_else(|| vec![computing]),
            hook: Some(Hook { worker: self.worker, items: vec![0] }),
        }
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.calls.gone(self.worker);
    }
}

/// The guard of jobs that a thread computes.
pub(super) struct Computing<'c> {
    calling: &'c Calling,
    held: Vec<CallId>,
    _live: watch::Sender<()>,
}

impl Computing<'_> {
    /// Returns a function that reports a part of a stream, before it is sent.
    pub(super) fn part_reporter(&self) -> impl Fn() + Send + Sync + 'static {
        let (calls, held) = (self.calling.calls.clone(), self.held.clone());
        move || held.iter().for_each(|call| calls.resumed(*call))
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        CURRENT.set(None);
        self.held.iter().for_each(|call| self.calling.calls.ended(*call));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use litplex_core::{Begun, reply};
    use tokio::time::timeout;

    use super::*;

    /// Notes the calls, which never end.
    #[derive(Default)]
    struct Noted(Mutex<Vec<Invocation>>);

    impl Calls for Noted {
        fn attached(&self, _: usize, _: usize) -> WorkerKey {
            WorkerKey(4)
        }
        fn retiring(&self, _: WorkerKey) {}
        fn gone(&self, _: WorkerKey) {}
        fn held(&self, _: CallId, _: WorkerKey, _: u64) {}
        fn requeued(&self, _: CallId) {}
        fn resumed(&self, _: CallId) {}
        fn ended(&self, _: CallId) {}
        fn waits(&self, _: CallId, _: u64) {}
        fn call(&self, it: Invocation, _: Begun) -> BoxFuture<'static, Outcome<Called>> {
            self.0.lock().unwrap().push(it);
            Box::pin(std::future::pending())
        }
    }

    fn job(seconds: u64, origin: Origin, live: &watch::Sender<()>) -> Job {
        let now = Instant::now();
        let request = Request { id: Some(format!("id {seconds}")), ..Request::json("1") };
        let job = Job::new(request, now, now + Duration::from_secs(seconds), reply().0);
        Job { origin: Some(Arc::new(origin)), live: Some(live.subscribe()), ..job }
    }

    #[tokio::test]
    async fn a_call_inherits_what_its_requests_hand_down_and_ends_with_the_last_of_them() {
        let noted = Arc::new(Noted::default());
        let callees = Callees::new(noted.clone(), Handle::current());
        let scopes = |scopes: &[&str]| scopes.iter().map(ToString::to_string).collect();
        let (first, second) = (watch::Sender::new(()), watch::Sender::new(()));
        let jobs = [
            job(5, Origin::with_scopes(scopes(&["read", "write"])), &first),
            job(9, Origin::with_scopes(scopes(&["read"])).child("/a#0".into()), &second),
        ];
        let deadline = jobs[1].deadline;
        let run = tokio::task::spawn_blocking(move || {
            let calling = Calling::attach(&callees, "/b", 1, "/b#1");
            let _computing = calling.begin(&jobs);
            let callee = callees.endpoint("/c").timeout(Duration::from_secs(1));
            callee.call::<_, u32>(&7)
        });
        while noted.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let invocation = noted.0.lock().unwrap().remove(0);
        let Invocation { caller, endpoint, parent, request, timeout: limit, waits, .. } =
            invocation;
        assert_eq!((&*caller, &*endpoint), ("/b", "/c"));
        assert!(matches!(waits, Waits::Polling));
        assert_eq!((limit, parent.deadline), (Some(Duration::from_secs(1)), deadline));
        assert_eq!(request.id.as_deref(), Some("id 5"));
        assert_eq!(parent.origin.path(), [Arc::from("/a#0"), Arc::from("/b#1")]);
        assert_eq!(parent.origin.depth, 2);
        assert_eq!(parent.origin.root.scopes.as_deref(), Some(&["read".to_owned()][..]));
        assert_eq!(parent.hook, Some(Hook { worker: WorkerKey(4), items: vec![0] }));
        drop(first);
        let mut run = run;
        let waited = timeout(Duration::from_millis(50), &mut run).await;
        assert!(waited.is_err(), "one of its clients waits");
        drop(second);
        let error = run.await.unwrap().unwrap_err();
        assert_eq!(
            (error.status, error.calls),
            (499, vec!["/a#0".into(), "/b#1".into(), "/c".into()])
        );
    }
}
