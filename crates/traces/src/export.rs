use std::env;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor};

use crate::client::{Client, described};

/// Makes what sends spans: a thread, and the queue of what it is to send.
pub(crate) fn processor(endpoint: Option<&str>) -> Result<BatchSpanProcessor, String> {
    let mut exporter = Otlp::builder().with_http().with_http_client(Client::default());
    if let Some(endpoint) = endpoint {
        exporter = exporter.with_endpoint(path_of_traces(endpoint));
    }
    let to = described(&endpoint.map_or_else(endpoint_of_environment, path_of_traces));
    let inner = exporter.build().map_err(|error| error.to_string())?;
    let exporter = Exporter { inner, to, is_away: AtomicBool::new(false) };
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    processor.set_resource(&resource());
    Ok(processor)
}

/// Names where the collector takes spans, as the environment variable is read too.
fn path_of_traces(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with("/v1/traces") {
        endpoint.to_owned()
    } else {
        format!("{endpoint}/v1/traces")
    }
}

/// Returns where OpenTelemetry's variables say that spans go.
fn endpoint_of_environment() -> String {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let of_all = || variable("OTEL_EXPORTER_OTLP_ENDPOINT").map(|all| path_of_traces(&all));
    variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(of_all).unwrap_or_default()
}

/// What is said of the server in every trace.
fn resource() -> Resource {
    let attributes = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || attributes.contains("service.name=");
    let resource = Resource::builder();
    if is_named { resource.build() } else { resource.with_service_name("litplex").build() }
}

/// Says once that the collector cannot be reached, and once that it can.
#[derive(Debug)]
struct Exporter {
    inner: Otlp,
    /// The collector, and the proxy before it.
    to: String,
    is_away: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) if self.is_away.swap(false, Relaxed) => {
                tracing::info!("the collector of traces takes spans again: {}", self.to);
            }
            Err(error) if !self.is_away.swap(true, Relaxed) => {
                let to = &self.to;
                tracing::warn!(%error, "the collector of traces takes no spans; they are lost: {to}");
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_go_where_collectors_take_them() {
        for endpoint in ["http://a:4318", "http://a:4318/", "http://a:4318/v1/traces"] {
            assert_eq!(path_of_traces(endpoint), "http://a:4318/v1/traces");
        }
    }
}
