//! The builder of an endpoint: a method for each option. The options themselves, their checks and
//! defaults are in `litplex_config`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Attach, Device, DialectId, Launch, LitApi, LitStream, Result};
use litplex_http::{BoxLayer, HttpLayer};
use litplex_pipelines::Step;
use litplex_server::ModelSource;
use litplex_workers::{Callee, Settings, batches, streams};
use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::table;

/// An endpoint: a path, its model, and the options of its queue and workers.
///
/// Options are checked when the server starts.
#[must_use = "an endpoint is served by run_servers"]
pub struct Endpoint {
    pub(crate) options: Map<String, Value>,
    pub(crate) model: ModelSource,
    pub(crate) layers: Vec<BoxLayer>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Serves a Rust model at `path`; `load` is called once per worker, on its thread.
    pub fn new<A: LitApi>(
        path: &str,
        load: impl Fn(Device) -> Result<A> + Send + Sync + 'static,
    ) -> Self {
        Self::with_model::<A>(path, |settings, attach| Arc::new(batches(settings, load, attach)))
    }

    /// Serves a Rust model that calls these endpoints of the server, by path or name: `load` gets a handle
    /// of each. The server does not start if one of them does not exist.
    ///
    /// ```no_run
    /// use litplex::{Batch, Callee, Device, Endpoint, LitApi, Outcome, Result};
    ///
    /// struct Ask {
    ///     embed: Callee,
    /// }
    ///
    /// impl LitApi for Ask {
    ///     type Input = String;
    ///     type Output = Vec<f32>;
    ///
    ///     fn predict(&mut self, batch: Batch<String>) -> Result<Vec<Outcome<Vec<f32>>>> {
    ///         Ok(batch.iter().map(|text| Ok(self.embed.call(text)?)).collect())
    ///     }
    /// }
    ///
    /// let ask = Endpoint::calling("/ask", ["/embed"], |_: Device, [embed]| Ok(Ask { embed }));
    /// ```
    pub fn calling<A: LitApi, const N: usize>(
        path: &str,
        endpoints: [&str; N],
        load: impl Fn(Device, [Callee; N]) -> Result<A> + Send + Sync + 'static,
    ) -> Self {
        let calls = endpoints.map(str::to_owned);
        Self::with_model::<A>(path, |settings, attach| {
            let (callees, declared) = (settings.callees.clone(), calls.to_vec());
            let load = move |device| load(device, calls.clone().map(|it| callees.endpoint(it)));
            Arc::new(batches(settings, load, attach).calling(declared))
        })
        .declaring(&endpoints)
    }

    /// Serves a Rust model as [`calling`](Self::calling) does, whose responses are streams.
    pub fn calling_stream<S: LitStream, const N: usize>(
        path: &str,
        endpoints: [&str; N],
        load: impl Fn(Device, [Callee; N]) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        let calls = endpoints.map(str::to_owned);
        Self::with_model::<S>(path, |settings, attach| {
            let (callees, declared) = (settings.callees.clone(), calls.to_vec());
            let load = move |device| load(device, calls.clone().map(|it| callees.endpoint(it)));
            Arc::new(streams(settings, load, attach).calling(declared))
        })
        .set("stream", true)
        .declaring(&endpoints)
    }

    /// Serves a Rust model whose responses are streams at `path`.
    pub fn stream<S: LitStream>(
        path: &str,
        load: impl Fn(Device) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        Self::with_model::<S>(path, |settings, attach| Arc::new(streams(settings, load, attach)))
            .set("stream", true)
    }

    /// Serves a Rust model at `path` to clients of OpenAI's chat API, usually at `/v1/chat/completions`.
    ///
    /// The input is a chat request, which the server has checked. Each chunk is an object: a part of the
    /// message in `content` (a text), and where it is known, `finish_reason`, `prompt_tokens`,
    /// `completion_tokens` and `total_tokens`, which are added up. Clients get a stream of these parts or
    /// the whole message, as they request.
    pub fn chat<S: LitStream>(
        path: &str,
        load: impl Fn(Device) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        Self::with_model::<S>(path, |settings, attach| {
            let dialect = Some(DialectId::new("openai_chat"));
            Arc::new(streams(Settings { dialect, ..settings }, load, attach))
        })
        .set("stream", true)
    }

    /// Serves a Python model at `path`. `api` names a `LitAPI` class or instance:
    /// `ocr.py:OcrAPI`, relative to the working directory, or `package.module:OcrAPI`.
    pub fn python(path: &str, api: &str) -> Self {
        let model = ModelSource::default();
        Self { options: Map::new(), model, layers: Vec::new() }.set("path", path).set("api", api)
    }

    /// Serves a pipeline of other endpoints at `path`: its steps run one after the other, in the server
    /// and without a worker. `docs/compound.md` explains pipelines.
    ///
    /// ```no_run
    /// use litplex::{Endpoint, Step};
    ///
    /// let search = Endpoint::pipeline("/search", [
    ///     Step::call("/ocr").name("ocr").input("$request.image"),
    ///     Step::parallel([("lang", Step::call("/lang")), ("vector", Step::call("/embed"))]),
    /// ]);
    /// ```
    pub fn pipeline(path: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: Vec<_> = steps.into_iter().map(Value::from).collect();
        Self { options: Map::new(), model: ModelSource::default(), layers: Vec::new() }
            .set("path", path)
            .set("pipeline", steps)
    }

    fn with_model<M>(
        path: &str,
        model: impl FnOnce(Settings, Arc<dyn Attach>) -> Arc<dyn Launch> + Send + 'static,
    ) -> Self {
        let model = ModelSource { model: Some(Box::new(model)), ..ModelSource::default() };
        Self { options: Map::new(), model, layers: Vec::new() }
            .set("path", path)
            .set("class", type_name::<M>())
    }

    /// Declares the calls of the model.
    fn declaring(mut self, endpoints: &[&str]) -> Self {
        self.model.calls = endpoints.iter().map(ToString::to_string).collect();
        self
    }

    /// The name of the endpoint: for clients, in `/v1/models` and the field `model` of a request, and
    /// for calls of other endpoints. No other endpoint may have it. Default: the name of the model's
    /// type.
    pub fn name(self, name: &str) -> Self {
        self.set("name", name)
    }

    /// Further names of the endpoint, which no other endpoint may have. Default: none.
    pub fn aliases(self, names: &[&str]) -> Self {
        self.set("aliases", names)
    }

    /// Whether the endpoint gets the requests that name no model, if several endpoints share its path.
    /// Default: false.
    pub fn default_model(self, default_model: bool) -> Self {
        self.set("default_model", default_model)
    }

    /// Describes requests and responses in `/openapi.json` by two types, usually those of the model: with `#[derive(JsonSchema)]` of the crate `schemars`, version 1,
    /// which reads the attributes of serde. Of a stream, `Output` is one chunk.
    /// Default: any JSON.
    pub fn schema<Input: JsonSchema, Output: JsonSchema>(mut self) -> Self {
        self.model.schema.types::<Input, Output>();
        self
    }

    /// Shows a request and its response (of a stream, one chunk) in `/openapi.json`. Without
    /// [`schema`](Self::schema) the two also stand for the types.
    pub fn example(mut self, request: Value, answer: Value) -> Self {
        self.model.schema.example(request, answer);
        self
    }

    /// The most requests in one call of `predict`. Default: 1.
    pub fn max_batch_size(self, items: usize) -> Self {
        self.set("max_batch_size", items)
    }

    /// The time that a batch may wait to fill, from the arrival of its first request. Default: 0,
    /// which takes the requests that wait already.
    pub fn batch_timeout(self, timeout: Duration) -> Self {
        self.set("batch_timeout", timeout.as_secs_f64())
    }

    /// The cost of a request, by which requests of similar cost share a batch: `FIELD:length`,
    /// `FIELD:words` or `FIELD:value` of a field of the JSON body (dots reach into objects), or
    /// `body:bytes`. Default: all requests cost the same.
    pub fn cost(self, cost: &str) -> Self {
        self.set("cost", cost)
    }

    /// The largest cost of a batch: its size times the cost of its most expensive request.
    /// Default: no limit.
    pub fn max_batch_cost(self, cost: f64) -> Self {
        self.set("max_batch_cost", cost)
    }

    /// Whether the items of a failed batch are computed again one by one, so that one bad input
    /// fails alone. Default: as [`idempotent`](Self::idempotent).
    pub fn retry_batch_singly(self, retry: bool) -> Self {
        self.set("retry_batch_singly", retry)
    }

    /// The number of workers on each device. Default: 1.
    pub fn workers_per_device(self, workers: usize) -> Self {
        self.set("workers_per_device", workers)
    }

    /// Lets the autoscaler choose the number of workers between these bounds, instead of [`workers_per_device`](Self::workers_per_device): the options `min_workers` and
    /// `max_workers`.
    pub fn workers_between(self, fewest: usize, most: usize) -> Self {
        self.set("min_workers", fewest).set("max_workers", most)
    }

    /// The time without requests after which the workers above the minimum stop. Default: 60 s.
    pub fn keep_alive(self, time: Duration) -> Self {
        self.set("keep_alive", time.as_secs_f64())
    }

    /// Keeps every worker in memory, also when another endpoint needs the memory.
    pub fn pinned(self, is_pinned: bool) -> Self {
        self.set("pinned", is_pinned)
    }

    /// The bytes of memory that a worker is expected to need, until one was measured.
    pub fn memory(self, bytes: u64) -> Self {
        self.set("memory", bytes)
    }

    /// Requests (or batches) that one worker of a Python model computes at the same time; above 1
    /// for `async` hooks. Default: 64 for `async` hooks, else 1.
    pub fn max_concurrency(self, requests: usize) -> Self {
        self.set("max_concurrency", requests)
    }

    /// The devices of the workers: `auto`, `cpu`, `cuda`, `gpu` or `mps`. Default: `auto`.
    pub fn accelerator(self, accelerator: &str) -> Self {
        self.set("accelerator", accelerator)
    }

    /// The indices of the devices to use. Default: all.
    pub fn devices(self, indices: &[usize]) -> Self {
        self.set("devices", indices)
    }

    /// The time budget of a request, from its arrival to the last byte of its response; for a stream,
    /// to its first chunk. A client may shorten it with the header `X-Request-Timeout`, in seconds.
    /// Default: 30 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", timeout.as_secs_f64())
    }

    /// The time budget of a stream between two chunks. Default: as [`timeout`](Self::timeout).
    pub fn chunk_timeout(self, timeout: Duration) -> Self {
        self.set("chunk_timeout", timeout.as_secs_f64())
    }

    /// The time of silence after which an event stream, also of a chat, gets a comment. Default: never.
    pub fn ping_interval(self, interval: Duration) -> Self {
        self.set("ping_interval", interval.as_secs_f64())
    }

    /// The time that a request may wait for a worker; after it, the response is 504. Once a worker has
    /// begun with it, only [`timeout`](Self::timeout) counts. Default: as `timeout`.
    pub fn queue_timeout(self, timeout: Duration) -> Self {
        self.set("queue_timeout", timeout.as_secs_f64())
    }

    /// The time past a request's deadline after which its worker is killed and replaced; `None`: never.
    /// Default: 10 s.
    pub fn kill_after(self, after: impl Into<Option<Duration>>) -> Self {
        match after.into() {
            Some(after) => self.set("kill_after", after.as_secs_f64()),
            None => self.set("kill_after", false),
        }
    }

    /// The interval at which a Python model's worker must report; a worker that is silent for three
    /// intervals is killed and replaced. Default: 2 s.
    pub fn heartbeat(self, interval: Duration) -> Self {
        self.set("heartbeat", interval.as_secs_f64())
    }

    /// Whether a request may be computed again after its worker is lost. Default: true, and
    /// false for streams.
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.set("idempotent", idempotent)
    }

    /// The number of requests that may wait; further ones get 503 at once. Default: as many as the
    /// workers can answer within [`timeout`](Self::timeout).
    pub fn max_queue(self, requests: usize) -> Self {
        self.set("max_queue", requests)
    }

    /// The requests that each worker answers before clients reach it, with batching full batches; they have
    /// the example of [`example`](Self::example), or that of a Python model. Default: none, and one at a
    /// reload.
    pub fn warmup(self, requests: usize) -> Self {
        self.set("warmup", requests)
    }

    /// The way in which a reload replaces the workers of a Python model: `overlap` or `in_place`. Default: `overlap`,
    /// unless the memory is too small for both generations.
    pub fn swap(self, swap: &str) -> Self {
        self.set("swap", swap)
    }

    /// The keys of this endpoint, instead of those of the server: names, each with `env:NAME` or
    /// `sha256:…`. Default: the keys of the server.
    pub fn api_keys<'a>(self, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.set("api_keys", table(keys))
    }

    /// A file with more keys of this endpoint: lines of a name and `sha256:…`. It is read again
    /// when it changes.
    pub fn api_keys_file(self, file: &str) -> Self {
        self.set("api_keys_file", file)
    }

    /// The scopes that a token must have to call this endpoint, all of them; see
    /// [`RunServers::jwt`](crate::RunServers::jwt). An endpoint with its own keys takes tokens only with
    /// this option.
    /// Default: none.
    pub fn jwt_scopes(self, scopes: &[&str]) -> Self {
        self.set("jwt_scopes", scopes)
    }

    /// The rate of requests that each caller may send, such as `10/s`, `600/min` or `1000/h`; further
    /// ones get 429. Default: no limit.
    pub fn rate_limit(self, rate: &str) -> Self {
        self.set("rate_limit", rate)
    }

    /// The number of requests of a caller that may come at once. Default: all of
    /// [`rate_limit`](Self::rate_limit).
    pub fn rate_burst(self, requests: u32) -> Self {
        self.set("rate_burst", requests)
    }

    /// The number of requests of one caller that may be in flight; further ones get 429. Default: no
    /// limit.
    pub fn max_requests_per_caller(self, requests: usize) -> Self {
        self.set("max_requests_per_caller", requests)
    }

    /// The callers whose requests are in the priority class `batch`: names of keys, and the `sub` of tokens.
    pub fn batch_callers(self, names: &[&str]) -> Self {
        self.set("batch_callers", names)
    }

    /// The largest request body, in bytes; larger ones get 413. Default: 64 MiB.
    pub fn max_body_bytes(self, bytes: usize) -> Self {
        self.set("max_body_bytes", bytes)
    }

    /// The level of its log lines: `debug`, `info`, `warning` or `error`; in the workers of a Python
    /// model also the level of `logging`. Default: `info`, and Python's own.
    pub fn log_level(self, level: &str) -> Self {
        self.set("log_level", level)
    }

    /// The file of its log lines and the output of its workers. Default: standard error.
    pub fn log_file(self, file: &str) -> Self {
        self.set("log_file", file)
    }

    /// The interpreter of a Python model's workers, usually one of a virtual environment: the
    /// option `python`. Default: see [`default_interpreter`](crate::default_interpreter).
    pub fn interpreter(self, python: impl Into<PathBuf>) -> Self {
        self.set("python", python.into().to_string_lossy().as_ref())
    }

    /// Sets an environment variable in a Python model's workers.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let table = self.options.entry("env").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(variables) = table {
            variables.insert(name.into(), value.into());
        }
        self
    }

    /// The share of the endpoint in the time of a device that several endpoints want, relative to the weights
    /// of the others. Default: 1.
    pub fn device_weight(self, weight: f64) -> Self {
        self.set("device_weight", weight)
    }

    /// The CPU threads of each worker of a Python model. Default: the number of cores divided by the
    /// workers of all endpoints.
    pub fn threads(self, threads: usize) -> Self {
        self.set("threads", threads)
    }

    /// The resident memory, in bytes, of each worker of a Python model together with its child
    /// processes; a worker that uses more is killed and replaced. Default: no limit.
    pub fn memory_limit(self, bytes: u64) -> Self {
        self.set("memory_limit", bytes)
    }

    /// The share of its GPU's memory for each worker of a Python model, above 0 and at most 1; the
    /// shares on one GPU may add up to 1. Default: no limit.
    pub fn gpu_memory_fraction(self, fraction: f64) -> Self {
        self.set("gpu_memory_fraction", fraction)
    }

    /// Whether a Python model's worker sees only its own GPU, as `cuda:0`. Default:
    /// false.
    pub fn isolate_devices(self, isolate: bool) -> Self {
        self.set("isolate_devices", isolate)
    }

    /// A file of requirements. A Python model's workers run in a virtual environment with them, which
    /// the first start creates in the user's cache. Default: the interpreter as it is.
    pub fn requirements(self, file: impl AsRef<Path>) -> Self {
        self.set("requirements", text(file))
    }

    /// The working directory of a Python model's workers. Default: the server's own.
    pub fn cwd(self, directory: impl AsRef<Path>) -> Self {
        self.set("cwd", text(directory))
    }

    /// The directories in which a Python model's workers find modules first. Default: none.
    pub fn pythonpath<P: AsRef<Path>>(self, directories: impl IntoIterator<Item = P>) -> Self {
        self.set("pythonpath", directories.into_iter().map(text).collect::<Vec<_>>())
    }

    /// The modules that a Python model's workers share: they are forked from a process that has imported
    /// them. None for no such process. Default: those that earlier workers took long to import, if the
    /// number of workers varies. Only for programs that [adopt orphans](crate::Program::adopt_orphans).
    pub fn preload(self, modules: &[&str]) -> Self {
        self.set("preload", modules)
    }

    /// The cores on which a Python model's workers run. Default: all.
    pub fn cpu_affinity(self, cores: &[usize]) -> Self {
        self.set("cpu_affinity", cores)
    }

    /// Adds a `tower::Layer` ([`HttpLayer`]) around this endpoint: it sees admitted requests and their
    /// responses. Each layer wraps the earlier ones. A call of a tool (`/mcp`) passes only the layers
    /// of the server ([`RunServers::layer`](crate::RunServers::layer)).
    ///
    /// Bodies stream. If a layer fails or panics, the response is 500. The
    /// client's [`SocketAddr`](std::net::SocketAddr) is among the extensions of the request, which
    /// a layer must keep.
    ///
    /// ```no_run
    /// use litplex::Endpoint;
    /// use tower_http::set_header::SetResponseHeaderLayer;
    /// # use http::header::{CACHE_CONTROL, HeaderValue};
    ///
    /// let uncached = HeaderValue::from_static("no-store");
    /// let ocr = Endpoint::python("/ocr", "ocr.py:OcrAPI")
    ///     .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, uncached));
    /// ```
    pub fn layer(mut self, layer: impl HttpLayer) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// Constructor arguments for the class of a Python model.
    pub fn args(self, args: Map<String, Value>) -> Self {
        self.set("args", args)
    }

    pub(crate) fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }
}

/// The name of [`Endpoint`] in programs that follow LitServe.
pub type LitServer = Endpoint;

/// Returns the name of a type, without its module and its parameters.
fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split_once('<').map_or(name, |(name, _)| name);
    name.rsplit_once("::").map_or(name, |(_, name)| name)
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, resolve};

    use super::*;

    #[test]
    fn a_type_is_named_without_its_module() {
        assert_eq!(type_name::<Option<std::path::PathBuf>>(), "Option");
        assert_eq!(type_name::<Endpoint>(), "Endpoint");
    }

    #[test]
    fn every_method_sets_an_option_that_there_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("requirements.txt");
        std::fs::write(&file, "").expect("it is written");
        let endpoint = Endpoint::python("/a", "a:A")
            .name("a")
            .aliases(&["b"])
            .threads(2)
            .cpu_affinity(&[0])
            .memory_limit(1 << 30)
            .gpu_memory_fraction(0.5)
            .isolate_devices(true)
            .requirements(&file)
            .cwd(directory.path())
            .pythonpath([directory.path()])
            .preload(&["torch"]);
        let endpoints = Value::Array(vec![Value::Object(endpoint.options)]);
        let raw = Map::from_iter([("endpoint".to_owned(), endpoints)]);
        let program = resolve(raw, &Origin::Builder).expect("no mistakes");
        let resolved = &program.endpoints[0];
        assert!(resolved.identity.is_called("a") && resolved.identity.is_called("b"));
        assert_eq!(resolved.requirements.as_ref(), Some(&file));
        assert_eq!(resolved.pythonpath, [directory.path()]);
        assert_eq!(resolved.preload.as_deref(), Some(&["torch".to_owned()][..]));
        assert_eq!(resolved.resources.gpu_memory_fraction, Some(0.5));
    }
}
