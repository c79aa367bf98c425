//! The encodings of JSON bodies; everything behind this module reads UTF-8.

use bytes::Bytes;

/// The encoding of a body. Without a byte-order mark the zeros among the first bytes of JSON tell the
/// encoding, because JSON begins with two ASCII characters or is one (RFC 4627, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16 { is_big: bool },
    Utf32 { is_big: bool },
}

/// Returns the text of a JSON body in any encoding that Python's `json` module detects: UTF-8,
/// UTF-16 or UTF-32, with or without a byte-order mark. `None` for other encodings.
///
/// A body in plain UTF-8 that is one piece is not copied.
pub fn json_text(body: &[Bytes]) -> Option<Bytes> {
    let whole = match body {
        [whole] => whole.clone(),
        pieces => pieces.concat().into(),
    };
    let (encoding, mark) = detect(&whole);
    match encoding {
        Encoding::Utf8 => std::str::from_utf8(&whole).is_ok().then(|| whole.slice(mark..)),
        Encoding::Utf16 { is_big } => utf16(&whole[mark..], is_big),
        Encoding::Utf32 { is_big } => utf32(&whole[mark..], is_big),
    }
}

/// Returns the encoding of a body and the length of its byte-order mark.
fn detect(body: &[u8]) -> (Encoding, usize) {
    let utf16 = |is_big| Encoding::Utf16 { is_big };
    let utf32 = |is_big| Encoding::Utf32 { is_big };
    match body {
        [0, 0, 0xfe, 0xff, ..] => (utf32(true), 4),
        [0xff, 0xfe, 0, 0, ..] => (utf32(false), 4),
        [0xfe, 0xff, ..] => (utf16(true), 2),
        [0xff, 0xfe, ..] => (utf16(false), 2),
        [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
        [0, 0, _, _, ..] => (utf32(true), 0),
        [0, _, _, _, ..] => (utf16(true), 0),
        [_, 0, 0, 0, ..] => (utf32(false), 0),
        [_, 0, _, _, ..] => (utf16(false), 0),
        [0, _] => (utf16(true), 0),
        [_, 0] => (utf16(false), 0),
        _ => (Encoding::Utf8, 0),
    }
}

fn utf16(body: &[u8], is_big: bool) -> Option<Bytes> {
    let (units, []) = body.as_chunks::<2>() else { return None };
    let unit = |bytes: &[u8; 2]| {
        if is_big { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) }
    };
    let text: Result<String, _> = char::decode_utf16(units.iter().map(unit)).collect();
    text.ok().map(Bytes::from)
}

fn utf32(body: &[u8], is_big: bool) -> Option<Bytes> {
    let (units, []) = body.as_chunks::<4>() else { return None };
    let unit = |bytes: &[u8; 4]| {
        char::from_u32(if is_big { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    };
    let text: Option<String> = units.iter().map(unit).collect();
    text.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"a":"größe 𝄞"}"#;

    fn utf16(is_big: bool) -> Vec<u8> {
        let bytes = |unit: u16| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        TEXT.encode_utf16().flat_map(bytes).collect()
    }

    fn utf32(is_big: bool) -> Vec<u8> {
        let bytes = |c: char| {
            let code = u32::from(c);
            if is_big { code.to_be_bytes() } else { code.to_le_bytes() }
        };
        TEXT.chars().flat_map(bytes).collect()
    }

    #[test]
    fn every_encoding_of_python_s_json_is_text() {
        let marked = |mark: &[u8], body: Vec<u8>| [mark, &body].concat();
        for body in [
            TEXT.as_bytes().to_vec(),
            marked(b"\xef\xbb\xbf", TEXT.into()),
            utf16(false),
            utf16(true),
            marked(b"\xff\xfe", utf16(false)),
            marked(b"\xfe\xff", utf16(true)),
            utf32(false),
            utf32(true),
            marked(b"\xff\xfe\0\0", utf32(false)),
            marked(b"\0\0\xfe\xff", utf32(true)),
        ] {
            let (head, tail) = body.split_at(body.len() / 2 + 1);
            let pieces = [Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)];
            assert_eq!(json_text(&pieces).unwrap(), TEXT, "{body:?}");
            assert_eq!(json_text(&[body.into()]).unwrap(), TEXT);
        }
        assert_eq!(json_text(&[Bytes::from_static(b"7\0")]).unwrap(), "7");
        assert_eq!(json_text(&[Bytes::from_static(b"")]).unwrap(), "");
    }

    #[test]
    fn what_is_in_no_such_encoding_is_no_text() {
        for body in [&b"\"\xe4\""[..], b"\xff\xfe\0", b"\xff\xfe\0\xd8", b"\0\0\xfe\xff\0\x11\0\0"]
        {
            assert_eq!(json_text(&[Bytes::copy_from_slice(body)]), None, "{body:?}");
        }
    }
}
