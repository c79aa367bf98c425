//! The export of spans: a batch processor, and an exporter that reports an unreachable collector.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor};

use crate::TraceError;
use crate::client::Client;

/// Returns the processor that sends spans from a bounded queue on its own thread.
pub(crate) fn processor(endpoint: Option<&str>) -> Result<BatchSpanProcessor, TraceError> {
    let (client, collector) = Client::new(&endpoint.map_or_else(environment_url, traces_url))?;
    let mut exporter = Otlp::builder().with_http().with_http_client(client);
    if let Some(endpoint) = endpoint {
        exporter = exporter.with_endpoint(traces_url(endpoint));
    }
    let inner = exporter.build()?;
    let exporter = Exporter { inner, collector, is_unreachable: AtomicBool::new(false) };
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    processor.set_resource(&resource());
    Ok(processor)
}

/// Returns the URL for spans at this collector, by the rule for `OTEL_EXPORTER_OTLP_ENDPOINT`.
fn traces_url(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with("/v1/traces") {
        endpoint.to_owned()
    } else {
        format!("{endpoint}/v1/traces")
    }
}

/// Returns the URL for spans that OpenTelemetry's variables name.
fn environment_url() -> String {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let general = || variable("OTEL_EXPORTER_OTLP_ENDPOINT").map(|all| traces_url(&all));
    variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(general).unwrap_or_default()
}

/// Returns the attributes of the server, which every span carries.
fn resource() -> Resource {
    let attributes = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || attributes.contains("service.name=");
    let resource = Resource::builder();
    if is_named { resource.build() } else { resource.with_service_name("litplex").build() }
}

/// An exporter that logs once when the collector becomes unreachable, and once when it is back.
#[derive(Debug)]
struct Exporter {
    inner: Otlp,
    /// The collector and its proxy, for log lines.
    collector: String,
    is_unreachable: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) if self.is_unreachable.swap(false, Relaxed) => {
                tracing::info!("the collector of traces takes spans again: {}", self.collector);
            }
            Err(error) if !self.is_unreachable.swap(true, Relaxed) => {
                let collector = &self.collector;
                tracing::warn!(%error, "the collector of traces takes no spans; they are lost: {collector}");
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
    fn the_url_for_spans_is_derived_from_the_collector() {
        for endpoint in ["http://a:4318", "http://a:4318/", "http://a:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint), "http://a:4318/v1/traces");
        }
    }
}
