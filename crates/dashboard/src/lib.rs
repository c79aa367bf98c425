//! The dashboard: the page on which operators see and change a running server. All of its files are in
//! this binary.
//!
//! The page is static, and holds no data: it asks the admin API, with the key that its operator enters.
//! [`file()`] returns a body and headers; routes and guards are left to `admin`, and what the page shows to
//! the files in `web/`.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use litplex_assets::Asset;

/// The name of the page itself.
pub const PAGE: &str = "index.html";

/// The name of the page for a listener that has other pages, too: it keeps the key in memory alone, where they
/// cannot read it. The build script makes it.
pub const SHARED_PAGE: &str = "shared.html";

/// The policy of the page: nothing is loaded from or sent to another server, no script or style is in the
/// page or made from a text, and no other page shows it in a frame. Pictures and sounds that a model
/// responds with are shown from memory.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; media-src blob: data:; \
                      object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

// Defines `FILES`.
include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// A file of the dashboard.
#[derive(Debug)]
pub struct File {
    /// The path below `web/`.
    name: &'static str,
    /// A tag of its content, in quotes.
    tag: &'static str,
    asset: Asset,
}

/// Returns the file with this name.
pub fn file(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

impl File {
    /// Returns the tag that changes with its content.
    pub fn tag(&self) -> &'static str {
        self.tag
    }

    /// Returns its headers and its body, for a client that may accept gzip.
    pub fn response(&'static self, accepts_gzip: bool) -> (HeaderMap, Bytes) {
        let (mut headers, body) = self.asset.response(accepts_gzip);
        for (name, value) in [
            (CONTENT_TYPE, self.media_type()),
            (ETAG, self.tag),
            // The browser asks each time whether the file has changed: a new server has a new page.
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        (headers, body)
    }

    fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "application/octet-stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The most bytes of the whole page as it is sent.
    const MOST_BYTES: usize = 80_000;

    fn text(file: &'static File) -> String {
        String::from_utf8(file.response(false).1.to_vec()).unwrap()
    }

    /// Returns the texts between double quotes that follow `before`.
    fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn the_whole_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.response(true).1.len()).sum();
        assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    }

    #[test]
    fn everything_that_the_page_loads_is_one_of_its_files() {
        let page = text(file(PAGE).unwrap());
        let linked: BTreeSet<_> = quoted(&page, "href=\"").chain(quoted(&page, "src=\"")).collect();
        let linked: BTreeSet<_> =
            linked.into_iter().filter(|link| !link.starts_with('#')).collect();
        for link in &linked {
            let name = link.strip_prefix("dashboard/").unwrap_or_else(|| panic!("{link}"));
            assert!(file(name).is_some(), "{name}");
        }
        // Each module is loaded with the page, so that none waits for another.
        for name in FILES.iter().map(|file| file.name).filter(|name| name.ends_with(".js")) {
            assert!(linked.contains(&*format!("dashboard/{name}")), "{name}");
        }
    }

    #[test]
    fn each_import_of_a_module_is_one_of_the_files() {
        for module in FILES.iter().filter(|file| file.name.ends_with(".js")) {
            let content = text(module);
            for import in quoted(&content, " from \"") {
                let directory = module.name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let path = match import.strip_prefix("../") {
                    Some(above) => above.to_owned(),
                    None => format!("{directory}/{}", import.trim_start_matches("./")),
                };
                let path = path.trim_start_matches('/');
                assert!(file(path).is_some(), "{} imports {import}", module.name);
            }
        }
    }

    #[test]
    fn a_file_has_its_media_type_with_and_without_gzip() {
        for accepts_gzip in [true, false] {
            let (headers, _) = file("style.css").unwrap().response(accepts_gzip);
            assert_eq!(headers[CONTENT_TYPE], "text/css; charset=utf-8");
        }
    }

    #[test]
    fn files_have_tags_of_their_own() {
        let tags: BTreeSet<_> = FILES.iter().map(File::tag).collect();
        assert_eq!(tags.len(), FILES.len());
        assert!(file("../Cargo.toml").is_none() && file("").is_none());
    }
}
