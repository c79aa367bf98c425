use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::read::text;

/// What a server needs to speak TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Its certificate, and those between it and one that clients know.
    pub cert: Pem,
    /// Its private key.
    pub key: Pem,
    /// The certificates of those who vouch for clients, where clients need a certificate.
    pub client_ca: Option<Pem>,
}

/// Something in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file that holds it.
    File(PathBuf),
    /// The PEM itself.
    Text(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // It may be a key.
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}

impl Pem {
    /// Takes PEM as it is, and anything else as the name of a file in this directory.
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
