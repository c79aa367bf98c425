//! Swagger UI: the page that shows the `OpenAPI` document. All of its files are in this binary.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use litplex_assets::Asset;

/// The two paths of the page, both of which programs know from `FastAPI`.
const PAGES: [&str; 2] = ["/docs", "/redoc"];

/// The policy of the page: nothing is loaded from or sent to another server. Swagger UI has styles in
/// its elements, and images in its style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     media-src 'self' data: blob:; object-src 'none'; base-uri 'none'; \
     frame-ancestors 'none'",
);

/// The page. Its paths are relative, because a proxy may serve it under a prefix.
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

/// The start of Swagger UI. Without `validatorUrl` it sends the address of the document to a public
/// server.
const START: &str = r##"SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null});
"##;

const START_PATH: &str = "/docs/start.js";

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($name:literal, $media_type:expr) => {
        File {
            path: concat!("/docs/", $name),
            media_type: $media_type,
            asset: Asset::new(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))),
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
    asset: Asset,
}

/// A response to a request for the page or one of its files, always with status 200.
#[derive(Debug)]
pub struct Page {
    /// The media type of the body.
    pub media_type: &'static str,
    /// The headers besides those of the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Returns the paths of the page and of its files.
pub fn paths() -> impl Iterator<Item = &'static str> {
    let files = FILES.iter().map(|file| file.path);
    PAGES.into_iter().chain([START_PATH]).chain(files)
}

/// Returns the page or the file at this path, for a client that may accept gzip.
pub fn page(path: &str, accepts_gzip: bool) -> Option<Page> {
    if path == START_PATH {
        let body = Bytes::from_static(START.as_bytes());
        return Some(Page { media_type: SCRIPT, headers: HeaderMap::new(), body });
    }
    if PAGES.contains(&path) {
        let headers = HeaderMap::from_iter([(CONTENT_SECURITY_POLICY, POLICY)]);
        let body = Bytes::from_static(PAGE.as_bytes());
        return Some(Page { media_type: "text/html; charset=utf-8", headers, body });
    }
    FILES.iter().find(|file| file.path == path).map(|file| file.page(accepts_gzip))
}

impl File {
    fn page(&'static self, accepts_gzip: bool) -> Page {
        let (headers, body) = self.asset.response(accepts_gzip);
        Page { media_type: self.media_type, headers, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_that_the_page_loads_is_served() {
        let files: Vec<_> = PAGE.split('"').filter(|text| text.starts_with("docs/")).collect();
        assert_eq!(files.len(), 4);
        for file in files {
            let path = format!("/{file}");
            assert!(page(&path, true).is_some(), "{path}");
        }
        assert!(page("/docs/other.js", true).is_none());
        assert!(paths().all(|path| page(path, false).is_some()));
    }

    #[test]
    fn the_files_are_those_of_the_release() {
        let style = page("/docs/swagger-ui.css", false).unwrap();
        assert!(style.body.starts_with(b".swagger-ui"));
    }
}
