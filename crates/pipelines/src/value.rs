//! Values that travel through a graph: JSON as it was written, or bytes.

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
    ///
    /// # Errors
    /// It is a form, which no response can be.
    pub(crate) fn into_response(self) -> Outcome<Response> {
        let media_type = match self.content {
            Content::Json => MediaType::Json,
            Content::Raw(media_type) => MediaType::Other(media_type),
            Content::Packed(parts) => MediaType::Packed(parts),
            Content::Form(_) => return Err(self.no_json("a form")),
        };
        let body = match <[Bytes; 1]>::try_from(self.body) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat().into(),
        };
        Ok(Response { status: 200, media_type, headers: Vec::new(), body })
    }

    /// Returns the field or file of this name, if it is a form: of several the last one.
    ///
    /// # Errors
    /// It is a form without such a field.
    pub(crate) fn form_part(&self, name: &str) -> Option<Outcome<Self>> {
        let Content::Form(parts) = &self.content else { return None };
        let Some(at) = parts.iter().rposition(|part| part.name == name) else {
            return Some(Err(ServeError::invalid_input(format!("the form has no field `{name}`"))));
        };
        let before = parts[..at].iter().map(|part| part.length).sum();
        let body = slice(&self.body, before, parts[at].length);
        let content = match (&parts[at].content_type, &parts[at].filename) {
            (Some(media_type), _) if media_type.starts_with("application/json") => Content::Json,
            (Some(media_type), Some(_)) => Content::Raw(media_type.clone()),
            (None, Some(_)) => Content::Raw("application/octet-stream".into()),
            (_, None) => {
                let text = String::from_utf8_lossy(&body.concat()).into_owned();
                let text = Self::json(serde_json::Value::from(text).to_string());
                return Some(Ok(Self { is_from_client: self.is_from_client, ..text }));
            }
        };
        Some(Ok(Self { content, body, is_from_client: self.is_from_client }))
    }

    /// Returns the fields, if it is a form; files have no text.
    pub(crate) fn form_fields(&self) -> Option<impl Iterator<Item = (String, Option<String>)>> {
        let Content::Form(parts) = &self.content else { return None };
        let mut before = 0;
        Some(parts.iter().map(move |part| {
            let body = slice(&self.body, before, part.length);
            before += part.length;
            let text = || String::from_utf8_lossy(&body.concat()).into_owned();
            (part.name.clone(), part.filename.is_none().then(text))
        }))
    }

    /// Returns the error of a value that should be JSON and is not.
    pub(crate) fn malformed(&self, why: &str) -> ServeError {
        if self.is_from_client {
            ServeError::malformed(format!("malformed JSON body: {why}"))
        } else {
            let detail = format!("the response is malformed JSON: {why}");
            ServeError { detail, ..ServeError::internal() }
        }
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
            let detail = format!("this pipeline needs JSON here, and the request has {what}");
            ServeError::unsupported_type(detail)
        } else {
            not_json(what)
        }
    }
}

/// Returns an error about a value: of the client's, if it sent the value.
pub(crate) fn refusal(detail: String, is_from_client: bool) -> ServeError {
    if is_from_client {
        ServeError::invalid_input(detail)
    } else {
        ServeError { detail, ..ServeError::internal() }
    }
}

/// Returns the bytes in this range of pieces.
fn slice(pieces: &[Bytes], mut from: usize, mut length: usize) -> Vec<Bytes> {
    let mut found = Vec::new();
    for piece in pieces {
        let here = piece.slice(from.min(piece.len())..(from + length).min(piece.len()));
        from -= from.min(piece.len());
        length -= here.len();
        if !here.is_empty() {
            found.push(here);
        }
    }
    found
}

fn not_json(what: &str) -> ServeError {
    let detail = format!("a value that is JSON is needed, and the response is {what}");
    ServeError { detail, ..ServeError::internal() }
}

#[cfg(test)]
mod tests {
    use litplex_core::FormPart;

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
        assert_eq!(sent.into_response().unwrap().body, "a \"b");
    }

    #[test]
    fn the_parts_of_a_form_are_values() {
        let part =
            |name: &str, filename: Option<&str>, media_type: Option<&str>, length| FormPart {
                name: name.into(),
                filename: filename.map(Into::into),
                content_type: media_type.map(Into::into),
                length,
            };
        let parts = vec![
            part("a", None, None, 3),
            part("image", Some("x.png"), Some("image/png"), 4),
            part("data", None, Some("application/json"), 5),
            part("a", None, Some("text/plain"), 2),
        ];
        let body = vec![Bytes::from_static(b"onepi"), Bytes::from_static(b"ng[1.0]\"2")];
        let form = Value { content: Content::Form(parts), body, is_from_client: true };
        let part = |name: &str| form.form_part(name).unwrap().unwrap();
        assert_eq!(part("a").text().unwrap(), r#""\"2""#, "of two fields the last one counts");
        assert_eq!(part("image").content, Content::Raw("image/png".into()));
        assert_eq!(part("image").body.concat(), b"ping");
        assert_eq!(part("data").text().unwrap(), "[1.0]");
        assert!(part("data").is_from_client);
        assert_eq!(form.form_part("b").unwrap().unwrap_err().status(), 422);
        let fields: Vec<_> = form.form_fields().unwrap().collect();
        assert_eq!(fields[1], ("image".into(), None));
        assert_eq!(fields[3], ("a".into(), Some("\"2".into())));
        assert_eq!(form.into_response().unwrap_err().status(), 415);
    }
}
