//! Values as people read them: large arrays as their shape and range, images as their size.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use litplex_core::size_in_words;
use serde_json::Value;

/// The number of numbers up to which an array is shown as it is.
const MAX_NUMBERS: usize = 8;

/// The number of characters up to which a value is shown in one line.
const MAX_LINE: usize = 80;

/// The number of characters from which a text may be an image in base64.
const MIN_IMAGE: usize = 32;

/// Returns a value as people read it.
pub(crate) fn picture(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::String(text) => out += &image_in(text).unwrap_or_else(|| text.clone()),
        other => write(&mut out, other, 0),
    }
    out
}

/// Returns an image or other bytes in a few words.
pub(crate) fn bytes(content_type: &str, bytes: &[u8]) -> String {
    let size = match imagesize::blob_size(bytes) {
        Ok(size) => format!(", {} x {}", size.width, size.height),
        Err(_) => String::new(),
    };
    format!("{content_type}{size}, {}", size_in_words(bytes.len() as u64))
}

fn write(out: &mut String, value: &Value, depth: usize) {
    if let Some(short) = short(value) {
        *out += &short;
        return;
    }
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    let line = |out: &mut String, depth| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("  "));
    };
    out.push(open);
    let mut is_first = true;
    let mut separate = |out: &mut String| {
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        line(out, depth + 1);
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                separate(out);
                let _ = write!(out, "{}: ", Value::from(name.as_str()));
                write(out, value, depth + 1);
            }
        }
        Value::Array(items) => {
            for item in items {
                separate(out);
                write(out, item, depth + 1);
            }
        }
        _ => {}
    }
    line(out, depth);
    out.push(close);
}

/// Returns a value in one line, if it fits there.
fn short(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(image_in(text).unwrap_or_else(|| value.to_string())),
        Value::Array(items) => {
            if let Some(tensor) = Tensor::read(value).filter(Tensor::is_large) {
                return Some(tensor.to_string());
            }
            let items = items.iter().map(short).collect::<Option<Vec<_>>>()?;
            Some(format!("[{}]", items.join(", "))).filter(|text| text.len() <= MAX_LINE)
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, _)| {
                Some(format!("{}: {}", Value::from(name.as_str()), short(value)?))
            };
            let fields = fields.iter().map(field).collect::<Option<Vec<_>>>()?;
            Some(format!("{{{}}}", fields.join(", "))).filter(|text| text.len() <= MAX_LINE)
        }
        scalar => Some(scalar.to_string()),
    }
}

/// The shape and the range of an array of numbers.
#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    shape: Vec<usize>,
    is_float: bool,
    min: f64,
    max: f64,
}

impl Tensor {
    /// Returns the tensor of an array; `None` if not all of it are numbers, or rows differ in length.
    fn read(value: &Value) -> Option<Self> {
        let Value::Array(items) = value else {
            let number = value.as_f64().filter(|_| value.is_number())?;
            let is_float = value.is_f64();
            return Some(Self { shape: Vec::new(), is_float, min: number, max: number });
        };
        let mut items = items.iter().map(Self::read);
        let mut whole = items.next()??;
        let mut length = 1;
        for item in items {
            let item = item.filter(|item| item.shape == whole.shape)?;
            whole.is_float |= item.is_float;
            whole.min = whole.min.min(item.min);
            whole.max = whole.max.max(item.max);
            length += 1;
        }
        whole.shape.insert(0, length);
        Some(whole)
    }

    fn is_large(&self) -> bool {
        self.shape.iter().product::<usize>() > MAX_NUMBERS
    }
}

impl std::fmt::Display for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape, is_float, min, max } = self;
        match is_float {
            true => write!(f, "{shape:?} float, min {min:.4}, max {max:.4}"),
            false => write!(f, "{shape:?} integer, min {min}, max {max}"),
        }
    }
}

/// Returns the image that a text contains in base64, in a few words.
fn image_in(text: &str) -> Option<String> {
    let (content_type, encoded) = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,")?,
        None if text.len() >= MIN_IMAGE => (guessed_type(text)?, text),
        None => return None,
    };
    Some(bytes(content_type, &STANDARD.decode(encoded).ok()?))
}

/// Returns the content type of an image by the beginning of its base64.
fn guessed_type(encoded: &str) -> Option<&'static str> {
    let starts = [
        ("iVBORw0KGgo", "image/png"),
        ("/9j/", "image/jpeg"),
        ("R0lGOD", "image/gif"),
        ("UklGR", "image/webp"),
    ];
    let (_, found) = starts.iter().find(|(start, _)| encoded.starts_with(start))?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The beginning of an image of 640 x 480 in PNG.
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x02\0\0\0";

    #[test]
    fn large_arrays_are_shapes_and_small_ones_numbers() {
        let row = vec![0.25; 384];
        assert_eq!(picture(&json!([row])), "[1, 384] float, min 0.2500, max 0.2500");
        let integers = Vec::from_iter(-1..20);
        assert_eq!(picture(&json!(integers)), "[21] integer, min -1, max 19");
        assert_eq!(picture(&json!([1, 2.5])), "[1, 2.5]");
        assert_eq!(picture(&json!([])), "[]");
        let ragged = json!([integers, [1]]);
        assert_eq!(picture(&ragged), "[[21] integer, min -1, max 19, [1]]");
    }

    #[test]
    fn images_are_their_size() {
        assert_eq!(bytes("image/png", PNG), "image/png, 640 x 480, 29 B");
        assert_eq!(bytes("audio/wav", b"RIFF"), "audio/wav, 4 B");
        let encoded = STANDARD.encode(PNG);
        let wanted = "{\"image\": image/png, 640 x 480, 29 B}";
        assert_eq!(picture(&json!({"image": encoded})), wanted);
        let url = format!("data:image/png;base64,{encoded}");
        assert_eq!(picture(&json!(url)), "image/png, 640 x 480, 29 B");
        assert_eq!(picture(&json!("data: none")), "data: none");
    }

    #[test]
    fn long_values_have_lines() {
        assert_eq!(
            picture(&json!({"a": [{"b": null}], "c": "d"})),
            r#"{"a": [{"b": null}], "c": "d"}"#
        );
        let long = "x".repeat(80);
        let wanted =
            format!("{{\n  \"a\": \"{long}\",\n  \"b\": [\n    1,\n    \"{long}\"\n  ]\n}}");
        assert_eq!(picture(&json!({"a": long, "b": [1, long]})), wanted);
        assert_eq!(picture(&json!("two\nlines")), "two\nlines");
    }
}
