//! The span of one request, from its headers to the last byte of its response.

use std::str::FromStr;
use std::sync::Arc;

use litplex_core::{SpanContext, Trace};
use opentelemetry::trace::TraceState;
use tokio::time::Instant;

use crate::Tracer;

/// The attributes of a request that name its span.
#[derive(Debug, Clone, Copy)]
pub struct RequestAttributes<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The path, without the query.
    pub path: &'a str,
    /// The path of the endpoint, if the request is to one.
    pub route: Option<&'a str>,
    /// The number of the request in this server.
    pub number: u64,
    /// The id of the request, if it has one.
    pub id: Option<&'a str>,
}

/// The span of one request, which is exported with the spans of its steps.
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
    /// The status of the response, once it has begun.
    pub(crate) status: Option<u16>,
    /// The status of the error that broke the response off.
    pub(crate) broken: Option<u16>,
    pub(crate) is_complete: bool,
}

impl ServerSpan {
    pub(crate) fn new(
        tracer: Tracer,
        trace: Trace,
        parent: Option<SpanContext>,
        state: Option<&str>,
        attributes: RequestAttributes<'_>,
    ) -> Self {
        Self {
            tracer,
            trace: Arc::new(trace),
            parent,
            // An invalid `tracestate` is dropped.
            state: state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default(),
            method: attributes.method.to_owned(),
            scheme: attributes.scheme,
            path: attributes.path.to_owned(),
            route: attributes.route.map(str::to_owned),
            began: Instant::now(),
            status: None,
            broken: None,
            is_complete: false,
        }
    }

    /// Returns the record of the request's steps.
    pub fn trace(&self) -> Arc<Trace> {
        self.trace.clone()
    }

    /// Records the status of the response, which begins now.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Records that the response broke off with an error of this status.
    pub fn broke(&mut self, status: u16) {
        self.broken = Some(status);
    }

    /// Records that the whole response was sent.
    pub fn ended(&mut self) {
        self.is_complete = true;
    }
}
