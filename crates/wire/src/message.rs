//! The JSON inside frames. Unknown fields are ignored, so that a newer side may add some.

use serde::{Deserialize, Serialize};

/// The newest version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 2;

/// The oldest version of the protocol that this crate speaks.
pub const PROTOCOL_OLDEST: u32 = 2;

/// Returns the newest version that both sides speak.
pub fn negotiate(hello: &Hello) -> Option<u32> {
    let newest = hello.protocol.min(PROTOCOL);
    let oldest = hello.protocol_oldest.unwrap_or(hello.protocol).max(PROTOCOL_OLDEST);
    (oldest <= newest).then_some(newest)
}

/// Which of a worker's two connections this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Work and answers.
    Data,
    /// What must be seen while a model runs: cancellation and the end.
    Control,
}

/// `Hello`: who dials in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of the protocol that the worker speaks.
    pub protocol: u32,
    /// The oldest that it speaks, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_oldest: Option<u32>,
    /// The secret that the launch was given; it tells which worker this is.
    pub token: String,
    /// Which connection this is.
    pub role: Role,
    /// The process id, for people who read logs.
    pub pid: u32,
    /// The version of the worker's Python.
    pub python: String,
}

/// `Welcome`: the connection is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both sides speak from here on.
    pub protocol: u32,
}

/// `Refuse`: the connection is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// Why, for people.
    pub reason: String,
}

/// `Setup`: load the model and call its `setup`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The device that `setup` is given.
    pub device: String,
    /// Set where the configuration overrides what the model's author chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_size: Option<usize>,
    /// Seconds; set where the configuration overrides what the model's author chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_timeout: Option<f64>,
    /// Set where the configuration overrides what the model's author chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Set where the configuration overrides what the model's author chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<usize>,
    /// Whether the items of a batch that raised are computed again one by one.
    pub retry_batch_singly: bool,
    /// Bytes of chunk payloads that a stream may send before the client has taken any.
    pub stream_credit: usize,
    /// Whether `Metrics` are taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metrics: bool,
}

/// `Ready`: the model is ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The most items in a batch.
    pub max_batch_size: usize,
    /// Seconds that a batch may wait to fill.
    pub batch_timeout: f64,
    /// Whether answers are streams.
    pub stream: bool,
    /// Whether hooks ask for `context`.
    pub context: bool,
    /// Batches, or single requests, that it computes at the same time.
    pub concurrency: usize,
    /// Whether the model has a `cost` hook.
    pub cost: bool,
    /// The protocol that its clients speak, where it is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
    /// What clients call the model, where that protocol names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// What it takes and gives, where it is known: see `_worker/_schema.py`.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub schema: serde_json::Value,
    /// The tool that it is, if it is one: see `_worker/_schema.py`.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub tool: serde_json::Value,
}

/// A protocol whose requests and answers the server checks and frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spec {
    /// Chat completions: every item of the stream is a message, or a part of one, as an object.
    OpenaiChat,
    /// Embeddings: the answer is an object with `embeddings`.
    OpenaiEmbeddings,
}

/// `Failed`: the model could not be loaded or set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// One sentence.
    pub reason: String,
    /// The traceback, where the model's own code raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
}

/// `Metrics`: what the model has measured since the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Those that have changed.
    pub metrics: Vec<Metric>,
}

/// What was measured under one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What the model's author calls it.
    pub name: String,
    /// A sentence.
    pub help: String,
    /// What was measured.
    #[serde(flatten)]
    pub change: MetricChange,
}

/// The change of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MetricChange {
    /// So much was added.
    Counter {
        /// At least 0.
        value: f64,
    },
    /// It is this now.
    Gauge {
        /// Any number.
        value: f64,
    },
    /// So many values came.
    Summary {
        /// How many.
        count: u64,
        /// Their sum.
        sum: f64,
    },
    /// So many values came.
    Histogram {
        /// The upper bounds of the buckets, in order.
        bounds: Vec<f64>,
        /// How many fell into each, and above the last.
        counts: Vec<u64>,
        /// Their sum.
        sum: f64,
    },
}

/// In front of a `Request`'s body, when it is not plain JSON, hooks ask for `context`, or it has
/// an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMeta {
    /// How the body is to be read.
    pub content: RequestContent,
    /// What hooks see of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<RequestContext>,
    /// Whether the answer is to say how long the stages took.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stages: bool,
}

/// How the body of a `Request` is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestContent {
    /// One JSON value.
    Json,
    /// Bytes of this media type.
    Raw(String),
    /// The contents of these parts, one after the other.
    Form(Vec<RequestPart>),
}

/// One field or file of a form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestPart {
    /// The name of the field.
    pub name: String,
    /// Set for a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The media type that the client gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The number of bytes of the body that it takes.
    pub length: usize,
}

/// What hooks see of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestContext {
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, as it was sent.
    pub query: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Milliseconds that are left of the time budget; a duration, because clocks differ.
    pub remaining_ms: u64,
}

/// In front of a `Response`'s body, when it is not plain JSON or was asked for its stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseMeta {
    /// The `Content-Type`; none when empty, and that of JSON where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Further headers, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// How long the stages took, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<f64>,
}

/// In front of what an `End` says, when it was asked for its stages or is an error with headers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndMeta {
    /// The headers of an error, which are sent where it is the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// How long the stages took: seconds of decoding, computing and encoding, as many as are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<f64>,
}
