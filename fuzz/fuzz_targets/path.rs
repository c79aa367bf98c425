//! The path that a client asks for: it is decoded once and as RFC 3986 says, and every way on which it
//! is passed on keeps what it means.
#![no_main]

use std::str;

use libfuzzer_sys::fuzz_target;
use litplex_fuzz::bounded;
use litplex_http::fuzzing;

fuzz_target!(|data: &[u8]| bounded(data, path));

fn path(data: &[u8]) {
    let Ok(raw) = str::from_utf8(data) else { return };
    // What a request was admitted for has one spelling, so that no two spellings are two endpoints.
    assert!(fuzzing::admission(raw).is_none_or(|admission| admission == raw), "{raw}");
    let decoded = fuzzing::decode_path(raw);
    assert_eq!(decoded, decode_slowly(raw.as_bytes()), "as the reference decodes it");
    // A client may write a control character only where it is encoded: hyper takes no other.
    if !raw.contains(char::is_control) {
        assert_eq!(fuzzing::decode_path(&fuzzing::escape_path(raw)), decoded, "to the app host");
    }
    let Some(path) = decoded else { return };
    let sent = fuzzing::encode_path(&path);
    assert!(sent.is_ascii() && !sent.contains([' ', '?', '#', '"', '<', '>']), "{sent}");
    assert_eq!(fuzzing::decode_path(&sent), Some(path), "where clients are sent on to");
}

/// Decodes a path a byte at a time. None: it is not UTF-8, or has control characters.
fn decode_slowly(raw: &[u8]) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), raw);
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok().filter(|path| !path.chars().any(char::is_control))
}
