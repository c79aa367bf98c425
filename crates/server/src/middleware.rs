//! The middleware at the HTTP edge, built from the configuration.

use std::io::{self, IsTerminal};
use std::path::Path;

use litplex_config::{AppHost, ConfigError, Program};
use litplex_history::RequestLogs;
use litplex_http::{
    AccessLog, AccessLogForm, Browsers, Coding, Compression, EdgeMiddleware, RequestIds, cors,
};
use litplex_workers::LogFile;

use crate::{Error, traces};

/// Builds the edge middleware.
///
/// # Errors
/// The access log cannot be written, traces cannot be sent, or the system has no randomness.
pub(crate) fn edge_middleware(config: &Program) -> Result<EdgeMiddleware, Error> {
    let request_ids = config.request_id.then(getrandom::u64).transpose();
    let request_ids = request_ids.map_err(io::Error::other)?.map(RequestIds::new);
    let origins = config.cors_origins.iter().map(String::as_str);
    let cors = (!config.cors_origins.is_empty()).then(|| cors(origins)).transpose();
    let cors = cors.map_err(|origin| {
        ConfigError(vec![format!("server: `cors_origins`: {origin:?} is not an origin")])
    })?;
    Ok(EdgeMiddleware {
        browsers: browsers(config),
        request_ids,
        cors,
        access_log: config.access_log.as_deref().map(access_log).transpose()?,
        compression: compression(config),
        server_timing: config.server_timing,
        trusted_proxies: config.trusted_proxies.iter().copied().collect(),
        tracer: traces::tracer(config)?,
        requests: (config.recent_requests > 0)
            .then(|| RequestLogs::new(config.recent_requests, config.keep_bodies)),
    })
}

/// Returns the rules for browsers. The origins of the program's app count as the server's.
pub(crate) fn browsers(config: &Program) -> Browsers {
    let mut origins = config.cors_origins.clone();
    if let Some(AppHost::Process { origins: app_origins, .. }) = &config.app_host {
        origins.extend(app_origins.iter().cloned());
    }
    let (allowed_hosts, host) = (config.allowed_hosts.clone(), config.host.clone());
    Browsers { allowed_hosts, origins, is_loopback: false, host }
}

fn compression(config: &Program) -> Option<Compression> {
    let codings: Vec<_> =
        config.compression.iter().filter_map(|name| Coding::named(name)).collect();
    let streams = config.presentation.compress_streams;
    (!codings.is_empty()).then_some(Compression { codings, streams })
}

fn access_log(file: &Path) -> Result<AccessLog, Error> {
    if file == Path::new("-") {
        let form =
            if io::stdout().is_terminal() { AccessLogForm::Short } else { AccessLogForm::Json };
        return Ok(AccessLog::to(io::stdout(), form)?);
    }
    let opened = LogFile::open(file).map_err(|error| {
        ConfigError(vec![format!("server: `access_log`: {}: {error}", file.display())])
    })?;
    Ok(AccessLog::to(opened, AccessLogForm::Json)?)
}
