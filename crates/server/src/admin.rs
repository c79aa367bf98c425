//! The operations of an operator on a running server: `litplex ps` and `litplex scale`.

use std::sync::Arc;

use litplex_admin::{Admin, EndpointStatus, Scaled, Status};
use litplex_config::Workers;
use litplex_core::{BoxFuture, Identity};
use tokio::time::Instant;

use crate::announce::Announcer;
use crate::controls::EndpointControls;
use crate::endpoints::Endpoints;
use crate::pipelines::PipelineState;

/// The handler of requests on the admin socket.
pub(crate) struct AdminHandler {
    url: String,
    port: u16,
    started: Instant,
    endpoints: Vec<Administered>,
}

/// An endpoint, as an operator sees it.
pub(crate) enum Administered {
    /// One with workers.
    Workers(Arc<EndpointControls>),
    /// A pipeline.
    Pipeline(PipelineState),
}

impl Administered {
    fn identity(&self) -> &Identity {
        match self {
            Self::Workers(controls) => &controls.identity,
            Self::Pipeline(state) => &state.identity,
        }
    }

    async fn status(&self) -> EndpointStatus {
        match self {
            Self::Workers(controls) => controls.status().await,
            Self::Pipeline(state) => state.status(),
        }
    }
}

impl AdminHandler {
    /// Returns the handler of a server that starts now.
    pub(crate) fn new(announcer: &Announcer, endpoints: &Endpoints) -> Self {
        let Announcer { url, port, .. } = announcer;
        let (started, endpoints) = (Instant::now(), endpoints.administered());
        Self { url: url.clone(), port: *port, started, endpoints }
    }
}

impl Admin for AdminHandler {
    fn ps(&self) -> BoxFuture<'_, Status> {
        Box::pin(async {
            let mut endpoints = Vec::new();
            for endpoint in &self.endpoints {
                endpoints.push(endpoint.status().await);
            }
            Status {
                pid: std::process::id(),
                url: self.url.clone(),
                port: self.port,
                uptime: self.started.elapsed().as_secs_f64(),
                endpoints,
            }
        })
    }

    fn scale(&self, endpoint: String, workers: usize) -> BoxFuture<'_, Result<Scaled, String>> {
        Box::pin(async move {
            let identities = self.endpoints.iter().map(Administered::identity);
            let found = Identity::find(identities, &endpoint).map_err(|error| error.to_string())?;
            let Administered::Workers(controls) = &self.endpoints[found] else {
                return Err(format!(
                    "`{endpoint}` is a pipeline, which has no workers; scale the endpoints that it calls"
                ));
            };
            let endpoint = controls.label().to_owned();
            if let Workers::Between { max, .. } = controls.workers
                && workers > max
            {
                return Err(format!(
                    "`{endpoint}` has at most {max} workers (`max_workers`); choose 0 to {max}"
                ));
            }
            let before = controls.view.wanted();
            controls.scale(workers);
            Ok(Scaled { endpoint, before, wanted: workers })
        })
    }
}
