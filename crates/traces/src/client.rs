//! The HTTP client of the exporter.

use std::time::Duration;

use http::{Request, Response, Uri};
use litplex_core::proxy_for;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use ureq::{Agent, Proxy, ProxyProtocol};

/// The timeout of a request, longer than a reachable collector takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A blocking client for one collector, used only on the exporter's own thread.
#[derive(Debug)]
pub(crate) struct Client(Agent);

impl Client {
    /// Returns a client for the collector at this URL, and how log lines describe the two: by the
    /// URL, and the proxy in front of it.
    ///
    /// # Errors
    /// The variable that names the proxy is invalid.
    pub(crate) fn new(url: &str) -> Result<(Self, String), ProxyError> {
        let proxy = proxy_of(url)?;
        let described = match &proxy {
            Some(proxy) => format!("{url} (through the proxy {}:{})", proxy.host(), proxy.port()),
            None => url.to_owned(),
        };
        let config = Agent::config_builder()
            .proxy(proxy)
            .timeout_global(Some(TIMEOUT))
            // The exporter checks the status itself.
            .http_status_as_error(false);
        Ok((Self(config.build().into()), described))
    }
}

/// A proxy of the environment that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid {variable}: expected the address of a proxy for HTTP, such as http://proxy:3128; correct \
     it, or add `{host}` to NO_PROXY"
)]
pub struct ProxyError {
    variable: String,
    host: String,
    source: ureq::Error,
}

/// Returns the proxy of the environment for requests to this URL.
///
/// # Errors
/// The variable that names it is invalid.
pub fn proxy_of(url: &str) -> Result<Option<Proxy>, ProxyError> {
    let url: Uri = url.parse().unwrap_or_default();
    let scheme = url.scheme_str().unwrap_or("http");
    let default_port = if scheme == "https" { 443 } else { 80 };
    let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(default_port));
    let Some(found) = proxy_for(scheme, host, port) else { return Ok(None) };
    // ureq reads addresses of SOCKS too, but is built without it.
    let only_http = |proxy: Proxy| match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(Some(proxy)),
        _ => Err(ureq::Error::InvalidProxyUrl),
    };
    Proxy::new(&found.address).and_then(only_http).map_err(|source| ProxyError {
        variable: found.variable.to_string(),
        host: host.to_owned(),
        source,
    })
}

/// The exporter's interface to a client. The future never yields, since the call blocks.
impl HttpClient for Client {
    fn send_bytes<'life, 'future>(
        &'life self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let response = self.0.run(Request::from_parts(parts, body.to_vec()))?;
            let (parts, mut body) = response.into_parts();
            Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
        })
    }
}
