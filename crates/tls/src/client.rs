//! TLS of a client, with the certificates that it trusts and its own.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Pem;

/// The stream of a client that speaks TLS.
pub type TlsClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// TLS of a client.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient")
    }
}

impl TlsClient {
    /// Returns a client that trusts these authorities, or by default those that browsers trust. `own` has
    /// the certificate of the client and its private key.
    ///
    /// # Errors
    /// A file cannot be read, or has no certificate or key.
    pub fn new(ca: Option<&Pem>, own: Option<&Pem>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(ca) => {
                for certificate in ca.certificates()? {
                    let added = roots.add(certificate);
                    added.map_err(|error| format!("{ca} has an invalid certificate: {error}"))?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => config
                .with_client_auth_cert(own.certificates()?, own.private_key()?)
                .map_err(|error| format!("{own} cannot be used: {error}"))?,
        };
        Ok(Self(Arc::new(config)))
    }

    /// Performs the handshake with the server that has this host name or address.
    ///
    /// # Errors
    /// The name is invalid, or the handshake fails.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsClientStream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(self.0.clone()).connect(name, stream).await
    }
}
