//! TLS: from the options to its files.

use litplex_config::ConfigError;
use litplex_tls::{Pem, Tls, TlsFiles};

/// Reads the certificate and key that the options name, if any.
pub(crate) fn read(config: &litplex_config::Program) -> Result<Option<Tls>, ConfigError> {
    let Some(litplex_config::Tls { cert, key, client_ca }) = config.tls.clone() else {
        return Ok(None);
    };
    let files = TlsFiles { cert: pem(cert), key: pem(key), client_ca: client_ca.map(pem) };
    let named = |mistake| format!("server: {mistake}");
    let tls = Tls::load(files);
    tls.map(Some).map_err(|mistakes| ConfigError(mistakes.into_iter().map(named).collect()))
}

/// Returns the source of a PEM in the terms of `litplex_tls`.
pub(crate) fn pem(pem: litplex_config::Pem) -> Pem {
    match pem {
        litplex_config::Pem::File(path) => Pem::File(path),
        litplex_config::Pem::Text(text) => Pem::Text(text),
    }
}

/// Returns the scheme of the server's address.
pub(crate) fn scheme(config: &litplex_config::Program) -> &'static str {
    if config.tls.is_some() { "https" } else { "http" }
}
