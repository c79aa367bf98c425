//! Embeddings: a job for each input, or one for all, and the vectors in the form that the client asks
//! for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use litplex_calls::{Output, off_thread};
use litplex_core::{Cost, Outcome, Request, Response, ServeError};
use litplex_http_core::raw_json::{Kind, Object, each_item, raw};
use litplex_http_core::response::{self, HttpResponse};
use serde::Serialize;
use serde_json::value::RawValue;

use super::embedding_request::{EmbeddingRequest, rest_of};
use super::error::Refused;
use super::text::{read, text_of};
use super::usage::Usage;
use crate::dialect::Exchange;

/// The largest number of inputs of a request, as in OpenAI's API.
const MAX_INPUTS: usize = 2048;

/// The number of jobs of a request that wait or run at the same time, if a batch needs no more.
const JOBS_AT_A_TIME: usize = 256;

/// The approximate memory of a job in addition to its input.
const JOB_BYTES: usize = 1024;

/// Responds to a request for embeddings. If the model computes batches, each input is a job of its
/// own, so that the inputs of all clients share them.
pub(super) async fn respond(exchange: Exchange<'_>) -> Result<HttpResponse, Refused> {
    let body = text_of(&exchange).await?;
    let batches = exchange.call.target.model_info().is_some_and(|info| info.max_batch_size > 1);
    let most = if batches { most_inputs(&exchange) } else { usize::MAX };
    let wanted = read(body.clone(), move |body| EmbeddingRequest::parse(body, most)).await?;
    let (vectors, usage) = match batches {
        true => one_by_one(&exchange, &wanted, body).await?,
        false => all_at_once(&exchange, &wanted, body).await?,
    };
    let length = vectors.iter().map(|vector| vector.get().len()).sum();
    exchange.request.reservation.grow(length)?;
    // Writing many vectors takes as long as reading them.
    let list = off_thread(length, move || written(&wanted, vectors, usage)).await;
    Ok(list.map_err(|given| not_embeddings(&exchange, &given))?)
}

/// Writes the response. Fails if a vector has entries that are not numbers.
fn written(
    wanted: &EmbeddingRequest,
    vectors: Vec<Box<RawValue>>,
    usage: Usage,
) -> Result<HttpResponse, String> {
    let data = vectors.into_iter().enumerate();
    let data = data.map(|(index, vector)| Embedding::of(wanted, index, vector));
    let list = List {
        object: "list",
        data: data.collect::<Result<_, _>>()?,
        model: &wanted.model,
        usage: ListUsage { prompt_tokens: usage.prompt, total_tokens: usage.total },
    };
    Ok(response::json(StatusCode::OK, &list))
}

type Vectors = (Vec<Box<RawValue>>, Usage);

/// The inputs that a job computes.
#[derive(Debug, Clone, Copy)]
struct Inputs {
    first: usize,
    count: usize,
    /// The number of inputs of the request.
    of: usize,
}

impl Inputs {
    /// Returns the input, if the job computes one of several.
    fn only(self) -> Option<usize> {
        (self.count == 1 && self.of > 1).then_some(self.first)
    }
}

async fn all_at_once(
    exchange: &Exchange<'_>,
    wanted: &EmbeddingRequest,
    body: Bytes,
) -> Result<Vectors, Refused> {
    let request = Request { body: vec![body], ..exchange.request.clone() };
    let cost = exchange.call.cost(&request).await?;
    let count = wanted.input.len();
    compute(exchange, request, cost, Inputs { first: 0, count, of: count }).await
}

/// Computes each input as a job of its own. All jobs share the other fields of the request.
async fn one_by_one(
    exchange: &Exchange<'_>,
    wanted: &EmbeddingRequest,
    body: Bytes,
) -> Result<Vectors, Refused> {
    let count = wanted.input.len();
    let (rest, inputs) = {
        let (body, input) = (body.clone(), wanted.input.clone());
        off_thread(body.len(), move || (rest_of(&body), input.each())).await
    };
    check_size(exchange, count, rest.len())?;
    let at_a_time = jobs_at_a_time(exchange);
    exchange.request.reservation.grow(rest.len() + count.min(at_a_time) * JOB_BYTES)?;
    let costs = Costs::new(exchange, &body, rest.len());
    let jobs = inputs.into_iter().enumerate().map(|(index, input)| {
        let (rest, costs) = (rest.clone(), &costs);
        async move {
            let cost = costs.of(&input);
            let body = vec![Bytes::from_static(br#"{"input":"#), input, rest];
            let request = Request { body, ..exchange.request.clone() };
            let cost = match cost {
                Some(cost) => cost,
                None => exchange.call.cost(&request).await?,
            };
            compute(exchange, request, cost, Inputs { first: index, count: 1, of: count }).await
        }
    });
    let (mut vectors, mut usage) = (Vec::with_capacity(count), Usage::default());
    let mut answers = stream::iter(jobs).buffered(at_a_time);
    while let Some((found, used)) = answers.try_next().await? {
        vectors.extend(found);
        usage.add(used);
    }
    Ok((vectors, usage))
}

/// Returns the largest number of inputs that may be computed one by one.
fn most_inputs(exchange: &Exchange<'_>) -> usize {
    exchange.call.target.max_queue().map_or(MAX_INPUTS, |most| most.min(MAX_INPUTS))
}

/// Returns the number of jobs that are queued at the same time: the others must not fill the queue.
fn jobs_at_a_time(exchange: &Exchange<'_>) -> usize {
    let batch = exchange.call.target.model_info().map_or(1, |info| info.max_batch_size);
    JOBS_AT_A_TIME.max(batch.saturating_mul(2)).min(most_inputs(exchange))
}

/// Refuses a request whose other fields, which are read with each input, exceed the size of a body.
fn check_size(exchange: &Exchange<'_>, count: usize, rest: usize) -> Outcome<()> {
    if count.saturating_mul(rest) > exchange.max_body_bytes {
        let detail = format!(
            "the fields beside `input` have {rest} bytes, which are read with each of {count} \
             inputs; send fewer inputs or smaller fields"
        );
        return Err(ServeError::too_large(detail));
    }
    Ok(())
}

/// The cost of each of several inputs.
enum Costs<'a> {
    /// Every input has the same cost.
    Same(f64),
    /// The cost is read from the input, with other fields of this length.
    Bytes(usize),
    OfInput(&'a Cost),
    /// The model returns it, if it has a hook for it.
    NotKnown,
}

impl<'a> Costs<'a> {
    fn new(exchange: &'a Exchange<'_>, body: &Bytes, rest: usize) -> Self {
        match &exchange.call.target.cost {
            None => Self::NotKnown,
            Some(Cost::Bytes) => Self::Bytes(br#"{"input":"#.len() + rest),
            Some(cost) if cost.is_read_off("input") => Self::OfInput(cost),
            Some(cost) => {
                Self::Same(cost.read(&exchange.request.content, std::slice::from_ref(body)))
            }
        }
    }

    fn of(&self, input: &Bytes) -> Option<f64> {
        match self {
            Self::Same(cost) => Some(*cost),
            Self::Bytes(rest) => Some((input.len() + rest) as f64),
            Self::OfInput(cost) => Some(cost.field_cost(input)),
            Self::NotKnown => None,
        }
    }
}

/// Computes a job of these inputs.
async fn compute(
    exchange: &Exchange<'_>,
    request: Request,
    cost: f64,
    inputs: Inputs,
) -> Result<Vectors, Refused> {
    let caller = match inputs.only() {
        Some(_) => exchange.call.submit_part(request, cost),
        None => exchange.call.submit(request, cost),
    };
    match caller.output().await? {
        Output::Whole(response) if response.status >= 400 => {
            Err(failure(exchange, response, inputs))
        }
        Output::Whole(response) => Ok(found(exchange, &response, inputs.count)?),
        Output::Stream(..) => Err(not_embeddings(exchange, "a stream").into()),
    }
}

/// Reads the response of a model: the expected number of embeddings, and the tokens that they used.
fn found(exchange: &Exchange<'_>, response: &Response, count: usize) -> Outcome<Vectors> {
    let text = std::str::from_utf8(&response.body).unwrap_or_default();
    let mut answer = Object::parse(text)
        .map_err(|error| not_embeddings(exchange, &format!("no JSON object: {error}")))?;
    let usage = Usage::take(&mut answer).unwrap_or_default();
    let vectors = answer.take("embeddings").and_then(|given| vectors(given.get()));
    let vectors = vectors.ok_or_else(|| not_embeddings(exchange, "no `embeddings` of numbers"))?;
    if vectors.len() != count {
        let given = format!("{} embeddings for {count} inputs", vectors.len());
        return Err(not_embeddings(exchange, &given));
    }
    Ok((vectors, usage))
}

/// Returns the error of a worker. If it belongs to one input, the client and the log get its place
/// in the request, which only this function knows.
fn failure(exchange: &Exchange<'_>, response: Response, inputs: Inputs) -> Refused {
    let (mut refused, mut body) = Refused::given(response);
    let named = body.take("input").and_then(|input| input.get().parse::<usize>().ok());
    let Some(input) = named.map(|input| inputs.first + input).or_else(|| inputs.only()) else {
        return refused;
    };
    refused.param = Some(format!("input[{input}]"));
    let (endpoint, ServeError { cause, detail, .. }) = (exchange.endpoint, &mut refused.error);
    let is_structure = detail.starts_with(['[', '{']);
    if cause.status() >= 500 {
        let request_id = exchange.name.text();
        tracing::error!(endpoint, request_id, "input {input}: {detail}");
        *detail = format!("endpoint `{endpoint}`: input {input}: {detail}");
    } else if !is_structure {
        *detail = format!("input {input}: {detail}");
    }
    refused
}

/// Reads one vector, or a list of vectors.
fn vectors(given: &str) -> Option<Vec<Box<RawValue>>> {
    let (mut vectors, mut is_one) = (Vec::new(), false);
    let walk = each_item(given, |_, item: &RawValue| match Kind::of(item.get()) {
        Kind::Array => {
            vectors.push(item.to_owned());
            Ok(())
        }
        Kind::Number => {
            is_one = true;
            Err(())
        }
        _ => Err(()),
    });
    if is_one {
        return Some(vec![RawValue::from_string(given.to_owned()).ok()?]);
    }
    matches!(walk, Ok(Ok(()))).then_some(vectors)
}

fn not_embeddings(exchange: &Exchange<'_>, given: &str) -> ServeError {
    let (endpoint, request_id) = (exchange.endpoint, exchange.name.text());
    tracing::error!(
        endpoint,
        request_id,
        "invalid output of an embedding model: expected a list of numbers, got {given}"
    );
    ServeError::internal()
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: ListUsage,
}

#[derive(Serialize)]
struct ListUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Box<RawValue>,
}

impl Embedding {
    /// Returns a vector in the form that the client asks for.
    fn of(wanted: &EmbeddingRequest, index: usize, vector: Box<RawValue>) -> Result<Self, String> {
        if wanted.dimensions.is_none() && !wanted.wants_base64 {
            return Ok(Self { object: "embedding", index, embedding: vector });
        }
        let numbers: Result<Vec<f64>, _> = serde_json::from_str(vector.get());
        let mut numbers = numbers.map_err(|_| format!("no numbers for input {index}"))?;
        let is_longer = |dimensions: &usize| *dimensions < numbers.len();
        let embedding = match wanted.dimensions.filter(is_longer) {
            Some(dimensions) => {
                numbers = shortened(numbers, dimensions);
                raw(&numbers)
            }
            None => vector,
        };
        if !wanted.wants_base64 {
            return Ok(Self { object: "embedding", index, embedding });
        }
        if let Some(large) = numbers.iter().find(|number| !(**number as f32).is_finite()) {
            return Err(format!("{large:e} for input {index}, which base64's float32 cannot hold"));
        }
        Ok(Self { object: "embedding", index, embedding: raw(&base64(&numbers)) })
    }
}

/// Returns numbers in the encoding of the API: little-endian `float32`.
fn base64(numbers: &[f64]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// Keeps the first dimensions and scales the vector to length 1, as the API's documentation says
/// that embeddings can be shortened.
fn shortened(mut vector: Vec<f64>, dimensions: usize) -> Vec<f64> {
    vector.truncate(dimensions);
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn embeddings_are_read_in_either_shape() {
        let read = |given: &str| -> Option<Vec<String>> {
            Some(vectors(given)?.iter().map(|vector| vector.get().to_owned()).collect())
        };
        let exact = "[1.5777777777770001, 12345678901234567890123]";
        assert_eq!(read(exact).unwrap(), [exact]);
        assert_eq!(read("[[1.0], [2.0]]").unwrap(), ["[1.0]", "[2.0]"]);
        assert_eq!(read("[]").unwrap(), Vec::<String>::new());
        for wrong in ["{}", "[null]", "[[1.0], 2.0"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn embeddings_are_shortened_and_encoded() {
        let embedded = |request: Value, vector: &str| {
            let wanted = EmbeddingRequest::parse(&request.to_string().into(), 1).unwrap();
            let vector = RawValue::from_string(vector.to_owned()).unwrap();
            Embedding::of(&wanted, 0, vector).unwrap().embedding.get().to_owned()
        };
        let short = json!({"input": "a", "dimensions": 2});
        assert_eq!(embedded(short.clone(), "[3.0, 4.0, 12.0]"), "[0.6,0.8]");
        assert_eq!(embedded(short, "[1.5777777777770001, 2]"), "[1.5777777777770001, 2]");
        let packed = json!({"input": "a", "encoding_format": "base64"});
        assert_eq!(embedded(packed.clone(), "[1.0, -2.0]"), r#""AACAPwAAAMA=""#);
        let wanted = EmbeddingRequest::parse(&packed.to_string().into(), 1).unwrap();
        for (vector, says) in [("[1e300]", "1e300 for input 7"), ("[[1.0]]", "no numbers")] {
            let vector = RawValue::from_string(vector.to_owned()).unwrap();
            assert!(Embedding::of(&wanted, 7, vector).unwrap_err().contains(says));
        }
    }
}
