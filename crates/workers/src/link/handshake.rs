//! The first frames of a worker's two connections, up to `ready`.
//!
//! How the worker finds this server, and where its connections come from, is left to its launch.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use litplex_core::{Base64Fields, DialectId, ModelInfo};
use litplex_wire::{
    Decoder, Failed, Frame, Hello, Kind, PROTOCOL, PROTOCOL_OLDEST, Ready, Refuse, Role, Setup,
    Welcome, negotiate,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Transport;
use crate::Error;

/// The two connections of a worker.
pub(crate) struct Connections<S> {
    pub(crate) data: S,
    pub(crate) control: S,
    pub(crate) hello: Hello,
}

/// The handshake of a worker that has not opened both of its connections.
pub(crate) struct Handshake<S> {
    token: String,
    data: Option<(S, Hello)>,
    control: Option<S>,
}

impl<S: Transport> Handshake<S> {
    /// Creates the handshake of the worker that knows this token.
    pub(crate) fn new(token: String) -> Self {
        Self { token, data: None, control: None }
    }

    /// Greets a peer that connected, and returns the worker's connections once both are open. A
    /// peer that does not know the token is disconnected and changes nothing.
    ///
    /// # Errors
    /// The worker speaks no version of the protocol that this program does.
    pub(crate) async fn greet(&mut self, mut stream: S) -> Result<Option<Connections<S>>, Error> {
        let Some(hello) = read_hello(&mut stream, &self.token).await else { return Ok(None) };
        answer_hello(&mut stream, &hello).await?;
        match hello.role {
            Role::Data => self.data = Some((stream, hello)),
            Role::Control => self.control = Some(stream),
            // The model is not loaded, so that no hook can call.
            Role::Calls => return Ok(None),
        }
        Ok(match (self.data.take(), self.control.take()) {
            (Some((data, hello)), Some(control)) => Some(Connections { data, control, hello }),
            (data, control) => {
                (self.data, self.control) = (data, control);
                None
            }
        })
    }
}

/// Greets a peer that connected while the worker serves, and returns whether it is the worker's
/// connection for calls.
pub(crate) async fn greet_caller<S: Transport>(stream: &mut S, token: &str) -> bool {
    match read_hello(stream, token).await {
        Some(hello) if hello.role == Role::Calls => answer_hello(stream, &hello).await.is_ok(),
        _ => false,
    }
}

async fn read_hello<S: Transport>(stream: &mut S, token: &str) -> Option<Hello> {
    let frame = read_frame(stream).await?;
    let hello: Hello = serde_json::from_slice(&frame.payload).ok()?;
    (frame.kind == Kind::Hello && hello.token == token).then_some(hello)
}

impl<S: Transport> Connections<S> {
    /// Sends the settings of the model, and resolves once the worker has set it up.
    ///
    /// # Errors
    /// The worker reports that its model cannot be set up, closes the connection, or sends another
    /// message.
    pub(crate) async fn set_up(&mut self, setup: &Setup) -> Result<Ready, Error> {
        write_frame(&mut self.data, &Frame::message(Kind::Setup, setup)).await;
        let frame = read_frame(&mut self.data).await.ok_or(Error::ClosedEarly)?;
        match frame.kind {
            Kind::Ready => Ok(serde_json::from_slice(&frame.payload)?),
            _ => {
                let Failed { reason, traceback } = serde_json::from_slice(&frame.payload)?;
                Err(Error::SetupFailed { reason, traceback })
            }
        }
    }
}

async fn answer_hello<S: Transport>(stream: &mut S, hello: &Hello) -> Result<(), Error> {
    match negotiate(hello) {
        Some(protocol) => {
            write_frame(stream, &Frame::message(Kind::Welcome, &Welcome { protocol })).await;
            Ok(())
        }
        None => {
            let error = Error::ProtocolVersion {
                ours: version_range(PROTOCOL_OLDEST, PROTOCOL),
                theirs: version_range(
                    hello.protocol_oldest.unwrap_or(hello.protocol),
                    hello.protocol,
                ),
            };
            let refuse = Refuse { reason: error.to_string() };
            write_frame(stream, &Frame::message(Kind::Refuse, &refuse)).await;
            Err(error)
        }
    }
}

fn version_range(oldest: u32, newest: u32) -> String {
    if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") }
}

/// Returns the properties of the model that a worker is ready to serve.
pub(crate) fn model_info(ready: &Ready) -> ModelInfo {
    ModelInfo {
        max_batch_size: ready.max_batch_size.max(1),
        batch_timeout: Duration::try_from_secs_f64(ready.batch_timeout).unwrap_or_default(),
        concurrency: ready.concurrency.max(1),
        watches_callers: false,
        places: ready.places.unwrap_or(ready.concurrency).max(1),
        stream: ready.stream,
        context: ready.context,
        has_cost: ready.cost,
        dialect: ready.spec.clone().map(DialectId::new),
        schema: Arc::new(ready.schema.clone()),
        tool: (!ready.tool.is_null()).then(|| Arc::new(ready.tool.clone())),
        calls: ready.calls.clone(),
        base64: Base64Fields::from_paths(&ready.base64).into(),
    }
}

/// Reads one frame; `None` if the connection ends first or carries something else.
///
/// Nothing may follow the frame before this side has answered it: no byte is kept.
pub(crate) async fn read_frame<S: Transport>(stream: &mut S) -> Option<Frame> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    loop {
        if let Some(frame) = decoder.decode(&mut buffer).ok()? {
            return Some(frame);
        }
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Writes one frame. The next read fails if the connection is broken.
pub(crate) async fn write_frame<S: Transport>(stream: &mut S, frame: &Frame) {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
}
