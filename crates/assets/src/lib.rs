//! Files that are in the binary, compressed when it was built: those of Swagger UI and of the dashboard. Which
//! files there are, and their other headers, is left to the crates that have them.

use std::io::Read;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HeaderValue, VARY};

/// A file in the binary.
#[derive(Debug)]
pub struct Asset {
    /// The file in gzip, as it is stored and sent.
    compressed: &'static [u8],
    /// The decompressed file for other clients. It is kept, because decompression takes longer than a
    /// response may block the event loop.
    plain: OnceLock<Bytes>,
}

impl Asset {
    /// Returns the file that was compressed to this, with gzip.
    pub const fn new(compressed: &'static [u8]) -> Self {
        Self { compressed, plain: OnceLock::new() }
    }

    /// Returns the file as the body of a response, for a client that may accept gzip, and the headers of that
    /// choice.
    pub fn response(&'static self, accepts_gzip: bool) -> (HeaderMap, Bytes) {
        let vary = (VARY, HeaderValue::from_static("Accept-Encoding"));
        let mut headers = HeaderMap::from_iter([vary]);
        if !accepts_gzip {
            return (headers, self.plain.get_or_init(|| decompress(self.compressed)).clone());
        }
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        (headers, Bytes::from_static(self.compressed))
    }
}

fn decompress(compressed: &[u8]) -> Bytes {
    let mut plain = Vec::new();
    GzDecoder::new(compressed)
        .read_to_end(&mut plain)
        .expect("the file was compressed at build time. This is a bug.");
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hello` in gzip.
    static HELLO: Asset = Asset::new(&[
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10,
        0x36, 5, 0, 0, 0,
    ]);

    #[test]
    fn a_client_without_gzip_gets_the_decompressed_file() {
        let (headers, body) = HELLO.response(true);
        assert_eq!(headers[CONTENT_ENCODING], "gzip");
        assert!(body.starts_with(&[0x1f, 0x8b]));
        let (headers, body) = HELLO.response(false);
        assert!(!headers.contains_key(CONTENT_ENCODING));
        assert_eq!((&*body, &headers[VARY]), (&b"hello"[..], &"Accept-Encoding".parse().unwrap()));
    }
}
