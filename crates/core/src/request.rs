//! Requests as models see them. Reading them from HTTP is the task of `http`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::Reservation;

/// A request of a client to an endpoint, with its body as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// The format of the body.
    pub content: Content,
    /// The body in the pieces in which it arrived; they are not joined on the way to a worker.
    pub body: Vec<Bytes>,
    /// Present when the endpoint's hooks ask for it ([`ModelInfo::context`](crate::ModelInfo)).
    /// All jobs of a request share it.
    pub meta: Option<Arc<Meta>>,
    /// The request id, if requests have ids.
    pub id: Option<String>,
    /// Whether its caller is a hook, which takes values that HTTP cannot carry.
    pub takes_values: bool,
    /// The memory that the request takes of the server's budget, until its last owner is dropped.
    /// Code that derives data from the request grows this reservation first.
    pub reservation: Reservation,
}

impl Request {
    /// Returns a request with this JSON body, unparsed.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Json,
            body: vec![body.into()],
            meta: None,
            id: None,
            takes_values: false,
            reservation: Reservation::default(),
        }
    }

    /// Returns the length of the body in bytes.
    pub fn body_len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}

/// The format of a request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One JSON value, unparsed: litplex does not parse bodies that it only forwards.
    Json,
    /// Bytes of this media type, unchanged.
    Raw(String),
    /// The fields and files of a form; the body is their contents, one after the other.
    Form(Vec<FormPart>),
    /// Values of a hook: JSON, and buffers that belong into it. The body is their contents, one after
    /// the other; the parts are described as in the worker protocol.
    Packed(Arc<Value>),
}

/// One field or file of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormPart {
    /// The name of the field.
    pub name: String,
    /// The name of the file; a part without one is a plain field.
    pub filename: Option<String>,
    /// The media type that the client gave.
    pub content_type: Option<String>,
    /// The length of its content in the request's body, in bytes.
    pub length: usize,
}

/// The parts of a request besides its body that hooks may ask for.
#[derive(Debug, Clone)]
pub struct Meta {
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query as it was sent, without the question mark.
    pub query: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Meta {
    /// Returns the approximate memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let pair = |(name, value): &(String, String)| {
            size_of::<(String, String)>() + name.len() + value.len()
        };
        let texts = self.method.len() + self.path.len() + self.query.len();
        size_of::<Self>() + texts + self.headers.iter().map(pair).sum::<usize>()
    }
}
