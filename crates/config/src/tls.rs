//! The configuration of TLS.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::read::text;

/// The certificate, the key and the client authorities of a server with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and its chain.
    pub cert: Pem,
    /// Its private key.
    pub key: Pem,
    /// The authorities of client certificates, if clients need a certificate.
    pub client_ca: Option<Pem>,
}

/// PEM data, or the file that contains it.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file with the PEM data.
    File(PathBuf),
    /// The PEM itself.
    Text(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // The text may be a private key.
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}

impl Pem {
    /// Takes a text that contains PEM as PEM, and any other as a path in this directory.
    pub fn new(text: &str, directory: &Path) -> Self {
        if text.contains("-----BEGIN ") {
            Self::Text(text.to_owned())
        } else {
            Self::File(directory.join(text))
        }
    }
}

impl Tls {
    /// Reads the options of a checked server.
    pub(crate) fn of(options: &Map<String, Value>, directory: &Path) -> Option<Self> {
        let pem = |name| text(options, name).map(|text| Pem::new(text, directory));
        Some(Self { cert: pem("tls_cert")?, key: pem("tls_key")?, client_ca: pem("tls_client_ca") })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_relative_to_the_configuration_and_pem_is_taken_as_it_is() {
        let directory = Path::new("/etc/litplex");
        assert_eq!(Pem::new("a.pem", directory), Pem::File("/etc/litplex/a.pem".into()));
        assert_eq!(Pem::new("/b.pem", directory), Pem::File("/b.pem".into()));
        let text = "Subject: me\n-----BEGIN PRIVATE KEY-----\nsecret";
        let pem = Pem::new(text, directory);
        assert_eq!(pem, Pem::Text(text.into()));
        assert_eq!(format!("{pem:?}"), "Text(…)");
    }
}
