//! What is done around every request, where the server is asked to: an id, CORS, compression,
//! how long it took, a line in a log.

mod access_log;
mod compression;
mod layers;
mod proxies;
mod request_id;
mod timing;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

pub use access_log::AccessLog;
pub(crate) use access_log::Record;
pub(crate) use compression::PackedBody;
pub use compression::{Coding, Compression};
pub use layers::{Body, BoxLayer, HttpService, Layers};
pub(crate) use layers::{Context, Stacks};
pub use proxies::TrustedProxies;
pub use request_id::RequestIds;
pub(crate) use request_id::X_REQUEST_ID;
pub(crate) use timing::Timing;

/// What is done around every request; nothing by default.
#[derive(Debug, Default)]
pub struct Around {
    /// Gives each request an id, where it has none.
    pub request_ids: Option<RequestIds>,
    /// Lets pages of other origins call.
    pub cors: Option<CorsLayer>,
    /// Where a line is written for each request.
    pub access_log: Option<AccessLog>,
    /// Compresses answers.
    pub compression: Option<Compression>,
    /// Whether each answer says how long it took (`Server-Timing`).
    pub server_timing: bool,
    /// Says who asks, where requests come through proxies.
    pub trusted_proxies: TrustedProxies,
}

/// Lets pages of these origins call, or of all where one of them is `*`. They may send any header,
/// and read what the server says of limits and ids. Cookies are not asked for.
///
/// # Errors
/// The first that cannot be an origin.
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
