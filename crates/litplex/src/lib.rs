//! One server, many different models.
//!
//! Each model is an *endpoint*: a path with its own queue, batching and workers. Models in Rust
//! run on threads of this process, models in Python in processes of their own, with any
//! interpreter; one socket serves them all.
//!
//! # A first server
//!
//! A model is a type that implements [`LitApi`]. Its requests and responses are serde types, and a
//! batch results in one [`Outcome`] per item: one bad item never fails the others.
//!
//! ```no_run
//! use litplex::{Batch, Device, Endpoint, LitApi, Outcome, ServeError, run_servers};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Text {
//!     text: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Length {
//!     words: usize,
//! }
//!
//! struct Counter;
//!
//! impl LitApi for Counter {
//!     type Input = Text;
//!     type Output = Length;
//!
//!     fn predict(&mut self, batch: Batch<Text>) -> litplex::Result<Vec<Outcome<Length>>> {
//!         let count = |input: Text| match input.text.split_whitespace().count() {
//!             0 => Err(ServeError::new(422, "`text` is empty; send at least one word")),
//!             words => Ok(Length { words }),
//!         };
//!         Ok(batch.into_iter().map(count).collect())
//!     }
//! }
//!
//! fn main() -> litplex::Result<()> {
//!     let count = Endpoint::new("/count", |_device: Device| Ok(Counter)).max_batch_size(32);
//!     let ocr = Endpoint::python("/ocr", "ocr.py:OcrAPI").workers_per_device(2);
//!     run_servers([count, ocr]).port(8000).run()?;
//!     Ok(())
//! }
//! ```
//!
//! ```text
//! $ curl -d '{"text": "two words"}' -H 'Content-Type: application/json' localhost:8000/count
//! {"words":2}
//! ```
//!
//! # How it is loaded
//!
//! The closure runs once for every worker, on the thread where the model will live: a model need
//! not be `Send`. [`workers_per_device`](Endpoint::workers_per_device) asks for more than one.
//! When it fails, the server names the endpoint and ends.
//!
//! # How it is described
//!
//! `/openapi.json` describes the endpoints, and `/docs` shows them. [`Endpoint::schema`] names types
//! that derive `JsonSchema` of the crate `schemars`; [`Endpoint::example`] shows a request.
//!
//! # Streams
//!
//! A model whose responses come piece by piece implements [`LitStream`] and is served with
//! [`Endpoint::stream`]. The client gets a line of JSON per chunk, or server-sent events when it
//! asks for `text/event-stream`. Served with [`Endpoint::chat`], it speaks OpenAI's chat API.
//!
//! # Models in Python
//!
//! [`Endpoint::python`] names a class of a file or module; its interpreter may be that of a
//! virtual environment, and needs nothing installed for litplex. See `docs/` for the hooks.
//!
//! # Calls
//!
//! A model that is served with [`Endpoint::calling`] names the endpoints that it calls, and gets a [`Callee`]
//! of each when it is loaded. A call that fails is a [`CallError`]. `docs/compound.md` has the rules.
//!
//! # Pipelines
//!
//! [`Endpoint::pipeline`] makes an endpoint of calls of others ([`Step`]): in sequence, in parallel,
//! by condition, by weight, or for each item of a list.
//!
//! # Middleware
//!
//! Built-in middleware is an option each; `docs/middleware.md` lists it. Any other `tower::Layer` can
//! be added around an endpoint ([`Endpoint::layer`]) or the whole server ([`RunServers::layer`]).
//!
//! # Options
//!
//! Every method of [`Endpoint`] and [`RunServers`] sets one option; `docs/options.md` is the
//! table. All are checked together when the server starts, and all errors are reported at once.

mod endpoint;
mod program;
mod server;
mod table;

pub use endpoint::{Endpoint, LitServer};
pub use litplex_access::digest;
pub use litplex_config::{ConfigError, Origin};
pub use litplex_core::{
    Batch, BoxError, CallError, CallPath, Chunks, ClientLeft, Device, ErrorCause, LitApi,
    LitStream, Outcome, Result, ServeError,
};
pub use litplex_dirs::{Cache, NoCache};
pub use litplex_http::{Body, HttpLayer, HttpService};
pub use litplex_pipelines::{Imported, Step, import};
pub use litplex_server::{Error, Inherited, Predecessor, StartCommand, wait_for_change};
pub use litplex_workers::{
    Callee, Environment, FOR_SERVERS, PythonProgram, default_interpreter, environments,
    remove_environment,
};
pub use program::{Checked, Program};
pub use server::{RunServers, run_servers};

use table::table;
