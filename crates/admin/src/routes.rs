//! The routes of the admin API, and the `OpenAPI` document that describes them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::openapi::response::Response as Described;
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::dashboard::{self, DASHBOARD};
use crate::event::Event;
use crate::feed::FeedReader;
use crate::forward;
use crate::history::{EndpointHistory, HistoryQuery, Load};
use crate::inventory::{CallGraph, Configuration, EndpointBatches, KeyHolders};
use crate::operations::{Admin, Refusal, RefusalKind, ReloadOptions};
use crate::requests::{RecentRequests, RequestDetails, RequestQuery};
use crate::status::{
    EndpointGenerations, EndpointMode, EndpointStatus, ErrorBody, LogLevel, MemoryPlan, Mode,
    ProgramReloaded, Reload, ReloadProgram, Reloaded, Rollback, Scale, Scaled, Session, Status,
    Upgrade, Upgraded, WorkerCount,
};

/// The most workers of an endpoint.
const MAX_WORKERS: usize = 1024;

/// The longest time that the workers of a new generation, or a new server, may take to become ready: a day.
const MAX_LIMIT: Duration = Duration::from_secs(86_400);

/// The number of lines of the log that a client gets if it does not say how many.
const LOG_LINES: usize = 100;

/// The header with which a client of an event stream says how far it has read.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "litplex admin API",
        description = "Operations on a running litplex server. `{endpoint}` is the path of an endpoint \
                   (percent-encoded), its name or an alias."
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// The response that refuses a request with this status, as the document describes it.
enum Refused<const STATUS: u16> {}

type Invalid = Refused<400>;
type NotFound = Refused<404>;
type Conflict = Refused<409>;

impl<const STATUS: u16> IntoResponses for Refused<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        let response = ResponseBuilder::new().content("application/json", body).build();
        BTreeMap::from([(STATUS.to_string(), RefOr::T(response))])
    }
}

/// The end of the responses that would never end: those that follow something.
#[derive(Debug, Clone)]
pub(crate) struct Ending(pub(crate) watch::Receiver<bool>);

impl Ending {
    /// Resolves when responses that follow something are to end; never if none of them must.
    pub(crate) async fn ended(ending: Option<Self>) {
        if let Some(Self(mut ends)) = ending
            && ends.wait_for(|ends| *ends).await.is_ok()
        {
            return;
        }
        pending::<()>().await;
    }
}

type Operations = State<Arc<dyn Admin>>;

/// Returns the service of the admin API, and of the dashboard with the API below it.
pub(crate) fn router(admin: Arc<dyn Admin>) -> axum::Router {
    let api = api(admin);
    let router = api.clone().merge(dashboard::routes()).nest(DASHBOARD, api);
    with_fallbacks(router)
}

/// Returns the service of the dashboard, with this page, and of the API below it.
pub(crate) fn below_dashboard(admin: Arc<dyn Admin>, page: &'static str) -> axum::Router {
    with_fallbacks(dashboard::files(page).nest(DASHBOARD, api(admin)))
}

fn with_fallbacks(router: axum::Router) -> axum::Router {
    router.fallback(unknown_route).method_not_allowed_fallback(unknown_method)
}

/// Returns the operations, and the document that describes them.
fn api(admin: Arc<dyn Admin>) -> axum::Router {
    let (router, document) = documented().split_for_parts();
    let document = Json(document);
    let get_document = axum::routing::get(move || async move { document });
    router.route("/openapi.json", get_document).with_state(admin)
}

/// Returns the `OpenAPI` document of the admin API, without a server.
pub fn document() -> serde_json::Value {
    serde_json::to_value(documented().get_openapi()).unwrap_or_default()
}

fn documented() -> OpenApiRouter<Arc<dyn Admin>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(session))
        .routes(routes!(server))
        .routes(routes!(endpoint))
        .routes(routes!(scale))
        .routes(routes!(reload))
        .routes(routes!(promote))
        .routes(routes!(rollback))
        .routes(routes!(generations))
        .routes(routes!(reload_program))
        .routes(routes!(pause))
        .routes(routes!(drain))
        .routes(routes!(resume))
        .routes(routes!(stack))
        .routes(routes!(openapi))
        .routes(routes!(call))
        .routes(routes!(load))
        .routes(routes!(history))
        .routes(routes!(batches))
        .routes(routes!(memory))
        .routes(routes!(graph))
        .routes(routes!(keys))
        .routes(routes!(configuration))
        .routes(routes!(requests))
        .routes(routes!(request))
        .routes(routes!(events))
        .routes(routes!(logs))
        .routes(routes!(log_level, set_log_level))
        .routes(routes!(upgrade))
        .routes(routes!(stop))
}

/// Returns what the client may do.
#[utoipa::path(get, path = "/v1/session", responses((status = OK, body = Session)))]
async fn session(session: Option<Extension<Session>>) -> Json<Session> {
    let Extension(session) =
        session.unwrap_or(Extension(Session { holder: None, may_change: true }));
    Json(session)
}

/// Returns the server, its endpoints and their workers.
#[utoipa::path(get, path = "/v1/server", responses((status = OK, body = Status)))]
async fn server(State(admin): Operations) -> Json<Status> {
    Json(admin.status().await)
}

/// Returns an endpoint and its workers.
#[utoipa::path(
    get, path = "/v1/endpoints/{endpoint}",
    params(("endpoint" = String, Path)),
    responses((status = OK, body = EndpointStatus), NotFound),
)]
async fn endpoint(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<EndpointStatus>, Refusal> {
    admin.endpoint(endpoint).await.map(Json)
}

/// Sets the number of an endpoint's workers. Returns when the number is set, not when they run.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/scale", request_body = Scale,
    params(("endpoint" = String, Path)),
    responses((status = OK, body = Scaled), Invalid, NotFound, Conflict),
)]
async fn scale(
    State(admin): Operations,
    Path(endpoint): Path<String>,
    JsonBody(Scale { workers }): JsonBody<Scale>,
) -> Result<Json<Scaled>, Refusal> {
    if let WorkerCount::Number(workers) = workers
        && workers > MAX_WORKERS
    {
        let reason = format!("invalid `workers`: expected at most {MAX_WORKERS}, got {workers}");
        return Err(Refusal::invalid(reason));
    }
    admin.scale(endpoint, workers).await.map(Json)
}

/// Replaces the workers of an endpoint by a new generation, without a request lost. Returns once the new
/// generation takes the requests; if it does not become ready, the live one goes on.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/reload", request_body = Reload,
    params(("endpoint" = String, Path)),
    responses((status = OK, body = Reloaded), Invalid, NotFound, Conflict),
)]
async fn reload(
    State(admin): Operations,
    Path(endpoint): Path<String>,
    JsonBody(reload): JsonBody<Reload>,
) -> Result<Json<Reloaded>, Refusal> {
    let Reload { timeout, canary, shadow, allow_effects, swap } = reload;
    let limit = limit_of("timeout", timeout)?;
    for (name, share) in [("canary", canary), ("shadow", shadow)] {
        if let Some(share) = share.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            let reason =
                format!("invalid `{name}`: expected a share above 0, at most 1, got {share}");
            return Err(Refusal::invalid(reason));
        }
    }
    if canary.is_some() && shadow.is_some() {
        let reason = "invalid `shadow`: a generation is a `canary` or a `shadow`, not both";
        return Err(Refusal::invalid(reason));
    }
    let options = ReloadOptions { limit, canary, shadow, allow_effects, swap };
    admin.reload(endpoint, options).await.map(Json)
}

/// Makes the canary, or the shadow, of an endpoint its live generation.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/promote", params(("endpoint" = String, Path)),
    responses((status = OK, body = Reloaded), NotFound, Conflict),
)]
async fn promote(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<Reloaded>, Refusal> {
    admin.promote(endpoint).await.map(Json)
}

/// Ends the trial or the start of a generation. Without one, starts an earlier generation
/// again, with its options, environment and present code.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/rollback", request_body = Rollback,
    params(("endpoint" = String, Path)),
    responses((status = OK, body = Reloaded), Invalid, NotFound, Conflict),
)]
async fn rollback(
    State(admin): Operations,
    Path(endpoint): Path<String>,
    JsonBody(Rollback { generation, timeout }): JsonBody<Rollback>,
) -> Result<Json<Reloaded>, Refusal> {
    admin.rollback(endpoint, generation, limit_of("timeout", timeout)?).await.map(Json)
}

/// Returns the last generations of an endpoint, and how the next one takes the place of the live one.
#[utoipa::path(
    get, path = "/v1/endpoints/{endpoint}/generations", params(("endpoint" = String, Path)),
    responses((status = OK, body = EndpointGenerations), NotFound, Conflict),
)]
async fn generations(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<EndpointGenerations>, Refusal> {
    admin.generations(endpoint).await.map(Json)
}

/// Returns the time that new workers, or a new server, have to become ready; `name` is that of the field.
fn limit_of(name: &str, seconds: f64) -> Result<Duration, Refusal> {
    let limit = Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero());
    limit.filter(|limit| *limit <= MAX_LIMIT).ok_or_else(|| {
        let most = MAX_LIMIT.as_secs();
        let reason = format!("invalid `{name}`: expected seconds up to {most}, got {seconds}");
        Refusal::invalid(reason)
    })
}

/// Reads the configuration again, and applies what has changed: options, models, and endpoints that come and
/// go. Returns the plan, and the result for each endpoint that changed; one that fails stays as it was.
#[utoipa::path(
    post, path = "/v1/reload", request_body = ReloadProgram,
    responses((status = OK, body = ProgramReloaded), Invalid, Conflict),
)]
async fn reload_program(
    State(admin): Operations,
    JsonBody(ReloadProgram { dry_run, timeout }): JsonBody<ReloadProgram>,
) -> Result<Json<ProgramReloaded>, Refusal> {
    let limit = limit_of("timeout", timeout)?;
    admin.reload_program(dry_run, limit).await.map(Json)
}

/// Pauses an endpoint: its requests wait in its queue, within their time budgets.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/pause", params(("endpoint" = String, Path)),
    responses((status = OK, body = EndpointMode), NotFound, Conflict),
)]
async fn pause(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<EndpointMode>, Refusal> {
    admin.set_mode(endpoint, Mode::Paused).map(Json)
}

/// Drains an endpoint: it refuses new requests, and finishes those in progress.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/drain", params(("endpoint" = String, Path)),
    responses((status = OK, body = EndpointMode), NotFound, Conflict),
)]
async fn drain(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<EndpointMode>, Refusal> {
    admin.set_mode(endpoint, Mode::Draining).map(Json)
}

/// Resumes an endpoint that was paused or drained.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/resume", params(("endpoint" = String, Path)),
    responses((status = OK, body = EndpointMode), NotFound),
)]
async fn resume(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<EndpointMode>, Refusal> {
    admin.set_mode(endpoint, Mode::Serving).map(Json)
}

/// Returns the stacks of all threads of a worker, also while native code keeps its interpreter.
#[utoipa::path(
    get, path = "/v1/endpoints/{endpoint}/workers/{slot}/stack",
    params(("endpoint" = String, Path), ("slot" = usize, Path)),
    responses((status = OK, body = String, content_type = "text/plain"), NotFound, Conflict),
)]
async fn stack(
    State(admin): Operations,
    Path((endpoint, slot)): Path<(String, String)>,
) -> Result<String, Refusal> {
    let slot = slot.parse().map_err(|_| {
        Refusal::invalid(format!("invalid worker `{slot}`: expected the number of its slot"))
    })?;
    admin.stack(endpoint, slot).await
}

/// Returns the `OpenAPI` document of an endpoint: what it takes, and what it responds with.
#[utoipa::path(
    get, path = "/v1/endpoints/{endpoint}/openapi", params(("endpoint" = String, Path)),
    responses((status = OK, body = Object), NotFound),
)]
async fn openapi(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<serde_json::Value>, Refusal> {
    admin.describe(endpoint).map(Json)
}

/// Sends a request to an endpoint as a client does, with the key in `Caller-Authorization`, and remembers it
/// by its `X-Request-ID`. The response is that of the endpoint if it has the header `Litplex-Endpoint`.
#[utoipa::path(
    post, path = "/v1/endpoints/{endpoint}/call",
    params(("endpoint" = String, Path), ("Caller-Authorization" = Option<String>, Header)),
    request_body(content = Vec<u8>, content_type = "*/*"),
    responses((status = OK, body = Vec<u8>, content_type = "*/*"), NotFound, Conflict),
)]
async fn call(
    State(admin): Operations,
    Path(endpoint): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let name = HeaderValue::try_from(&*endpoint)
        .map_err(|_| Refusal::not_found("there is no such endpoint"))?;
    let mut response = admin.call(endpoint, forward::outgoing(request)).await?;
    forward::mark(response.headers_mut(), name);
    Ok(response)
}

/// Returns the load of all endpoints now, and in words why an endpoint is slow.
#[utoipa::path(get, path = "/v1/load", responses((status = OK, body = Load)))]
async fn load(State(admin): Operations) -> Json<Load> {
    Json(admin.load().await)
}

/// The part of an endpoint's history that a client asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryParameters {
    /// The path of the endpoint, its name or an alias.
    endpoint: String,
    /// The last seconds, at most 86,400. Default: 300.
    #[serde(default = "five_minutes")]
    seconds: u64,
    /// The least length of a point in seconds. Default: one that leaves at most 600 points.
    step: Option<u32>,
}

fn five_minutes() -> u64 {
    300
}

/// Returns the last seconds of an endpoint: rate, errors, latencies, queue and workers. Points are longer
/// than `step` where the history is older and was busy.
#[utoipa::path(
    get, path = "/v1/history", params(HistoryParameters),
    responses((status = OK, body = EndpointHistory), Invalid, NotFound),
)]
async fn history(
    State(admin): Operations,
    query: Result<Query<HistoryParameters>, QueryRejection>,
) -> Result<Json<EndpointHistory>, Refusal> {
    let Query(HistoryParameters { endpoint, seconds, step }) =
        query.map_err(|error| Refusal::invalid(error.body_text()))?;
    let most = HistoryQuery::KEPT_SECONDS;
    if !(1..=most).contains(&seconds) {
        let reason = format!("invalid `seconds`: expected 1 to {most}, got {seconds}");
        return Err(Refusal::invalid(reason));
    }
    if step == Some(0) {
        return Err(Refusal::invalid("invalid `step`: expected at least 1, got 0"));
    }
    let usual = || seconds.div_ceil(HistoryQuery::POINTS) as u32;
    let step = step.unwrap_or_else(usual);
    admin.history(HistoryQuery { endpoint, seconds, step }).await.map(Json)
}

/// Returns the batches of an endpoint since the start of the server: their sizes, durations and costs.
#[utoipa::path(
    get, path = "/v1/endpoints/{endpoint}/batches", params(("endpoint" = String, Path)),
    responses((status = OK, body = EndpointBatches), NotFound),
)]
async fn batches(
    State(admin): Operations,
    Path(endpoint): Path<String>,
) -> Result<Json<EndpointBatches>, Refusal> {
    admin.batches(endpoint).await.map(Json)
}

/// Returns the memory of all workers, and what a request for each endpoint would lead to now.
#[utoipa::path(get, path = "/v1/memory", responses((status = OK, body = MemoryPlan)))]
async fn memory(State(admin): Operations) -> Json<MemoryPlan> {
    Json(admin.memory().await)
}

/// Returns the graph of the calls between endpoints: those that are declared, and those of the last minute.
#[utoipa::path(get, path = "/v1/graph", responses((status = OK, body = CallGraph)))]
async fn graph(State(admin): Operations) -> Json<CallGraph> {
    Json(admin.graph().await)
}

/// Returns the names of the callers and operators that are admitted, never their keys.
#[utoipa::path(get, path = "/v1/keys", responses((status = OK, body = KeyHolders)))]
async fn keys(State(admin): Operations) -> Json<KeyHolders> {
    Json(admin.keys())
}

/// Returns the options of the server and its endpoints, without secrets.
#[utoipa::path(get, path = "/v1/config", responses((status = OK, body = Configuration)))]
async fn configuration(State(admin): Operations) -> Json<Configuration> {
    Json(admin.configuration())
}

/// The requests that a client asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RequestParameters {
    /// Only requests of this endpoint: its path, its name or an alias.
    endpoint: Option<String>,
    /// Whether the slowest of the last 15 minutes are sent, instead of the last ones.
    #[serde(default)]
    slowest: bool,
    /// Only requests with this status, such as `503`, or class of statuses: `4xx`.
    status: Option<String>,
    /// The most requests. Default: 50.
    #[serde(default = "fifty")]
    limit: usize,
}

fn fifty() -> usize {
    50
}

/// Returns the last requests that have ended, the latest first, or the slowest. An endpoint remembers its
/// last requests, the last that failed, and the slowest.
#[utoipa::path(
    get, path = "/v1/requests", params(RequestParameters),
    responses((status = OK, body = RecentRequests), Invalid, NotFound),
)]
async fn requests(
    State(admin): Operations,
    query: Result<Query<RequestParameters>, QueryRejection>,
) -> Result<Json<RecentRequests>, Refusal> {
    let Query(RequestParameters { endpoint, slowest, status, limit }) =
        query.map_err(|error| Refusal::invalid(error.body_text()))?;
    let statuses = status.as_deref().map(statuses).transpose()?;
    admin.requests(RequestQuery { endpoint, slowest, statuses, limit }).map(Json)
}

/// Reads a status or a class of statuses.
fn statuses(text: &str) -> Result<(u16, u16), Refusal> {
    let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
    let range = match class {
        Some(class) => (1..=9).contains(&class).then(|| (class * 100, class * 100 + 99)),
        None => {
            text.parse().ok().filter(|status| (100..=999).contains(status)).map(|one| (one, one))
        }
    };
    range.ok_or_else(|| {
        let expected = "expected a status such as `503`, or a class such as `5xx`";
        Refusal::invalid(format!("invalid `status`: {expected}, got `{text}`"))
    })
}

/// Returns the last request with this id, with all its stages.
#[utoipa::path(
    get, path = "/v1/requests/{id}", params(("id" = String, Path)),
    responses((status = OK, body = RequestDetails), NotFound),
)]
async fn request(
    State(admin): Operations,
    Path(id): Path<String>,
) -> Result<Json<RequestDetails>, Refusal> {
    admin.request(id).map(Json)
}

/// The way in which a client reads events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Whether the next events are sent as they come. Default: true.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

/// Sends the last events, and the next ones as they come. `Last-Event-ID` sends those after it.
#[utoipa::path(
    get, path = "/v1/events",
    params(("Last-Event-ID" = Option<u64>, Header), EventQuery),
    responses((status = OK, body = Event, content_type = "text/event-stream"), Invalid),
)]
async fn events(
    State(admin): Operations,
    ending: Option<Extension<Ending>>,
    headers: HeaderMap,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refusal> {
    let Query(EventQuery { follow }) =
        query.map_err(|error| Refusal::invalid(error.body_text()))?;
    let seen = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    let reader = match seen {
        Some(id) => admin.events().after(id),
        None => admin.events().last(usize::MAX),
    };
    let ended = Ending::ended(ending.map(|Extension(ending)| ending));
    let events = stream::unfold(reader, move |mut reader| async move {
        let (id, event) = if follow { reader.next().await } else { reader.next_kept()? };
        let json = serde_json::to_string(&*event).unwrap_or_default();
        let event = sse::Event::default().id(id.to_string()).event(event.kind.word()).data(json);
        Some((Ok(event), reader))
    });
    let events = events.take_until(ended);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// The lines of the log that a client asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Only lines about this endpoint: its path, its name or an alias.
    endpoint: Option<String>,
    /// Only lines of this worker, such as `/embed#0`.
    worker: Option<String>,
    /// Only lines about the request with this id, or with this name in the list of requests, such as `r17`:
    /// what hooks print and log for it, and the server's own lines.
    request: Option<String>,
    /// The number of earlier lines; of them, those of the endpoint, worker or request are sent. Default:
    /// 100, and all that are kept if lines are chosen.
    lines: Option<usize>,
    /// Whether the next lines are sent as they come.
    #[serde(default)]
    follow: bool,
}

/// Sends the last lines of the log, each a JSON object, and the next ones as they come.
#[utoipa::path(
    get, path = "/v1/logs", params(LogQuery),
    responses((status = OK, body = Object, content_type = "application/x-ndjson"), Invalid, Conflict),
)]
async fn logs(
    State(admin): Operations,
    ending: Option<Extension<Ending>>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(mut query) = query.map_err(|error| Refusal::invalid(error.body_text()))?;
    if let Some(endpoint) = query.endpoint {
        query.endpoint = Some(admin.endpoint(endpoint).await?.label);
    }
    let log = admin.log().ok_or_else(|| {
        Refusal::conflict("this program logs by itself; the server keeps no lines of it")
    })?;
    let reader = log.last(query.lines.unwrap_or(query.default_lines()));
    let ended = Ending::ended(ending.map(|Extension(ending)| ending));
    let lines = log_lines(reader, query).map(Ok::<_, Infallible>).take_until(ended);
    let body = Body::from_stream(lines);
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

impl LogQuery {
    fn default_lines(&self) -> usize {
        if self.is_choice() { usize::MAX } else { LOG_LINES }
    }

    fn is_choice(&self) -> bool {
        self.endpoint.is_some() || self.worker.is_some() || self.request.is_some()
    }

    fn chooses(&self, line: &str) -> bool {
        #[derive(Deserialize)]
        struct Line {
            endpoint: Option<String>,
            worker: Option<String>,
            request_id: Option<String>,
        }
        impl Line {
            /// A line of a batch is about several requests.
            fn is_about(&self, wanted: &str) -> bool {
                let ids = self.request_id.as_deref().unwrap_or_default();
                ids.split(' ').any(|id| id == wanted)
            }
        }
        if !self.is_choice() {
            return true;
        }
        let Ok(line) = serde_json::from_str::<Line>(line) else { return false };
        let fits = |wanted: &Option<String>, is: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == is.as_ref())
        };
        fits(&self.endpoint, &line.endpoint)
            && fits(&self.worker, &line.worker)
            && self.request.as_ref().is_none_or(|wanted| line.is_about(wanted))
    }
}

/// Returns the chosen lines of a log, those that are there and, if asked for, those to come.
fn log_lines(reader: FeedReader<String>, query: LogQuery) -> impl Stream<Item = Bytes> {
    stream::unfold((reader, query), |(mut reader, query)| async {
        loop {
            let line = match reader.next_kept() {
                Some((_, line)) => line,
                None if query.follow => reader.next().await.1,
                None => return None,
            };
            if query.chooses(&line) {
                return Some((Bytes::from(line.as_bytes().to_vec()), (reader, query)));
            }
        }
    })
}

/// Returns the level of the log.
#[utoipa::path(
    get, path = "/v1/log-level",
    responses((status = OK, body = LogLevel), Conflict),
)]
async fn log_level(State(admin): Operations) -> Result<Json<LogLevel>, Refusal> {
    admin.log_level().map(Json)
}

/// Sets the level of the log until the server ends. An endpoint's `log_level` stays.
#[utoipa::path(
    put, path = "/v1/log-level", request_body = LogLevel,
    responses((status = OK, body = LogLevel), Invalid, Conflict),
)]
async fn set_log_level(
    State(admin): Operations,
    JsonBody(level): JsonBody<LogLevel>,
) -> Result<Json<LogLevel>, Refusal> {
    admin.set_log_level(level).map(Json)
}

/// Replaces the server by a new process of its program, without a request lost. Returns once the new process
/// serves; if it does not become ready, this server goes on.
#[utoipa::path(
    post, path = "/v1/upgrade", request_body = Upgrade,
    responses((status = OK, body = Upgraded), Invalid, Conflict),
)]
async fn upgrade(
    State(admin): Operations,
    JsonBody(Upgrade { limit }): JsonBody<Upgrade>,
) -> Result<Json<Upgraded>, Refusal> {
    admin.upgrade(limit_of("limit", limit)?).await.map(Json)
}

/// Stops the server: requests in progress are answered first.
#[utoipa::path(post, path = "/v1/stop", responses((status = ACCEPTED)))]
async fn stop(State(admin): Operations) -> StatusCode {
    admin.stop();
    StatusCode::ACCEPTED
}

async fn unknown_route(request: Request) -> Refusal {
    let path = request.uri().path();
    Refusal::not_found(format!("there is no `{path}`; `/openapi.json` lists what there is"))
}

async fn unknown_method(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let error = format!("`{path}` does not take {method}; `/openapi.json` lists what there is");
    (StatusCode::METHOD_NOT_ALLOWED, Json(ErrorBody { error })).into_response()
}

/// A body of JSON.
struct JsonBody<T>(T);

impl<T, S> FromRequest<S> for JsonBody<T>
where
    Json<T>: FromRequest<S, Rejection = JsonRejection>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Json::from_request(request, state).await;
        body.map(|Json(body)| Self(body)).map_err(|error| Refusal::invalid(error.body_text()))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
        };
        (status, Json(ErrorBody { error: self.reason })).into_response()
    }
}
