//! Forms, split into fields and files. Contents are passed on byte for byte.

use bytes::{Bytes, BytesMut};
use litplex_core::{Content, FormPart, Outcome, Reservation, ServeError};
use memchr::memmem;
use percent_encoding::percent_decode;
use serde::de::IgnoredAny;

use crate::buffers::join;

/// The largest number of fields, and of files. More are an attack or an error.
const MAX_OF_A_KIND: usize = 1000;

/// The largest size of the headers of a part.
const MAX_HEADER_BYTES: usize = 16 * 1024;

const HEADERS_END: &[u8] = b"\r\n\r\n";

/// The memory of a part in addition to its content and its names.
const PART_BYTES: usize = 256;

/// The parts of a body, and their contents.
type Parts = (Content, Vec<Bytes>);

/// Splits a `multipart/form-data` body into its parts.
pub fn multipart(
    content_type: &[u8],
    pieces: Vec<Bytes>,
    reservation: &Reservation,
) -> Outcome<Parts> {
    let boundary = parameters(content_type).find(|(name, _)| name == b"boundary");
    let boundary = boundary.map(|(_, value)| value).filter(|value| !value.is_empty());
    let boundary = boundary.ok_or_else(|| malformed("its Content-Type has no `boundary`"))?;
    let body = join(pieces, reservation)?;
    let (mut parts, mut contents, mut counts) = (Vec::new(), Vec::new(), Counts::default());
    let line = [b"\r\n--", &*boundary].concat();
    let Some(mut delimiter) = first_delimiter(&body, &line) else {
        let is_empty = body.is_empty();
        let empty = (Content::Form(parts), contents);
        return if is_empty { Ok(empty) } else { Err(malformed("its boundary is nowhere in it")) };
    };
    while !delimiter.is_last {
        let headers = headers(&body[delimiter.end..])?;
        let start = delimiter.end + headers.len() + HEADERS_END.len();
        delimiter = next_delimiter(&body, &line, start)
            .ok_or_else(|| malformed("it ends within a part"))?;
        let content = body.slice(start..delimiter.start);
        let part = part(headers, content.len())?;
        counts.admit(&part, reservation)?;
        parts.push(part);
        contents.push(content);
    }
    Ok((Content::Form(parts), contents))
}

/// Splits an `application/x-www-form-urlencoded` body into its parts.
pub fn urlencoded(pieces: Vec<Bytes>, reservation: &Reservation) -> Outcome<Parts> {
    let body = join(pieces, reservation)?;
    check_is_form(&body)?;
    // Decoding never makes a text longer.
    reservation.grow(body.len())?;
    let mut decoded = BytesMut::with_capacity(body.len());
    let mut decode = |text: &[u8]| {
        let spaced = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte });
        decoded.extend(percent_decode(&spaced.collect::<Vec<_>>()));
        decoded.split().freeze()
    };
    let (mut parts, mut contents, mut counts) = (Vec::new(), Vec::new(), Counts::default());
    for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let content = decode(pair.get(equals + 1..).unwrap_or_default());
        let (filename, content_type, length) = (None, None, content.len());
        let part =
            FormPart { name: text(&decode(&pair[..equals])), filename, content_type, length };
        counts.admit(&part, reservation)?;
        parts.push(part);
        contents.push(content);
    }
    Ok((Content::Form(parts), contents))
}

/// Refuses a body that has the type of a form and is not one. `curl` sends that type with every
/// body that it is given as data.
fn check_is_form(body: &[u8]) -> Outcome<()> {
    if is_like_json(body) {
        let detail = "the body looks like JSON and Content-Type says that it is a form; \
                      send `Content-Type: application/json`";
        return Err(ServeError::unsupported_type(detail));
    }
    let is_text = |byte: &u8| !byte.is_ascii_control() || b"\t\r\n".contains(byte);
    if !body.iter().all(is_text) {
        let detail = "the body is binary and Content-Type says that it is a form; send the type \
                      of what it is, such as `Content-Type: image/jpeg` or \
                      `Content-Type: application/octet-stream`, or a file as a part of \
                      `multipart/form-data`";
        return Err(ServeError::unsupported_type(detail));
    }
    Ok(())
}

/// Returns whether a body is JSON, or begins like JSON and has no `=`. Names of fields may begin
/// like JSON: `[0]=a&[1]=b`.
fn is_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start(), [b'{' | b'[', ..])
        && (!body.contains(&b'=') || serde_json::from_slice::<IgnoredAny>(body).is_ok())
}

/// The number of parts of a form so far.
#[derive(Debug, Default)]
struct Counts {
    fields: usize,
    files: usize,
}

impl Counts {
    /// Reserves the memory of a part. Fails if there are too many parts.
    fn admit(&mut self, part: &FormPart, reservation: &Reservation) -> Outcome<()> {
        let (count, kind) = match part.filename {
            Some(_) => (&mut self.files, "files"),
            None => (&mut self.fields, "fields"),
        };
        *count += 1;
        if *count > MAX_OF_A_KIND {
            let detail = format!("the form has more than {MAX_OF_A_KIND} {kind}");
            return Err(ServeError::malformed(detail));
        }
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let names = part.name.len() + length(&part.filename) + length(&part.content_type);
        reservation.grow(PART_BYTES + names)
    }
}

/// A place where a boundary separates parts: from the line break before it to the one after it.
struct Delimiter {
    start: usize,
    end: usize,
    is_last: bool,
}

/// Returns the first boundary; text before it is ignored. `line` is the line break and the
/// boundary.
fn first_delimiter(body: &[u8], line: &[u8]) -> Option<Delimiter> {
    let at_once = body.strip_prefix(&line[2..]).and_then(ending);
    match at_once {
        Some((length, is_last)) => {
            Some(Delimiter { start: 0, end: line.len() - 2 + length, is_last })
        }
        None => next_delimiter(body, line, 0),
    }
}

fn next_delimiter(body: &[u8], line: &[u8], from: usize) -> Option<Delimiter> {
    memmem::find_iter(&body[from..], line).find_map(|found| {
        let (start, after) = (from + found, from + found + line.len());
        // Anything else is content that begins like a boundary.
        let (length, is_last) = ending(&body[after..])?;
        Some(Delimiter { start, end: after + length, is_last })
    })
}

/// Returns the length of the rest of a delimiter, and whether it is the last one.
fn ending(after: &[u8]) -> Option<(usize, bool)> {
    if after.starts_with(b"--") {
        return Some((2, true));
    }
    let padding = after.iter().take_while(|byte| b" \t".contains(byte)).count();
    after[padding..].starts_with(b"\r\n").then_some((padding + 2, false))
}

/// Returns the headers at the start of a part.
fn headers(part: &[u8]) -> Outcome<&[u8]> {
    let end = memmem::find(&part[..part.len().min(MAX_HEADER_BYTES)], HEADERS_END);
    let end = end.ok_or_else(|| malformed("a part has no end of its headers, or too many"))?;
    Ok(&part[..end])
}

/// Reads the headers of a part. Of headers with the same name, the same counts as in Starlette: the
/// first `Content-Type` and the last `Content-Disposition`.
fn part(headers: &[u8], length: usize) -> Outcome<FormPart> {
    let (mut disposition, mut content_type) = (None, None);
    for line in lines(headers) {
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"content-disposition") {
            disposition = Some(value);
        } else if name.eq_ignore_ascii_case(b"content-type") && content_type.is_none() {
            content_type = Some(text(value));
        }
    }
    let (mut field, mut filename) = (None, None);
    let mut is_extended = false;
    for (name, value) in parameters(disposition.unwrap_or_default()) {
        match name.as_slice() {
            b"name" => field = Some(text(&value)),
            b"filename" if !is_extended => filename = Some(text(&value)),
            b"filename*" => {
                if let Some(value) = extended(&value) {
                    (filename, is_extended) = (Some(value), true);
                }
            }
            _ => {}
        }
    }
    let name = field.ok_or_else(|| malformed("a part has no `name`"))?;
    let filename = filename.map(|name| without_directories(name, is_extended));
    Ok(FormPart { name, filename, content_type, length })
}

/// Iterates over the lines of the headers of a part.
fn lines(headers: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(headers);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memmem::find(text, b"\r\n");
        rest = end.map(|end| &text[end + 2..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Returns the name and the value of a header. A header that continues on a second line is refused,
/// as in HTTP itself: other programs may read it differently.
fn header(line: &[u8]) -> Outcome<(&[u8], &[u8])> {
    if let [b' ' | b'\t', ..] = line {
        return Err(malformed("a header of a part goes on in a second line"));
    }
    let colon = memchr::memchr(b':', line).filter(|colon| is_token(&line[..*colon]));
    let colon = colon.ok_or_else(|| malformed("a header of a part is not `Name: value`"))?;
    let value = &line[colon + 1..];
    if value.iter().any(|byte| b"\r\n\0".contains(byte)) {
        return Err(malformed("a header of a part has a control character"));
    }
    Ok((&line[..colon], value.trim_ascii()))
}

/// Returns whether bytes can be the name of a header (RFC 9110, section 5.6.2).
fn is_token(name: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_allowed)
}

/// Iterates over the parameters of a header, such as `; name="a"`. Names are in lower case.
fn parameters(header: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let start = memchr::memchr(b';', header).unwrap_or(header.len());
    let mut rest = &header[start..];
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start().strip_prefix(b";")?.trim_ascii_start();
            let end = rest.iter().position(|byte| b"=;".contains(byte)).unwrap_or(rest.len());
            let name = rest[..end].trim_ascii().to_ascii_lowercase();
            rest = &rest[end..];
            // A parameter without a value has no meaning.
            let Some(value) = rest.strip_prefix(b"=") else { continue };
            let (value, after) = value_of(value.trim_ascii_start());
            // Text between a quoted value and the next parameter is dropped.
            rest = &after[memchr::memchr(b';', after).unwrap_or(after.len())..];
            return Some((name, value));
        }
    })
}

/// Reads the value of a parameter, and returns it with the rest of the text.
fn value_of(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        return (text[..end].trim_ascii_end().to_vec(), &text[end..]);
    };
    let mut value = Vec::new();
    loop {
        match rest {
            // Only these characters are escaped: some names of files contain bare backslashes.
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] => {
                value.push(*byte);
                rest = after;
            }
            [b'"', after @ ..] => return (value, after),
            [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
            [] => return (value, rest),
        }
    }
}

/// Reads a value with its charset, such as `utf-8''gr%C3%B6.png` (RFC 8187).
fn extended(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, value) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode(value).collect();
    let is_latin = charset.eq_ignore_ascii_case(b"iso-8859-1");
    Some(if is_latin { latin(&bytes) } else { text(&bytes) })
}

/// Returns the file name of a Windows path, which old browsers send.
fn without_directories(name: String, is_extended: bool) -> String {
    let is_path = name.starts_with("\\\\") || name.get(1..3) == Some(":\\");
    match name.rsplit_once('\\') {
        Some((_, last)) if is_path && !is_extended => last.to_owned(),
        _ => name,
    }
}

/// Returns bytes as text: UTF-8, or else Latin-1, as old clients send.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| latin(bytes), str::to_owned)
}

/// Returns each byte as the character with its number.
pub fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn malformed(why: &str) -> ServeError {
    ServeError::malformed(format!("malformed form: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &[u8]) -> Outcome<Vec<(FormPart, Bytes)>> {
        let reservation = Reservation::default();
        let pieces = body.chunks(7).map(Bytes::copy_from_slice).collect();
        let (content, contents) =
            multipart(b"multipart/form-data; charset=x; Boundary=\"b\"", pieces, &reservation)?;
        let Content::Form(parts) = content else { panic!("a form") };
        assert!(parts.iter().map(|part| part.length).eq(contents.iter().map(Bytes::len)));
        Ok(parts.into_iter().zip(contents).collect())
    }

    fn named(disposition: &[u8]) -> (String, Option<String>) {
        let body = [b"--b\r\ncontent-DISPOSITION: form-data", disposition, b"\r\n\r\nx\r\n--b--"];
        let mut parts = parsed(&body.concat()).unwrap();
        let (part, content) = parts.remove(0);
        assert_eq!((content, parts.len()), (Bytes::from_static(b"x"), 0));
        (part.name, part.filename)
    }

    #[test]
    fn contents_are_kept_byte_for_byte() {
        let contents: [&[u8]; 5] =
            [b"", b"\r\n", b"\x00\xff\r\n--bb\r\n", b"--b--", b"a\r\n--b\r \r\n--b -"];
        let mut body = b"preamble\r\n".to_vec();
        for content in contents {
            body.extend_from_slice(b"--b \t\r\nContent-Disposition: form-data; name=f\r\n");
            body.extend_from_slice(b"Content-Type: image/\xff\r\n\r\n");
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--b--\r\nepilogue");
        let parts = parsed(&body).unwrap();
        assert!(parts.iter().map(|(_, content)| &content[..]).eq(contents));
        assert_eq!(parts[0].0.content_type.as_deref(), Some("image/\u{ff}"));
        assert!(parsed(b"").unwrap().is_empty());
        assert!(parsed(b"--b--").unwrap().is_empty());
    }

    #[test]
    fn names_are_read_however_they_are_written() {
        for (disposition, name, filename) in [
            (&b"; name=\"a\""[..], "a", None),
            (b"; filename=x.png; name=a", "a", Some("x.png")),
            (b"; filename=\"a; name=b\"; name=\"c\"", "c", Some("a; name=b")),
            (b"; name=a; filename=\"\"", "a", Some("")),
            (b"; name=\"a\\\"b\"; filename=\"x\\y\\\\z\"", "a\"b", Some("x\\y\\z")),
            (b"; name=a; filename=\"C:\\t\\x.png\"", "a", Some("x.png")),
            (b"; name=\"gr\xc3\xb6\"; filename=\"gr\xf6.png\"", "gr\u{f6}", Some("gr\u{f6}.png")),
            (b"; name=a; filename*=utf-8''gr%C3%B6.png; filename=g.png", "a", Some("gr\u{f6}.png")),
            (b"; name=a; filename*=ISO-8859-1'de'gr%F6.png", "a", Some("gr\u{f6}.png")),
            (b"; NAME = a ;; x; filename*=wrong", "a", None),
        ] {
            let expected = (name.to_owned(), filename.map(str::to_owned));
            assert_eq!(named(disposition), expected, "{}", latin(disposition));
        }
    }

    #[test]
    fn headers_with_one_name_count_as_in_starlette() {
        let headers = b"--b\r\nContent-Disposition: form-data; name=a\r\n\
            Content-Type: image/png\r\ncontent-type: text/plain\r\n\
            Content-Disposition: form-data; name=b; name=c; filename=d; filename=e\r\n\r\nx\r\n--b--";
        let [(part, _)] = &parsed(headers).unwrap()[..] else { panic!("one part") };
        assert_eq!((&*part.name, part.filename.as_deref()), ("c", Some("e")));
        assert_eq!(part.content_type.as_deref(), Some("image/png"));
    }

    #[test]
    fn malformed_headers_of_a_part_are_refused() {
        let named = b"Content-Disposition: form-data; name=a";
        for wrong in [
            &b"Content-Disposition: form-data;\r\n name=a"[..],
            b"Content-Disposition: form-data; name=a;\r\n\tfilename=f",
            b" X: 1\r\nContent-Disposition: form-data; name=a",
            b"Content-Disposition : form-data; name=a",
            b"Content-Disposition: name=a",
            &[named, &b"\r\ngarbage"[..]].concat(),
            &[named, &b"\r\n: 1"[..]].concat(),
            &[named, &b"\r\nX(Y): 1"[..]].concat(),
            &[named, &b"\r\nX: 1\0"[..]].concat(),
            &[named, &b"\nX: 1"[..]].concat(),
            &[&b"X: 1\n"[..], named].concat(),
            &[named, &b"\rX: 1"[..]].concat(),
            // A part without headers; its content must not be read as headers.
            &[&b"\r\nx\r\n--b\r\n"[..], named].concat(),
        ] {
            let body = [b"--b\r\n", wrong, b"\r\n\r\nx\r\n--b--"].concat();
            assert_eq!(parsed(&body).unwrap_err().status(), 400, "{}", latin(wrong));
        }
    }

    #[test]
    fn an_invalid_multipart_body_is_refused() {
        for wrong in [
            &b"--b"[..],
            b"--c\r\n\r\n--c--",
            b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\ncut",
            b"--b\r\nContent-Disposition: form-data; name=a\r\n--b--",
            b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--",
            b"--b\r\n\r\nx\r\n--b--",
        ] {
            assert_eq!(parsed(wrong).unwrap_err().status(), 400, "{}", latin(wrong));
        }
        let part = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n";
        let file = b"--b\r\nContent-Disposition: form-data; name=a; filename=f\r\n\r\n\r\n";
        let most = [part.repeat(MAX_OF_A_KIND), file.repeat(MAX_OF_A_KIND)].concat();
        let most = [&most[..], b"--b--"].concat();
        assert_eq!(parsed(&most).unwrap().len(), 2 * MAX_OF_A_KIND);
        for one_more in [&part[..], file] {
            assert_eq!(parsed(&[one_more, &most].concat()).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn urlencoded_values_are_decoded_to_bytes() {
        let decode = |body: &'static [u8]| urlencoded(vec![body.into()], &Reservation::default());
        let (content, contents) = decode(b"a=1+2%2B&&gr%C3%B6=%f6&c&=x&n=J\xc3\xb6rg").unwrap();
        let Content::Form(parts) = content else { panic!("a form") };
        assert!(parts.iter().map(|part| &*part.name).eq(["a", "gr\u{f6}", "c", "", "n"]));
        assert!(contents.iter().map(|content| &content[..]).eq([
            &b"1 2+"[..],
            b"\xf6",
            b"",
            b"x",
            b"J\xc3\xb6rg"
        ]));
        let (content, contents) = decode(b"[0]=a=b&{x=%zz%&%5b=1;b=2&[0]=%2").unwrap();
        let Content::Form(parts) = content else { panic!("a form") };
        assert!(parts.iter().map(|part| &*part.name).eq(["[0]", "{x", "[", "[0]"]));
        assert_eq!(contents, [&b"a=b"[..], b"%zz%", b"1;b=2", b"%2"]);
        for wrong in [
            &b"{\"a\": 1}"[..],
            b" [1, \"a=b\"]",
            b"{\"a\": 1",
            b"\xff\xd8\xff\xe0\x00\x10JFIF",
            b"a=\x01",
        ] {
            let error = decode(wrong).unwrap_err();
            assert!(error.status() == 415 && error.detail.contains("Content-Type: "), "{error}");
        }
    }
}
