//! The first bytes of a body, without what looks like a secret.

/// The parts of names of members whose values are masked.
const SECRETS: [&str; 7] =
    ["password", "passwd", "secret", "token", "apikey", "authorization", "credential"];

/// The text in place of a secret.
const MASK: &str = "\"***\"";

/// The start of the body of a request or a response, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBody {
    /// The media type.
    pub content_type: Box<str>,
    /// The text.
    pub text: Box<str>,
    /// Whether the body was longer.
    pub is_cut: bool,
}

impl KeptBody {
    /// Returns whether bodies of this media type are kept: JSON and text. Secrets in forms and files would
    /// not be found.
    pub fn is_kept(content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        essence.starts_with("text/") || essence.contains("json")
    }

    /// Returns the body that began with this data. String values of members of JSON whose names look like
    /// those of secrets are masked.
    pub fn new(content_type: &str, data: &[u8], is_cut: bool) -> Self {
        let text = match std::str::from_utf8(data) {
            Ok(text) => mask(text),
            // The last character may be cut.
            Err(error) if error.error_len().is_none() => {
                mask(&String::from_utf8_lossy(&data[..error.valid_up_to()]))
            }
            Err(_) => mask(&String::from_utf8_lossy(data)),
        };
        Self { content_type: content_type.into(), text: text.into(), is_cut }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.content_type.len() + self.text.len()
    }
}

/// Returns a text with the string values masked that follow the name of a secret, also where the text is
/// the start of JSON.
fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut hides = false;
    while let Some(start) = rest.find('"') {
        let (before, quoted) = rest.split_at(start);
        let string = &quoted[..string_len(quoted)];
        // Between a name and its value are a colon and spaces alone.
        hides &= before.trim() == ":";
        masked.push_str(before);
        masked.push_str(if hides { MASK } else { string });
        rest = &quoted[string.len()..];
        hides = !hides && rest.trim_start().starts_with(':') && is_secret(string);
    }
    masked.push_str(rest);
    masked
}

/// Returns the length of the string, with its quotes, that the text begins with.
fn string_len(quoted: &str) -> usize {
    let mut is_escaped = false;
    let end = quoted.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(quoted.len(), |end| end + 2)
}

fn is_secret(name: &str) -> bool {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let name: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    SECRETS.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        for (text, shown) in [
            (r#"{"x": 1, "Api-Key": "abc", "y": "z"}"#, r#"{"x": 1, "Api-Key": "***", "y": "z"}"#),
            (r#"{"password":"a\"b","token" : "c"}"#, r#"{"password":"***","token" : "***"}"#),
            (
                r#"{"max_tokens": 5, "text": "token: x"}"#,
                r#"{"max_tokens": 5, "text": "token: x"}"#,
            ),
            (r#"["password", "secret"]"#, r#"["password", "secret"]"#),
            (r#"{"a": {"client_secret": "cut of"#, r#"{"a": {"client_secret": "***""#),
            ("data: {\"token\": \"x\"}\n\n", "data: {\"token\": \"***\"}\n\n"),
            ("no JSON", "no JSON"),
        ] {
            assert_eq!(mask(text), shown);
        }
    }

    #[test]
    fn a_character_that_is_cut_is_left_out() {
        let body = KeptBody::new("text/plain", &"aé".as_bytes()[..2], true);
        assert_eq!((&*body.text, body.is_cut), ("a", true));
        assert_eq!(&*KeptBody::new("text/plain", b"a\xffb", false).text, "a\u{fffd}b");
        for (content_type, is_kept) in [
            ("application/json; charset=utf-8", true),
            ("application/x-ndjson", true),
            ("text/event-stream", true),
            ("multipart/form-data; boundary=json", false),
            ("image/png", false),
            ("", false),
        ] {
            assert_eq!(KeptBody::is_kept(content_type), is_kept, "{content_type}");
        }
    }
}
