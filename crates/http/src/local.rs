//! Requests that come from the server itself: those of its operators, who try an endpoint out.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use litplex_http_core::buffers::READ_BYTES;
use tokio::io::duplex;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::peer::Peer;
use crate::serve::serve_connection;

/// Sends a request to the application as a client on this machine does, over a connection in memory: it
/// passes the same layers, guards and queues. Dropping the body of the response closes the connection, which
/// cancels the request.
///
/// # Errors
/// The connection ended before a response.
pub async fn exchange<B>(
    app: &Arc<App>,
    request: Request<B>,
) -> Result<Response<LocalBody>, hyper::Error>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (ours, theirs) = duplex(READ_BYTES);
    let client = Peer { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), is_tls: false };
    tokio::spawn(serve_connection(app.clone(), theirs, Some(client), None));
    let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await?;
    let connection = Connection(tokio::spawn(async {
        // Its error is that of the request.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| LocalBody { body, _connection: connection }))
}

/// The body of a response to the server itself.
#[derive(Debug)]
pub struct LocalBody {
    body: Incoming,
    _connection: Connection,
}

/// The client's side of a connection, which is closed when this is dropped.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Body for LocalBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
