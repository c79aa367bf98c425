//! Values that travel through a graph: JSON as it was written, or bytes.

use std::sync::Arc;

use bytes::Bytes;
use litplex_core::{Content, MediaType, Outcome, Response, ServeError, json_text};

/// A request, a response or a selection of one; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) content: Content,
    pub(crate) body: Vec<Bytes>,
    /// Whether every part of it was sent by the client. A callee's refusal of it is the client's error.
    pub(crate) is_from_client: bool,
}

impl Value {
    /// Returns JSON text that a step made.
    pub(crate) fn json(text: impl Into<Bytes>) -> Self {
        Self { content: Content::Json, body: vec![text.into()], is_from_client: false }
    }

    /// Returns the body of a response.
    pub(crate) fn from_response(response: Response) -> Self {
        let content = match response.media_type {
            MediaType::Json => Content::Json,
            MediaType::Other(media_type) => Content::Raw(media_type),
            MediaType::Packed(parts) => Content::Packed(parts),
        };
        Self { content, body: vec![response.body], is_from_client: false }
    }

    /// Returns its length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// Returns it as a response.
    pub(crate) fn into_response(self) -> Response {
        let media_type = match self.content {
            Content::Json => MediaType::Json,
            Content::Raw(media_type) => MediaType::Other(media_type),
            Content::Packed(parts) => MediaType::Packed(parts),
            // A form has no single body; its parts follow each other.
            Content::Form(_) => MediaType::Other("application/octet-stream".into()),
        };
        let body = match <[Bytes; 1]>::try_from(self.body) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat().into(),
        };
        Response { status: 200, media_type, headers: Vec::new(), body }
    }

    /// Returns its JSON text: JSON as it is, and other text as a JSON string.
    ///
    /// # Errors
    /// It is bytes, a form, or JSON in an unknown encoding.
    pub(crate) fn text(&self) -> Outcome<Bytes> {
        match &self.content {
            Content::Json => json_text(&self.body).ok_or_else(|| {
                if self.is_from_client { ServeError::not_json_text() } else { not_json("bytes") }
            }),
            Content::Raw(media_type) if media_type.starts_with("text/") => {
                let text = self.body.concat();
                let quoted = serde_json::to_string(&String::from_utf8_lossy(&text));
                quoted.map(Bytes::from).map_err(|_| ServeError::internal())
            }
            Content::Raw(media_type) => Err(self.no_json(media_type)),
            Content::Form(_) => Err(self.no_json("a form")),
            Content::Packed(_) => Err(self.no_json("arrays or bytes")),
        }
    }

    fn no_json(&self, what: &str) -> ServeError {
        if self.is_from_client {
            let detail = format!("this pipeline reads fields of JSON, not of {what}");
            ServeError::unsupported_type(detail)
        } else {
            not_json(what)
        }
    }
}

fn not_json(what: &str) -> ServeError {
    let detail = format!("a value that is JSON is needed, and the response is {what}");
    ServeError { detail, ..ServeError::internal() }
}

/// The values that a step may select from, by name: a linked list, so that parallel steps share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    name: Arc<str>,
    value: Value,
    next: Scope,
}

impl Scope {
    /// Returns this scope with one more value; it hides one of the same name.
    pub(crate) fn with(&self, name: Arc<str>, value: Value) -> Self {
        Self(Some(Arc::new(Link { name, value, next: self.clone() })))
    }

    /// Returns the value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let mut link = self.0.as_ref()?;
        loop {
            if *link.name == *name {
                return Some(&link.value);
            }
            link = link.next.0.as_ref()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_json_string_and_bytes_are_none() {
        let raw = |media_type: &str| Value {
            content: Content::Raw(media_type.into()),
            body: vec![Bytes::from_static(b"a \""), Bytes::from_static(b"b")],
            is_from_client: false,
        };
        assert_eq!(raw("text/plain; charset=utf-8").text().unwrap(), r#""a \"b""#);
        assert_eq!(raw("image/png").text().unwrap_err().status(), 500);
        let sent = Value { is_from_client: true, ..raw("image/png") };
        assert_eq!(sent.text().unwrap_err().status(), 415);
        assert_eq!(sent.into_response().body, "a \"b");
    }

    #[test]
    fn the_newest_value_of_a_name_counts() {
        let scope = Scope::default().with("a".into(), Value::json("1"));
        let inner = scope.with("b".into(), Value::json("2")).with("a".into(), Value::json("3"));
        assert_eq!(inner.get("a").unwrap().text().unwrap(), "3");
        assert_eq!(scope.get("a").unwrap().text().unwrap(), "1");
        assert!(scope.get("b").is_none());
    }
}
