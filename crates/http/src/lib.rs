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
mod app_host_socket;
mod builtin;
mod cold_start;
mod connection;
mod context;
mod dispatcher;
mod gate;
mod head;
mod kept_body;
mod layers;
mod local;
mod log_limit;
mod middleware;
mod observed_body;
mod observer;
mod operators;
mod pages;
mod peer;
mod recording;
mod router;
mod routes;
mod serve;
mod stack;
mod status;
mod target;
mod telemetry;

pub use app::{App, AppBuilder, Replaced};
pub use app_host::AppHost;
pub use app_host_socket::AppHostSocket;
pub use layers::{BoxLayer, HttpLayer, HttpService, Layers};
pub use litplex_access::Browsers;
pub use local::{LocalBody, exchange};
pub use log_limit::LogLimit;
pub use middleware::{
    AccessLog, AccessLogForm, Coding, Compression, EdgeMiddleware, RequestIds, TrustedProxies, cors,
};
pub use operators::{OperatorRequest, Operators};
pub use routes::{Access, Builtin, Condition, RouteEntry, RouteTable};
pub use serve::{LeavingServer, Server, bind, serve_inner};

pub use litplex_dialects::{Dialects, Route, ToolCache, dialect_path};
pub use litplex_http_core::body::Body;
pub use litplex_http_core::path::encode as encode_path;

/// The functions that the targets in `fuzz/` call; not part of the API.
#[doc(hidden)]
pub mod fuzzing {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderMap;
    use litplex_core::{Content, MemoryBudget, Outcome, Reservation};

    /// Splits the body of a request into its parts.
    pub fn body(headers: &HeaderMap, pieces: Vec<Bytes>) -> Outcome<(Content, Vec<Bytes>)> {
        litplex_http_core::read_body::split(headers, pieces, &Reservation::default())
    }

    /// Decodes the path of a request.
    pub fn decode_path(raw: &str) -> Option<String> {
        litplex_http_core::path::decode(raw).map(Into::into)
    }

    /// Reads what a request was admitted for, and writes it again.
    pub fn admission(text: &str) -> Option<String> {
        text.parse::<crate::target::Target>().ok().map(|target| target.to_string())
    }

    /// Encodes a path that was decoded.
    pub fn encode_path(path: &str) -> String {
        litplex_http_core::path::encode(path)
    }

    /// Encodes the characters of a client's path that are not ASCII.
    pub fn escape_path(raw: &str) -> String {
        litplex_http_core::path::escape(raw).into()
    }

    /// Joins the pieces of a body, and returns the result and the number of bytes reserved.
    pub fn join(given: Vec<Bytes>, budget: &Arc<MemoryBudget>) -> Outcome<(Vec<Bytes>, usize)> {
        let reservation = budget.reserve();
        let mut pieces = litplex_http_core::buffers::Pieces::new(reservation.clone());
        given.into_iter().try_for_each(|piece| pieces.push(piece))?;
        Ok((pieces.finish(), reservation.bytes()))
    }
}
