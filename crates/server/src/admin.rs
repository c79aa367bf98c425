//! The operations of an operator on a running server: `litplex ps` and `litplex scale`.

use std::sync::Arc;

use litplex_admin::{Admin, Scaled, Status};
use litplex_config::Workers;
use litplex_core::{BoxFuture, Identity};
use tokio::time::Instant;

use crate::announce::Announcer;
use crate::controls::EndpointControls;
use crate::endpoints::Endpoints;

/// The handler of requests on the admin socket.
pub(crate) struct AdminHandler {
    url: String,
    port: u16,
    started: Instant,
    endpoints: Vec<Arc<EndpointControls>>,
}

impl AdminHandler {
    /// Returns the handler of a server that starts now.
    pub(crate) fn new(announcer: &Announcer, endpoints: &Endpoints) -> Self {
        let Announcer { url, port, .. } = announcer;
        let (started, endpoints) = (Instant::now(), endpoints.controls());
        Self { url: url.clone(), port: *port, started, endpoints }
    }
}

impl Admin for AdminHandler {
    fn ps(&self) -> BoxFuture<'_, Status> {
        Box::pin(async {
            let mut endpoints = Vec::new();
            for controls in &self.endpoints {
                endpoints.push(controls.status().await);
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
            let identities = self.endpoints.iter().map(|controls| &*controls.identity);
            let found = Identity::find(identities, &endpoint).map_err(|error| error.to_string())?;
            let controls = &self.endpoints[found];
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
