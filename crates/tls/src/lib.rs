//! TLS of a server, and of a client of the admin API: PEM, the configuration of rustls, and the handshake.
//!
//! [`Tls::follow`] reads the files again when they change; [`WatchedFiles`] is of use for other files,
//! too. Accepting connections is left to `http`.

mod client;
mod pem;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, InconsistentKeys, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use client::{TlsClient, TlsClientStream};
pub use pem::Pem;
pub use rustls::ServerConfig;
pub use watched::WatchedFiles;

/// The application protocols that clients may choose, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The PEM of a server. The fields are named like the options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and one that clients trust.
    pub cert: Pem,
    /// The private key of the certificate.
    pub key: Pem,
    /// The certificate authorities of clients, where clients need a certificate.
    pub client_ca: Option<Pem>,
}

/// The TLS configuration of new connections, which follows its files.
#[derive(Debug)]
pub struct Tls {
    files: Arc<TlsFiles>,
    watched: WatchedFiles,
    configs: watch::Sender<Arc<ServerConfig>>,
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// One message for each option whose file cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, Vec<String>> {
        let TlsFiles { cert, key, client_ca } = &files;
        let named = [Some(cert), Some(key), client_ca.as_ref()].into_iter().flatten();
        let watched = WatchedFiles::new(named.filter_map(Pem::file).cloned());
        let (configs, _) = watch::channel(server_config(&files)?);
        Ok(Self { files: Arc::new(files), watched, configs })
    }

    /// Returns a channel with the configuration of new connections.
    pub fn configs(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.configs.subscribe()
    }

    /// Reads the files again when they change, for as long as it is polled. Open connections keep
    /// their configuration. Files that cannot be used change nothing; one warning is logged.
    pub async fn follow(mut self) {
        loop {
            self.watched.changed().await;
            self.reload().await;
        }
    }

    async fn reload(&self) {
        let files = self.files.clone();
        match spawn_blocking(move || server_config(&files)).await {
            Ok(Ok(config)) => {
                self.configs.send_replace(config);
                tracing::info!("TLS: reloaded the changed files for new connections");
            }
            Ok(Err(errors)) => {
                let errors = errors.join("; ");
                tracing::warn!("TLS reload failed, keeping the current certificate: {errors}");
            }
            Err(_) => {}
        }
    }
}

/// Performs the handshake. Returns `None` for a client that fails it or exceeds the time limit: no
/// client can cause a warning.
pub async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    limit: Duration,
) -> Option<TlsStream<TcpStream>> {
    match timeout(limit, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, Vec<String>> {
    let provider = Arc::new(ring::default_provider());
    let chain = files.cert.certificates().map_err(|why| format!("`tls_cert`: {why}"));
    let key = files.key.private_key().map_err(|why| format!("`tls_key`: {why}"));
    let verifier = client_verifier(files.client_ca.as_ref(), &provider)
        .map_err(|why| format!("`tls_client_ca`: {why}"));
    match (chain, key, verifier) {
        (Ok(chain), Ok(key), Ok(verifier)) => {
            assemble(provider, verifier, chain, key).map_err(|error| vec![mismatch(files, &error)])
        }
        (chain, key, verifier) => {
            Err([chain.err(), key.err(), verifier.err()].into_iter().flatten().collect())
        }
    }
}

fn assemble(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}

fn mismatch(files: &TlsFiles, error: &Error) -> String {
    let TlsFiles { cert, key, .. } = files;
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "`tls_key`: {key} is not the key of the first certificate of `tls_cert`, {cert}; put \
             the server's own certificate first, or give its key"
        ),
        Error::InvalidCertificate(_) => format!(
            "`tls_cert`: the first certificate of {cert} cannot be used ({error}); give one of \
             X.509 version 3"
        ),
        _ => format!(
            "`tls_key`: {key} cannot be used ({error}); give an RSA, ECDSA (P-256, P-384) or \
             Ed25519 key"
        ),
    }
}

fn client_verifier(
    client_ca: Option<&Pem>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let Some(client_ca) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in client_ca.certificates()? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("{client_ca} has an invalid certificate: {error}"))?;
    }
    WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|error| format!("{client_ca} cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do_and_show_no_secret() {
        let text = |text: &str| Pem::Text(text.into());
        let says = |cert: &str, key: &str| {
            let files = TlsFiles { cert: text(cert), key: text(key), client_ca: Some(text(cert)) };
            Tls::load(files).unwrap_err().join("\n")
        };
        let both = says("", "-----BEGIN PRIVATE KEY-----\ns3cret!\n-----END PRIVATE KEY-----\n");
        assert!(both.starts_with("`tls_cert`: the text that was given holds no certificate"));
        assert!(
            both.contains("\n`tls_key`: the text that was given is not PEM: the text between"),
            "{both}"
        );
        assert!(both.contains("\n`tls_client_ca`: "), "{both}");
        assert!(!both.contains("s3cret"), "{both}");
        for encrypted in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
        ] {
            assert!(says("", encrypted).contains("without a password"));
        }
        assert!(says("", "-----BEGIN CERTIFICATE-----\nAA==\n").contains("no -----END-----"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = Pem::File("/nowhere/cert.pem".into());
        let files = TlsFiles { cert: missing.clone(), key: missing, client_ca: None };
        let errors = Tls::load(files).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].starts_with("`tls_cert`: /nowhere/cert.pem cannot be read ("));
    }
}
