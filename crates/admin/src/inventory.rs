//! The parts of a server, as the admin API shows them: the graph of its calls, batches, keys and options.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The graph of a server: its endpoints, and the calls between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CallGraph {
    /// The endpoints.
    pub nodes: Vec<GraphNode>,
    /// The calls that are declared, and those that were made in the last minute.
    pub edges: Vec<GraphEdge>,
}

/// An endpoint in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphNode {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub id: String,
    /// The name.
    pub name: String,
    /// The path.
    pub path: String,
    /// `python`, `rust` or `pipeline`.
    pub kind: String,
}

/// The calls of one endpoint by another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GraphEdge {
    /// The node that calls.
    pub from: String,
    /// The node that is called.
    pub to: String,
    /// `call` for calls of hooks, `step` or `shadow` for those of pipelines.
    pub kind: String,
    /// The names of the steps that make them.
    pub steps: Vec<String>,
    /// The calls that ended per second, over the last minute. Where several kinds of edges join two nodes,
    /// each has all calls between them.
    pub rate: f64,
    /// The number of calls that failed in the last minute.
    pub errors: u64,
    /// The median duration in the last minute, in seconds.
    pub p50: Option<f64>,
    /// The duration in seconds that 99 % of the calls of the last minute did not exceed.
    pub p99: Option<f64>,
}

/// The batches of an endpoint since the start of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointBatches {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The numbers of jobs in a batch, as in `litplex_batch_size`.
    pub sizes: Buckets,
    /// The seconds that a worker took for a batch, as in `litplex_batch_duration_seconds`.
    pub seconds: Buckets,
    /// The costs of batches, as in `litplex_batch_cost`; `None` if jobs have no cost.
    pub costs: Option<Buckets>,
}

/// A histogram.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Buckets {
    /// The upper bounds of the buckets.
    pub bounds: Vec<f64>,
    /// The number of observations in each bucket, and last of those above the last bound.
    pub counts: Vec<u64>,
    /// The sum of all observations.
    pub sum: f64,
}

/// The callers and operators that a server admits. Keys themselves are not known to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyHolders {
    /// The scopes, the most general first.
    pub scopes: Vec<KeyScope>,
}

/// The callers of a part of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyScope {
    /// `server` for its own routes, and endpoints without keys of their own; `endpoint`; `admin` for all
    /// operations, and `admin_read` to look only.
    pub scope: String,
    /// The path of the endpoint, or its name where endpoints share the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether every client is admitted.
    pub is_open: bool,
    /// The names of the holders, in the configuration and in the file.
    pub holders: Vec<String>,
    /// The file with keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The issuer whose tokens are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The scopes that a token needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_scopes: Vec<String>,
}

/// The options of a server and its endpoints, as they are in use. Keys, certificates and environment
/// variables of workers are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Configuration {
    /// The options of the server.
    pub server: Vec<Setting>,
    /// The endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointSettings>,
}

/// The options of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointSettings {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The options.
    pub options: Vec<Setting>,
}

/// An option with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setting {
    /// The name.
    pub name: String,
    /// The value as text, as `litplex check` shows it.
    pub value: String,
    /// Whether it has its default.
    pub is_default: bool,
}
