use std::time::Duration;

use http::{Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use ureq::Agent;

/// Longer than a collector takes that is there.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Posts to a collector, and blocks while it does: it is used on the thread of the exporter alone.
#[derive(Debug)]
pub(crate) struct Client(Agent);

impl Default for Client {
    fn default() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // The exporter looks at the status itself.
            .http_status_as_error(false);
        Self(config.build().into())
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
            let answered = self.0.run(Request::from_parts(parts, body.to_vec()))?;
            let (parts, mut body) = answered.into_parts();
            Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
        })
    }
}
