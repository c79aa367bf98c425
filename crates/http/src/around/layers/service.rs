use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use litplex_core::{BoxFuture, ServeError};
use tower::{Service, ServiceExt, service_fn};

use super::{Body, BoxError};
use crate::answer::{self, HttpResponse};
use crate::app::App;
use crate::handle;
use crate::proxy::Peer;
use crate::target::Target;
use litplex_access::Admission;

/// What a layer is put around. It answers every request, and is always ready.
#[derive(Clone)]
pub struct HttpService(Arc<dyn Answers>);

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
        self.0.answer(request.map(Body::new))
    }
}

/// A service whose kind is forgotten.
pub(super) trait Answers: Send + Sync {
    fn answer(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>>;
}

pub(super) struct Anyone<S>(S);

impl<S, B> Answers for Anyone<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn answer(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
        let service = self.0.clone();
        // A layer that fails must not end the connection, on which other requests may be.
        let answered =
            AssertUnwindSafe(async move { service.oneshot(request).await }).catch_unwind();
        Box::pin(async {
            let failed = || Ok(answer::error(&ServeError::internal()).map(Body::from));
            match answered.await {
                Ok(Ok(response)) => Ok(response.map(Body::new)),
                Ok(Err(error)) => {
                    tracing::error!(error = &*error.into(), "a layer failed");
                    failed()
                }
                Err(_) => {
                    tracing::error!("a layer panicked");
                    failed()
                }
            }
        })
    }
}

/// What is known of a request besides itself. It is among its extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    pub(crate) client: Option<Peer>,
    /// The name by which a trusted proxy says that it was asked.
    pub(crate) forwarded_host: Option<Arc<str>>,
    /// What it was let in with, once it was.
    admitted: Arc<Mutex<Admission>>,
}

impl Context {
    pub(crate) fn of(client: Option<Peer>, forwarded_host: Option<Arc<str>>) -> Self {
        Self { client, forwarded_host, ..Self::default() }
    }

    pub(crate) fn admitted(&self) -> MutexGuard<'_, Admission> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is innermost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// All that the server does.
    Server,
    /// What it does for requests that were let in for this, whatever the layers made of their paths.
    Endpoint(Target),
}

impl HttpService {
    pub(super) fn new<S>(service: S) -> Self
    where
        Anyone<S>: Answers + 'static,
    {
        Self(Arc::new(Anyone(service)))
    }

    /// Makes the innermost one.
    pub(super) fn within(app: Weak<App>, stage: Stage) -> Self {
        Self::new(service_fn(move |request| {
            let app = app.clone();
            async move {
                // Whoever serves the request holds it.
                let app = app.upgrade().ok_or("the server is gone")?;
                let response = within(&app, stage, request).await;
                Ok::<_, BoxError>(response.map(Body::from))
            }
        }))
    }

    /// Answers a request of a client.
    pub(crate) async fn answer(&self, request: Request<Body>, context: Context) -> HttpResponse {
        let (mut parts, body) = request.into_parts();
        if let Some(client) = context.client {
            parts.extensions.insert(client.address);
        }
        parts.extensions.insert(context);
        let Ok(response) = self.0.answer(Request::from_parts(parts, body)).await;
        response.map(Body::into_answer)
    }
}

async fn within(app: &Arc<App>, stage: Stage, mut request: Request<Body>) -> HttpResponse {
    let context = request.extensions_mut().remove::<Context>().unwrap_or_default();
    match stage {
        Stage::Server => handle::let_in(app, request, &context).await,
        Stage::Endpoint(target) => handle::pass(app, target, request, context.client).await,
    }
}
