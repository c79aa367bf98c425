//! The last requests of a server, as the admin API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The choice of requests that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestQuery {
    /// The path of the endpoint, its name or an alias; `None` for all endpoints.
    pub endpoint: Option<String>,
    /// Whether the slowest requests of the last 15 minutes are wanted, instead of the last ones.
    pub slowest: bool,
    /// The range of the statuses.
    pub statuses: Option<(u16, u16)>,
    /// The most requests.
    pub limit: usize,
}

/// Requests that the server remembers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct RecentRequests {
    /// The number of requests of all endpoints that are remembered.
    pub remembered: usize,
    /// The chosen ones: the last to arrive first, or the slowest first.
    pub requests: Vec<RequestSummary>,
}

/// A request that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestSummary {
    /// The number of the request in this server, which no other one has.
    pub number: u64,
    /// Its `X-Request-ID`, or a number of the server such as `r17`.
    pub id: String,
    /// The path of the endpoint, or its name where endpoints share the path; `/mcp` for calls of tools.
    pub endpoint: String,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The status of the response; 499 if the client left before the end.
    pub status: u16,
    /// The outcome, as in `litplex_requests_total`: `ok`, `bad_input`, `model_error`, `timeout`,
    /// `cancelled`, `unavailable` or `worker_lost`.
    pub outcome: String,
    /// The time of its arrival, in seconds since 1970.
    pub time: f64,
    /// The time from its arrival to the last byte of its response, in seconds.
    pub duration: f64,
    /// The bytes of its body; `None` if they are not known.
    pub bytes_in: Option<u64>,
    /// The bytes of the response's body that were sent.
    pub bytes_out: u64,
    /// The generation whose worker computed it last.
    pub generation: Option<u64>,
    /// The slot of the worker that computed it last.
    pub worker: Option<usize>,
    /// The number of times that it was sent to a worker, or 0.
    pub attempts: usize,
    /// Whether its stages were recorded. Above 1,000 requests a second, an endpoint remembers further
    /// requests without stages, and only those that failed or are among the slowest.
    pub is_recorded: bool,
    /// The seconds of its stages, without those of calls of other endpoints.
    pub stages: StageSeconds,
    /// The id of its W3C trace, if it was exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// The seconds of a request's stages. Where it has several jobs, those of the longest.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct StageSeconds {
    /// Until its first job was in a queue: its body was read.
    pub edge: f64,
    /// In the queue, cold start included.
    pub queue: f64,
    /// The part of the wait in which no worker was ready.
    pub cold_start: f64,
    /// In a worker.
    pub worker: f64,
    /// In the model's `decode_request`.
    pub decode: f64,
    /// In the model's `predict`.
    pub predict: f64,
    /// In the model's `encode_response`.
    pub encode: f64,
    /// From the first byte of the response to the last.
    pub response: f64,
}

/// A request with all its stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestDetails {
    /// The request.
    #[serde(flatten)]
    pub request: RequestSummary,
    /// The stages as a tree, each after the one around it and in the order of their start.
    pub waterfall: Vec<RequestStage>,
    /// The number of stages that were left out, since there were too many.
    pub left_out: usize,
    /// The start of its body, if bodies are kept (`keep_bodies`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<RequestBody>,
    /// The start of the body of its response, if bodies are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<RequestBody>,
}

/// The start of a body of JSON or text, in which the texts of members that look like secrets are `***`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestBody {
    /// The media type.
    pub content_type: String,
    /// The text.
    pub text: String,
    /// Whether the body was longer.
    pub is_cut: bool,
}

/// A stage of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestStage {
    /// The kind.
    pub kind: StageKind,
    /// The place, in the list, of the stage around this one.
    pub parent: Option<usize>,
    /// The seconds from the arrival of the request to the start of the stage.
    pub start: f64,
    /// The length in seconds.
    pub duration: f64,
    /// The endpoint of the job; another than that of the request in calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The name of the step of a pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The status of the error with which the step failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u16>,
    /// The slot of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// The generation of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The batch, if the endpoint batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<RequestBatch>,
}

/// The batch of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestBatch {
    /// The number of jobs in it.
    pub size: usize,
    /// The ids of the other requests in it that are remembered.
    pub mates: Vec<String>,
}

/// The kind of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// The server read the request, and decided whether to admit it.
    Edge,
    /// A job waited in the queue of its endpoint.
    Queue,
    /// A job waited again, since its worker was lost.
    Retry,
    /// The part of the wait in which no worker was ready.
    ColdStart,
    /// A worker held a job.
    Worker,
    /// The worker made the model's input.
    Decode,
    /// The model computed.
    Predict,
    /// The worker made the response.
    Encode,
    /// A step of a pipeline ran.
    Step,
    /// The response was sent.
    Response,
}

impl StageKind {
    /// Returns the words for the kind.
    pub fn words(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Queue => "queue",
            Self::Retry => "queue again",
            Self::ColdStart => "cold start",
            Self::Worker => "worker",
            Self::Decode => "decode",
            Self::Predict => "predict",
            Self::Encode => "encode",
            Self::Step => "step",
            Self::Response => "response",
        }
    }
}
