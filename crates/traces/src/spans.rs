//! The conversion of a request's trace into spans of OpenTelemetry.

use std::borrow::Cow;
use std::time::SystemTime;

use litplex_core::{BatchTrace, Identity, Place, SpanContext, Step};
use opentelemetry::KeyValue;
use opentelemetry::trace::{
    self as otel, Link, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{SpanData, SpanLinks, SpanProcessor};
use tokio::time::Instant;

use crate::ServerSpan;

/// A conversion of instants to the time of day. One reading of both clocks serves all spans of a
/// request, so that they are consistent even if the time of day is adjusted meanwhile.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now: Instant,
    time: SystemTime,
}

impl Clock {
    fn system_time(self, instant: Instant) -> SystemTime {
        self.time - self.now.saturating_duration_since(instant)
    }
}

impl ServerSpan {
    /// Sends the span of the request, which ends now, and the spans of its steps.
    pub fn export(self, steps: Vec<Step>) {
        let clock = Clock { now: Instant::now(), time: SystemTime::now() };
        let attributes = self.attributes();
        let name = match &self.route {
            Some(route) => format!("{} {route}", self.method),
            None => self.method.clone(),
        };
        let error = self.error();
        let mut span = self.span(name, (self.began, clock.now), clock, attributes);
        span.span_context = self.otel(self.trace.context);
        span.parent_span_id =
            self.parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id));
        span.parent_span_is_remote = self.parent.is_some();
        span.span_kind = SpanKind::Server;
        if error.is_some_and(|status| status >= 500) {
            span.status = Status::error("");
        }
        // The request's span goes first: the queue may have no room for the last of many steps.
        self.send(span);
        for step in steps.into_iter().filter(|step| !step.is_adopted) {
            self.export_step(step, clock);
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method.clone()),
            KeyValue::new("url.path", self.path.clone()),
            KeyValue::new("url.scheme", self.scheme),
        ];
        attributes.extend(self.route.clone().map(|route| KeyValue::new("http.route", route)));
        let status = self.status.map(i64::from);
        attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
        let kind = match self.error() {
            Some(status) if status >= 500 => Some(status.to_string()),
            None if !self.is_complete => Some("client_left".into()),
            _ => None,
        };
        attributes.extend(kind.map(|kind| KeyValue::new("error.type", kind)));
        attributes
    }

    /// Returns the status of the error, whether the client received it or not.
    fn error(&self) -> Option<u16> {
        self.broken.or(self.status.filter(|status| *status >= 400))
    }

    fn export_step(&self, step: Step, clock: Clock) {
        let (id, step_began, ended) = (step.span, step.began, step.ended.unwrap_or(clock.now));
        let parent = step.parent;
        let (slot, batch, stages) = match step.place {
            Place::Queue { .. } => {
                let endpoint = self.other_endpoint(step.endpoint.as_deref());
                let attributes = Vec::from_iter(endpoint);
                let mut span = self.span("queue", (step.began, ended), clock, attributes);
                span.parent_span_id = parent.into();
                return self.send(span);
            }
            Place::Pipeline { step, failed } => {
                let named = KeyValue::new("litplex.step", step.clone());
                let name = format!("step {step}");
                let mut span = self.span(name, (step_began, ended), clock, vec![named]);
                span.parent_span_id = parent.into();
                if let Some(span_id) = id {
                    span.span_context = self.otel(SpanContext { span_id, ..self.trace.context });
                }
                if let Some(status) = failed {
                    span.attributes.push(KeyValue::new("error.type", status.to_string()));
                    span.status = Status::error("");
                }
                return self.send(span);
            }
            Place::Worker { slot, batch, stages, .. } => (slot, batch, stages),
        };
        let worker = Vec::from_iter(step.endpoint.map(|endpoint| worker(&endpoint, slot)));
        let mut span = self.span("worker", (step.began, ended), clock, worker);
        span.parent_span_id = parent.into();
        let worker = span.span_context.span_id();
        span.links = links(batch.iter().map(|batch| self.batch_context(batch)));
        self.send(span);
        for (name, began, ended) in stages.placed(step.began, ended) {
            let mut span = self.span(name, (began, ended), clock, Vec::new());
            span.parent_span_id = worker;
            self.send(span);
        }
        if let Some(batch) = batch {
            batch.ended(ended);
            if batch.is_last_export() {
                self.export_batch(&batch, clock);
            }
        }
    }

    fn export_batch(&self, batch: &BatchTrace, clock: Clock) {
        let size = KeyValue::new("litplex.batch.size", batch.size as i64);
        let attributes = vec![worker(&batch.endpoint, batch.slot), size];
        let name = format!("batch {}", batch.endpoint.label);
        let mut span = self.span(name, (batch.began, batch.end()), clock, attributes);
        span.span_context = otel_context(self.batch_context(batch), TraceState::NONE);
        span.links = links(batch.exported());
        self.send(span);
    }

    /// Returns a new span in the trace of the request.
    fn span(
        &self,
        name: impl Into<Cow<'static, str>>,
        (began, ended): (Instant, Instant),
        clock: Clock,
        attributes: Vec<KeyValue>,
    ) -> SpanData {
        let context = SpanContext { span_id: self.tracer.span_id(), ..self.trace.context };
        SpanData {
            span_context: self.otel(context),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: clock.system_time(began),
            end_time: clock.system_time(ended),
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: self.tracer.0.scope.clone(),
        }
    }

    fn send(&self, span: SpanData) {
        self.tracer.0.processor.on_end(span);
    }

    /// Returns the attribute that names the endpoint of a job, if the job is that of a call to another
    /// endpoint than that of the request.
    fn other_endpoint(&self, endpoint: Option<&Identity>) -> Option<KeyValue> {
        let endpoint = endpoint.filter(|endpoint| self.route.as_ref() != Some(&endpoint.path))?;
        Some(KeyValue::new("litplex.endpoint", endpoint.label.clone()))
    }

    fn batch_context(&self, batch: &BatchTrace) -> SpanContext {
        batch.context(|| self.tracer.new_root())
    }

    fn otel(&self, context: SpanContext) -> otel::SpanContext {
        otel_context(context, self.state.clone())
    }
}

/// Returns the attribute that names a worker, in the form that logs and metrics use.
fn worker(endpoint: &Identity, slot: usize) -> KeyValue {
    KeyValue::new("litplex.worker", format!("{}#{slot}", endpoint.label))
}

fn otel_context(context: SpanContext, state: TraceState) -> otel::SpanContext {
    let SpanContext { trace_id, span_id, .. } = context;
    let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
    otel::SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state)
}

fn links(to: impl Iterator<Item = SpanContext>) -> SpanLinks {
    let mut links = SpanLinks::default();
    links.links =
        to.map(|context| Link::with_context(otel_context(context, TraceState::NONE))).collect();
    links
}
