use std::time::Duration;

use http::{Request, Response, Uri};
use litplex_core::is_loopback;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use ureq::{Agent, Proxy};

/// Longer than a collector takes that is there.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Posts to a collector, and blocks while it does: it is used on the thread of the exporter alone.
#[derive(Debug)]
pub(crate) struct Client {
    /// By way of the proxy that the environment names, if it names one.
    agent: Agent,
    /// For a collector on this machine, which no proxy could reach.
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
        // The exporter looks at the status itself.
        .http_status_as_error(false);
    config.build().into()
}

/// Says where a collector is, and the proxy by way of which it is asked.
pub(crate) fn described(url: &str) -> String {
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    let is_near = host.as_deref().is_some_and(is_loopback);
    match Proxy::try_from_env().filter(|_| !is_near) {
        Some(proxy) => format!("{url} (by way of the proxy {}:{})", proxy.host(), proxy.port()),
        None => url.to_owned(),
    }
}

/// What this crate needs of the exporter's interface is one call, whose future never waits.
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
            let is_near = parts.uri.host().is_some_and(is_loopback);
            let agent = if is_near { &self.direct } else { &self.agent };
            let answered = agent.run(Request::from_parts(parts, body.to_vec()))?;
            let (parts, mut body) = answered.into_parts();
            Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
        })
    }
}
