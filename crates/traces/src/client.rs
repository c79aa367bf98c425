//! The HTTP client of the exporter.

use std::time::Duration;

use http::{Request, Response, Uri};
use litplex_core::is_loopback;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use ureq::{Agent, Proxy};

/// The timeout of a request, longer than a reachable collector takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A blocking client for collectors, used only on the exporter's own thread.
#[derive(Debug)]
pub(crate) struct Client {
    /// The agent that uses the proxy of the environment, if there is one.
    agent: Agent,
    /// The agent for a collector on this machine, which no proxy can reach.
    direct: Agent,
}

impl Default for Client {
    fn default() -> Self {
        Self { agent: agent(Proxy::try_from_env()), direct: agent(None) }
    }
}

fn agent(proxy: Option<Proxy>) -> Agent {
    let config = Agent::config_builder()
        .proxy(proxy)
        .timeout_global(Some(TIMEOUT))
        // The exporter checks the status itself.
        .http_status_as_error(false);
    config.build().into()
}

/// Describes a collector by its address and the proxy in front of it.
pub(crate) fn describe(url: &str) -> String {
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    let is_local = host.as_deref().is_some_and(is_loopback);
    match Proxy::try_from_env().filter(|_| !is_local) {
        Some(proxy) => format!("{url} (through the proxy {}:{})", proxy.host(), proxy.port()),
        None => url.to_owned(),
    }
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
            let is_local = parts.uri.host().is_some_and(is_loopback);
            let agent = if is_local { &self.direct } else { &self.agent };
            let response = agent.run(Request::from_parts(parts, body.to_vec()))?;
            let (parts, mut body) = response.into_parts();
            Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
        })
    }
}
