//! The HTTP edge: the only crate that knows HTTP and the shapes of bodies.
//!
//! ```text
//! socket ─► serve ─► handle ─► body ─► Endpoint::submit ─► answer ─► socket
//!                       └────► builtin (/, /health, /info, /metrics)
//! ```
//!
//! Where the program has an app host, `handle` passes requests on to it (`proxy`), and they come
//! back on the inner socket.

mod answer;
mod app;
mod around;
mod body;
mod browsers;
mod builtin;
mod dialect;
mod form;
mod handle;
mod head;
mod line;
mod mcp;
mod openai;
mod pages;
mod path;
mod pieces;
mod predict;
mod proxy;
mod raw_json;
mod routes;
mod seldom;
mod sending;
mod serve;
mod stream;
mod target;
mod unpack;
mod unread;
mod upload;

pub use app::{App, AppHost, Route};
pub use around::{
    AccessLog, AccessLogForm, Around, Body, BoxLayer, Coding, Compression, HttpLayer, HttpService,
    Layers, RequestIds, TrustedProxies, cors,
};
pub use browsers::Browsers;
pub use dialect::dialect_path;
pub use mcp::ToolCache;
pub use routes::{Access, Builtin, Condition, RouteEntry, RouteTable};
pub use seldom::Seldom;
pub use serve::{Server, bind, serve_inner};

/// What the targets in `fuzz/` feed; no part of the API.
#[doc(hidden)]
pub mod fuzzing {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderMap;
    use litplex_core::{Content, MemoryBudget, Outcome, Reservation};

    /// Takes the pieces of a request's body apart.
    pub fn body(headers: &HeaderMap, pieces: Vec<Bytes>) -> Outcome<(Content, Vec<Bytes>)> {
        crate::body::take_apart(headers, pieces, &Reservation::default())
    }

    /// Decodes the path of a request.
    pub fn decode_path(raw: &str) -> Option<String> {
        crate::path::decode(raw).map(Into::into)
    }

    /// Encodes a path that was decoded.
    pub fn encode_path(path: &str) -> String {
        crate::path::encode(path)
    }

    /// Encodes what is not ASCII in a path that a client sent.
    pub fn escape_path(raw: &str) -> String {
        crate::path::escape(raw).into()
    }

    /// Joins the pieces of a body as they come, and returns what that gives and what was reserved.
    pub fn join(given: Vec<Bytes>, budget: &Arc<MemoryBudget>) -> Outcome<(Vec<Bytes>, usize)> {
        let reservation = budget.reserve();
        let mut pieces = crate::pieces::Pieces::new(reservation.clone());
        given.into_iter().try_for_each(|piece| pieces.push(piece))?;
        Ok((pieces.finish(), reservation.bytes()))
    }
}
