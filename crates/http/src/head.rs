//! The head of a request. A head that can be read in more than one way is refused, so that the
//! server, the program's app, models and proxies agree on the request.

use http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version};
use litplex_core::{Outcome, ServeError};

/// Checks the head of a request, and gives it one `Host`, equal to that of its address.
///
/// # Errors
/// The request is malformed, or uses a feature that this server does not have.
pub(crate) fn check<B>(request: &mut Request<B>) -> Outcome<()> {
    if request.method() == Method::CONNECT {
        return Err(ServeError::method_not_allowed(
            "invalid method `CONNECT`: this server is not a proxy",
        ));
    }
    let path = request.uri().path();
    if !path.starts_with('/') && path != "*" {
        return Err(malformed("invalid request target: expected a path that begins with `/`"));
    }
    check_coding(request.headers())?;
    unify_host(request)
}

/// Refuses bodies with a transfer coding other than chunked. Compressed bodies have
/// `Content-Encoding`.
fn check_coding(headers: &HeaderMap) -> Outcome<()> {
    let mut codings = headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    let is_known = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => only.eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    let detail = "unsupported `Transfer-Encoding`: expected `chunked` alone; name the compression of \
                  a body in `Content-Encoding`";
    if is_known { Ok(()) } else { Err(ServeError::unsupported(detail)) }
}

/// Copies the host of the address, which takes precedence (RFC 9112, 3.2.2), into the headers.
fn unify_host<B>(request: &mut Request<B>) -> Outcome<()> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed("invalid `Host`: it is there more than once"));
    }
    let named = match request.uri().authority() {
        Some(authority) => {
            let is_other = |host: &HeaderValue| {
                !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
            };
            // In HTTP/1 the header is allowed beside an address, and ignored.
            if request.version() == Version::HTTP_2 && host.is_some_and(is_other) {
                return Err(malformed("invalid `Host`: it is not the `:authority` of the request"));
            }
            Some(authority.as_str().to_owned())
        }
        None => None,
    };
    let text = named.as_deref().map(str::as_bytes).or(host.map(HeaderValue::as_bytes));
    if text.is_some_and(|text| !is_host(text)) {
        return Err(malformed("invalid `Host`: expected a name or an address, and a port"));
    }
    if let Some(named) = named.and_then(|named| HeaderValue::try_from(named).ok()) {
        request.headers_mut().insert(HOST, named);
    }
    Ok(())
}

/// Returns whether a text is a name or an address, with or without a port. An empty text is one:
/// clients send it if the address has no name.
fn is_host(text: &[u8]) -> bool {
    is_plain_host(text) || (!text.contains(&b'@') && Authority::try_from(text).is_ok())
}

/// Returns whether a text has the form that nearly all clients send, which needs no parser: letters,
/// digits, dots and hyphens, and at most one colon with digits after it.
fn is_plain_host(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let name = text.iter().take_while(|byte| is_plain(byte)).count();
    match &text[name..] {
        [] => true,
        [b':', port @ ..] => {
            name > 0 && !port.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

fn malformed(detail: &str) -> ServeError {
    ServeError::malformed(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn request(method: &str, uri: &str, version: Version, headers: Headers<'_>) -> Request<()> {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// Returns the resulting host, or the status of the refusal.
    fn checked(uri: &str, version: Version, headers: Headers<'_>) -> Result<Option<String>, u16> {
        let mut request = request("POST", uri, version, headers);
        check(&mut request).map_err(|error| error.status())?;
        let host = request.headers().get(HOST);
        Ok(host.map(|host| host.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_request_has_one_host_that_is_the_one_of_its_address() {
        let (v1, v2) = (Version::HTTP_11, Version::HTTP_2);
        let is = |host: &str| Ok(Some(host.to_owned()));
        assert_eq!(checked("/e", v1, &[("host", "a:80")]), is("a:80"));
        assert_eq!(checked("/e", v1, &[("host", "[::1]:8000")]), is("[::1]:8000"));
        assert_eq!(checked("/e", v1, &[("host", "")]), is(""));
        assert_eq!(checked("/e", v1, &[]), Ok(None));
        assert_eq!(checked("http://a/e", v1, &[("host", "evil.example")]), is("a"));
        assert_eq!(checked("http://a/e", v2, &[]), is("a"));
        assert_eq!(checked("http://a/e", v2, &[("host", "A")]), is("a"));
        assert_eq!(checked("http://a/e", v2, &[("host", "evil.example")]), Err(400));
        assert_eq!(checked("http://evil@a/e", v2, &[]), Err(400));
        for hosts in [
            &[("host", "a"), ("host", "a")][..],
            &[("host", "a"), ("host", "evil.example")],
            &[("host", "a b")],
            &[("host", "a/b")],
            &[("host", "evil@a")],
            &[("host", "a:b:c")],
            &[("host", "gr\u{fc}n")],
        ] {
            assert_eq!(checked("/e", v1, hosts), Err(400), "{hosts:?}");
        }
    }

    #[test]
    fn a_plain_host_is_a_host() {
        let plain = ["localhost", "a.example:8000", "127.0.0.1:1", "a-b", "-", ".", "7:65535"];
        for text in plain.map(str::as_bytes) {
            assert!(is_plain_host(text) && Authority::try_from(text).is_ok(), "{text:?}");
        }
        for text in ["[::1]:80", ":80", "a:", "a:b", "a:1:2", "a:123456", "a b", "a@b", "gr\u{fc}n"]
        {
            assert!(!is_plain_host(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_request_target_is_a_path() {
        let status = |method: &str, uri: &str| {
            let mut request = request(method, uri, Version::HTTP_11, &[]);
            check(&mut request).map_err(|error| error.status())
        };
        assert_eq!(status("OPTIONS", "*"), Ok(()));
        assert_eq!(status("GET", "e"), Err(400));
        assert_eq!(status("GET", "localhost:22"), Err(400));
        assert_eq!(status("CONNECT", "localhost:22"), Err(405));
        assert_eq!(status("CONNECT", "/e"), Err(405));
    }

    #[test]
    fn chunks_are_the_only_coding_of_a_transfer() {
        let status = |codings: Headers<'_>| checked("/e", Version::HTTP_11, codings);
        for known in ["chunked", "Chunked", "\tchunked "] {
            assert_eq!(status(&[("transfer-encoding", known)]), Ok(None), "{known:?}");
        }
        for unknown in ["gzip, chunked", "chunked, chunked", "gzip", "identity,chunked", ""] {
            assert_eq!(status(&[("transfer-encoding", unknown)]), Err(501), "{unknown:?}");
        }
        let spread = [("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")];
        assert_eq!(status(&spread), Err(501));
    }
}
