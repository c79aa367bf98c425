//! An endpoint as operators see it: one with workers, or a pipeline.

use std::sync::Arc;

use litplex_admin::EndpointStatus;
use litplex_core::Identity;

use crate::controls::EndpointControls;
use crate::generations::Generations;
use crate::pipelines::PipelineState;

/// An endpoint, as an operator sees it.
pub(crate) enum Administered {
    /// One with workers.
    Workers(Generations),
    /// A pipeline.
    Pipeline(PipelineState),
}

impl Administered {
    /// Returns its path and names.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        match self {
            Self::Workers(generations) => generations.identity(),
            Self::Pipeline(state) => state.identity.clone(),
        }
    }

    /// Returns the state that `litplex ps` shows.
    pub(crate) async fn status(&self) -> EndpointStatus {
        match self {
            Self::Workers(generations) => {
                let live = generations.live();
                let status = live.status(&live.endpoint.load().await);
                EndpointStatus { generations: generations.listed(), ..status }
            }
            Self::Pipeline(state) => state.status(),
        }
    }

    /// Returns the controls of the live generation of an endpoint with workers.
    pub(crate) fn controls(&self) -> Option<Arc<EndpointControls>> {
        match self {
            Self::Workers(generations) => Some(generations.live()),
            Self::Pipeline(_) => None,
        }
    }
}
