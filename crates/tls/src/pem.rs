//! PEM: certificates and private keys, from a file or from the configuration itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A text in PEM, or the file that has it.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// The file.
    File(PathBuf),
    /// The text.
    Text(String),
}

impl Pem {
    /// Returns the PEM that an option names: a text with `-----BEGIN `, or else the name of a file in
    /// this directory.
    pub fn new(text: &str, directory: &Path) -> Self {
        if text.contains("-----BEGIN ") {
            Self::Text(text.to_owned())
        } else {
            Self::File(directory.join(text))
        }
    }

    /// Returns the file, if it is one.
    pub fn file(&self) -> Option<&PathBuf> {
        if let Self::File(path) = self { Some(path) } else { None }
    }

    /// Returns all certificates.
    ///
    /// # Errors
    /// The file cannot be read, or the text has no certificate.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let pem = self.read()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match found {
            Ok(found) if found.is_empty() => Err(format!(
                "{self} holds no certificate; it must have -----BEGIN CERTIFICATE-----"
            )),
            Ok(found) => Ok(found),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// Returns the private key.
    ///
    /// # Errors
    /// The file cannot be read, or the text has no private key, or an encrypted one.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let pem = self.read()?;
        if is_encrypted(&pem) {
            return Err(format!(
                "{self} is encrypted; write the key without a password: \
                 `openssl pkey -in KEY.pem -out PLAIN.pem`"
            ));
        }
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            Error::NoItemsFound => {
                format!("{self} holds no private key; it must have -----BEGIN PRIVATE KEY-----")
            }
            error => self.broken(&error),
        })
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => fs::read(path).map_err(|error| {
                format!("{self} cannot be read ({error}); correct the path, or who may read it")
            }),
            Self::Text(text) => Ok(text.clone().into_bytes()),
        }
    }

    fn broken(&self, error: &Error) -> String {
        // The `Debug` form of the error would show text that may be a key.
        let why = match error {
            Error::MissingSectionEnd { .. } => "a section has no -----END-----",
            Error::Base64Decode(_) => "the text between -----BEGIN and -----END is not base64",
            _ => "a section does not begin as it should",
        };
        format!("{self} is not PEM: {why}; write the file again")
    }
}

/// Returns whether a key needs a password; both formats say so in their first lines.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("the text that was given"),
        }
    }
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
