//! The requests of operators on the server's own port. The admin API, which responds to them, is above this
//! crate: requests are handed to it over a channel, so that an application does not own its operators.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use litplex_core::ServeError;
use litplex_http_core::body::Body;
use litplex_http_core::headers::remove_hop_by_hop;
use litplex_http_core::response::{self, HttpResponse, ResponseBody};
use litplex_http_core::stream::Broken;
use tokio::sync::{mpsc, oneshot};

/// The number of requests that wait to be taken.
const WAITING: usize = 64;

/// The sender of requests of operators.
#[derive(Debug, Clone)]
pub struct Operators(mpsc::Sender<OperatorRequest>);

/// A request of an operator.
#[derive(Debug)]
pub struct OperatorRequest {
    request: Request<Body>,
    /// The name under which a trusted proxy received it.
    forwarded_host: Option<Arc<str>>,
    response: oneshot::Sender<HttpResponse>,
}

impl Operators {
    /// Returns the sender, and the receiver of what it sends.
    pub fn channel() -> (Self, mpsc::Receiver<OperatorRequest>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Hands a request over, and returns the response.
    pub(crate) async fn respond(
        &self,
        request: Request<Body>,
        forwarded_host: Option<Arc<str>>,
    ) -> HttpResponse {
        let (response, responded) = oneshot::channel();
        // Without a receiver the response is dropped.
        let _ = self.0.send(OperatorRequest { request, forwarded_host, response }).await;
        let stopping = || response::error(&ServeError::not_ready("the server is stopping", 1));
        responded.await.unwrap_or_else(|_| stopping())
    }
}

impl OperatorRequest {
    /// Sends the response that `respond` makes of the request and of the name under which a trusted proxy
    /// received it. `respond` is dropped if the client leaves before.
    pub async fn answer<B>(
        self,
        respond: impl AsyncFnOnce(Request<Body>, Option<Arc<str>>) -> Response<B>,
    ) where
        B: http_body::Body<Data = Bytes> + Send + 'static,
    {
        let Self { request, forwarded_host, mut response } = self;
        let answer = tokio::select! {
            answer = respond(request, forwarded_host) => answer,
            () = response.closed() => return,
        };
        let broken = |_| Broken { status: StatusCode::BAD_GATEWAY.as_u16() };
        let mut answer = answer.map(|body| ResponseBody::boxed(body.map_err(broken)));
        remove_hop_by_hop(answer.headers_mut());
        // The client may have left.
        let _ = response.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http_body_util::Full;

    use super::*;

    fn request() -> Request<Body> {
        Request::get("/dashboard").body(Body::default()).unwrap()
    }

    #[tokio::test]
    async fn a_request_gets_the_response_that_the_receiver_makes() {
        let (operators, mut requests) = Operators::channel();
        let answer = async {
            let request = requests.recv().await.unwrap();
            let respond = async |request: Request<Body>, forwarded: Option<Arc<str>>| {
                let text = format!("{} {}", request.uri(), forwarded.unwrap());
                let response = Response::builder().header("connection", "x-a").header("x-a", "1");
                response.body(Full::from(text)).unwrap()
            };
            request.answer(respond).await;
        };
        let (response, ()) =
            tokio::join!(operators.respond(request(), Some("a.example".into())), answer);
        assert!(response.headers().is_empty(), "{response:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "/dashboard a.example");
    }

    #[tokio::test]
    async fn the_response_of_a_client_that_has_left_is_given_up() {
        let (operators, mut requests) = Operators::channel();
        let left = tokio::spawn(async move { operators.respond(request(), None).await });
        let taken = requests.recv().await.unwrap();
        left.abort();
        let never = async |_, _| pending::<Response<Full<Bytes>>>().await;
        taken.answer(never).await;
    }

    #[tokio::test]
    async fn without_a_receiver_the_server_is_stopping() {
        let (operators, requests) = Operators::channel();
        drop(requests);
        let response = operators.respond(request(), None).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
