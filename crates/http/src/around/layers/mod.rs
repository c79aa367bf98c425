//! A Rust program's own middleware: any [`tower::Layer`] around an endpoint or the whole server.

mod body;
mod service;

use std::collections::HashMap;
use std::fmt;
use std::sync::Weak;

use bytes::Bytes;
use http::{Request, Response};
use tower::{Layer, Service};

use crate::app::App;
use crate::target::Target;

pub use body::Body;
pub use service::HttpService;
pub(crate) use service::{Context, Stage};

/// What goes wrong in a layer.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A [`tower::Layer`] whose service answers with any body, and may fail in any way. Every layer of
/// that kind is one.
pub trait HttpLayer: Send + 'static {
    /// Puts it around a service. Where it fails or panics, the answer is 500.
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

/// A layer whose kind is forgotten.
pub type BoxLayer = Box<dyn HttpLayer>;

/// The layers of a server, those that come first innermost.
#[derive(Debug, Default)]
pub struct Layers {
    /// Around all that it answers.
    pub server: Vec<BoxLayer>,
    /// Around endpoints, by their paths.
    pub endpoints: HashMap<String, Vec<BoxLayer>>,
}

/// What requests pass, where there are layers.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    server: Option<HttpService>,
    /// By their indices.
    endpoints: HashMap<usize, HttpService>,
}

impl Stacks {
    /// Builds them; `find` returns the index of the endpoint at a path.
    pub(crate) fn build(
        layers: Layers,
        app: &Weak<App>,
        find: impl Fn(&str) -> Option<usize>,
    ) -> Self {
        let stack = |layers: Vec<BoxLayer>, stage| {
            let within = HttpService::within(app.clone(), stage);
            layers.iter().fold(within, |inner, layer| layer.wrap(inner))
        };
        let has_any = |layers: &Vec<BoxLayer>| !layers.is_empty();
        let endpoints = layers.endpoints.into_iter().filter(|(_, layers)| has_any(layers));
        let endpoints = endpoints.filter_map(|(path, layers)| Some((find(&path)?, layers)));
        let of_endpoint = |index| Stage::Endpoint(Target::Endpoint(index));
        Self {
            server: Some(layers.server).filter(has_any).map(|l| stack(l, Stage::Server)),
            endpoints: endpoints.map(|(index, l)| (index, stack(l, of_endpoint(index)))).collect(),
        }
    }

    pub(crate) fn of_the_server(&self) -> Option<&HttpService> {
        self.server.as_ref()
    }

    pub(crate) fn of(&self, target: Target) -> Option<&HttpService> {
        let Target::Endpoint(index) = target else { return None };
        self.endpoints.get(&index)
    }
}
