//! The tracer: from the configuration and OpenTelemetry's environment variables.

use litplex_config::{ConfigError, Program};
use litplex_traces::{TraceSettings, Tracer};

use crate::Error;

/// The variables in which OpenTelemetry's libraries read the collector's address.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Returns the tracer, if the configuration or the environment names a collector.
///
/// # Errors
/// The address of the collector is invalid.
pub(crate) fn tracer(config: &Program) -> Result<Option<Tracer>, Error> {
    let endpoint = config.otlp_endpoint.clone();
    let is_wanted = endpoint.is_some() || ENDPOINTS.iter().any(|name| variable(name).is_some());
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
    if !is_wanted || is_off {
        return Ok(None);
    }
    let ratio = config.trace_ratio.unwrap_or_else(|| {
        ratio(variable("OTEL_TRACES_SAMPLER").as_deref(), variable("OTEL_TRACES_SAMPLER_ARG"))
    });
    let tracer = Tracer::new(&TraceSettings { endpoint, ratio }).map_err(|error| {
        ConfigError(vec![format!("server: traces cannot be sent to `otlp_endpoint`: {error}")])
    })?;
    Ok(Some(tracer))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the share (0 to 1) of requests outside of a trace that a sampler takes.
fn ratio(sampler: Option<&str>, argument: Option<String>) -> f64 {
    match sampler {
        Some("always_off" | "parentbased_always_off") => 0.0,
        Some("traceidratio" | "parentbased_traceidratio") => {
            let ratio = argument.and_then(|ratio| ratio.parse().ok());
            ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or(1.0)
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_a_share() {
        assert!(ratio(None, Some("0.5".into())) >= 1.0);
        assert!(ratio(Some("parentbased_always_off"), None) <= 0.0);
        let half = ratio(Some("parentbased_traceidratio"), Some("0.5".into()));
        assert!((half - 0.5).abs() < f64::EPSILON);
        assert!(ratio(Some("traceidratio"), Some("2".into())) >= 1.0);
    }
}
