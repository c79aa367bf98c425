//! Request bodies: the first line is the `Content-Type`, the rest is the body in pieces.
#![no_main]

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use litplex_core::{Content, Outcome};
use litplex_fuzz::{bounded, pieces};
use litplex_http::fuzzing;

fuzz_target!(|data: &[u8]| bounded(data, body));

fn body(data: &[u8]) {
    let (content_type, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let Ok(content_type) = HeaderValue::from_bytes(content_type) else { return };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
    let pieces = pieces(body);
    let whole = pieces.concat().into();
    let taken = fuzzing::body(&headers, pieces);
    let again = fuzzing::body(&headers, vec![whole]);
    assert_eq!(facts(&taken), facts(&again), "however it is cut");
}

/// Returns the status of an error, or what the body is and its bytes.
fn facts(taken: &Outcome<(Content, Vec<bytes::Bytes>)>) -> Result<(String, Vec<u8>), u16> {
    let (content, contents) = taken.as_ref().map_err(|error| error.status())?;
    let body = contents.concat();
    if let Content::Form(parts) = content {
        assert_eq!(parts.len(), contents.len());
        assert_eq!(parts.iter().map(|part| part.length).sum::<usize>(), body.len());
    }
    Ok((format!("{content:?}"), body))
}
