//! Reads the bodies of requests to endpoints.

use std::error::Error;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError};
use litplex_calls::off_thread;
use litplex_core::{Content, Outcome, Reservation, ServeError};
use tokio::task::yield_now;

use crate::body::Body;
use crate::buffers::Pieces;
use crate::decompress;
use crate::form;
use crate::upload::TooSlow;

/// The number of bytes that are read before the other requests of the thread get a turn. The data of a
/// fast client would otherwise hold the thread for milliseconds.
const TURN_BYTES: usize = 256 * 1024;

/// Reads a body of at most so many bytes and returns its kind. The memory that it takes is reserved when
/// it arrives.
///
/// JSON and raw bodies stay in the pieces in which they arrived; forms are split into their parts.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
    reservation: &Reservation,
) -> Outcome<(Content, Vec<Bytes>)> {
    let codings = decompress::codings(headers)?;
    let pieces = read_pieces(headers, body, max_bytes, reservation).await?;
    let pieces = decompress::decompress(pieces, codings, max_bytes, reservation).await?;
    if !is_form(headers) {
        return split(headers, pieces, reservation);
    }
    // The search through a large form would delay other requests.
    let bytes = pieces.iter().map(Bytes::len).sum();
    let (headers, own) = (headers.clone(), reservation.clone());
    off_thread(bytes, move || split(&headers, pieces, &own)).await
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|given| given.to_ascii_lowercase().contains("form"))
}

/// Returns the kind of a whole body by its headers; splits forms into their parts.
pub fn split(
    headers: &HeaderMap,
    pieces: Vec<Bytes>,
    reservation: &Reservation,
) -> Outcome<(Content, Vec<Bytes>)> {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Ok((Content::Json, pieces)) };
    let given = content_type.as_bytes();
    // Nearly all requests have this type: it needs no parser and no allocation.
    if given == b"application/json" {
        return Ok((Content::Json, pieces));
    }
    let content_type = content_type.to_str().map_err(|_| bad("Content-Type is not text"))?;
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        // Many clients send JSON without a content type, or as text.
        "application/json" | "text/json" | "application/x-json" | "text/plain" | "" => {
            Ok((Content::Json, pieces))
        }
        json if json.ends_with("+json") => Ok((Content::Json, pieces)),
        "multipart/form-data" => form::multipart(given, pieces, reservation),
        "application/x-www-form-urlencoded" => form::urlencoded(pieces, reservation),
        _ => Ok((Content::Raw(content_type.to_owned()), pieces)),
    }
}

/// Reads a body of at most so many bytes, in pieces.
pub async fn read_pieces(
    headers: &HeaderMap,
    mut body: Body,
    max_bytes: usize,
    reservation: &Reservation,
) -> Outcome<Vec<Bytes>> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    // Nothing is reserved for the announced length: it costs a client nothing to announce one.
    if announced
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| length > max_bytes)
    {
        return Err(too_large(max_bytes));
    }
    let mut pieces = Pieces::new(reservation.clone());
    let mut turn_end = TURN_BYTES;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreadable(&*error))?;
        let Ok(data) = frame.into_data() else { continue };
        if pieces.length() + data.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        pieces.push(data)?;
        if pieces.length() >= turn_end {
            turn_end = pieces.length() + TURN_BYTES;
            yield_now().await;
        }
    }
    Ok(pieces.finish())
}

fn bad(detail: impl Into<String>) -> ServeError {
    ServeError::malformed(detail)
}

/// Returns the error of a body that cannot be read. Layers of the program may have limits of their own,
/// and wrap the errors of the body that they read.
pub fn unreadable(error: &(dyn Error + 'static)) -> ServeError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(slow) = error.downcast_ref::<TooSlow>() {
            return ServeError::slow_client(slow.to_string());
        }
        if error.is::<LengthLimitError>() {
            return ServeError::too_large("the body is larger than it may be");
        }
        cause = error.source();
    }
    bad(format!("the body cannot be read: {error}"))
}

/// Returns the error of a body of more than so many bytes.
pub fn too_large(max_bytes: usize) -> ServeError {
    ServeError::too_large(format!("the body is larger than {max_bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_already_there_leaves_turns_to_others() {
        let turns = Arc::new(AtomicUsize::new(0));
        let others = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                others.fetch_add(1, Relaxed);
                yield_now().await;
            }
        });
        let piece = Bytes::from(vec![b'a'; 64 * 1024]);
        let frames = stream::iter(
            (0..64).map(move |_| Ok::<_, std::convert::Infallible>(Frame::data(piece.clone()))),
        );
        let body = Body::new(StreamBody::new(frames));
        let pieces = read_pieces(&HeaderMap::new(), body, 1 << 30, &Reservation::default()).await;
        assert_eq!(pieces.unwrap().len(), 64);
        assert!(turns.load(Relaxed) >= 8, "{turns:?} turns while 4 MiB were read");
        other.abort();
    }
}
