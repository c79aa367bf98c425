//! The path of a request as it is compared with those of routes: percent-decoded, once.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The characters that are encoded in the path of a URL.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Decodes the path of a request. A `%` without two hexadecimal digits is only that character.
///
/// It is decoded once: `/%2561` is `/%61`, and not `/a`. `None`: no route has such a path, because
/// it has control characters or is not UTF-8. Frameworks behind this server may match such a path
/// to a route: many patterns match before a final line break.
pub fn decode(raw: &str) -> Option<Cow<'_, str>> {
    // Nearly all paths have only such bytes, and stay as they are.
    if raw.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return Some(raw.into());
    }
    let path = percent_decode_str(raw).decode_utf8().ok()?;
    (!path.contains(char::is_control)).then_some(path)
}

/// Encodes a decoded path. Decoding returns it.
pub fn encode(path: &str) -> String {
    utf8_percent_encode(path, UNSAFE).to_string()
}

/// Encodes the characters of a client's path and query that are not ASCII, and nothing else.
pub fn escape(raw: &str) -> Cow<'_, str> {
    utf8_percent_encode(raw, CONTROLS).into()
}

/// Returns the path with a final slash if it has none, and without it if it has one.
pub fn with_other_ending(path: &str) -> Cow<'_, str> {
    match path.strip_suffix('/') {
        Some(shorter) => shorter.into(),
        None => format!("{path}/").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        for (raw, decoded) in [
            ("/predict", "/predict"),
            ("/%70redict", "/predict"),
            ("/%2570redict", "/%70redict"),
            ("/a%20b", "/a b"),
            ("/%C3%BCbersetzen", "/übersetzen"),
            ("/übersetzen", "/übersetzen"),
            ("/a%2Fb", "/a/b"),
            ("/50%", "/50%"),
            ("/50%zz", "/50%zz"),
            ("/a+b;c", "/a+b;c"),
            ("", ""),
        ] {
            assert_eq!(decode(raw).as_deref(), Some(decoded), "{raw}");
            assert_eq!(decode(&encode(decoded)).as_deref(), Some(decoded), "{raw}");
        }
    }

    #[test]
    fn control_characters_and_wrong_utf8_are_in_no_route() {
        for raw in
            ["/a%0A", "/a%0D", "/%00a", "/a%7F", "/a%C2%85", "/%C0%AFa", "/%FF", "/%ED%A0%80"]
        {
            assert_eq!(decode(raw), None, "{raw}");
        }
    }

    #[test]
    fn encoded_characters_stay_encoded() {
        assert_eq!(escape("/%C3%BC?a=%20&b"), "/%C3%BC?a=%20&b");
        assert_eq!(escape("/ü?q=ü"), "/%C3%BC?q=%C3%BC");
    }

    #[test]
    fn the_other_ending() {
        assert_eq!(with_other_ending("/a"), "/a/");
        assert_eq!(with_other_ending("/a/"), "/a");
        assert_eq!(with_other_ending("/a//"), "/a/");
    }
}
