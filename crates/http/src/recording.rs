//! The recording of a request, from its headers to the last byte of its response. It is remembered for
//! operators (`litplex requests`), and exported if it is part of a trace.

use std::sync::Arc;

use http::header::HeaderValue;
use http::{HeaderMap, Request, StatusCode};
use http_body::Body as _;
use litplex_core::{SpanContext, Step, Trace, numbered_request};
use litplex_history::{RequestLog, RequestLogs, RequestRecord, recorded_stages};
use litplex_http_core::body::Body;
use litplex_http_core::headers::X_REQUEST_ID;
use litplex_http_core::request_name::is_sound_id;
use litplex_http_core::stream::Broken;
use litplex_metrics::RequestGuard;
use litplex_traces::{RequestAttributes, ServerSpan, Tracer};
use tokio::time::Instant;

use crate::kept_body::{BodyStart, SharedStart};
use crate::middleware::name_of;

/// The recording of one request. [`finish`](Self::finish) hands it on.
#[derive(Debug)]
pub(crate) struct Recording {
    logs: Option<Logs>,
    began: Instant,
    method: &'static str,
    /// Its `X-Request-ID`, if it has one.
    id: Option<HeaderValue>,
    status: Option<StatusCode>,
    broken: Option<u16>,
    is_complete: bool,
    bytes_out: u64,
    bytes_in: Option<u64>,
    /// Present if its steps are recorded. Boxed: most requests under load have none.
    steps: Option<Box<Steps>>,
    span: Option<Box<ServerSpan>>,
    /// The request of a client that it is a part of.
    outer: Option<Arc<Trace>>,
}

/// The place where a request is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    pub(crate) all: RequestLogs,
    /// The log of its endpoint, or of one that shares the path until the body decides the endpoint.
    pub(crate) log: Arc<RequestLog>,
    /// Whether the app host gets the request, and sends its endpoint another one.
    pub(crate) leads: bool,
}

/// The facts about a request with which its recording begins.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    pub(crate) scheme: &'static str,
    /// The path of the endpoint.
    pub(crate) route: &'a str,
    /// The place where it is remembered, if it is.
    pub(crate) logs: Option<Logs>,
    /// The request of a client that it is a part of.
    pub(crate) outer: Option<Arc<Trace>>,
    pub(crate) began: Instant,
}

/// The way on which a request came.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// From a client, at this time.
    Client(Instant),
    /// From the app host, for this request of a client, if that is recorded.
    AppHost(Option<Arc<Trace>>),
}

#[derive(Debug)]
struct Steps {
    number: u64,
    trace: Arc<Trace>,
    path: Box<str>,
    answered: Option<Instant>,
    /// The bytes of each body that are kept.
    body_bytes: usize,
    request_body: Option<SharedStart>,
    response_body: Option<BodyStart>,
}

impl Recording {
    /// Begins to record a request, which then has the trace in its extensions. Returns `None` if the request
    /// is neither remembered nor exported.
    pub(crate) fn begin(
        tracer: Option<&Tracer>,
        request: &mut Request<Body>,
        beginning: Beginning<'_>,
    ) -> Option<Self> {
        let Beginning { scheme, route, logs, outer, began } = beginning;
        let method = name_of(request.method());
        let is_recorded = logs.as_ref().is_some_and(|logs| logs.log.records(began));
        let number = logs.as_ref().filter(|_| is_recorded || tracer.is_some());
        let inherited = || outer.as_ref().map_or(0, |outer| outer.request());
        let number = number.map_or_else(inherited, |logs| logs.all.next_number());
        let id = request.headers().get(X_REQUEST_ID).filter(|id| is_sound_id(id)).cloned();
        let text = id.as_ref().and_then(|id| id.to_str().ok());
        let span = tracer.and_then(|tracer| {
            let path = request.uri().path().to_owned();
            let (route, id) = (Some(route), text);
            let attributes = RequestAttributes { method, scheme, path: &path, route, number, id };
            tracer.begin(request.headers_mut(), attributes)
        });
        let trace = match &span {
            Some(span) => Some(span.trace()),
            None => is_recorded.then(|| Arc::new(unexported(number).with_id(text))),
        };
        if logs.is_none() && trace.is_none() {
            // Its steps are those of the client's request.
            if let Some(outer) = outer {
                request.extensions_mut().insert(outer);
            }
            return None;
        }
        if let (Some(Logs { all, leads: true, .. }), Some(trace)) = (&logs, &trace) {
            all.lead(trace);
        }
        let body_bytes = logs.as_ref().map_or(0, |logs| logs.all.body_bytes());
        let steps = trace.map(|trace| {
            request.extensions_mut().insert(trace.clone());
            Box::new(Steps {
                number: trace.request(),
                trace,
                path: request.uri().path().into(),
                answered: None,
                body_bytes,
                request_body: kept_body(request, body_bytes),
                response_body: None,
            })
        });
        Some(Self {
            logs,
            began,
            method,
            id,
            status: None,
            broken: None,
            is_complete: false,
            bytes_out: 0,
            bytes_in: request.body().size_hint().exact(),
            steps,
            span: span.map(Box::new),
            outer,
        })
    }

    /// Notes that the head of the response is sent.
    pub(crate) fn on_headers(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        if let Some(steps) = &mut self.steps {
            steps.answered = Some(Instant::now());
            if steps.body_bytes > 0 {
                steps.response_body = BodyStart::new(headers, steps.body_bytes);
            }
        }
        if let Some(span) = &mut self.span {
            span.answered(status.as_u16());
        }
    }

    /// Notes that these bytes of the body are sent.
    pub(crate) fn on_bytes(&mut self, data: &[u8]) {
        self.bytes_out += data.len() as u64;
        if let Some(body) = self.steps.as_mut().and_then(|steps| steps.response_body.as_mut()) {
            body.push(data);
        }
    }

    /// Notes that the whole body is sent.
    pub(crate) fn on_end(&mut self) {
        self.is_complete = true;
        if let Some(span) = &mut self.span {
            span.ended();
        }
    }

    /// Notes that the body broke off.
    pub(crate) fn on_error(&mut self, broken: Broken) {
        self.broken = Some(broken.status);
        if let Some(span) = &mut self.span {
            span.broke(broken.status);
        }
    }

    /// Hands the recording of a request that ends now to those that want it. Its metrics say which endpoint
    /// it was for, if its body decided that.
    pub(crate) fn finish(mut self, metrics: Option<&RequestGuard>) {
        let ended = Instant::now();
        let steps = self.steps.as_ref().map(|steps| steps.trace.take());
        if let (Some(outer), Some(steps)) = (&self.outer, &steps) {
            outer.adopt(steps);
        }
        if let Some(Logs { all, log, leads }) = self.logs.take() {
            if let Some(steps) = self.steps.as_ref().filter(|_| leads) {
                all.end_lead(steps.number);
            }
            let decided = metrics.and_then(RequestGuard::decided_endpoint);
            let log = decided.and_then(|label| all.get(label)).unwrap_or(log);
            let duration = ended - self.began;
            if steps.is_some() || log.wants(duration, self.is_failed(), ended) {
                let record = self.record(&all, &log, steps.as_deref(), ended);
                all.keep(&log, record, ended);
            }
        }
        if let (Some(span), Some(steps)) = (self.span, steps) {
            span.export(steps);
        }
    }

    fn is_failed(&self) -> bool {
        let failed = |status: StatusCode| status.as_u16() >= 400;
        !self.is_complete || self.broken.is_some() || self.status.is_none_or(failed)
    }

    fn record(
        &self,
        logs: &RequestLogs,
        log: &RequestLog,
        steps: Option<&[Step]>,
        ended: Instant,
    ) -> RequestRecord {
        let number = self.steps.as_ref().map_or_else(|| logs.next_number(), |steps| steps.number);
        let answered = self.steps.as_ref().and_then(|steps| steps.answered);
        let (stages, left_out) = steps
            .map(|steps| recorded_stages(number, steps, self.began, answered, ended))
            .unwrap_or_default();
        let id = self.id.as_ref().and_then(|id| id.to_str().ok()).map(Box::from);
        let exported = self.span.as_ref().map(|span| span.trace().context.trace_id);
        RequestRecord {
            number,
            id: id.unwrap_or_else(|| numbered_request(number).into()),
            method: self.method,
            path: self.steps.as_ref().map_or_else(|| log.path().into(), |steps| steps.path.clone()),
            status: self.status.map(|status| status.as_u16()),
            broken: self.broken,
            is_complete: self.is_complete,
            began: self.began,
            duration: ended - self.began,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            trace_id: exported,
            is_recorded: self.steps.is_some(),
            stages,
            left_out,
            request_body: self
                .steps
                .as_ref()
                .and_then(|steps| Some(steps.request_body.as_ref()?.kept())),
            response_body: self
                .steps
                .as_ref()
                .and_then(|steps| Some(steps.response_body.as_ref()?.kept())),
        }
    }
}

/// Returns the start of the body of a request, which notes its bytes as they are read; `None` if none are
/// kept.
fn kept_body(request: &mut Request<Body>, bytes: usize) -> Option<SharedStart> {
    let start = (bytes > 0).then(|| BodyStart::new(request.headers(), bytes)).flatten()?;
    Some(SharedStart::of(request.body_mut(), start))
}

/// Returns the trace of a request that is recorded and not exported.
fn unexported(number: u64) -> Trace {
    // The ids of spans need to be unique in the request alone.
    Trace::new(SpanContext { trace_id: 0, span_id: 1, is_sampled: false }, number)
}
