//! Calls that Rust models make of other endpoints.
//!
//! A model runs on a thread of its own and blocks while it waits. What its calls inherit comes from the
//! jobs that the thread computes, which are known on that thread only.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use litplex_core::{
    CallId, Called, Calls, Hook, Invocation, Job, MediaType, Origin, Outcome, Parent, Part,
    PartStream, Request, Root, ServeError, WorkerKey,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

thread_local! {
    /// The jobs that the thread computes, as their calls see them.
    static CURRENT: RefCell<Option<Parent>> = const { RefCell::new(None) };
}

/// The endpoints that a Rust model may call; it gets them when it is loaded.
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

    /// Calls the endpoint with an input as JSON, and returns its response. The response to a stream is a
    /// list of its items.
    ///
    /// # Errors
    /// The error of the endpoint, with its status; 500 if one of the two values has another form than its
    /// type; 409 outside of `predict`.
    pub fn call<I: Serialize, O: DeserializeOwned>(&self, input: &I) -> Outcome<O> {
        let call = self.begin(input)?;
        self.callees.runtime.block_on(async { self.value(call.await?).await })
    }

    /// Calls the endpoint once for each input, all at the same time, and returns an outcome for each, in
    /// their order.
    pub fn map<'i, I: Serialize + 'i, O: DeserializeOwned>(
        &self,
        inputs: impl IntoIterator<Item = &'i I>,
    ) -> Vec<Outcome<O>> {
        let calls = inputs.into_iter().map(|input| {
            let call = self.begin(input);
            async move { self.value(call?.await?).await }
        });
        self.callees.runtime.block_on(join_all(calls.collect::<Vec<_>>()))
    }

    /// Calls the endpoint and returns an iterator over the items of its stream as they come. A drop of the
    /// iterator cancels the call.
    ///
    /// # Errors
    /// The error of the endpoint before its first item.
    pub fn stream<I: Serialize, O: DeserializeOwned>(
        &self,
        input: &I,
    ) -> Outcome<impl Iterator<Item = Outcome<O>>> {
        let call = self.begin_as(input, true)?;
        let called = self.callees.runtime.block_on(call)?;
        let (mut ready, mut rest) = self.parts(called)?;
        let (runtime, endpoint) = (self.callees.runtime.clone(), self.endpoint.clone());
        Ok(std::iter::from_fn(move || {
            loop {
                if let Some(item) = ready.pop_front() {
                    return Some(parsed(&endpoint, &item));
                }
                let parts = rest.as_mut()?;
                match runtime.block_on(poll_fn(|cx| parts.poll_part(cx))) {
                    Part::Items(items) => ready.extend(items.iter().map(<[u8]>::to_vec)),
                    Part::End => rest = None,
                    Part::Failed(error) => {
                        rest = None;
                        return Some(Err(error));
                    }
                }
            }
        }))
    }

    fn begin<I: Serialize>(
        &self,
        input: &I,
    ) -> Outcome<impl Future<Output = Outcome<Called>> + use<I>> {
        self.begin_as(input, false)
    }

    fn begin_as<I: Serialize>(
        &self,
        input: &I,
        stream: bool,
    ) -> Outcome<impl Future<Output = Outcome<Called>> + use<I>> {
        let parent = CURRENT.with_borrow(Clone::clone).ok_or_else(|| {
            ServeError::new(409, "this call is made for no request; call within `predict`")
        })?;
        let body = serde_json::to_vec(input).map_err(|error| {
            self.failed(&format!("its input cannot be written as JSON: {error}"))
        })?;
        let reservation = parent.reservation.clone();
        reservation.grow(body.len())?;
        let request = Request { id: parent.id.clone(), reservation, ..Request::json(body) };
        let invocation = Invocation {
            endpoint: self.endpoint.clone(),
            parent,
            request,
            timeout: self.timeout,
            waits: true,
            stream: Some(stream),
        };
        Ok(self.callees.calls.call(invocation, &mut |_| {}))
    }

    async fn value<O: DeserializeOwned>(&self, called: Called) -> Outcome<O> {
        let (first, rest) = match called {
            Called::Whole(response) => {
                return parsed(&self.endpoint, &self.whole(response)?);
            }
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
        parsed(&self.endpoint, &list)
    }

    /// Returns the first items of a stream, and the rest of it.
    fn parts(&self, called: Called) -> Outcome<Parts> {
        Ok(match called {
            Called::Whole(response) => ([self.whole(response)?].into(), None),
            Called::Stream(first, rest) => (first.iter().map(<[u8]>::to_vec).collect(), Some(rest)),
        })
    }

    /// Returns the JSON text of a response.
    fn whole(&self, response: litplex_core::Response) -> Outcome<Vec<u8>> {
        #[derive(serde::Deserialize)]
        struct Failure {
            detail: String,
        }
        let litplex_core::Response { status, media_type, body, .. } = response;
        if status >= 400 {
            let detail = serde_json::from_slice(&body).map(|Failure { detail }| detail);
            let detail = detail.unwrap_or_else(|_| "it failed".into());
            return Err(ServeError::new(status, format!("{}: {detail}", self.endpoint)));
        }
        if media_type != MediaType::Json {
            return Err(self.failed("its response is not JSON"));
        }
        Ok(body.into())
    }

    fn failed(&self, reason: &str) -> ServeError {
        failed(&self.endpoint, reason)
    }
}

type Parts = (std::collections::VecDeque<Vec<u8>>, Option<Box<dyn PartStream>>);

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
    name: Arc<str>,
}

impl Calling {
    /// Adds the worker of a slot of this endpoint.
    pub(super) fn attach(callees: &Callees, endpoint: &str, slot: usize, name: &str) -> Self {
        let calls = callees.calls.clone();
        let worker = calls.attached(endpoint, slot, 1);
        Self { calls, worker, name: name.into() }
    }

    /// Begins to compute jobs on this thread. Their calls end with the returned guard.
    pub(super) fn begin(&self, jobs: &[Job]) -> Computing<'_> {
        let held: Vec<_> = jobs.iter().filter_map(|job| job.origin.as_ref()?.call).collect();
        held.iter().for_each(|call| self.calls.held(*call, self.worker, 0));
        let (live, watch) = watch::channel(());
        CURRENT.set(jobs.first().map(|first| self.parent(first, jobs, watch)));
        Computing { calling: self, held, _live: live }
    }

    fn parent(&self, first: &Job, jobs: &[Job], live: watch::Receiver<()>) -> Parent {
        let origins = jobs.iter().filter_map(|job| job.origin.as_deref());
        let deepest = origins.clone().max_by_key(|origin| origin.depth).cloned();
        let deepest = deepest.unwrap_or_default().child(self.name.clone());
        let origin = Origin { root: Root::common(origins.map(|it| &it.root)), ..deepest };
        let trace = jobs.iter().find_map(|job| job.reply.trace());
        Parent {
            origin,
            deadline: jobs.iter().map(|job| job.deadline).max().unwrap_or_else(Instant::now),
            id: first.request.id.clone(),
            trace: trace.map(|trace| trace.trace().clone()),
            reservation: first.request.reservation.another(),
            live: vec![live],
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

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        CURRENT.set(None);
        self.held.iter().for_each(|call| self.calling.calls.ended(*call));
    }
}
