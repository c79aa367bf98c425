//! Requests at a path that several endpoints share: the model that the body names decides the endpoint.
//!
//! The body is read here once, for the endpoints that the caller may call, and is sent on in one piece.
//! Which callers may call an endpoint, and the limits of a caller, are left to `http`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use litplex_calls::off_thread;
use litplex_core::{Identity, MemoryBudget, Outcome, Request, Reservation, ServeError};
use litplex_http_core::body::Body;
use litplex_http_core::raw_json::{Kind, each_field, text_of};
use litplex_http_core::read_body;
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::HttpResponse;
use tokio::time::{Instant, timeout_at};

use super::error::{Refused, no_model, no_such_model};
use super::shape::Mismatch;
use super::text::json_of;
use crate::endpoint::Route;
use crate::predict::{shed_for_memory, slow_client, time_budget};

/// A request whose body was read for the model that it names.
#[derive(Debug)]
pub struct ModelRequest {
    /// `None`: it names no model.
    model: Option<String>,
    text: Bytes,
    reservation: Reservation,
    arrived: Instant,
}

/// The reason why a request reaches no endpoint.
#[derive(Debug)]
pub struct NoEndpoint(Box<Refused>);

impl NoEndpoint {
    /// Returns the response.
    pub fn response(&self) -> HttpResponse {
        self.0.response(&RequestName::default())
    }
}

impl From<Refused> for NoEndpoint {
    fn from(refused: Refused) -> Self {
        Self(Box::new(refused))
    }
}

impl From<ServeError> for NoEndpoint {
    fn from(error: ServeError) -> Self {
        Refused::from(error).into()
    }
}

impl ModelRequest {
    /// Reads the body of a request that may be for any of these endpoints, within the largest of their
    /// limits. Afterwards the headers describe the body as it was read: without a coding.
    ///
    /// # Errors
    /// The body cannot be read, or is not a JSON object with a valid `model`.
    pub async fn read(
        memory: &Arc<MemoryBudget>,
        endpoints: &[&Route],
        parts: &mut Parts,
        body: Body,
    ) -> Result<Self, NoEndpoint> {
        let arrived = Instant::now();
        let longest = endpoints.iter().map(|route| route.timeout()).max().unwrap_or_default();
        let deadline = arrived + time_budget(longest, &parts.headers)?;
        let reservation = memory.reserve();
        let read = timeout_at(deadline, read_text(endpoints, parts, body, &reservation));
        let text = read.await.unwrap_or_else(|_| Err(slow_client()));
        let text = text.inspect_err(|error| {
            endpoints.iter().take(1).for_each(|route| shed_for_memory(route, error));
        })?;
        let model = {
            let text = text.clone();
            off_thread(text.len(), move || model_of(&text)).await?
        };
        parts.headers.remove(CONTENT_ENCODING);
        parts.headers.remove(TRANSFER_ENCODING);
        parts.headers.insert(CONTENT_LENGTH, text.len().into());
        Ok(Self { model, text, reservation, arrived })
    }

    /// Returns the endpoint that the request is for, among those that its caller may call.
    ///
    /// # Errors
    /// No such endpoint has the model, or the request must name one.
    pub fn endpoint<'a>(
        &self,
        endpoints: &[(usize, &'a Route)],
    ) -> Result<(usize, &'a Route), NoEndpoint> {
        let identities = endpoints.iter().map(|(_, route)| &*route.identity);
        let (index, route) = endpoints[chosen(self.model.as_deref(), identities)?];
        if self.text.len() > route.max_body_bytes {
            return Err(read_body::too_large(route.max_body_bytes).into());
        }
        Ok((index, route))
    }

    /// Returns the body, to be read again.
    pub fn into_body(self) -> Body {
        Body::received(self.text, self.reservation, self.arrived)
    }
}

/// Returns the index of the endpoint that a call is for, among those that share a path: as for the request of
/// a client.
pub(crate) async fn choose<'a>(
    endpoints: impl Iterator<Item = &'a Identity> + Clone,
    request: &Request,
) -> Result<usize, NoEndpoint> {
    let Request { content, body, reservation, .. } = request;
    let text = json_of(content, body.clone(), reservation).await?;
    let model = off_thread(text.len(), move || model_of(&text)).await?;
    Ok(chosen(model.as_deref(), endpoints)?)
}

/// Returns the index of the endpoint that a model means; without one, that of the default.
fn chosen<'a>(
    model: Option<&str>,
    endpoints: impl Iterator<Item = &'a Identity> + Clone,
) -> Result<usize, Refused> {
    let is_meant = |identity: &Identity| match model {
        Some(model) => identity.is_called(model),
        None => identity.is_default,
    };
    endpoints.clone().position(is_meant).ok_or_else(|| {
        let known: Vec<_> = endpoints.map(|identity| &*identity.name).collect();
        model.map_or_else(|| no_model(&known), |model| no_such_model(model, &known))
    })
}

/// Reads a body as the text of JSON, which takes as much of the reservation as it is long.
async fn read_text(
    endpoints: &[&Route],
    parts: &Parts,
    body: Body,
    reservation: &Reservation,
) -> Outcome<Bytes> {
    let most = endpoints.iter().map(|route| route.max_body_bytes).max().unwrap_or_default();
    let (content, body) = read_body::read(&parts.headers, body, most, reservation).await?;
    let text = json_of(&content, body, reservation).await?;
    let taken = reservation.bytes();
    match text.len().checked_sub(taken) {
        Some(more) => reservation.grow(more)?,
        None => reservation.shrink(taken - text.len()),
    }
    Ok(text)
}

/// Returns the model that a request names. Of fields with the same name, the last one counts.
fn model_of(text: &Bytes) -> Result<Option<String>, Refused> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut model = None;
    let read = each_field(text, |name, value| {
        if name == "model" {
            model = named(value.get())?;
        }
        Ok::<_, Mismatch>(())
    });
    match read {
        Ok(checked) => Ok(checked.map(|()| model)?),
        Err(error) if error.is_data() => {
            Err(Mismatch::new("", "expected an object with `model`").into())
        }
        Err(error) => Err(ServeError::malformed(format!("malformed JSON body: {error}")).into()),
    }
}

fn named(value: &str) -> Result<Option<String>, Mismatch> {
    match Kind::of(value) {
        Kind::Null => Ok(None),
        Kind::Text => match text_of(value) {
            Some(model) => Ok(Some(model.into_owned()).filter(|model| !model.is_empty())),
            None => Err(Mismatch::new("model", "expected a string of Unicode characters")),
        },
        kind => {
            let reason = format!("expected a string, got {}", kind.name());
            Err(Mismatch::new("model", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_read_from_any_place_of_a_request() {
        let model = |text: &'static str| model_of(&Bytes::from_static(text.as_bytes())).unwrap();
        for (text, expected) in [
            (r#"{"model": "a"}"#, Some("a")),
            (
                r#"{"x": {"model": "b"}, "y": [1, "model"], "model": "Qwen\/Qwen\u0033"}"#,
                Some("Qwen/Qwen3"),
            ),
            (r#"{"model": "a", "model": "b"}"#, Some("b")),
            (r#"{"model": "a", "model": null}"#, None),
            (r#"{"model": ""}"#, None),
            ("{}", None),
        ] {
            assert_eq!(model(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_request_without_a_valid_model_is_refused_with_its_place() {
        for (text, status, param, says) in [
            ("{", 400, None, "malformed JSON body"),
            ("", 400, None, "malformed JSON body"),
            (r#"{"model": "a"} x"#, 400, None, "malformed JSON body"),
            (r#"["model"]"#, 422, None, "expected an object"),
            (r#"{"model": 7}"#, 422, Some("model"), "model: expected a string, got number"),
            (r#"{"model": ["a"]}"#, 422, Some("model"), "model: expected a string, got array"),
            (r#"{"model": "\ud800"}"#, 422, Some("model"), "model: expected a string of Unicode"),
        ] {
            let refused = model_of(&Bytes::from_static(text.as_bytes())).unwrap_err();
            assert_eq!(
                (refused.error.status(), refused.param.as_deref()),
                (status, param),
                "{text}"
            );
            assert!(refused.error.detail.starts_with(says), "{text}: {}", refused.error.detail);
        }
    }

    #[test]
    fn an_unknown_model_is_refused_in_the_words_of_the_api() {
        let refused = no_such_model("gpt", &["small", "large"]);
        let says = "The model `gpt` does not exist or you do not have access to it; there are `small`, \
                    `large`";
        assert_eq!((refused.error.status(), &*refused.error.detail), (404, says));
        let long = no_such_model(&"é".repeat(5_000_000), &["a"]).error.detail;
        assert!(long.len() < 400 && long.ends_with("there is `a`"), "{long}");
        assert!(no_model(&[]).error.detail.starts_with("model: it is missing; there is no model"));
    }
}
