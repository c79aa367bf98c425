use std::str::FromStr;
use std::sync::Arc;

use litplex_core::{SpanContext, Trace};
use opentelemetry::trace::TraceState;
use tokio::time::Instant;

use crate::Tracer;

/// What a request is called.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The path, without the query.
    pub path: &'a str,
    /// The path of the endpoint, where it is one.
    pub route: Option<&'a str>,
}

/// The span of one request. It ends, with all that belongs to it, when this is dropped.
#[derive(Debug)]
pub struct ServerSpan {
    pub(crate) tracer: Tracer,
    pub(crate) trace: Arc<Trace>,
    pub(crate) parent: Option<SpanContext>,
    pub(crate) state: TraceState,
    pub(crate) method: String,
    pub(crate) scheme: &'static str,
    pub(crate) path: String,
    pub(crate) route: Option<String>,
    pub(crate) began: Instant,
    /// The status that the client was given, if it was given one.
    pub(crate) status: Option<u16>,
    /// The status of what broke the answer off in its middle.
    pub(crate) broken: Option<u16>,
    pub(crate) is_complete: bool,
}

impl ServerSpan {
    pub(crate) fn new(
        tracer: Tracer,
        context: SpanContext,
        parent: Option<SpanContext>,
        state: Option<&str>,
        named: Named<'_>,
    ) -> Self {
        Self {
            tracer,
            trace: Arc::new(Trace::new(context)),
            parent,
            // One that cannot be read is nobody's.
            state: state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default(),
            method: named.method.to_owned(),
            scheme: named.scheme,
            path: named.path.to_owned(),
            route: named.route.map(str::to_owned),
            began: Instant::now(),
            status: None,
            broken: None,
            is_complete: false,
        }
    }

    /// Returns where to note what is done for the request.
    pub fn trace(&self) -> Arc<Trace> {
        self.trace.clone()
    }

    /// Notes the status of the answer, which begins now.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Notes that the answer broke off, for something of this status.
    pub fn broke(&mut self, status: u16) {
        self.broken = Some(status);
    }

    /// Notes that all of the answer was sent.
    pub fn ended(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        self.export();
    }
}
