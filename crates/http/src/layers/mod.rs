//! A Rust program's own middleware: any [`tower::Layer`] around an endpoint or the whole server. The
//! stack hands in the service that a layer is around.

mod service;

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use http::{Request, Response};
use litplex_core::BoxError;
use litplex_http_core::body::Body;
use tower::{Layer, Service};

pub use service::HttpService;

/// A [`tower::Layer`] whose service answers with any body, and may fail in any way. Every such
/// layer implements this trait.
pub trait HttpLayer: Send + 'static {
    /// Returns the service with the layer around it. If it fails or panics, the response is 500.
    fn wrap(&self, inner: HttpService) -> HttpService;
}

impl<L, B> HttpLayer for L
where
    L: Layer<HttpService> + Send + 'static,
    L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
    <L::Service as Service<Request<Body>>>::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn wrap(&self, inner: HttpService) -> HttpService {
        HttpService::new(self.layer(inner))
    }
}

impl fmt::Debug for dyn HttpLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpLayer")
    }
}

/// A type-erased layer.
pub type BoxLayer = Box<dyn HttpLayer>;

/// The layers of a program, the first ones innermost.
#[derive(Debug, Default)]
pub struct Layers {
    /// Around every request.
    pub server: Vec<BoxLayer>,
    /// Around endpoints, by their labels.
    pub endpoints: HashMap<String, Vec<BoxLayer>>,
}

/// Returns the service with these layers around it, the first one innermost; `None` without layers.
pub(crate) fn layered(layers: &[BoxLayer], innermost: HttpService) -> Option<HttpService> {
    let is_any = !layers.is_empty();
    is_any.then(|| layers.iter().fold(innermost, |inner, layer| layer.wrap(inner)))
}
