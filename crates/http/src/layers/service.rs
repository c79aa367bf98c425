//! The type-erased service around which layers are put.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use litplex_core::{BoxError, BoxFuture, ServeError};
use litplex_http_core::body::Body;
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::{self, HttpResponse};
use tower::{Service, ServiceExt, service_fn};

use crate::context::{Context, WeakContext};

/// The service that a layer is around. It responds to every request, and is always ready.
#[derive(Clone)]
pub struct HttpService(Arc<dyn Respond>);

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpService")
    }
}

impl<B> Service<Request<B>> for HttpService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.respond(request.map(Body::new))
    }
}

/// A service of any type.
trait Respond: Send + Sync {
    fn respond(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>>;
}

/// Makes a service type-erased.
struct Erased<S>(S);

impl<S, B> Respond for Erased<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn respond(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
        let service = self.0.clone();
        let name = RequestName::new(request.headers(), request.extensions());
        // A layer that fails must not end the connection: other requests may be on it.
        let responded =
            AssertUnwindSafe(async move { service.oneshot(request).await }).catch_unwind();
        Box::pin(async move {
            let failed = || Ok(response::error(&ServeError::internal()).map(Body::from));
            match responded.await {
                Ok(Ok(response)) => Ok(response.map(Body::new)),
                Ok(Err(error)) => {
                    let request_id = name.text();
                    tracing::error!(error = &*error.into(), request_id, "a layer failed");
                    failed()
                }
                Err(_) => {
                    tracing::error!(request_id = name.text(), "a layer panicked");
                    failed()
                }
            }
        })
    }
}

impl HttpService {
    pub(super) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Arc::new(Erased(service)))
    }

    /// Returns a service that calls this function: the innermost one.
    pub(crate) fn innermost<F>(
        respond: impl Fn(Request<Body>, Context) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = HttpResponse> + Send + 'static,
    {
        Self::new(service_fn(move |mut request: Request<Body>| {
            let context = request.extensions_mut().remove::<WeakContext>().unwrap_or_default();
            let responded = respond(request, context.upgrade());
            async move { Ok::<_, BoxError>(responded.await.map(Body::from)) }
        }))
    }

    /// Sends a request with its context through the layers.
    pub(crate) async fn send(&self, request: Request<Body>, context: &Context) -> HttpResponse {
        let (mut parts, body) = request.into_parts();
        if let Some(client) = context.client {
            parts.extensions.insert(client.address);
        }
        parts.extensions.insert(context.downgrade());
        let name = RequestName::new(&parts.headers, &parts.extensions);
        let Ok(response) = self.0.respond(Request::from_parts(parts, body)).await;
        response.map(|body| body.into_response_body(name))
    }
}
