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

pub use body::Body;
pub use service::HttpService;
pub(crate) use service::{Context, Stage};

/// What goes wrong in a layer.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A [`tower::Layer`] of any kind.
pub struct BoxLayer(Box<dyn FnOnce(HttpService) -> HttpService + Send>);

impl fmt::Debug for BoxLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxLayer")
    }
}

impl BoxLayer {
    /// Takes one whose service answers with any body. Where that fails or panics, the answer is
    /// 500.
    pub fn new<L, B>(layer: L) -> Self
    where
        L: Layer<HttpService> + Send + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Box::new(move |inner| HttpService::new(layer.layer(inner))))
    }
}

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
    endpoints: HashMap<String, HttpService>,
}

impl Stacks {
    pub(crate) fn build(layers: Layers, app: &Weak<App>) -> Self {
        let stack = |layers: Vec<BoxLayer>, stage| {
            let within = HttpService::within(app.clone(), stage);
            layers.into_iter().fold(within, |inner, BoxLayer(wrap)| wrap(inner))
        };
        let has_any = |layers: &Vec<BoxLayer>| !layers.is_empty();
        let endpoints = layers.endpoints.into_iter().filter(|(_, layers)| has_any(layers));
        Self {
            server: Some(layers.server).filter(has_any).map(|l| stack(l, Stage::Server)),
            endpoints: endpoints.map(|(path, l)| (path, stack(l, Stage::Endpoint))).collect(),
        }
    }

    pub(crate) fn of_the_server(&self) -> Option<&HttpService> {
        self.server.as_ref()
    }

    pub(crate) fn of(&self, path: &str) -> Option<&HttpService> {
        self.endpoints.get(path)
    }
}
