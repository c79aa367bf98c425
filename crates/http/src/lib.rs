//! The HTTP edge: the only crate that knows HTTP and the forms of bodies.
//!
//! ```text
//! socket ─► serve ─► stack ─► gate ─► dispatcher ─► read_body ─► Call ─► plain ─► socket
//!                                         ├────────► dialects, mcp
//!                                         └────────► builtin (/, /health, /info, /metrics)
//! ```
//!
//! If the program has an app host, the dispatcher forwards requests to it (`app_host`), and they come
//! back on the inner socket.

mod app;
mod app_host;
mod body;
mod browsers;
mod buffers;
mod builtin;
mod context;
mod dialect;
mod dialects;
mod dispatcher;
mod drain_body;
mod endpoint;
mod form;
mod gate;
mod head;
mod headers;
mod layers;
mod line;
mod mcp;
mod middleware;
mod observed_body;
mod observer;
mod openai;
mod pages;
mod path;
mod peer;
mod plain;
mod predict;
mod raw_json;
mod read_body;
mod response;
mod router;
mod routes;
mod seldom;
mod serve;
mod stack;
mod status;
mod stream;
mod target;
mod telemetry;
mod unpack;
mod upload;

pub use app::{App, AppBuilder};
pub use app_host::AppHost;
pub use body::Body;
pub use browsers::Browsers;
pub use dialects::dialect_path;
pub use endpoint::Route;
pub use layers::{BoxLayer, HttpLayer, HttpService, Layers};
pub use mcp::ToolCache;
pub use middleware::{
    AccessLog, AccessLogForm, Around, Coding, Compression, RequestIds, TrustedProxies, cors,
};
pub use routes::{Access, Builtin, Condition, RouteEntry, RouteTable};
pub use seldom::Seldom;
pub use serve::{Server, bind, serve_inner};

/// The functions that the targets in `fuzz/` call; not part of the API.
#[doc(hidden)]
pub mod fuzzing {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderMap;
    use litplex_core::{Content, MemoryBudget, Outcome, Reservation};

    /// Splits the body of a request into its parts.
    pub fn body(headers: &HeaderMap, pieces: Vec<Bytes>) -> Outcome<(Content, Vec<Bytes>)> {
        crate::read_body::take_apart(headers, pieces, &Reservation::default())
    }

    /// Decodes the path of a request.
    pub fn decode_path(raw: &str) -> Option<String> {
        crate::path::decode(raw).map(Into::into)
    }

    /// Encodes a path that was decoded.
    pub fn encode_path(path: &str) -> String {
        crate::path::encode(path)
    }

    /// Encodes the characters of a client's path that are not ASCII.
    pub fn escape_path(raw: &str) -> String {
        crate::path::escape(raw).into()
    }

    /// Joins the pieces of a body, and returns the result and the number of bytes reserved.
    pub fn join(given: Vec<Bytes>, budget: &Arc<MemoryBudget>) -> Outcome<(Vec<Bytes>, usize)> {
        let reservation = budget.reserve();
        let mut pieces = crate::buffers::Pieces::new(reservation.clone());
        given.into_iter().try_for_each(|piece| pieces.push(piece))?;
        Ok((pieces.finish(), reservation.bytes()))
    }
}
