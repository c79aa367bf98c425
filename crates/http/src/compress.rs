use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};

use crate::answer::{AnswerBody, HttpResponse};

/// Shorter answers gain nothing.
const LEAST_BYTES: usize = 1000;

/// Longer ones would hold up everybody's answers while they are compressed.
const INLINE_BYTES: usize = 32 * 1024;

/// Compresses a whole answer, where its client accepts that and it is worth it.
pub(crate) async fn gzip(asked: &HeaderMap, mut response: HttpResponse) -> HttpResponse {
    if !accepts_gzip(asked) || !is_worth_it(response.headers()) {
        return response;
    }
    let AnswerBody::Whole(Some(body)) = response.body() else { return response };
    if body.len() < LEAST_BYTES {
        return response;
    }
    let body = body.clone();
    let packed = if body.len() <= INLINE_BYTES {
        pack(&body)
    } else {
        let packed = tokio::task::spawn_blocking(move || pack(&body)).await;
        let Ok(packed) = packed else { return response };
        packed
    };
    *response.body_mut() = AnswerBody::Whole(Some(packed));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

pub(crate) fn accepts_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = parts.any(|weight| {
            weight.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
        });
        is_gzip && !is_refused
    })
}

/// Images, audio, video and archives are compressed already.
fn is_worth_it(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_packed = ["image/", "audio/", "video/", "application/zip", "application/gzip"];
    let is_text = media_type.starts_with("image/svg");
    !headers.contains_key(CONTENT_ENCODING)
        && (is_text || !is_packed.iter().any(|packed| media_type.starts_with(packed)))
}

fn pack(body: &Bytes) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    let packed = encoder.write_all(body).and_then(|()| encoder.finish());
    packed.expect("a Vec takes whatever is written. This is a bug.").into()
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn clients_say_what_they_accept() {
        for accepted in ["gzip", "br, GZIP;q=0.5", "deflate,gzip"] {
            assert!(accepts_gzip(&headers(ACCEPT_ENCODING, accepted)), "{accepted}");
        }
        for refused in ["", "br", "gzip;q=0", "identity, gzip; q=0.0"] {
            assert!(!accepts_gzip(&headers(ACCEPT_ENCODING, refused)), "{refused}");
        }
    }

    #[test]
    fn what_is_compressed_is_left_as_it_is() {
        for (media_type, worth) in
            [("application/json", true), ("image/png", false), ("image/svg+xml", true)]
        {
            assert_eq!(is_worth_it(&headers(CONTENT_TYPE, media_type)), worth, "{media_type}");
        }
        assert!(!is_worth_it(&headers(CONTENT_ENCODING, "br")));
    }
}
