//! The HTTP client of `litplex call`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::Value;
use ureq::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body as ResponseBody};

use super::body::Body;
use crate::wrong::wrong;

/// The time that a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a server has to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of a server's description.
const MAX_DESCRIPTION: u64 = 64 << 20;

/// The time that a server has to answer a request whose time is over.
const GRACE: Duration = Duration::from_secs(1);

/// The settings of the client.
#[derive(Args, Default)]
pub(crate) struct ClientArgs {
    /// A header of the request, such as 'X-Tenant: a'; a Content-Type sends the input unchanged
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A key or token of the caller [default: that in the variable `LITPLEX_KEY`]
    #[arg(long)]
    key: Option<String>,
    /// Seconds that the request may take [default: what the server allows]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// PEM file with the authorities that may sign the server's certificate [default: public ones]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with a certificate and its key, for a server with `tls_client_ca`
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Do not check the server's certificate
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

impl ClientArgs {
    /// Returns the settings of a client whose requests may take this long.
    pub(super) fn within(limit: Duration) -> Self {
        Self { timeout: Some(limit), ..Self::default() }
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or("expected a number of seconds greater than 0")
}

/// A client of one server.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The content type that the user has set.
    pub(crate) content_type: Option<String>,
    timeout: Option<Duration>,
}

impl Client {
    /// Returns a client of the server at this address.
    ///
    /// # Errors
    /// A header, the key or a file of certificates is invalid. Messages do not contain their values.
    pub(crate) fn new(args: &ClientArgs, base: &str, is_local: bool) -> anyhow::Result<Self> {
        let mut headers =
            args.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
        let environment = std::env::var("LITPLEX_KEY").ok().filter(|key| !key.is_empty());
        let has_own =
            headers.iter().any(|(name, _)| name == "authorization" || name == "x-api-key");
        if let Some(key) = args.key.clone().or(environment).filter(|_| !has_own) {
            let value = HeaderValue::from_str(&format!("Bearer {key}")).ok();
            let value = value.ok_or_else(|| {
                wrong("invalid key: expected visible characters; see --key and LITPLEX_KEY")
            })?;
            headers.push((HeaderName::from_static("authorization"), value));
        }
        let content_type = headers.iter().position(|(name, _)| name == "content-type");
        let content_type = content_type.map(|index| headers.remove(index).1);
        let content_type = content_type.and_then(|it| it.to_str().ok().map(ToOwned::to_owned));
        let agent = agent(args, is_local)?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { agent, base, headers, content_type, timeout: args.timeout })
    }

    /// Returns a description of the server, such as `/info`; or the status that refuses it.
    ///
    /// # Errors
    /// The server does not respond, or not with JSON.
    pub(crate) fn describe(&self, path: &str) -> anyhow::Result<Result<Value, StatusCode>> {
        let request = self.request("GET", path).body(())?;
        let request = self.agent.configure_request(request);
        let request = request.timeout_global(Some(DESCRIBE_TIMEOUT)).build();
        let mut response = self.agent.run(request).map_err(|error| self.unreachable(error))?;
        if response.status() != StatusCode::OK {
            return Ok(Err(response.status()));
        }
        let text = response.body_mut().with_config().limit(MAX_DESCRIPTION).read_to_vec();
        let text = text.map_err(|error| self.unreachable(error))?;
        let parsed = serde_json::from_slice(&text);
        Ok(Ok(parsed
            .with_context(|| format!("{}{path} is not that of a litplex server", self.base))?))
    }

    /// Sends a request, and returns the response as soon as its headers are there.
    ///
    /// # Errors
    /// The server cannot be reached, or does not respond in time.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<Body>,
        is_stream: bool,
    ) -> anyhow::Result<Response<ResponseBody>> {
        let mut request = self.request(method, path);
        let names = |name: &str| self.headers.iter().any(|(own, _)| own == name);
        if is_stream && !names("accept") {
            request =
                request.header("accept", "text/event-stream, application/x-ndjson, */*;q=0.5");
        }
        if let Some(timeout) = self.timeout.filter(|_| !names("x-request-timeout")) {
            request = request.header("x-request-timeout", timeout.as_secs_f64().to_string());
        }
        let timeout = self.timeout.map(|timeout| timeout + GRACE);
        let sent = match body {
            Some(body) => {
                let request = request.header("content-type", body.content_type).body(body.bytes)?;
                let request = self.agent.configure_request(request).timeout_global(timeout).build();
                self.agent.run(request)
            }
            None => {
                let request = self.agent.configure_request(request.body(())?);
                self.agent.run(request.timeout_global(timeout).build())
            }
        };
        sent.map_err(|error| self.unreachable(error))
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    fn unreachable(&self, error: ureq::Error) -> anyhow::Error {
        let base = &self.base;
        if matches!(error, ureq::Error::Timeout(_)) {
            return anyhow!("no response of {base} in time");
        }
        let error = error.into_io();
        // rustls reports what it does not accept as invalid data.
        if base.starts_with("https:") && error.kind() == io::ErrorKind::InvalidData {
            return anyhow!(
                "no TLS connection to {base}: {error}; name the authority of its certificate with --ca, \
                 and the host that the certificate is for with --url"
            );
        }
        anyhow::Error::from(error).context(format!("no response of {base}"))
    }
}

/// Parses `Name: value`.
fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    // The text may contain a secret, which must not be in the message.
    let (name, value) = text.split_once(':').ok_or_else(|| {
        wrong("invalid header: expected `Name: value`, got a text without a colon")
    })?;
    let parsed = (name.trim().parse(), value.trim().parse());
    match parsed {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Err(_), _) => Err(wrong("invalid header: its name has characters that no name may have")),
        (_, Err(_)) => Err(wrong(format!(
            "invalid header `{}`: its value has control characters",
            name.trim()
        ))),
    }
}

fn agent(args: &ClientArgs, is_local: bool) -> anyhow::Result<Agent> {
    let mut tls = TlsConfig::builder().disable_verification(args.insecure);
    if let Some(file) = &args.ca {
        tls = tls.root_certs(RootCerts::from(read_pem(file)?.certificates));
    }
    if let Some(file) = &args.cert {
        let Pem { certificates, key } = read_pem(file)?;
        let key = key.ok_or_else(|| wrong(format!("{} has no private key", file.display())))?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates, key)));
    }
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        // A redirect must not carry the key to another server.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent("litplex")
        .tls_config(tls.build());
    if is_local {
        config = config.proxy(None);
    }
    Ok(config.build().new_agent())
}

/// The contents of a PEM file: at least one certificate.
struct Pem {
    certificates: Vec<Certificate<'static>>,
    key: Option<PrivateKey<'static>>,
}

fn read_pem(file: &Path) -> anyhow::Result<Pem> {
    let name = file.display();
    let text = fs::read(file).map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
    let mut found = Pem { certificates: Vec::new(), key: None };
    for item in parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.certificates.push(certificate),
            Ok(PemItem::PrivateKey(key)) => found.key = Some(key),
            Ok(_) => {}
            Err(error) => bail!(wrong(format!("{name} is not a PEM file: {error}"))),
        }
    }
    if found.certificates.is_empty() {
        bail!(wrong(format!("{name} has no certificate")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_message_about_a_header_has_no_value() {
        let (name, value) = header("X-Tenant:  a: b ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-tenant", "a: b"));
        for wrong in ["Authorization Bearer secret", "a b: secret", "A: secret\u{7}"] {
            let message = header(wrong).unwrap_err().to_string();
            assert!(message.contains("invalid header") && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn a_timeout_is_a_positive_time() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "NaN", "inf", "1e300", "soon", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
