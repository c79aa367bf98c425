//! The stack: the layers around every request, in one list for each listener.
//!
//! A request passes the layers of its list from the first to the last, then the core: CORS and the
//! program's layers around the gate on the public listener, the dispatcher on the inner one. The
//! response passes the layers in reverse. The layers are values, not nested services: a future for each
//! would be copied and allocated with every request, and most layers do nothing for most requests.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{EXPECT, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use litplex_core::{MemoryBudget, Outcome, Reservation, ServeError, Trace};
use litplex_http_core::body::Body;
use litplex_http_core::drain_body::drain_unread_body;
use litplex_http_core::headers::X_REQUEST_ID;
use litplex_http_core::response::{self, HttpResponse};
use litplex_http_core::upload::{UnreadRest, Upload};
use litplex_metrics::{LaterEdge, Shed};
use tower::{Layer as _, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

use crate::app::App;
use crate::app_host;
use crate::connection::ActiveRequest;
use crate::context::Context;
use crate::gate::Gate;
use crate::head;
use crate::middleware::{Coding, Timing};
use crate::observed_body::ObservedBody;
use crate::observer::RequestObserver;
use crate::peer::Peer;
use crate::recording::Arrival;
use crate::target::Target;

/// A layer around every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Metrics,
    ServerTiming,
    Client,
    Recording,
    RequestId,
    AccessLog,
    Compression,
    UnreadBody,
    Head,
    HeadMemory,
}

/// The layers of the public listener, outermost first.
const PUBLIC: [Layer; 10] = [
    // Outermost: every request counts, whatever becomes of it.
    Layer::Metrics,
    // Measures the whole time in the server, from the headers of the request to those of the response.
    Layer::ServerTiming,
    // Before all layers that name the client: proxies that are trusted send its address.
    Layer::Client,
    // Before the recording and the access log, which have the id.
    Layer::RequestId,
    // After the client, whose scheme it has. Outside the layers that respond, so that refused requests are
    // recorded too.
    Layer::Recording,
    // Outside compression: it has the number of bytes that are sent.
    Layer::AccessLog,
    // Outside everything that responds: the pages of errors and of layers are compressed too.
    Layer::Compression,
    // Inside compression, which can take long: a client that still sends must not wait for it.
    Layer::UnreadBody,
    // Inside the observers, which see the refusal of an ambiguous head; outside everything that reads it.
    Layer::Head,
    // Innermost: only a request that goes on takes memory.
    Layer::HeadMemory,
];

/// The layers of the inner listener. A request of the app host is part of a client's request, which has
/// passed the public ones.
const INNER: [Layer; 2] = [Layer::Recording, Layer::UnreadBody];

/// The layers of the inner listener if the app host is the process of a test: then there is no public
/// listener, which would compress.
const ATTACHED: [Layer; 3] = [Layer::Recording, Layer::Compression, Layer::UnreadBody];

/// The memory of a stream of HTTP/2 and of the task of its request, approximately.
const STREAM_BYTES: usize = 8 * 1024;

/// The memory of a header in addition to its name and value: an entry of a map and its index.
const HEADER_BYTES: usize = 128;

/// The state of the layers for one request.
struct Passage {
    is_head: bool,
    version: Version,
    client: Option<Peer>,
    /// The target by the path, once it was looked up.
    target: Option<Target>,
    /// The request of a client that a request of the app host is a part of.
    outer: Option<Arc<Trace>>,
    observer: RequestObserver,
    /// The metrics of a request whose endpoint the body decides.
    later_metrics: Option<LaterEdge>,
    timing: Option<Timing>,
    id: Option<HeaderValue>,
    /// The coding of the response, if responses are compressed and the client accepts one.
    coding: Option<Option<Coding>>,
    /// The part of the body that is unread.
    unread: Option<UnreadRest>,
}

impl App {
    /// Responds to a request of a client.
    pub(crate) async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Option<Peer>,
        active: ActiveRequest,
    ) -> Result<Response<ObservedBody>, Infallible> {
        let gate = self.gate();
        let (mut request, mut passage) = Passage::begin(request, client);
        let response = match self.on_request(&gate, &PUBLIC, &mut request, &mut passage) {
            Err(refused) => *refused,
            Ok(()) => match &self.middleware.cors {
                None => self.through_server_layers(&gate, request, &passage.observer.context).await,
                Some(cors) => {
                    let context = &passage.observer.context;
                    let inner = |request| self.through_server_layers(&gate, request, context);
                    Box::pin(with_cors(cors, request, inner)).await
                }
            },
        };
        let memory = gate.dispatcher.memory.clone();
        let response = self.on_response(&memory, &PUBLIC, &mut passage, response).await;
        Ok(observed(memory, passage, response, active))
    }

    /// Responds to a request of the app host. `is_attached`: the app host is the process of a test.
    pub(crate) async fn handle_inner(
        self: Arc<Self>,
        request: Request<Incoming>,
        is_attached: bool,
        active: ActiveRequest,
    ) -> Result<Response<ObservedBody>, Infallible> {
        let layers = if is_attached { &ATTACHED[..] } else { &INNER };
        let (mut request, mut passage) = Passage::begin(request, None);
        let admitted = app_host::take_admission(request.headers_mut());
        let outer = app_host::take_request(request.headers_mut());
        passage.outer = outer.and_then(|number| self.requests()?.leading(number));
        let gate = self.gate();
        // The target has its meaning at the gate that admitted the request of the client. That gate is there
        // as long as this request.
        let gate = admitted.as_ref().and_then(|it| gate.numbered(it.gate)).unwrap_or(gate);
        let admitted = admitted.filter(|it| it.gate == gate.router.number);
        let response = match self.on_request(&gate, layers, &mut request, &mut passage) {
            Err(refused) => *refused,
            Ok(()) => gate.dispatcher.serve_inner(request, admitted, is_attached).await,
        };
        let memory = gate.dispatcher.memory.clone();
        let response = self.on_response(&memory, layers, &mut passage, response).await;
        Ok(observed(memory, passage, response, active))
    }

    /// Sends a request through these layers.
    ///
    /// # Errors
    /// The response of the layer that refused the request. The others have begun all the same.
    fn on_request(
        &self,
        gate: &Gate,
        layers: &[Layer],
        request: &mut Request<Body>,
        passage: &mut Passage,
    ) -> Result<(), Box<HttpResponse>> {
        let (middleware, router) = (&self.middleware, &gate.router);
        for layer in layers {
            match layer {
                Layer::Metrics => {
                    let target = router.target(request.uri().path());
                    passage.target = Some(target);
                    let edge = router.edge(target);
                    passage.observer.metrics = Some(match target {
                        Target::SharedPath(_) => {
                            let (guard, later) = edge.begin_before_endpoint();
                            passage.later_metrics = Some(later);
                            guard
                        }
                        _ => edge.begin(),
                    });
                }
                Layer::ServerTiming => {
                    passage.timing = middleware.server_timing.then(Timing::begin);
                }
                Layer::Client => passage.note_client(self, request),
                Layer::Recording => {
                    let target =
                        passage.target.unwrap_or_else(|| router.target(request.uri().path()));
                    let arrival = match &passage.observer.metrics {
                        Some(metrics) => Arrival::Client(metrics.begun()),
                        None => Arrival::AppHost(passage.outer.take()),
                    };
                    let recording =
                        self.begin_recording(router, request, target, passage.client, arrival);
                    passage.observer.recording = recording.map(Box::new);
                }
                Layer::RequestId => {
                    let ids = middleware.request_ids.as_ref();
                    passage.id = ids.map(|ids| ids.take(request.headers_mut()));
                }
                Layer::AccessLog => {
                    let (context, id) = (&passage.observer.context, &passage.id);
                    let log = middleware.access_log.as_ref();
                    passage.observer.record =
                        log.map(|log| log.begin(request, context, id.clone()));
                }
                Layer::Compression => {
                    // A response to HEAD has no body to compress.
                    let compression = middleware.compression.as_ref().filter(|_| !passage.is_head);
                    passage.coding = compression.map(|with| with.choose(request.headers()));
                }
                // The body was taken from the request before, with its type.
                Layer::UnreadBody => {}
                Layer::Head => {
                    head::check(request).map_err(|error| Box::new(response::error(&error)))?;
                }
                Layer::HeadMemory => {
                    let head = hold_head(gate, request);
                    passage.observer.head =
                        head.map_err(|full| Box::new(without_room(gate, request, &full)))?;
                }
            }
        }
        Ok(())
    }

    /// Sends a response back through these layers.
    async fn on_response(
        &self,
        memory: &Arc<MemoryBudget>,
        layers: &[Layer],
        passage: &mut Passage,
        mut response: HttpResponse,
    ) -> HttpResponse {
        for layer in layers.iter().rev() {
            match layer {
                Layer::UnreadBody => {
                    if let Some(unread) = passage.unread.take() {
                        response = drain_unread_body(passage.version, unread, response).await;
                    }
                }
                Layer::Compression => {
                    if let (Some(compression), Some(coding)) =
                        (&self.middleware.compression, passage.coding)
                    {
                        response = Box::pin(compression.apply(coding, response, memory)).await;
                    }
                }
                Layer::RequestId => {
                    let id = passage.id.take().map(|id| (X_REQUEST_ID, id));
                    response.headers_mut().extend(id);
                }
                Layer::ServerTiming => {
                    if let Some(timing) = &passage.timing {
                        timing.stamp(response.headers_mut());
                    }
                }
                // The observers see the response as it is sent; the others have done their part.
                Layer::Metrics | Layer::Recording | Layer::AccessLog => {}
                Layer::Client | Layer::Head | Layer::HeadMemory => {}
            }
        }
        response
    }

    /// Sends a request through the program's layers around the server, if there are any.
    async fn through_server_layers(
        &self,
        gate: &Gate,
        request: Request<Body>,
        context: &Context,
    ) -> HttpResponse {
        match &self.layers {
            None => gate.admit_and_route(request, context).await,
            Some(layers) => Box::pin(layers.send(request, context)).await,
        }
    }
}

/// Returns the response with a body that is observed until it has ended.
fn observed(
    memory: Arc<MemoryBudget>,
    passage: Passage,
    mut response: HttpResponse,
    active: ActiveRequest,
) -> Response<ObservedBody> {
    let Passage { is_head, version, mut observer, .. } = passage;
    observer.on_headers(response.status(), response.headers());
    if is_head && version == Version::HTTP_2 {
        response::remove_body(&mut response);
    }
    // hyper polls no body of a response to HEAD, and none of 204 and 304.
    let bare = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    let is_bare = is_head || bare.contains(&response.status());
    response.map(|body| {
        let mut body = ObservedBody::new(body, observer, active, version, memory);
        if is_bare {
            body.on_end();
        }
        body
    })
}

/// Reserves the memory of a request in addition to its body, if it may have to wait. A connection of
/// HTTP/1.1 has one request at a time, whose headers are within the buffer of the connection.
fn hold_head(gate: &Gate, request: &Request<Body>) -> Outcome<Reservation> {
    if request.version() != Version::HTTP_2 {
        return Ok(Reservation::default());
    }
    let (router, path) = (&gate.router, request.uri().path());
    let target = router.target(path);
    let waits = router.path_of(target).is_some()
        || router.app_host(target, path).is_some()
        || router.is_tools(path);
    let reservation = gate.dispatcher.memory.reserve();
    if waits {
        reservation.grow(head_bytes(request))?;
    }
    Ok(reservation)
}

/// Refuses a request whose headers exceed the memory budget.
fn without_room(gate: &Gate, request: &Request<Body>, full: &ServeError) -> HttpResponse {
    let (router, path) = (&gate.router, request.uri().path());
    let target = router.target(path);
    router.edge(target).shed(Shed::Memory);
    router.error(target, path, full)
}

impl Passage {
    /// Takes the body out of a request, so that its unread part can be read after the response.
    fn begin(request: Request<Incoming>, client: Option<Peer>) -> (Request<Body>, Self) {
        let (is_head, version) = (request.method() == Method::HEAD, request.version());
        let (parts, body) = request.into_parts();
        let (body, unread) = if body.is_end_stream() {
            (Body::default(), None)
        } else {
            let (body, unread) = Upload::new(body, parts.headers.contains_key(EXPECT));
            (body.into(), Some(unread))
        };
        let passage = Self {
            is_head,
            version,
            client,
            target: None,
            outer: None,
            observer: RequestObserver::default(),
            later_metrics: None,
            timing: None,
            id: None,
            coding: None,
            unread,
        };
        (Request::from_parts(parts, body), passage)
    }

    /// Replaces the peer of the connection by the client that a trusted proxy names.
    fn note_client<B>(&mut self, app: &App, request: &Request<B>) {
        let (proxies, headers) = (&app.middleware.trusted_proxies, request.headers());
        let host = self.client.and_then(|peer| proxies.host(peer, headers)).map(Arc::from);
        self.client = self.client.map(|peer| proxies.client(peer, headers));
        self.observer.context = Context::new(self.client, host, self.later_metrics.take());
    }
}

/// Returns approximately the memory of a request of HTTP/2 in addition to its body.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| HEADER_BYTES + name.as_str().len() + value.len());
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    STREAM_BYTES + path.len() + query.len() + headers.sum::<usize>()
}

/// Responds to preflight requests, and lets pages of other origins read the other responses.
async fn with_cors<F: Future<Output = HttpResponse>>(
    cors: &CorsLayer,
    request: Request<Body>,
    inner: impl Fn(Request<Body>) -> F,
) -> HttpResponse {
    let inner = service_fn(|request| {
        let responded = inner(request);
        async { Ok::<_, Infallible>(responded.await) }
    });
    let Ok(response) = cors.layer(inner).oneshot(request).await;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_takes_the_memory_of_its_headers() {
        let head = |value: usize| {
            let request = Request::get("/a?b").header("x", "a".repeat(value)).body(());
            head_bytes(&request.unwrap())
        };
        assert_eq!(head(0), STREAM_BYTES + "/a".len() + "b".len() + HEADER_BYTES + "x".len());
        assert_eq!(head(9_000) - head(0), 9_000);
    }

    /// Returns the size of the future that an async function of four arguments returns.
    fn future_size<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_stays_small() {
        // It is copied at each level while it is built; rare branches are boxed.
        let size = future_size(App::handle);
        assert!(size < 7_500, "{size} bytes");
    }

    #[test]
    fn the_inner_listener_has_a_part_of_the_public_stack_in_its_order() {
        for layers in [&INNER[..], &ATTACHED] {
            let mut public = PUBLIC.iter();
            assert!(layers.iter().all(|layer| public.any(|other| other == layer)), "{layers:?}");
        }
    }
}
