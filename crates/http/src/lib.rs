//! The HTTP edge: the only crate that knows HTTP and the shapes of bodies.
//!
//! ```text
//! socket ─► serve ─► handle ─► body ─► Endpoint::submit ─► answer ─► socket
//!                       └────► builtin (/, /health, /info)
//! ```

mod answer;
mod app;
mod body;
mod builtin;
mod handle;
mod serve;
mod stream;

pub use app::{App, EndpointReport, Report, Route};
pub use serve::{Server, bind};
