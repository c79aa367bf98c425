//! The page that shows the description of the endpoints: Swagger UI, out of this binary alone.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, VARY};

use crate::answer::{AnswerBody, HttpResponse, own};
use crate::around::Coding;

/// The page, under the two names that programs know it by.
pub(crate) const PAGES: [&str; 2] = ["/docs", "/redoc"];

/// Lets the page load nothing from another server, and send nothing to one. Swagger UI writes
/// styles into its elements, and has images in its style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     media-src 'self' data: blob:; object-src 'none'; base-uri 'none'",
);

/// Paths are relative: the server may be behind a proxy that puts something in front of them.
const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>litmux</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"#;

/// Without `validatorUrl` it would send the address of the document to a public server.
const START: &str = r##"SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null});
"##;

macro_rules! packed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}

/// Returns a page or a file that it needs, for a client that sent these headers.
pub(crate) fn answer(path: &str, asked: &HeaderMap) -> Option<HttpResponse> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let file = |media_type, packed| Some(unpacked(media_type, packed, asked));
    match path {
        "/docs/start.js" => Some(own(StatusCode::OK, SCRIPT, START.into())),
        "/docs/swagger-ui-bundle.js" => file(SCRIPT, packed!("swagger-ui-bundle.js")),
        "/docs/swagger-ui.css" => file("text/css; charset=utf-8", packed!("swagger-ui.css")),
        "/docs/favicon-32x32.png" => file("image/png", packed!("favicon-32x32.png")),
        page if PAGES.contains(&page) => {
            let mut page = own(StatusCode::OK, "text/html; charset=utf-8", PAGE.into());
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
            Some(page)
        }
        _ => None,
    }
}

/// Returns a file unpacked, which is done once: that takes longer than any answer may hold up others.
fn plain(packed: &'static [u8]) -> Bytes {
    static PLAIN: Mutex<BTreeMap<usize, Bytes>> = Mutex::new(BTreeMap::new());
    let mut plain = PLAIN.lock().unwrap_or_else(PoisonError::into_inner);
    let unpack = || {
        let mut body = Vec::new();
        GzDecoder::new(packed)
            .read_to_end(&mut body)
            .expect("it was packed with the binary. This is a bug.");
        body.into()
    };
    plain.entry(packed.as_ptr() as usize).or_insert_with(unpack).clone()
}

/// Answers with a file as it is stored, or unpacked where the client cannot do that.
fn unpacked(media_type: &'static str, packed: &'static [u8], asked: &HeaderMap) -> HttpResponse {
    let mut response = own(StatusCode::OK, media_type, String::new());
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    let body = if Coding::Gzip.is_accepted(asked) {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        Bytes::from_static(packed)
    } else {
        plain(packed)
    };
    *response.body_mut() = AnswerBody::Whole(Some(body));
    response
}
