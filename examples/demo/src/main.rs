//! One server: an OCR in Python, embeddings and a language model in Rust, and what is made of them.
//!
//! `/documents` reads pages, `/search` finds passages in them, and `/ask` answers from the passages.

mod bert;
mod chat;
mod embed;
mod engine;
mod gguf;
mod llama;
mod passages;
mod sample;
mod stops;
mod tokens;
mod vectorized;

use std::env;
use std::path::Path;
use std::time::Duration;

use litplex::{Batch, Device, Endpoint, LitApi, Outcome, Step, run_servers};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::chat::Shared;
use crate::embed::Encoder;
use crate::passages::{Chunker, Index};

const OCR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ocr.py:OcrAPI");
const ASK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ask.py:AskAPI");
const OCR_PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.demo/ocr-venv/bin/python");
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.demo/minilm");
const CHAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.demo/smollm2.gguf");
/// The most answers that are generated at once.
const CHATS: usize = 8;
const PORT: &str = "8000";

struct Embedder {
    encoder: Encoder,
}

#[derive(Deserialize)]
struct EmbedRequest {
    text: String,
}

#[derive(Serialize)]
struct EmbedResponse {
    embedding: Vec<f32>,
    /// The number of requests in the batch of this response.
    batch_size: usize,
}

impl LitApi for Embedder {
    type Input = EmbedRequest;
    type Output = EmbedResponse;

    fn predict(
        &mut self,
        batch: Batch<EmbedRequest>,
    ) -> litplex::Result<Vec<Outcome<EmbedResponse>>> {
        let batch_size = batch.len();
        let texts = batch.into_iter().map(|request| request.text).collect();
        let vectors = self.encoder.encode(texts)?.into_iter();
        Ok(vectors.map(|embedding| Ok(EmbedResponse { embedding, batch_size })).collect())
    }
}

fn main() -> litplex::Result<()> {
    let port = setting("LITPLEX_DEMO_PORT", PORT).parse()?;
    let models = [ocr(), embed(), chat()];
    let systems = [chunks(), passages(), documents(), search(), ask()];
    run_servers(models.into_iter().chain(systems)).host("127.0.0.1").port(port).run()?;
    Ok(())
}

fn ocr() -> Endpoint {
    Endpoint::python("/ocr", OCR).interpreter(setting("LITPLEX_DEMO_OCR_PYTHON", OCR_PYTHON))
}

fn embed() -> Endpoint {
    let model = setting("LITPLEX_DEMO_MODEL", MODEL);
    let load = move |_: Device| Ok(Embedder { encoder: Encoder::load(Path::new(&model))? });
    Endpoint::new("/embed", load).max_batch_size(32).batch_timeout(Duration::from_millis(5))
}

fn chat() -> Endpoint {
    let file = setting("LITPLEX_DEMO_CHAT", CHAT);
    let shared = Shared::default();
    let load = move |_: Device| shared.worker(Path::new(&file));
    Endpoint::chat("/v1/chat/completions", load).workers_per_device(CHATS)
}

/// Cuts the lines of a page into passages.
fn chunks() -> Endpoint {
    Endpoint::new("/chunks", |_: Device| Ok(Chunker))
}

/// Keeps passages with their vectors. One worker has them all.
fn passages() -> Endpoint {
    Endpoint::new("/passages", |_: Device| Ok(Index::default()))
}

/// Reads a picture of a page, and keeps its passages.
fn documents() -> Endpoint {
    let passages = json!({"add": {"passages": "$chunks.passages", "vectors": "$vectors"}});
    let steps = [
        Step::call("/ocr").name("ocr"),
        Step::call("/chunks")
            .name("chunks")
            .input(json!({"page": "$ocr.page", "lines": "$ocr.lines"})),
        Step::map("$chunks.passages", Step::call("/embed")).name("vectors"),
        Step::call("/passages").name("index").input(passages),
    ];
    Endpoint::pipeline("/documents", steps)
}

/// Finds the passages that are nearest to a question.
fn search() -> Endpoint {
    let near = json!({"near": {"embedding": "$question.embedding", "count": 3}});
    let steps = [
        Step::call("/embed").name("question").input(json!({"text": "$request.question"})),
        Step::call("/passages").name("index").input(near),
    ];
    Endpoint::pipeline("/search", steps)
}

/// Answers a question from the passages, as a stream.
fn ask() -> Endpoint {
    Endpoint::python("/ask", ASK).interpreter(setting("LITPLEX_DEMO_OCR_PYTHON", OCR_PYTHON))
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
