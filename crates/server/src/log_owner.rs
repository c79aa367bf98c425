//! The endpoint and the worker that an event is about: from its own fields, or from its span.

use std::fmt;

use litplex_workers::current_requests;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope, SpanRef};

/// Returns whether a span is one of this program's, all of which have an owner.
pub(crate) fn is_own_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("litplex")
}

/// The endpoint and the worker of an event or a span.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    pub(crate) endpoint: Option<String>,
    pub(crate) worker: Option<String>,
}

impl Owner {
    /// Returns the owner of an event in these spans. The event's own fields come first.
    pub(crate) fn for_event<'a, S>(event: &Event<'_>, spans: Option<Scope<'a, S>>) -> Self
    where
        S: Subscriber + LookupSpan<'a>,
    {
        let mut owner = Self::default();
        event.record(&mut owner);
        if owner.name().is_some() {
            return owner;
        }
        let known = |span: SpanRef<'a, S>| span.extensions().get::<Self>().cloned();
        spans.and_then(|mut spans| spans.find_map(known)).unwrap_or_default()
    }

    /// Returns the name that lines for people begin with.
    pub(crate) fn name(&self) -> Option<&str> {
        self.worker.as_deref().or(self.endpoint.as_deref())
    }
}

impl Visit for Owner {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "endpoint" => self.endpoint = Some(value.to_owned()),
            "worker" => self.worker = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Returns the names of the requests that the Rust model computes which logs this event, unless the event
/// names them itself.
pub(crate) fn model_requests(event: &Event<'_>) -> Option<String> {
    let is_named = event.metadata().fields().field("request_id").is_some();
    if is_named { None } else { current_requests() }
}

/// Keeps the owner of each span with it.
pub(crate) struct Owners;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Owners {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut owner = Owner::default();
        attributes.record(&mut owner);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(owner);
        }
    }
}
