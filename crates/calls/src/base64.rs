//! Decodes the base64 texts in a JSON body that the callee's model declares, so that its hooks get bytes.
//!
//! Only what can be decoded without a doubt is taken out of the body. Everything else stays as it was
//! sent, and the model's own check decides about it: a body that is no JSON, a text in another alphabet or
//! with line breaks, a value of another type.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use litplex_core::{Base64Fields, Content, Outcome, Request, json_text};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::off_thread;

/// The shortest text that is taken out, in bytes: the description of a shorter one costs more than it
/// saves.
const LEAST_BYTES: usize = 1024;

/// The memory of the description of a buffer, in bytes.
const PART_BYTES: usize = 512;

/// The longest part of a `data:` URL in front of its base64, in bytes.
const MOST_PREFIX_BYTES: usize = 256;

/// The multiple at which buffers begin in a body.
const ALIGNMENT: usize = 16;

/// Returns a request whose declared fields are bytes instead of base64 texts.
///
/// # Errors
/// The memory budget has no room for the decoded body.
pub(crate) async fn decode(request: Request, fields: Arc<Base64Fields>) -> Outcome<Request> {
    if request.content != Content::Json || request.body_len() < LEAST_BYTES {
        return Ok(request);
    }
    off_thread(request.body_len(), move || decoded(request, &fields)).await
}

fn decoded(mut request: Request, fields: &Base64Fields) -> Outcome<Request> {
    let length = request.body_len();
    // The joined text, and the decoded buffers beside it.
    request.reservation.grow(2 * length)?;
    let split = json_text(&request.body).and_then(|text| split(&text, fields));
    if let Some(Split { parts, body }) = split {
        request.reservation.grow(parts.len() * PART_BYTES)?;
        (request.content, request.body) = (Content::Packed(Value::Array(parts).into()), body);
    }
    request.reservation.shrink(2 * length);
    Ok(request)
}

/// A body that is JSON and buffers that belong into it.
struct Split {
    parts: Vec<Value>,
    body: Vec<Bytes>,
}

/// Takes the declared texts out of a JSON body; `None` if there are none.
fn split(text: &Bytes, fields: &Base64Fields) -> Option<Split> {
    let text = std::str::from_utf8(text).ok()?;
    let mut taken = find(text, fields).ok()?.into_iter().filter_map(Found::decoded).peekable();
    taken.peek()?;
    let (mut rest, mut copied) = (Vec::new(), 0);
    let (mut parts, mut buffers) = (vec![Value::Null], Vec::new());
    for Taken { path, json, prefix, bytes } in taken {
        let start = json.as_ptr().addr() - text.as_ptr().addr();
        rest.extend_from_slice(&text.as_bytes()[copied..start]);
        rest.extend_from_slice(b"null");
        copied = start + json.len();
        let mut part = json!({"length": bytes.len(), "path": path, "base64": true});
        if !prefix.is_empty() {
            part["prefix"] = prefix.into();
        }
        parts.push(part);
        buffers.push(bytes);
    }
    rest.extend_from_slice(&text.as_bytes()[copied..]);
    parts[0] = json!({"offset": 0, "length": rest.len()});
    let mut body = Vec::with_capacity(2 * buffers.len());
    let mut offset = 0;
    for (part, buffer) in parts[1..].iter_mut().zip(buffers) {
        // White space after JSON, and bytes between buffers, mean nothing.
        rest.resize((offset + rest.len()).next_multiple_of(ALIGNMENT) - offset, b' ');
        offset += rest.len();
        part["offset"] = offset.into();
        offset += buffer.len();
        body.extend([std::mem::take(&mut rest).into(), buffer]);
    }
    Some(Split { parts, body })
}

/// A step of the path of a value: a key or an index.
type Step = Value;

/// A declared value.
struct Found<'t> {
    path: Vec<Step>,
    json: &'t str,
}

/// A declared text, and the bytes that it stands for.
struct Taken<'t> {
    path: Vec<Step>,
    json: &'t str,
    /// The part of the text in front of the base64, of a `data:` URL.
    prefix: String,
    bytes: Bytes,
}

impl<'t> Found<'t> {
    /// Returns the value decoded, if it is a text in base64 with the standard alphabet and padding, or a
    /// `data:` URL with such a text.
    fn decoded(self) -> Option<Taken<'t>> {
        let Self { path, json } = self;
        let inner = json.strip_prefix('"')?.strip_suffix('"')?;
        if inner.len() < LEAST_BYTES {
            return None;
        }
        let text = match inner.contains('\\') {
            false => Cow::Borrowed(inner),
            true => Cow::Owned(serde_json::from_str::<String>(json).ok()?),
        };
        let (prefix, base64) = text.split_at(prefix_length(&text)?);
        let bytes = base64_simd::STANDARD.decode_to_vec(base64).ok()?;
        Some(Taken { path, json, prefix: prefix.to_owned(), bytes: bytes.into() })
    }
}

/// Returns the length of the part in front of the base64: 0 unless the text is a `data:` URL. `None` for
/// one that is not in base64.
fn prefix_length(text: &str) -> Option<usize> {
    if !text.starts_with("data:") {
        return Some(0);
    }
    let comma = text.bytes().take(MOST_PREFIX_BYTES).position(|byte| byte == b',')?;
    text[..comma].ends_with(";base64").then_some(comma + 1)
}

/// Returns the declared values of a JSON text, in their order.
fn find<'t>(text: &'t str, fields: &Base64Fields) -> serde_json::Result<Vec<Found<'t>>> {
    let (mut path, mut found) = (Vec::new(), Vec::new());
    let mut json = serde_json::Deserializer::from_str(text);
    Search { fields, path: &mut path, found: &mut found }.deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

struct Search<'a, 't> {
    fields: &'a Base64Fields,
    path: &'a mut Vec<Step>,
    found: &'a mut Vec<Found<'t>>,
}

impl<'t> Search<'_, 't> {
    /// Returns the search of the value below this step.
    fn below<'b>(&'b mut self, step: Step, fields: &'b Base64Fields) -> Search<'b, 't> {
        self.path.push(step);
        Search { fields, path: self.path, found: self.found }
    }
}

impl<'t> DeserializeSeed<'t> for Search<'_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, json: D) -> Result<(), D::Error> {
        if !self.fields.is_text() {
            return json.deserialize_any(self);
        }
        let value: &'t RawValue = serde::Deserialize::deserialize(json)?;
        if value.get().starts_with('"') {
            self.found.push(Found { path: self.path.clone(), json: value.get() });
            return Ok(());
        }
        // Fields may be texts or objects that have fields.
        serde_json::Deserializer::from_str(value.get()).deserialize_any(self).map_err(Error::custom)
    }
}

impl<'t> Visitor<'t> for Search<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'t>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<Cow<'t, str>>()? {
            let Some(fields) = self.fields.at_key(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // Of fields with the same name the last one counts, for its reader in the worker.
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom("a field appears twice"));
            }
            map.next_value_seed(self.below(key.into_owned().into(), fields))?;
            self.path.pop();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'t>>(mut self, mut items: A) -> Result<(), A::Error> {
        let Some(fields) = self.fields.items() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut index = 0;
        while items.next_element_seed(self.below(index.into(), fields))?.is_some() {
            self.path.pop();
            index += 1;
        }
        self.path.pop();
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns bytes whose base64 is long enough to be taken out, and that text.
    fn sample(seed: u8) -> (Vec<u8>, String) {
        let bytes: Vec<u8> = (0..3_001u32).map(|n| (n as u8).wrapping_mul(seed)).collect();
        let text = base64_simd::STANDARD.encode_to_string(&bytes);
        (bytes, text)
    }

    fn fields(paths: &[&[&str]]) -> Arc<Base64Fields> {
        let step = |step: &&str| (*step != "*").then(|| (*step).to_owned());
        let paths: Vec<Vec<_>> = paths.iter().map(|path| path.iter().map(step).collect()).collect();
        Base64Fields::from_paths(&paths).into()
    }

    /// The path and the bytes of a buffer.
    type Buffer = (Value, Vec<u8>);

    /// Returns the JSON that remains of a body, and the path and the bytes of each buffer; `None` if the
    /// body is left as it is.
    fn split_text(text: &str, fields: &Base64Fields) -> Option<(Value, Vec<Buffer>)> {
        let Split { parts, body } = split(&Bytes::copy_from_slice(text.as_bytes()), fields)?;
        let whole = body.concat();
        let piece = |part: &Value| {
            let start = part["offset"].as_u64().unwrap() as usize;
            whole[start..start + part["length"].as_u64().unwrap() as usize].to_vec()
        };
        assert!(parts.iter().all(|part| part["offset"].as_u64().unwrap() % 16 == 0));
        let rest = serde_json::from_slice(&piece(&parts[0])).unwrap();
        let buffers = parts[1..].iter().map(|part| (part["path"].clone(), piece(part))).collect();
        Some((rest, buffers))
    }

    #[test]
    fn declared_texts_become_buffers_beside_the_json() {
        let ((a, a_text), (b, b_text)) = (sample(3), sample(7));
        let body = format!(
            r#" {{"n": 1e999, "image": "{a_text}", "pages": [{{"scan": "{b_text}"}}, {{"scan": 7}}],
                "other": "{a_text}"}} "#
        );
        let declared = fields(&[&["image"], &["pages", "*", "scan"]]);
        let body = body.replace("1e999", "1.5");
        let (rest, buffers) = split_text(&body, &declared).unwrap();
        let pages = json!([{"scan": null}, {"scan": 7}]);
        assert_eq!(rest, json!({"n": 1.5, "image": null, "pages": pages, "other": a_text}));
        assert_eq!(buffers, [(json!(["image"]), a), (json!(["pages", 0, "scan"]), b)]);
    }

    #[test]
    fn a_body_can_be_one_text_and_values_of_an_object_can_be_texts() {
        let (bytes, text) = sample(5);
        let whole = split_text(&format!("\"{text}\""), &fields(&[&[]])).unwrap();
        assert_eq!(whole, (Value::Null, vec![(json!([]), bytes.clone())]));
        let each = split_text(&format!(r#"{{"a": "{text}", "b": 1}}"#), &fields(&[&["*"]]));
        assert_eq!(each.unwrap(), (json!({"a": null, "b": 1}), vec![(json!(["a"]), bytes)]));
    }

    #[test]
    fn a_data_url_keeps_the_part_in_front_of_its_base64() {
        let (bytes, text) = sample(13);
        let declared = fields(&[&["parts", "*", "image"], &["parts", "*", "image", "url"]]);
        for (head, is_taken) in [
            ("data:image/png;base64,", true),
            ("data:;base64,", true),
            ("data:image\\/png;base64,", true),
            ("data:image/png,", false),
            ("https://a.b/c,", false),
        ] {
            let parts =
                format!(r#"{{"image": {{"url": "{head}{text}"}}}}, {{"image": "{head}{text}"}}"#);
            let body = format!(r#"{{"parts": [{parts}]}}"#);
            let Some((rest, buffers)) = split_text(&body, &declared) else {
                assert!(!is_taken, "{head}");
                continue;
            };
            assert_eq!(rest, json!({"parts": [{"image": {"url": null}}, {"image": null}]}));
            let paths = [json!(["parts", 0, "image", "url"]), json!(["parts", 1, "image"])];
            let expected = paths.map(|path| (path, bytes.clone()));
            assert_eq!(buffers, expected);
            let body = Bytes::from(body);
            let parts = split(&body, &declared).unwrap().parts;
            assert_eq!(parts[1]["prefix"], head.replace('\\', ""));
        }
    }

    #[test]
    fn escapes_are_read() {
        let (bytes, text) = sample(255);
        let escaped = text.replace('/', "\\/").replace('=', "\\u003d");
        assert!(escaped.len() > text.len());
        let split = split_text(&format!(r#"{{"image": "{escaped}"}}"#), &fields(&[&["image"]]));
        assert_eq!(split.unwrap().1[0].1, bytes);
    }

    #[test]
    fn what_is_not_plainly_base64_is_left_to_the_model() {
        let (_, text) = sample(9);
        let unpadded = text.trim_end_matches('=');
        assert_ne!(unpadded, text);
        let broken = text.replacen('A', "A\\n", 1);
        let foreign = text.replacen('A', "!", 1);
        for value in [
            format!("\"{unpadded}\""),
            format!("\"{broken}\""),
            format!("\"{foreign}\""),
            format!("[\"{text}\"]"),
            "\"aGVsbG8=\"".to_owned(),
            "null".to_owned(),
        ] {
            let body = format!(r#"{{"image": {value}}}"#);
            assert!(split_text(&body, &fields(&[&["image"]])).is_none(), "{value}");
        }
        for body in [
            format!(r#"{{"image": "{text}", "image": 1}}"#),
            format!(r#"{{"image": "{text}""#),
            format!(r#"{{"image": "{text}"}} x"#),
            format!(r#"["{text}"]"#),
        ] {
            assert!(split_text(&body, &fields(&[&["image"]])).is_none());
        }
    }

    #[tokio::test]
    async fn a_request_is_decoded_within_its_memory() {
        let (bytes, text) = sample(11);
        let budget = litplex_core::MemoryBudget::new(100_000);
        let request = || {
            let mut request = Request::json(format!(r#"{{"image": "{text}"}}"#));
            request.reservation = budget.reserve();
            request
        };
        let request_decoded = decode(request(), fields(&[&["image"]])).await.unwrap();
        assert!(matches!(request_decoded.content, Content::Packed(_)));
        assert_eq!(request_decoded.body.last().unwrap(), &bytes);
        let other = decode(request(), fields(&[&["other"]])).await.unwrap();
        assert_eq!((other.content, other.body), (Content::Json, request().body));
        let mut full = request();
        full.reservation.grow(95_000).unwrap();
        assert_eq!(decode(full.clone(), fields(&[&["image"]])).await.unwrap_err().status(), 503);
        full.content = Content::Raw("image/png".into());
        assert!(decode(full, fields(&[&["image"]])).await.is_ok());
    }
}
