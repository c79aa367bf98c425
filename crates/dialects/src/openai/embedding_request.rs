//! The check of a request for embeddings, and its parts.

use bytes::Bytes;
use litplex_http_core::raw_json::{Kind, each_field, each_item, raw, text_of};
use serde_json::value::RawValue;

use super::error::Refused;
use super::shape::{Mismatch, Shape, integer, optional, required};
use super::text::well_formed;

/// The fields of a request for embeddings that the server reads.
#[derive(Debug)]
pub(super) struct EmbeddingRequest {
    pub(super) model: String,
    pub(super) dimensions: Option<usize>,
    pub(super) wants_base64: bool,
    pub(super) input: Input,
}

/// The inputs, in the spelling of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// A text, or the tokens of one.
    One(Bytes),
    /// A list of texts or of lists of tokens: their number.
    List(Bytes, usize),
}

impl Input {
    /// Returns the number of inputs.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::List(_, count) => *count,
        }
    }

    /// Returns each input alone, without copying it.
    pub(super) fn each(&self) -> Vec<Bytes> {
        match self {
            Self::One(input) => vec![input.clone()],
            Self::List(list, count) => {
                let mut inputs = Vec::with_capacity(*count);
                let walk = each_item(str_of(list), |_, item| {
                    inputs.push(list.slice_ref(item.get().as_bytes()));
                    Ok::<_, Mismatch>(())
                });
                walk.expect("it was checked. This is a bug.").expect("nothing is refused");
                inputs
            }
        }
    }
}

/// A request for embeddings of the API (<https://platform.openai.com/docs/api-reference/embeddings/create>).
pub(super) const REQUEST: Shape = Shape::Object(&[
    // `inputs` returns the number of lists.
    required("input", Shape::Either(&[Shape::Text, Shape::List(&Shape::Any)])),
    optional("model", Shape::Text),
    optional("dimensions", Shape::Integer),
    optional("encoding_format", Shape::Choice(&["float", "base64"])),
    optional("user", Shape::Text),
]);

impl EmbeddingRequest {
    /// Checks a request, whose input is a list of at most so many.
    ///
    /// # Errors
    /// 400 if the body is not JSON; 422, with the place, if it is not such a request.
    pub(super) fn parse(body: &Bytes, most: usize) -> Result<Self, Refused> {
        let text = well_formed(body)?;
        REQUEST.check(text)?;
        let (mut model, mut wants_base64) = (String::new(), false);
        let (mut dimensions, mut input) = (None, "");
        each_field(text, |name, value: &RawValue| {
            let value = value.get();
            match &*name {
                "model" => model = text_of(value).unwrap_or_default().into_owned(),
                "encoding_format" => wants_base64 = text_of(value).as_deref() == Some("base64"),
                "dimensions" => dimensions = integer(value),
                "input" => input = value,
                _ => {}
            }
            Ok::<_, Mismatch>(())
        })
        .map_err(|error| Mismatch::new("", error.to_string()))??;
        if dimensions.is_some_and(|dimensions| dimensions < 1) {
            return Err(Mismatch::new("dimensions", "expected an integer of at least 1").into());
        }
        let dimensions = dimensions.and_then(|dimensions| usize::try_from(dimensions).ok());
        let count = count(input, most)?;
        let input = body.slice_ref(input.as_bytes());
        let input = count.map_or(Input::One(input.clone()), |count| Input::List(input, count));
        Ok(Self { model, dimensions, wants_base64, input })
    }
}

/// Returns the other fields of a request, as they follow its input: `,"model":"m"}`.
pub(super) fn rest_of(body: &Bytes) -> Bytes {
    let mut rest = String::new();
    // It was parsed before.
    let _ = each_field(str_of(body), |name, value: &RawValue| {
        if name != "input" {
            rest.extend([",", raw(&name).get(), ":", value.get()]);
        }
        Ok::<_, Mismatch>(())
    });
    rest.push('}');
    rest.into()
}

/// Returns the number of inputs; `None` if the input is not a list of inputs.
fn count(input: &str, most: usize) -> Result<Option<usize>, Mismatch> {
    if Kind::of(input) == Kind::Text {
        return Ok(None);
    }
    let mut first = None;
    let mut count = 0;
    let walk = each_item(input, |index, item: &RawValue| {
        let kind = Kind::of(item.get());
        let expected = *first.get_or_insert(kind);
        count += 1;
        if count > most && kind != Kind::Number {
            let reason = format!("expected at most {most} inputs; send several requests");
            return Err(Mismatch::new("input", reason));
        }
        if kind != expected || !is_input(item.get()) {
            let reason = match expected {
                Kind::Text => "expected a string, as the first is one".to_owned(),
                Kind::Number => "expected a token id, an integer".to_owned(),
                Kind::Array => "expected token ids, an array of at least 1 integer".to_owned(),
                _ => format!("expected a string, a token id or token ids, got {}", kind.name()),
            };
            return Err(Mismatch::new(format!("input[{index}]"), reason));
        }
        Ok(())
    });
    walk.unwrap_or_else(|error| Err(Mismatch::new("input", error.to_string())))?;
    match first {
        None => Err(Mismatch::new("input", "`input` is empty; send at least 1 input")),
        Some(Kind::Number) => Ok(None),
        Some(_) => Ok(Some(count)),
    }
}

fn is_input(item: &str) -> bool {
    match Kind::of(item) {
        Kind::Text => true,
        Kind::Number => integer(item).is_some_and(|token| token >= 0),
        Kind::Array => {
            let mut count = 0;
            let walk = each_item(item, |_, token: &RawValue| {
                count += 1;
                let is_token = Kind::of(token.get()) == Kind::Number && is_input(token.get());
                if is_token { Ok(()) } else { Err(()) }
            });
            matches!(walk, Ok(Ok(()))) && count > 0
        }
        _ => false,
    }
}

fn str_of(json: &Bytes) -> &str {
    std::str::from_utf8(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(value: &Value) -> Result<EmbeddingRequest, Refused> {
        EmbeddingRequest::parse(&value.to_string().into(), 3)
    }

    #[test]
    fn a_list_of_one_is_a_list() {
        for (input, each) in [
            (json!("a"), vec![r#""a""#]),
            (json!(["a"]), vec![r#""a""#]),
            (json!(["a", "b"]), vec![r#""a""#, r#""b""#]),
            (json!([1, 2, 3]), vec!["[1,2,3]"]),
            (json!([1, 2, 3, 4]), vec!["[1,2,3,4]"]),
            (json!([[1, 2, 3]]), vec!["[1,2,3]"]),
            (json!([[1, 2], [3]]), vec!["[1,2]", "[3]"]),
        ] {
            let wanted = parsed(&json!({"input": input, "model": null})).unwrap();
            assert_eq!(wanted.input.each(), each, "{input}");
            assert_eq!(wanted.input.len(), each.len());
        }
    }

    #[test]
    fn an_error_names_its_place() {
        for (request, says) in [
            (json!({}), "input: it is missing"),
            (json!({"input": null}), "input: it is missing"),
            (json!({"input": []}), "input: `input` is empty"),
            (json!({"input": 4}), "input: expected a string or an array, got a number"),
            (json!({"input": ["a", 1]}), "input[1]: expected a string"),
            (json!({"input": [1, "a"]}), "input[1]: expected a token id"),
            (json!({"input": [[1], []]}), "input[1]: expected token ids"),
            (json!({"input": [[1], [1.5]]}), "input[1]: expected token ids"),
            (json!({"input": ["a", "b", "c", "d"]}), "input: expected at most 3 inputs"),
            (json!({"input": [null]}), "input[0]: expected a string, a token id"),
            (json!({"input": "a", "dimensions": 0}), "dimensions: expected"),
            (
                json!({"input": "a", "encoding_format": 1}),
                "encoding_format: expected one of `float`, `base64`, got a number",
            ),
        ] {
            let Refused { error, param, .. } = parsed(&request).unwrap_err();
            assert!(error.detail.starts_with(says), "{request}: {error}");
            assert_eq!((error.status(), param.as_deref()), (422, says.split(": ").next()));
        }
    }

    #[test]
    fn the_other_fields_are_written_once() {
        let body =
            Bytes::from_static(br#"{"user": 12345678901234567890123, "input": ["a"], "b\n": [1]}"#);
        assert_eq!(rest_of(&body), r#","user":12345678901234567890123,"b\n":[1]}"#);
        assert_eq!(rest_of(&Bytes::from_static(br#"{"input": "a"}"#)), "}");
    }
}
