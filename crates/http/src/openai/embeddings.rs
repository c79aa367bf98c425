use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::StatusCode;
use litplex_core::{Answer, Content, Outcome, Request, Response, ServeError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Usage, parse, whole};
use crate::answer::{self, HttpResponse};
use crate::caller::Call;

/// Answers a request for embeddings. Where the model computes batches, each input is a job of its
/// own, so that the inputs of all clients share them.
pub(super) async fn answer(call: Call<'_>) -> Outcome<HttpResponse> {
    if call.request.content != Content::Json {
        return Err(ServeError::new(415, "the body must be JSON; send `application/json`"));
    }
    let body = whole(&call.request)?;
    let wanted = EmbeddingRequest::parse(&body)?;
    let count = wanted.input.len();
    let batches = call.route.endpoint.traits().is_some_and(|traits| traits.max_batch_size > 1);
    let bodies = if batches && count > 1 { one_by_one(&body)? } else { vec![body] };
    let each = count / bodies.len();
    let callers = bodies.into_iter().map(|body| {
        let request = Request { body: vec![body], ..call.request.clone() };
        call.submit(request).answer()
    });
    let mut vectors = Vec::with_capacity(count);
    let mut usage = Usage::default();
    for (answer, _) in try_join_all(callers).await? {
        let Answer::Whole(response) = answer else {
            return Err(not_embeddings("a stream"));
        };
        let (found, used) = read(&response, each)?;
        vectors.extend(found);
        usage.add(used);
    }
    let data = vectors.into_iter().enumerate();
    let data: Vec<Value> = data.map(|(index, vector)| wanted.embedding(index, vector)).collect();
    let list = json!({
        "object": "list",
        "data": data,
        "model": wanted.model,
        "usage": {"prompt_tokens": usage.prompt, "total_tokens": usage.total},
    });
    Ok(answer::json(StatusCode::OK, &list))
}

#[derive(Debug, Deserialize)]
struct EmbeddingRequest {
    input: Input,
    #[serde(default)]
    model: String,
    dimensions: Option<usize>,
    #[serde(default)]
    encoding_format: Encoding,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "it must be a text, a list of texts, a list of token ids, or a list \
                               of such lists"
)]
#[expect(dead_code)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u64>),
    TokenLists(Vec<Vec<u64>>),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

impl Input {
    /// How many embeddings are wanted. The ids of tokens are one input.
    fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Tokens(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::TokenLists(lists) => lists.len(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Tokens(tokens) => tokens.is_empty(),
            Self::Texts(texts) => texts.is_empty(),
            Self::TokenLists(lists) => lists.is_empty() || lists.iter().any(Vec::is_empty),
        }
    }
}

impl EmbeddingRequest {
    fn parse(body: &[u8]) -> Outcome<Self> {
        let wanted: Self = parse(body)?;
        if wanted.input.is_empty() {
            return Err(ServeError::new(422, "`input`: it is empty; send at least one text"));
        }
        if wanted.dimensions == Some(0) {
            return Err(ServeError::new(422, "`dimensions`: it must be at least 1"));
        }
        Ok(wanted)
    }

    fn embedding(&self, index: usize, vector: Vec<f64>) -> Value {
        let vector = match self.dimensions {
            Some(dimensions) if dimensions < vector.len() => shortened(vector, dimensions),
            _ => vector,
        };
        let embedding = match self.encoding_format {
            Encoding::Float => json!(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> =
                    vector.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
                STANDARD.encode(bytes).into()
            }
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    }
}

/// Keeps the first dimensions, at length 1 again, as the documentation of the API says that
/// embeddings can be shortened.
fn shortened(mut vector: Vec<f64>, dimensions: usize) -> Vec<f64> {
    vector.truncate(dimensions);
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

/// Returns the body once for each of its inputs.
fn one_by_one(body: &[u8]) -> Outcome<Vec<Bytes>> {
    let mut fields: Map<String, Value> = parse(body)?;
    let inputs = match fields.remove("input") {
        Some(Value::Array(inputs)) => inputs,
        other => other.into_iter().collect(),
    };
    let body = |input| {
        fields.insert("input".into(), input);
        json!(fields).to_string().into()
    };
    Ok(inputs.into_iter().map(body).collect())
}

/// Reads what a model answered: as many embeddings as are expected, and the tokens they took.
fn read(response: &Response, expected: usize) -> Outcome<(Vec<Vec<f64>>, Usage)> {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(&response.body) else {
        return Err(not_embeddings("no JSON object"));
    };
    if response.status >= 400 {
        let detail = answer.remove("detail").unwrap_or_default();
        let detail = detail.as_str().map_or_else(|| detail.to_string(), str::to_owned);
        return Err(ServeError::new(response.status, detail));
    }
    let usage = Usage::take(&mut answer).unwrap_or_default();
    let vectors = answer.remove("embeddings").and_then(vectors);
    let vectors = vectors.ok_or_else(|| not_embeddings("no `embeddings` of numbers"))?;
    if vectors.len() != expected {
        let given = format!("{} embeddings for {expected} inputs", vectors.len());
        return Err(not_embeddings(&given));
    }
    Ok((vectors, usage))
}

/// Reads one vector, or a list of them.
fn vectors(value: Value) -> Option<Vec<Vec<f64>>> {
    let is_one = value.as_array()?.first().is_some_and(Value::is_number);
    if is_one {
        return Some(vec![serde_json::from_value(value).ok()?]);
    }
    serde_json::from_value(value).ok()
}

fn not_embeddings(given: &str) -> ServeError {
    tracing::error!("a model that embeds gave {given}");
    ServeError::internal()
}

#[cfg(test)]
mod tests {
    use litplex_core::MediaType;

    use super::*;

    fn parsed(value: &Value) -> Outcome<EmbeddingRequest> {
        EmbeddingRequest::parse(value.to_string().as_bytes())
    }

    fn answered(status: u16, body: &Value) -> Response {
        let body = body.to_string().into();
        Response { status, media_type: MediaType::Json, headers: Vec::new(), body }
    }

    #[test]
    fn inputs_are_counted() {
        for (input, count) in [
            (json!("a"), 1),
            (json!(["a", "b"]), 2),
            (json!([1, 2, 3]), 1),
            (json!([[1, 2], [3]]), 2),
        ] {
            assert_eq!(parsed(&json!({"input": input})).unwrap().input.len(), count, "{input}");
        }
        for wrong in [json!([]), json!([[1], []]), json!(4), json!(["a", 1])] {
            let error = parsed(&json!({"input": wrong})).unwrap_err();
            assert!(error.status == 422 && error.detail.starts_with("`input`"), "{error}");
        }
    }

    #[test]
    fn each_input_has_a_body_of_its_own() {
        let bodies = one_by_one(br#"{"model": "m", "input": ["a", [1]]}"#).unwrap();
        assert_eq!(bodies[0], r#"{"input":"a","model":"m"}"#);
        assert_eq!(bodies[1], r#"{"input":[1],"model":"m"}"#);
    }

    #[test]
    fn embeddings_are_read_in_either_shape() {
        for given in [json!([1.0, 2.0]), json!([[1.0, 2.0]])] {
            let answer = json!({"embeddings": given, "prompt_tokens": 3});
            let (vectors, usage) = read(&answered(200, &answer), 1).unwrap();
            assert_eq!((vectors, usage.prompt, usage.total), (vec![vec![1.0, 2.0]], 3, 3));
        }
        let two = json!({"embeddings": [[1.0], [2.0]]});
        assert_eq!(read(&answered(200, &two), 1).unwrap_err().status, 500);
        let refused = read(&answered(409, &json!({"detail": "taken"})), 1).unwrap_err();
        assert_eq!((refused.status, refused.detail.as_str()), (409, "taken"));
    }

    #[test]
    fn embeddings_are_shortened_and_encoded() {
        let wanted = parsed(&json!({"input": "a", "dimensions": 2})).unwrap();
        let short = wanted.embedding(0, vec![3.0, 4.0, 12.0]);
        assert_eq!(short["embedding"], json!([0.6, 0.8]));
        let wanted = parsed(&json!({"input": "a", "encoding_format": "base64"})).unwrap();
        assert_eq!(wanted.embedding(1, vec![1.0, -2.0])["embedding"], "AACAPwAAAMA=");
    }
}
