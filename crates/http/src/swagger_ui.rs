//! The page that shows the description of the endpoints: Swagger UI, out of this binary alone.

use std::io::Read;
use std::sync::OnceLock;

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
     media-src 'self' data: blob:; object-src 'none'; base-uri 'none'; \
     frame-ancestors 'none'",
);

/// Paths are relative: the server may be behind a proxy that puts something in front of them.
const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>litplex</title>
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

const START_PATH: &str = "/docs/start.js";

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($name:literal, $media_type:expr) => {
        File {
            path: concat!("/docs/", $name),
            media_type: $media_type,
            packed: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            plain: OnceLock::new(),
        }
    };
}

static FILES: [File; 3] = [
    file!("swagger-ui-bundle.js", SCRIPT),
    file!("swagger-ui.css", "text/css; charset=utf-8"),
    file!("favicon-32x32.png", "image/png"),
];

/// A file of Swagger UI.
struct File {
    path: &'static str,
    media_type: &'static str,
    /// As it is stored, and sent to clients that take it so.
    packed: &'static [u8],
    /// Unpacked once, for others: that takes longer than any answer may hold up the rest.
    plain: OnceLock<Bytes>,
}

/// Returns the paths of the page and of its files.
#[cfg(test)]
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    let files = FILES.iter().map(|file| file.path);
    PAGES.into_iter().chain([START_PATH]).chain(files)
}

/// Returns a page or a file that it needs, for a client that sent these headers.
pub(crate) fn answer(path: &str, asked: &HeaderMap) -> Option<HttpResponse> {
    match path {
        START_PATH => Some(own(StatusCode::OK, SCRIPT, START.into())),
        page if PAGES.contains(&page) => {
            let mut page = own(StatusCode::OK, "text/html; charset=utf-8", PAGE.into());
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
            Some(page)
        }
        path => FILES.iter().find(|file| file.path == path).map(|file| file.answer(asked)),
    }
}

impl File {
    fn answer(&self, asked: &HeaderMap) -> HttpResponse {
        let mut response = own(StatusCode::OK, self.media_type, String::new());
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        let body = if Coding::Gzip.is_accepted(asked) {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Bytes::from_static(self.packed)
        } else {
            self.plain.get_or_init(|| unpack(self.packed)).clone()
        };
        *response.body_mut() = AnswerBody::Whole(Some(body));
        response
    }
}

fn unpack(packed: &[u8]) -> Bytes {
    let mut plain = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut plain)
        .expect("it was packed with the binary. This is a bug.");
    plain.into()
}
