//! The JSON messages inside frames. Unknown fields are ignored, so that a newer peer may add some.

use serde::{Deserialize, Serialize};

/// The newest version of the protocol that this crate supports.
pub const PROTOCOL: u32 = 2;

/// The oldest version of the protocol that this crate supports.
pub const PROTOCOL_OLDEST: u32 = 2;

/// Returns the newest version that both sides support.
pub fn negotiate(hello: &Hello) -> Option<u32> {
    let newest = hello.protocol.min(PROTOCOL);
    let oldest = hello.protocol_oldest.unwrap_or(hello.protocol).max(PROTOCOL_OLDEST);
    (oldest <= newest).then_some(newest)
}

/// The role of one of a worker's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Requests and responses.
    Data,
    /// Messages that must arrive while a model runs, such as cancellation and shutdown.
    Control,
    /// Calls of other endpoints; dialled at the first call.
    Calls,
}

/// `Hello`: the worker introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of the protocol that the worker supports.
    pub protocol: u32,
    /// The oldest version that the worker supports, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_oldest: Option<u32>,
    /// The secret of the launch, which identifies the worker.
    pub token: String,
    /// The role of the connection.
    pub role: Role,
    /// The process id, for logs.
    pub pid: u32,
    /// The version of the worker's Python.
    pub python: String,
}

/// `Welcome`: the connection is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both sides use from here on.
    pub protocol: u32,
}

/// `Refuse`: the connection is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// The reason, for logs.
    pub reason: String,
}

/// `Setup`: load the model and call its `setup`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The device passed to `setup`.
    pub device: String,
    /// Set if the configuration overrides the model author's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_size: Option<usize>,
    /// In seconds; set if the configuration overrides the model author's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_timeout: Option<f64>,
    /// Set if the configuration overrides the model author's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Set if the configuration overrides the model author's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<usize>,
    /// Whether the items of a failed batch are computed again one by one.
    pub retry_batch_singly: bool,
    /// The bytes of chunk payloads that a stream may send before the client has read any.
    pub stream_credit: usize,
    /// Whether the server accepts `Metrics`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metrics: bool,
    /// Whether the server accepts a connection for calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub calls: bool,
    /// Whether the server changes the model's code: the worker keeps the text of its files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub patches: bool,
    /// Whether the server wants to know which imports take long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imports: bool,
    /// Whether the server may ask the worker to hibernate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hibernates: bool,
}

/// `Ready`: the model is ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The most items in a batch.
    pub max_batch_size: usize,
    /// The seconds that a batch may wait to fill.
    pub batch_timeout: f64,
    /// Whether responses are streams.
    pub stream: bool,
    /// Whether hooks take `context`.
    pub context: bool,
    /// The number of batches, or single requests, that the model computes at the same time.
    pub concurrency: usize,
    /// The number of hooks that run at the same time, if it is not `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<usize>,
    /// Whether the model has a `cost` hook.
    pub cost: bool,
    /// The id of the dialect that the model's clients speak, if it is not plain: `openai_chat`, whose
    /// items are objects with a message or a part of one, or `openai_embeddings`, whose response is an
    /// object with `embeddings`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// The schemas of requests and responses, if known: see `_model/schema.py`.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub schema: serde_json::Value,
    /// The description of the model as a tool, if it is one: see `_model/schema.py`.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub tool: serde_json::Value,
    /// The endpoints that the model declares to call, by path or name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// The paths of the fields of a request that hooks take as bytes and clients send as base64; `None`
    /// in a path is each item of a list, or each value of an object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base64: Vec<Vec<Option<String>>>,
    /// The source files of the user's that the worker has loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<LoadedFile>,
    /// The modules of packages whose imports took long, in order, if the server asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<SlowImport>,
    /// Whether the worker can hibernate, if the server asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hibernates: bool,
}

/// A module that took long to import, with all that it imports in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowImport {
    /// The name of the module.
    pub module: String,
    /// The path of its file.
    pub file: String,
    /// The time that it took, in seconds.
    pub seconds: f64,
}

/// `Sources`: further source files that the worker has loaded, and those whose loaded text changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The files.
    pub sources: Vec<LoadedFile>,
}

/// A source file that a worker has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedFile {
    /// The path.
    pub path: String,
    /// The SHA-256 of the text that was loaded, in lower-case hexadecimal; empty if it is not known.
    pub digest: String,
}

/// `Patch`: a step of a change of the model's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Patch {
    /// Check whether these files can take the place of the loaded ones.
    Prepare {
        /// The files.
        files: Vec<SourceText>,
    },
    /// Finish the requests that came before, and compute no other.
    Hold,
    /// Make the change, and go on.
    Commit,
    /// Go on without the change.
    Abort,
}

/// The text of a source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceText {
    /// The path, as the worker reported it.
    pub path: String,
    /// The text.
    pub text: String,
}

/// `Patched`: the answer to a step of a change of the model's code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// Whether the worker has loaded just these texts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// The reason why the change cannot be made in the running worker, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The traceback, if a file cannot be loaded at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
}

/// `Failed`: the model could not be loaded or set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The reason, in one sentence.
    pub reason: String,
    /// The traceback, if the model's own code raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
}

/// `Metrics`: the changes of the model's metrics since the last such message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The metrics that changed.
    pub metrics: Vec<Metric>,
}

/// The change of one metric, with its description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The name that the model author chose.
    pub name: String,
    /// The help text.
    pub help: String,
    /// The change.
    #[serde(flatten)]
    pub change: MetricChange,
}

/// The change of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MetricChange {
    /// An increment of a counter.
    Counter {
        /// The increment, at least 0.
        value: f64,
    },
    /// The new value of a gauge.
    Gauge {
        /// The value.
        value: f64,
    },
    /// Further observations of a summary.
    Summary {
        /// The number of observations.
        count: u64,
        /// Their sum.
        sum: f64,
    },
    /// Further observations of a histogram.
    Histogram {
        /// The upper bounds of the buckets, in order.
        bounds: Vec<f64>,
        /// The number of observations in each bucket, and above the last.
        counts: Vec<u64>,
        /// Their sum.
        sum: f64,
    },
}

/// The metadata in front of a `Request`'s body, present when the body is not plain JSON or hooks
/// take `context`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestMeta {
    /// The form of the body.
    pub content: RequestContent,
    /// The request in the view of hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<RequestContext>,
    /// Whether the response must contain the durations of the stages.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stages: bool,
    /// The name of the request in the log, if it has no `REQUEST_ID` and operators can find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The call, on the calls connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallMeta>,
}

/// A call of another endpoint, in the metadata of a `Request` on the calls connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallMeta {
    /// The path or name of the endpoint.
    pub endpoint: String,
    /// The ids of the items that it is made for: one, or all of a batch.
    pub parents: Vec<u64>,
    /// The longest time for it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Whether the hook waits for it from its beginning.
    #[serde(default)]
    pub waits: bool,
    /// Whether the hook reads a stream, for callees that leave that to their clients.
    #[serde(default)]
    pub stream: bool,
}

/// The form of a `Request`'s body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestContent {
    /// One JSON value.
    Json,
    /// Bytes of this media type.
    Raw(String),
    /// The concatenated contents of these parts.
    Form(Vec<RequestPart>),
    /// The concatenated contents of these parts: JSON, and buffers that belong into it.
    Packed(serde_json::Value),
}

/// One field or file of a form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestPart {
    /// The name of the field.
    pub name: String,
    /// The name of the file; `None` for a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The media type that the client gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The length of the part in bytes.
    pub length: usize,
}

/// A request in the view of hooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestContext {
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query string, as sent.
    pub query: String,
    /// The headers in order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The milliseconds until the deadline; a duration, because clocks differ.
    pub remaining_ms: u64,
}

/// The metadata in front of a `Response`'s body, present when the body is not plain JSON or the
/// request asked for stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseMeta {
    /// The `Content-Type`: an empty string for no header, `None` for that of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Further headers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The durations of the stages in seconds, if the request asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<f64>,
    /// The form of the body, if it is packed; only for requests with `VALUES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<RequestContent>,
    /// The path of calls up to the endpoint that failed; only on the calls connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
}

/// The metadata of an `End`, present when the request asked for stages, or for an error with
/// headers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndMeta {
    /// The headers of an error that is sent as the whole response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The durations of decode, predict and encode in seconds, as many as are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<f64>,
}
