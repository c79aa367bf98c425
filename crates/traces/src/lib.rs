//! Traces of requests, exported over OTLP. Only this crate knows OpenTelemetry.
//!
//! A request that is traced has a [`ServerSpan`] from its headers to the last byte. What was done for
//! it in between is noted in its [`Trace`](litplex_core::Trace), and becomes spans when it ends:
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
//! Spans are sent from a thread of their own, out of a queue that has a bound: where the collector is
//! too slow, or not there, spans are lost and nothing else.

mod client;
mod export;
mod span;
mod spans;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use litplex_core::SpanContext;
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::{BatchSpanProcessor, IdGenerator, RandomIdGenerator, SpanProcessor};

pub use span::{Named, ServerSpan};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where spans go, and of which requests.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The address of a collector that speaks OTLP over HTTP, such as `http://127.0.0.1:4318`.
    /// Without it: what `OTEL_EXPORTER_OTLP_ENDPOINT` says.
    pub endpoint: Option<String>,
    /// The share of the requests that are traced, from 0 to 1, of those that are not part of a
    /// trace already.
    pub ratio: f64,
}

/// Makes the spans of requests, and sends them. Cheap to clone.
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
    /// Makes one. What OpenTelemetry's environment variables say of the exporter holds.
    ///
    /// # Errors
    /// A sentence: what is wrong with the settings.
    pub fn new(settings: &Settings) -> Result<Self, String> {
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
    /// that, of the others this server takes its share. From here on the headers have the context
    /// of this span, for whoever goes on with the request.
    pub fn begin(&self, headers: &mut HeaderMap, named: Named<'_>) -> Option<ServerSpan> {
        let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let parent = parent.and_then(SpanContext::parse);
        if parent.is_some_and(|parent| !parent.is_sampled) {
            return None;
        }
        let trace_id = match parent {
            Some(parent) => parent.trace_id,
            None => u128::from_be_bytes(self.0.ids.new_trace_id().to_bytes()),
        };
        let is_sampled = parent.is_some() || is_among(self.0.ratio, trace_id);
        let context = SpanContext { trace_id, span_id: self.span_id(), is_sampled };
        let value = HeaderValue::from_str(&context.to_string());
        headers.insert(TRACEPARENT, value.expect("it is hexadecimal. This is a bug."));
        if parent.is_none() {
            // It belongs to the other.
            headers.remove(TRACESTATE);
        }
        let state = headers.get(TRACESTATE).and_then(|value| value.to_str().ok());
        is_sampled.then(|| ServerSpan::new(self.clone(), context, parent, state, named))
    }

    /// Sends what is left, and no more after that. It blocks, at most for `longest`.
    pub fn shutdown(&self, longest: Duration) {
        if let Err(error) = self.0.processor.shutdown_with_timeout(longest) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }

    fn span_id(&self) -> u64 {
        u64::from_be_bytes(self.0.ids.new_span_id().to_bytes())
    }

    /// Makes a span that is the root of a trace of its own.
    fn root(&self) -> SpanContext {
        let trace_id = u128::from_be_bytes(self.0.ids.new_trace_id().to_bytes());
        SpanContext { trace_id, span_id: self.span_id(), is_sampled: true }
    }
}

/// Decides by the id, so that whoever has the same share decides the same.
fn is_among(ratio: f64, trace_id: u128) -> bool {
    const RANGE: u64 = 1 << 63;
    ratio >= 1.0 || ((trace_id as u64) >> 1) < (ratio * RANGE as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_taken_of_the_ids() {
        let id = |share: f64| (share * 2f64.powi(64)) as u128;
        assert!(is_among(1.0, u128::MAX));
        assert!(!is_among(0.0, 0));
        assert!(is_among(0.5, id(0.49)));
        assert!(!is_among(0.5, id(0.51)));
    }
}
