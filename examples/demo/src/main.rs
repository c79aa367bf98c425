//! One server with three endpoints: `/embed` and `/story` in Rust, `/ocr` in Python.

mod embed;
mod story;

use std::env;
use std::path::Path;
use std::time::Duration;

use litplex::{Batch, Device, Endpoint, LitApi, Outcome, run_servers};
use serde::{Deserialize, Serialize};

use crate::embed::Encoder;
use crate::story::Story;

const OCR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ocr.py:OcrAPI");
const OCR_PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.demo/ocr-venv/bin/python");
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.demo/minilm");
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

    let story = Endpoint::stream("/story", |_device: Device| Ok(Story));

    let port = setting("LITPLEX_DEMO_PORT", PORT).parse()?;
    run_servers([embed, ocr, story]).host("127.0.0.1").port(port).run()?;
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
