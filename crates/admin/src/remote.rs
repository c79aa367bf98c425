//! Connections to an admin API on a port.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::{Authority, Scheme};
use litplex_tls::{Pem, TlsClient, TlsClientStream};
use tokio::net::TcpStream;

/// The options of a client of a port.
#[derive(Debug, Clone, Default)]
pub struct RemoteOptions {
    /// The key.
    pub key: Option<String>,
    /// The PEM file of the authority that signed the server's certificate; without it, one of those that
    /// browsers know.
    pub ca: Option<PathBuf>,
    /// The PEM file with a certificate of the client and its private key, if the server requires one.
    pub certificate: Option<PathBuf>,
}

/// The address of an admin API on a port, and what a client needs to use it.
#[derive(Clone)]
pub(crate) struct Remote {
    authority: Authority,
    /// The path before those of the API, without a final slash.
    prefix: String,
    key: Option<HeaderValue>,
    tls: Option<TlsClient>,
}

/// A connection, encrypted or not.
pub(crate) enum Encrypted {
    Tls(Box<TlsClientStream>),
    Plain(TcpStream),
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}

impl Remote {
    pub(crate) fn new(url: &str, options: &RemoteOptions) -> Result<Self, String> {
        let (authority, prefix, is_tls) = parse(url).ok_or_else(|| {
            format!("invalid URL `{url}`: expected `http://host:port` or `https://host:port`")
        })?;
        let key = options.key.as_deref().map(HeaderValue::from_str).transpose();
        let key = key.map_err(|_| "invalid key: expected visible characters".to_owned())?;
        let pem = |file: &PathBuf| Pem::new(&file.to_string_lossy(), Path::new(""));
        let client = || {
            TlsClient::new(
                options.ca.as_ref().map(pem).as_ref(),
                options.certificate.as_ref().map(pem).as_ref(),
            )
        };
        let tls = is_tls.then(client).transpose()?;
        Ok(Self { authority, prefix, key, tls })
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.prefix)
    }

    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn key(&self) -> Option<&HeaderValue> {
        self.key.as_ref()
    }

    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.authority.port_u16().unwrap_or(default);
        TcpStream::connect((self.host(), port)).await
    }

    pub(crate) async fn encrypt(&self, stream: TcpStream) -> io::Result<Encrypted> {
        match &self.tls {
            None => Ok(Encrypted::Plain(stream)),
            Some(tls) => {
                let stream = tls.connect(self.host(), stream).await?;
                Ok(Encrypted::Tls(Box::new(stream)))
            }
        }
    }

    /// Returns the host, an IPv6 address without its brackets.
    fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }
}

/// Returns the host and port of a URL, its path without a final slash, and whether it is one of HTTPS.
fn parse(url: &str) -> Option<(Authority, String, bool)> {
    let uri: Uri = url.parse().ok()?;
    let parts = uri.into_parts();
    let is_tls = match parts.scheme? {
        scheme if scheme == Scheme::HTTP => false,
        scheme if scheme == Scheme::HTTPS => true,
        _ => return None,
    };
    let prefix = match parts.path_and_query {
        Some(path) if path.query().is_some() => return None,
        path => path.map_or_else(String::new, |path| path.path().trim_end_matches('/').to_owned()),
    };
    let authority = parts.authority.filter(|it| !it.as_str().contains('@'))?;
    Some((authority, prefix, is_tls))
}
