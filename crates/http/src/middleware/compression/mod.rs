//! Compression of whole and streamed responses.

mod body;
mod coding;

use std::sync::Arc;

use body::CompressedBody;
pub use coding::Coding;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderValue, VARY,
};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use litplex_core::{MemoryBudget, Reservation};
use litplex_http_core::response::{HttpResponse, ResponseBody};
use tokio::task::spawn_blocking;

/// The smallest body that is compressed; shorter ones would not become smaller.
const LEAST_BYTES: u64 = 1000;

/// The largest body that is compressed on an HTTP thread: a larger one would delay other responses.
const INLINE_BYTES: usize = 32 * 1024;

/// The compression of responses for clients that accept it.
#[derive(Debug, Clone)]
pub struct Compression {
    /// The codings, the best first: it is chosen if a client accepts several equally.
    pub codings: Vec<Coding>,
    /// Whether streams are compressed too.
    pub streams: bool,
}

impl Compression {
    /// Returns the coding for the response to a request with these headers.
    pub(crate) fn choose(&self, headers: &HeaderMap) -> Option<Coding> {
        coding::choose(&self.codings, headers)
    }

    /// Compresses a response with the chosen coding, if that is worth it and the memory budget has
    /// room.
    pub(crate) async fn apply(
        &self,
        chosen: Option<Coding>,
        mut response: HttpResponse,
        budget: &Arc<MemoryBudget>,
    ) -> HttpResponse {
        if !is_worth_it(&response) || !(self.streams || is_whole(response.body())) {
            return response;
        }
        // Caches must know it, whatever this client accepts.
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        let Some(coding) = chosen else { return response };
        let held = budget.reserve();
        if held.grow(coding.bytes(!matches!(response.body(), ResponseBody::Whole(_)))).is_err() {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let Some(compressed) = compress(coding, body, held).await else { return failed() };
        parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.remove(ACCEPT_RANGES);
        weaken(&mut parts.headers);
        HttpResponse::from_parts(parts, compressed)
    }
}

/// Weakens an `ETag`: it no longer stands for the same bytes (RFC 9110, 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get_mut(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

/// Returns whether the size of a body is known before it is sent.
fn is_whole(body: &ResponseBody) -> bool {
    body.size_hint().exact().is_some()
}

async fn compress(coding: Coding, body: ResponseBody, held: Reservation) -> Option<ResponseBody> {
    let whole = match body {
        ResponseBody::Whole(whole) => whole.unwrap_or_default(),
        other => return Some(ResponseBody::boxed(CompressedBody::new(coding, other, held))),
    };
    let compressed = if whole.len() <= INLINE_BYTES {
        coding.compress(&whole)
    } else {
        let compressing = move || {
            let compressed = coding.compress(&whole);
            (compressed, held)
        };
        let (compressed, held) = spawn_blocking(compressing).await.ok()?;
        // If the budget has no room to count it, there was room for the body that it replaces.
        held.hold(compressed.clone()).unwrap_or(compressed)
    };
    Some(ResponseBody::Whole(Some(compressed)))
}

/// Returns 500: the encoder consumed the body and failed, which is a bug.
fn failed() -> HttpResponse {
    litplex_http_core::response::error(&litplex_core::ServeError::internal())
}

/// Returns whether a response should be compressed: not if it is small, a part of a resource, or
/// compressed already, as images, audio, video and archives are.
fn is_worth_it(response: &HttpResponse) -> bool {
    let (status, headers) = (response.status(), response.headers());
    let bare = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::PARTIAL_CONTENT];
    let is_small = response.body().size_hint().upper().is_some_and(|upper| upper < LEAST_BYTES);
    let is_final = headers.contains_key(CONTENT_ENCODING)
        || headers.contains_key(CONTENT_RANGE)
        || text(headers.get(CACHE_CONTROL)).contains("no-transform");
    !(is_small
        || is_final
        || bare.contains(&status)
        || is_compressed(text(headers.get(CONTENT_TYPE))))
}

fn is_compressed(media_type: &str) -> bool {
    const COMPRESSED: [&str; 8] = [
        "image/",
        "audio/",
        "video/",
        "font/woff",
        "application/gzip",
        "application/x-7z-compressed",
        "application/zip",
        "application/zstd",
    ];
    !media_type.starts_with("image/svg")
        && COMPRESSED.iter().any(|kind| media_type.starts_with(kind))
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use http::header::HeaderName;

    use super::*;

    fn response(name: HeaderName, value: &'static str) -> HttpResponse {
        let body = ResponseBody::Whole(Some(Bytes::from(vec![b'0'; 2000])));
        let mut response = Response::new(body);
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        response
    }

    #[tokio::test]
    async fn without_room_for_an_encoder_an_answer_is_sent_as_it_is() {
        let all = Compression { codings: vec![Coding::Zstd], streams: true };
        for (room, is_compressed) in [(Coding::Zstd.bytes(true), true), (100_000, false)] {
            let budget = MemoryBudget::new(room);
            let stream = http_body_util::Full::new(Bytes::from(vec![b'0'; 2000]));
            let mut given = response(CONTENT_TYPE, "text/event-stream");
            let stream = http_body_util::BodyExt::map_err(stream, |never| match never {});
            *given.body_mut() = ResponseBody::boxed(stream);
            let sent = all.apply(Some(Coding::Zstd), given, &budget).await;
            assert_eq!(sent.headers().contains_key(CONTENT_ENCODING), is_compressed, "{room}");
            assert_eq!(budget.taken(), if is_compressed { room } else { 0 });
            drop(sent);
            assert_eq!(budget.taken(), 0);
        }
    }

    #[test]
    fn a_compressed_response_is_not_compressed_again() {
        for (media_type, worth) in [
            ("application/json", true),
            ("image/png", false),
            ("image/svg+xml", true),
            ("application/zip", false),
        ] {
            assert_eq!(is_worth_it(&response(CONTENT_TYPE, media_type)), worth, "{media_type}");
        }
        assert!(!is_worth_it(&response(CONTENT_ENCODING, "br")));
        assert!(!is_worth_it(&response(CONTENT_RANGE, "bytes 0-1999/5000")));
        assert!(!is_worth_it(&response(CACHE_CONTROL, "no-cache, no-transform")));
    }

    #[test]
    fn a_tag_stands_for_the_same_content_only_weakly() {
        for (given, weak) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            let mut response = response(ETAG, given);
            weaken(response.headers_mut());
            assert_eq!(response.headers()[ETAG], weak);
        }
    }

    #[test]
    fn the_small_and_the_bare_are_left_as_they_are() {
        let mut small = response(CONTENT_TYPE, "application/json");
        *small.body_mut() = ResponseBody::Whole(Some(Bytes::from(vec![b'0'; 999])));
        assert!(!is_worth_it(&small));
        let mut bare = response(CONTENT_TYPE, "application/json");
        *bare.status_mut() = StatusCode::NOT_MODIFIED;
        assert!(!is_worth_it(&bare));
    }
}
