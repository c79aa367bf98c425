//! The body of a request as text.

use bytes::Bytes;
use litplex_calls::off_thread;
use litplex_core::{Content, Request, Reservation, ServeError, json_text};
use serde_json::value::RawValue;

use super::error::Refused;
use crate::dialect::Exchange;

/// Returns the body of a request as the text of JSON.
pub(super) async fn text_of(exchange: &Exchange<'_>) -> Result<Bytes, ServeError> {
    let Request { content, body, reservation, .. } = &exchange.request;
    json_of(content, body.clone(), reservation).await
}

/// Returns a body of this kind as the text of JSON.
pub(super) async fn json_of(
    content: &Content,
    body: Vec<Bytes>,
    reservation: &Reservation,
) -> Result<Bytes, ServeError> {
    if *content != Content::Json {
        return Err(ServeError::unsupported_type("the body must be JSON; send `application/json`"));
    }
    let length = body.iter().map(Bytes::len).sum();
    if body.len() > 1 {
        reservation.grow(length)?;
    }
    off_thread(length, move || json_text(&body)).await.ok_or_else(ServeError::not_json_text)
}

/// Reads a body, off the HTTP threads if that takes long.
pub(super) async fn read<T: Send + 'static>(
    body: Bytes,
    read: impl FnOnce(&Bytes) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    off_thread(body.len(), move || read(&body)).await
}

/// Returns a body as one JSON value.
pub(super) fn well_formed(body: &Bytes) -> Result<&str, ServeError> {
    // `text_of` has decoded it.
    let text = std::str::from_utf8(body).unwrap_or_default();
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(value.get()),
        Err(error) => Err(ServeError::malformed(format!("malformed JSON body: {error}"))),
    }
}
