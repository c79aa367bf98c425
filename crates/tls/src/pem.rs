use std::fmt;
use std::fs;
use std::path::PathBuf;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Something in PEM.
#[derive(Clone)]
pub enum Pem {
    /// A file that holds it.
    File(PathBuf),
    /// The PEM itself.
    Text(String),
}

impl Pem {
    pub(super) fn file(&self) -> Option<&PathBuf> {
        if let Self::File(path) = self { Some(path) } else { None }
    }

    /// Returns all certificates in it.
    ///
    /// # Errors
    /// It cannot be read, or has none, in a sentence.
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

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
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
        // Its Debug form would show what may be a key.
        let why = match error {
            Error::MissingSectionEnd { .. } => "a section has no -----END-----",
            Error::Base64Decode(_) => "what is between -----BEGIN and -----END is not base64",
            _ => "a section does not begin as it should",
        };
        format!("{self} is not PEM: {why}; write the file again")
    }
}

/// Both forms of a key with a password say so in its first lines.
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
        fmt::Display::fmt(self, f)
    }
}
