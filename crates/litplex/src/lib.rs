//! One server, many different models.
//!
//! Each model is an *endpoint*: a path with its own queue, batching and workers. Models in Rust
//! run on threads of this process, models in Python in processes of their own, with any
//! interpreter; one socket serves them all.
//!
//! # A first server
//!
//! A model is a type that implements [`LitApi`]. Its requests and answers are serde types, and it
//! answers a batch with one [`Outcome`] per item: one bad item never fails the others.
//!
//! ```no_run
//! use litplex::{Batch, Device, LitApi, LitServer, Outcome, ServeError, run_servers};
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
//!     let count = LitServer::new("/count", |_device: Device| Ok(Counter)).max_batch_size(32);
//!     let ocr = LitServer::python("/ocr", "ocr.py:OcrAPI").workers_per_device(2);
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
//! not be `Send`. [`workers_per_device`](LitServer::workers_per_device) asks for more than one.
//! When it fails, the server says which endpoint it was and ends.
//!
//! # How it is described
//!
//! `/openapi.json` describes the endpoints, and `/docs` shows them. [`LitServer::schema`] names types
//! that derive `JsonSchema` of the crate `schemars`; [`LitServer::example`] shows a request.
//!
//! # Streams
//!
//! A model whose answers come piece by piece implements [`LitStream`] and is served with
//! [`LitServer::stream`]. The client gets a line of JSON per chunk, or server-sent events when it
//! asks for `text/event-stream`.
//!
//! # Models in Python
//!
//! [`LitServer::python`] names a class of a file or module; its interpreter may be that of a
//! virtual environment, and needs nothing installed for litplex. See `docs/` for the hooks.
//!
//! # Middleware
//!
//! What is built in is an option; `docs/middleware.md` lists it. Any other `tower::Layer` can be
//! put around an endpoint ([`LitServer::layer`]) or the whole server ([`RunServers::layer`]).
//!
//! # Options
//!
//! Every method of [`LitServer`] and [`RunServers`] sets one option; `docs/options.md` is the
//! table. All are checked together when the server starts, and all mistakes are reported at once.

mod program;
mod resources;
mod server;

pub use litplex_access::digest;
pub use litplex_config::{ConfigError, Origin};
pub use litplex_core::{
    Batch, BoxError, Chunks, ClientLeft, Device, LitApi, LitStream, Outcome, Result, ServeError,
};
pub use litplex_dirs::{Cache, NoCache};
pub use litplex_http::{Body, HttpLayer, HttpService};
pub use litplex_server::Error;
pub use litplex_workers::{Environment, default_interpreter, environments, remove_environment};
pub use program::{Checked, Program};
pub use server::{LitServer, RunServers, run_servers};
