//! TLS: from the options to its files.

use litplex_config::ConfigError;
use litplex_tls::Tls;

use crate::exposed::Exposure;

/// Reads the certificate and key that the options name, if any.
pub(crate) fn read(config: &litplex_config::Program) -> Result<Option<Tls>, ConfigError> {
    let Some(files) = config.tls.clone() else { return Ok(None) };
    if let Some(key) = files.key.file() {
        Exposure::Read.warn("tls_key", key);
    }
    let named = |error| format!("server: {error}");
    let tls = Tls::load(files);
    tls.map(Some).map_err(|errors| ConfigError(errors.into_iter().map(named).collect()))
}

/// Returns the scheme of the server's address.
pub(crate) fn scheme(config: &litplex_config::Program) -> &'static str {
    if config.tls.is_some() { "https" } else { "http" }
}
