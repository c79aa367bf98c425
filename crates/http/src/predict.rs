//! Requests to endpoints, between HTTP and the call: reads a body, describes the request to the model,
//! and takes what comes of it to the response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderName};
use http::request::Parts;
use litplex_core::{Content, Meta, Outcome, Protocol, Reservation, ServeError, Traits};
use litplex_metrics::Shed;
use tokio::time::{Instant, timeout_at};

use crate::answer::{self, HttpResponse};
use crate::app::{App, Route};
use crate::around::{Body, X_REQUEST_ID};
use crate::caller::{Call, Caller, Times};
use crate::form::latin;
use crate::{body, openai};

/// What a client has left for its request, in seconds.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

pub(crate) fn is_plain(route: &Route) -> bool {
    route.endpoint.traits().is_none_or(|traits| traits.protocol == Protocol::Plain)
}

/// Says what went wrong in the words of the endpoint's protocol.
pub(crate) fn refusal(route: &Route, error: &ServeError) -> HttpResponse {
    if is_plain(route) { answer::error(error) } else { openai::error(error) }
}

/// The life of a request to an endpoint, in order:
pub(crate) async fn predict(
    app: &App,
    route: &Route,
    parts: &Parts,
    body: Body,
) -> Outcome<HttpResponse> {
    let times = times_since(Instant::now(), route, &parts.headers)?;
    // Before the body is read: a server that cannot serve must not take it.
    if app.is_patient {
        let ready = timeout_at(times.deadline, route.endpoint.ready()).await;
        ready.map_err(|_| starting(route))?;
    }
    route.endpoint.traits().ok_or_else(|| starting(route))?;
    let reservation = app.budget.reserve();
    let read = body::read(&parts.headers, body, route, &reservation);
    let read = timeout_at(times.deadline, read).await.unwrap_or_else(|_| Err(slow_client()));
    let (content, body) = read.inspect_err(|error| shed_for_memory(route, error))?;
    compute(route, parts, times, Received { content, body, reservation }).await
}

/// Returns the time budget of a request that has arrived then.
pub(crate) fn times_since(arrived: Instant, route: &Route, headers: &HeaderMap) -> Outcome<Times> {
    Ok(Times { arrived, deadline: arrived + time_budget(route.timeout, headers)? })
}

/// A body that was read.
pub(crate) struct Received {
    pub(crate) content: Content,
    pub(crate) body: Vec<Bytes>,
    /// What it takes.
    pub(crate) reservation: Reservation,
}

/// Takes a request from its body, which was read, to its answer.
pub(crate) async fn compute(
    route: &Route,
    parts: &Parts,
    times: Times,
    received: Received,
) -> Outcome<HttpResponse> {
    let Received { content, body, reservation } = received;
    let traits = route.endpoint.traits().ok_or_else(|| starting(route))?;
    let id = route.tells_ids.then(|| id_of(parts)).flatten();
    let meta = meta(traits, parts).map(Arc::new);
    reservation.grow(meta.as_ref().map_or(0, |meta| meta.bytes()))?;
    let request = litplex_core::Request { content, body, meta, id, reservation };
    let trace = parts.extensions.get().cloned();
    let answered = async {
        let call = Call { route, path: parts.uri.path(), request, times, trace };
        match traits.protocol {
            Protocol::Plain => plain(call, &parts.headers).await,
            protocol => Ok(Box::pin(openai::answer(protocol, call)).await),
        }
    };
    // Dropping the callers, here or because the client left, is what cancels their jobs.
    timeout_at(times.deadline, answered).await.unwrap_or_else(|_| Err(ServeError::deadline()))
}

async fn plain(call: Call<'_>, asked: &HeaderMap) -> Outcome<HttpResponse> {
    let cost = call.cost(&call.request).await?;
    let Call { route, request, times, trace, .. } = call;
    let caller = Caller::submit(&route.endpoint, request, cost, times, trace);
    let (answer, presence) = caller.answer().await?;
    answer::from(answer, asked, route, times, presence)
}

/// Returns the time budget of a request: its client may shorten it, in seconds.
fn time_budget(longest: Duration, headers: &HeaderMap) -> Outcome<Duration> {
    let Some(asked) = headers.get(REQUEST_TIMEOUT) else { return Ok(longest) };
    let seconds = asked.to_str().ok().and_then(|asked| asked.trim().parse::<f64>().ok());
    match seconds {
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            // More than a duration can hold is more than there is.
            Ok(Duration::try_from_secs_f64(seconds).map_or(longest, |budget| budget.min(longest)))
        }
        _ => {
            let detail = format!(
                "`X-Request-Timeout` must be a number of seconds greater than 0, not {asked:?}"
            );
            Err(ServeError::new(400, detail))
        }
    }
}

fn meta(traits: &Traits, parts: &Parts) -> Option<Meta> {
    traits.context.then(|| Meta {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: header_pairs(&parts.headers),
    })
}

fn id_of(parts: &Parts) -> Option<String> {
    parts.headers.get(X_REQUEST_ID)?.to_str().ok().map(str::to_owned)
}

fn header_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    // The body is unpacked, and its length another.
    let is_packed = headers.contains_key(CONTENT_ENCODING);
    let is_told =
        |name: &HeaderName| !is_packed || ![CONTENT_ENCODING, CONTENT_LENGTH].contains(name);
    let told = headers.iter().filter(|(name, _)| is_told(name));
    told.map(|(name, value)| (name.to_string(), latin(value.as_bytes()))).collect()
}

fn starting(route: &Route) -> ServeError {
    route.metrics.shed(Shed::NoWorker);
    ServeError::unavailable("this endpoint is not ready yet", 1)
}

/// Counts a request that was refused for want of memory.
fn shed_for_memory(route: &Route, error: &ServeError) {
    if error.status == 503 {
        route.metrics.shed(Shed::Memory);
    }
}

pub(crate) fn slow_client() -> ServeError {
    ServeError::new(408, "the request body did not arrive in time")
}
