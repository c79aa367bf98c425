//! Traces of requests, exported over OTLP. Only this crate knows OpenTelemetry.
//!
//! A traced request has a [`ServerSpan`] from its headers to the last byte. Its
//! [`Trace`] records the steps in between, which become spans when it is exported:
//!
//! ```text
//! POST /ocr                      in the trace of the client, or a new one
//! ├─ queue
//! └─ worker ─ ─ link ─ ─ ► batch /ocr      a trace of its own, with links to all its requests
//!    ├─ decode
//!    ├─ predict
//!    └─ encode
//! ```
//!
//! A separate thread sends the spans from a bounded queue. A slow or unreachable collector loses spans
//! and has no other effect.

mod client;
mod export;
mod span;
mod spans;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use litplex_core::{SpanContext, Trace};
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::{BatchSpanProcessor, IdGenerator, RandomIdGenerator, SpanProcessor};

pub use client::{ProxyError, proxy_of};
pub use span::{RequestAttributes, ServerSpan};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The settings of tracing.
#[derive(Debug, Clone, Default)]
pub struct TraceSettings {
    /// The address of a collector for OTLP over HTTP, such as `http://127.0.0.1:4318`. Default:
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: Option<String>,
    /// The share of traced requests, from 0 to 1, among those that are not part of a trace already.
    pub ratio: f64,
}

/// The reason why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A setting of the exporter is invalid.
    #[error(transparent)]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The proxy for the collector is invalid.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// The tracer: it creates the spans of requests and sends them. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    ratio: f64,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
    processor: BatchSpanProcessor,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("ratio", &self.0.ratio).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Returns a tracer. OpenTelemetry's environment variables configure its exporter.
    ///
    /// # Errors
    /// A setting of the exporter is invalid.
    pub fn new(settings: &TraceSettings) -> Result<Self, TraceError> {
        let scope =
            InstrumentationScope::builder("litplex").with_version(env!("CARGO_PKG_VERSION"));
        Ok(Self(Arc::new(Inner {
            ratio: settings.ratio,
            ids: RandomIdGenerator::default(),
            scope: scope.build(),
            processor: export::processor(settings.endpoint.as_deref())?,
        })))
    }

    /// Begins the span of a request, if it is traced: a client that takes part in a trace decides
    /// for its requests, and of the others the configured share is traced. The headers get the
    /// context of this span, for the services that handle the request next.
    pub fn begin(
        &self,
        headers: &mut HeaderMap,
        attributes: RequestAttributes<'_>,
    ) -> Option<ServerSpan> {
        let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let parent = parent.and_then(SpanContext::parse);
        if parent.is_some_and(|parent| !parent.is_sampled) {
            return None;
        }
        let trace_id = match parent {
            Some(parent) => parent.trace_id,
            None => u128::from_be_bytes(self.0.ids.new_trace_id().to_bytes()),
        };
        let is_sampled = parent.is_some() || is_sampled(self.0.ratio, trace_id);
        let context = SpanContext { trace_id, span_id: self.span_id(), is_sampled };
        let value = HeaderValue::from_str(&context.to_string());
        headers.insert(TRACEPARENT, value.expect("the context is not ASCII. This is a bug."));
        if parent.is_none() {
            // `tracestate` belongs to the parent's trace, and there is no parent.
            headers.remove(TRACESTATE);
        }
        let state = headers.get(TRACESTATE).and_then(|value| value.to_str().ok());
        is_sampled.then(|| {
            let trace = Trace::new(context, attributes.number).with_id(attributes.id);
            ServerSpan::new(self.clone(), trace, parent, state, attributes)
        })
    }

    /// Sends the remaining spans and stops. Blocks for at most `timeout`.
    pub fn shutdown(&self, timeout: Duration) {
        if let Err(error) = self.0.processor.shutdown_with_timeout(timeout) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }

    fn span_id(&self) -> u64 {
        u64::from_be_bytes(self.0.ids.new_span_id().to_bytes())
    }

    /// Returns the context of a root span in a new trace.
    fn new_root(&self) -> SpanContext {
        let trace_id = u128::from_be_bytes(self.0.ids.new_trace_id().to_bytes());
        SpanContext { trace_id, span_id: self.span_id(), is_sampled: true }
    }
}

/// Returns whether a trace belongs to the share. Only its id decides, so that services with the
/// same share decide alike.
fn is_sampled(ratio: f64, trace_id: u128) -> bool {
    const RANGE: u64 = 1 << 63;
    ratio >= 1.0 || ((trace_id as u64) >> 1) < (ratio * RANGE as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_trace_decides_whether_it_is_sampled() {
        let id = |share: f64| (share * 2f64.powi(64)) as u128;
        assert!(is_sampled(1.0, u128::MAX));
        assert!(!is_sampled(0.0, 0));
        assert!(is_sampled(0.5, id(0.49)));
        assert!(!is_sampled(0.5, id(0.51)));
    }
}
