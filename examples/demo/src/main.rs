//! One server with three endpoints: `/ocr` in Python, `/embed` and `/v1/chat/completions` in Rust.

mod bert;
mod chat;
mod embed;
mod engine;
mod gguf;
mod llama;
mod sample;
mod stops;
mod tokens;

use std::env;
use std::path::Path;
use std::time::Duration;

use litplex::{Batch, Device, Endpoint, LitApi, Outcome, run_servers};
use serde::{Deserialize, Serialize};

use crate::chat::Shared;
use crate::embed::Encoder;

const OCR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ocr.py:OcrAPI");
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
    let model = setting("LITPLEX_DEMO_MODEL", MODEL);
    let embed = Endpoint::new("/embed", move |_device: Device| {
        Ok(Embedder { encoder: Encoder::load(Path::new(&model))? })
    })
    .max_batch_size(32)
    .batch_timeout(Duration::from_millis(5));

    let ocr =
        Endpoint::python("/ocr", OCR).interpreter(setting("LITPLEX_DEMO_OCR_PYTHON", OCR_PYTHON));

    let file = setting("LITPLEX_DEMO_CHAT", CHAT);
    let shared = Shared::default();
    let chat = Endpoint::chat("/v1/chat/completions", move |_device: Device| {
        shared.worker(Path::new(&file))
    })
    .workers_per_device(CHATS);

    let port = setting("LITPLEX_DEMO_PORT", PORT).parse()?;
    run_servers([ocr, embed, chat]).host("127.0.0.1").port(port).run()?;
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
