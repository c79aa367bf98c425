//! Middleware around every request, each if it is configured: ids, CORS, compression, timing, an
//! access log, spans.

mod access_log;
mod compression;
mod proxies;
mod request_id;
mod timing;

use http::Method;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use litplex_history::RequestLogs;
use litplex_traces::Tracer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use litplex_access::Browsers;

pub(crate) use access_log::Record;
pub use access_log::{AccessLog, Form as AccessLogForm};
pub use compression::{Coding, Compression};
pub use proxies::TrustedProxies;
pub use request_id::RequestIds;
pub(crate) use timing::Timing;

/// The middleware around every request; none by default.
#[derive(Debug, Default)]
pub struct EdgeMiddleware {
    /// Gives an id to each request that has none.
    pub request_ids: Option<RequestIds>,
    /// Lets pages of other origins call.
    pub cors: Option<CorsLayer>,
    /// Writes a line for each request.
    pub access_log: Option<AccessLog>,
    /// Compresses responses.
    pub compression: Option<Compression>,
    /// Whether each response has its duration (`Server-Timing`).
    pub server_timing: bool,
    /// Finds the clients of requests that arrive through proxies.
    pub trusted_proxies: TrustedProxies,
    /// The requests that pages of other sites may send.
    pub browsers: Browsers,
    /// Traces requests to endpoints.
    pub tracer: Option<Tracer>,
    /// Remembers requests to endpoints.
    pub requests: Option<RequestLogs>,
}

/// Returns the name of a registered method: clients may send any, and the names of spans must be
/// few.
pub(crate) fn name_of(method: &Method) -> &'static str {
    const NAMES: [&str; 9] =
        ["GET", "POST", "OPTIONS", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT"];
    NAMES.into_iter().find(|name| method == name).unwrap_or("_OTHER")
}

/// Lets pages of these origins call, or of all if one of them is `*`. They may send any header, and
/// read the headers with limits and ids. Cookies are not allowed.
///
/// # Errors
/// The first text that is not an origin.
pub fn cors<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<CorsLayer, String> {
    let mut named = Vec::new();
    let mut is_any = false;
    for origin in origins {
        is_any |= origin == "*";
        named.push(HeaderValue::from_str(origin).map_err(|_| origin.to_owned())?);
    }
    let allowed = if is_any { AllowOrigin::any() } else { AllowOrigin::list(named) };
    let told = [
        "x-request-id",
        "server-timing",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
    ];
    let told = told.map(HeaderName::from_static).into_iter().chain([RETRY_AFTER]);
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(told)))
}
