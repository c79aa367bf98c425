//! Requests to endpoints, between HTTP and the call: reads the body, describes the request to the model,
//! and returns its response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderName};
use http::request::Parts;
use litplex_calls::{Call, ObservedRequest, TimeBudget};
use litplex_core::{
    Content, ErrorCause, MemoryBudget, Meta, ModelInfo, Origin, Outcome, Priority, Reservation,
    ServeError,
};
use litplex_http_core::body::Body;
use litplex_http_core::form::latin;
use litplex_http_core::headers::{X_LITPLEX_PRIORITY, X_REQUEST_ID};
use litplex_http_core::read_body;
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::HttpResponse;
use litplex_http_core::stream::asks_for_items;
use litplex_metrics::Shed;
use tokio::time::{Instant, timeout_at};

use crate::dialect::Exchange;
use crate::endpoint::Route;
use crate::{plain, registry};

/// The time budget that a client has left for its request, in seconds.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// Takes a request to an endpoint from its headers to the beginning of its response.
pub async fn predict(
    memory: &Arc<MemoryBudget>,
    route: &Route,
    parts: &Parts,
    body: Body,
) -> Outcome<HttpResponse> {
    let arrived = body.arrived().unwrap_or_else(Instant::now);
    let mut call = begin_call(arrived, route, parts)?;
    // Before the body is read: a server that cannot serve must not take it.
    call.target.ready(call.budget).await?;
    let reservation = memory.reserve();
    let read = read_body::read(&parts.headers, body, route.max_body_bytes, &reservation);
    let read = timeout_at(call.budget.deadline, read).await.unwrap_or_else(|_| Err(slow_client()));
    let (content, body) = read.inspect_err(|error| shed_for_memory(route, error))?;
    let observed = call.admit(route.target.registry())?;
    // Not in a function around `compute`: each level would hold the call and the body once more.
    let answered = compute(route, parts, call, Received { content, body, reservation }).await;
    tell(observed.as_deref(), &answered);
    answered
}

/// Begins the call of a request that arrived at this instant.
pub(crate) fn begin_call(arrived: Instant, route: &Route, parts: &Parts) -> Outcome<Call> {
    let target = route.target.get().ok_or_else(|| ServeError::not_found("Not Found"))?;
    let (trace, origin) = (parts.extensions.get().cloned(), parts.extensions.get::<Arc<Origin>>());
    let target = target.chosen(origin.map(|origin| &*origin.root));
    let origin = match priority(&parts.headers)? {
        Priority::Interactive => origin.cloned(),
        Priority::Batch => Some(in_batch_class(origin)),
    };
    let budget = TimeBudget::new(arrived, time_budget(target.timeout, &parts.headers)?);
    let takes_items = asks_for_items(&parts.headers);
    Ok(Call { target, budget, trace, origin, takes_items, is_split: false })
}

/// Returns the origin of a request as one in the class `batch`.
pub(crate) fn in_batch_class(origin: Option<&Arc<Origin>>) -> Arc<Origin> {
    let origin = origin.map(|origin| (**origin).clone()).unwrap_or_default();
    Arc::new(origin.with_priority(Priority::Batch))
}

/// A body that was read.
pub(crate) struct Received {
    pub(crate) content: Content,
    pub(crate) body: Vec<Bytes>,
    /// The memory that it takes.
    pub(crate) reservation: Reservation,
}

/// Tells the observer of a request of its response.
pub(crate) fn tell(observed: Option<&ObservedRequest>, answered: &Outcome<HttpResponse>) {
    if let Some(observed) = observed {
        let status = answered.as_ref().map_or_else(ServeError::status, |it| it.status().as_u16());
        observed.answered(status, Instant::now());
    }
}

/// Takes a request from its body, which was read, to its response.
pub(crate) async fn compute(
    route: &Route,
    parts: &Parts,
    call: Call,
    received: Received,
) -> Outcome<HttpResponse> {
    let Received { content, body, reservation } = received;
    let info = call.target.info()?;
    let id = route.tells_ids.then(|| id_of(parts)).flatten();
    let meta = meta(info, parts).map(Arc::new);
    reservation.grow(meta.as_ref().map_or(0, |meta| meta.bytes()))?;
    let takes_values = false;
    let request = litplex_core::Request { content, body, meta, id, takes_values, reservation };
    // Dropping a call, here or because the client left, is what cancels its jobs.
    match registry::for_model(info) {
        None => plain::respond(call.run(request).await?, parts, route),
        Some(dialect) => {
            let budget = call.budget;
            let &Route { ping_interval, max_body_bytes, .. } = route;
            let endpoint = &*route.identity.label;
            let (name, stream) = (RequestName::new(&parts.headers, &parts.extensions), None);
            let exchange =
                Exchange { endpoint, request, name, call, ping_interval, max_body_bytes, stream };
            let answered = dialect.serve(exchange);
            budget.bound(async { Ok(answered.await) }).await
        }
    }
}

/// Returns the time budget of a request: its client may shorten it, in seconds.
pub(crate) fn time_budget(longest: Duration, headers: &HeaderMap) -> Outcome<Duration> {
    let Some(given) = headers.get(REQUEST_TIMEOUT) else { return Ok(longest) };
    let seconds = given.to_str().ok().and_then(|given| given.trim().parse::<f64>().ok());
    match seconds {
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            // A duration that overflows is longer than the longest one.
            Ok(Duration::try_from_secs_f64(seconds).map_or(longest, |budget| budget.min(longest)))
        }
        _ => {
            let detail = format!(
                "`X-Request-Timeout` must be a number of seconds greater than 0, not {given:?}"
            );
            Err(ServeError::malformed(detail))
        }
    }
}

/// Returns the class that the client gives its request.
fn priority(headers: &HeaderMap) -> Outcome<Priority> {
    let Some(given) = headers.get(X_LITPLEX_PRIORITY) else { return Ok(Priority::default()) };
    let named = given.to_str().ok().and_then(|name| Priority::from_name(name.trim()));
    named.ok_or_else(|| {
        let detail =
            format!("`X-Litplex-Priority` must be \"interactive\" or \"batch\", not {given:?}");
        ServeError::malformed(detail)
    })
}

fn meta(info: &ModelInfo, parts: &Parts) -> Option<Meta> {
    info.context.then(|| Meta {
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
    // The body was decompressed, so that its length is another.
    let is_compressed = headers.contains_key(CONTENT_ENCODING);
    let is_told =
        |name: &HeaderName| !is_compressed || ![CONTENT_ENCODING, CONTENT_LENGTH].contains(name);
    let told = headers.iter().filter(|(name, _)| is_told(name));
    told.map(|(name, value)| (name.to_string(), latin(value.as_bytes()))).collect()
}

/// Counts a request that was refused because the memory budget is used up.
pub(crate) fn shed_for_memory(route: &Route, error: &ServeError) {
    if error.cause == ErrorCause::Overloaded {
        route.metrics.shed(Shed::Memory);
    }
}

pub(crate) fn slow_client() -> ServeError {
    ServeError::slow_client("the request body did not arrive in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the size of the future that an async function of four arguments returns.
    fn future_size<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_call_stays_small() {
        // It is copied at each level while it is built; rare branches are boxed.
        assert!(future_size(predict) < 2_500, "{} bytes", future_size(predict));
    }
}
