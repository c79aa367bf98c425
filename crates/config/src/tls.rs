//! The configuration of TLS.

use std::path::Path;

use litplex_tls::{Pem, TlsFiles};
use serde_json::{Map, Value};

use crate::read::text;

/// Returns the files that the options of a checked server name; `None` without TLS.
pub(crate) fn files(options: &Map<String, Value>, directory: &Path) -> Option<TlsFiles> {
    let pem = |name| text(options, name).map(|text| Pem::new(text, directory));
    let (cert, key, client_ca) = (pem("tls_cert")?, pem("tls_key")?, pem("tls_client_ca"));
    Some(TlsFiles { cert, key, client_ca })
}

/// Returns a sentence for each option that lacks the others that it needs.
pub(crate) fn contradictions(options: &Map<String, Value>) -> Vec<String> {
    let needs = [("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert")];
    needs
        .into_iter()
        .filter(|(given, missing)| options.contains_key(*given) && !options.contains_key(*missing))
        .map(|(given, missing)| format!("`{given}` needs `{missing}`; give both, or leave out TLS"))
        .collect()
}
