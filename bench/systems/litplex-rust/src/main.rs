//! litplex with models written in Rust, in the server's own process. Arguments: WORKLOAD PORT; or
//! `offline_w6 MODEL SENTENCES`, which measures the model of w6 without a server.

#[path = "../../../../examples/demo/src/bert.rs"]
mod bert;
#[path = "../../../../examples/demo/src/embed.rs"]
mod embed;
mod offline;
#[path = "../../../../examples/demo/src/vectorized.rs"]
mod vectorized;

use std::error::Error;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use litplex::{Batch, Chunks, Device, LitApi, LitServer, LitStream, Outcome, run_servers};
use serde::{Deserialize, Serialize};

use crate::embed::Encoder;

#[derive(Deserialize)]
struct Input {
    input: f64,
}

#[derive(Deserialize)]
struct Text {
    input: String,
}

#[derive(Serialize)]
struct Echoed {
    output: String,
}

#[derive(Deserialize)]
struct Image {
    image: String,
}

#[derive(Serialize)]
struct Output {
    output: f64,
}

/// Squares its inputs; a batch takes as long as `work`.
struct Square {
    work: Duration,
}

impl LitApi for Square {
    type Input = Input;
    type Output = Output;

    fn predict(&mut self, batch: Batch<Input>) -> litplex::Result<Vec<Outcome<Output>>> {
        if !self.work.is_zero() {
            sleep(self.work);
        }
        Ok(batch.into_iter().map(|i| Ok(Output { output: i.input * i.input })).collect())
    }
}

/// Counts from 0 up to its input, one piece at a time.
struct Count;

impl LitStream for Count {
    type Input = Input;
    type Output = Output;

    fn predict(&mut self, input: Input, chunks: &mut Chunks<Output>) -> litplex::Result<()> {
        for k in 0..input.input as u64 {
            chunks.send(Output { output: k as f64 })?;
        }
        Ok(())
    }
}

/// The crc32 of the bytes in base64.
struct Crc;

impl LitApi for Crc {
    type Input = Image;
    type Output = Output;

    fn predict(&mut self, batch: Batch<Image>) -> litplex::Result<Vec<Outcome<Output>>> {
        let crc = |i: Image| {
            let bytes = STANDARD.decode(i.image).expect("the harness sends base64");
            Output { output: f64::from(crc32fast::hash(&bytes)) }
        };
        Ok(batch.into_iter().map(|i| Ok(crc(i))).collect())
    }
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
}

#[derive(Serialize)]
struct Embedding {
    embedding: Vec<f32>,
}

/// The model of the demo's `/embed`, by candle.
struct Embed {
    encoder: Encoder,
}

impl LitApi for Embed {
    type Input = Sentence;
    type Output = Embedding;

    fn predict(&mut self, batch: Batch<Sentence>) -> litplex::Result<Vec<Outcome<Embedding>>> {
        let texts = batch.into_iter().map(|sentence| sentence.text).collect();
        let vectors = self.encoder.encode(texts)?;
        Ok(vectors.into_iter().map(|embedding| Ok(Embedding { embedding })).collect())
    }
}

/// Returns its input.
struct Echo;

impl LitApi for Echo {
    type Input = Text;
    type Output = Echoed;

    fn predict(&mut self, batch: Batch<Text>) -> litplex::Result<Vec<Outcome<Echoed>>> {
        Ok(batch.into_iter().map(|text| Ok(Echoed { output: text.input })).collect())
    }
}

fn echo(path: &str) -> LitServer {
    LitServer::new(path, |_: Device| Ok(Echo))
}

/// Returns a model in Python, of relay.py beside this program, that calls `/echo`.
fn relay(model: &str) -> LitServer {
    let folder = env!("CARGO_MANIFEST_DIR");
    LitServer::python("/predict", &format!("{folder}/relay.py:{model}"))
}

fn square(path: &str, work_ms: u64) -> LitServer {
    let work = Duration::from_millis(work_ms);
    LitServer::new(path, move |_: Device| Ok(Square { work }))
}

fn batched(work_ms: u64) -> LitServer {
    square("/predict", work_ms).max_batch_size(32).batch_timeout(Duration::from_millis(5))
}

fn embedder(batch: usize) -> Result<LitServer, String> {
    let folder = std::env::var("BENCH_MODEL").map_err(|_| "BENCH_MODEL is not set")?;
    let load = move |_: Device| Ok(Embed { encoder: Encoder::load(Path::new(&folder))? });
    let server = LitServer::new("/predict", load).max_batch_size(batch);
    Ok(if batch > 1 { server.batch_timeout(Duration::from_millis(5)) } else { server })
}

fn servers(workload: &str) -> Result<Vec<LitServer>, String> {
    Ok(match workload {
        "w1" => vec![square("/predict", 0)],
        "w2" | "w7" => vec![batched(5)],
        "w7b" => vec![batched(50)],
        "w3" => vec![LitServer::stream("/predict", |_: Device| Ok(Count))],
        "w4" => vec![square("/fast", 0), square("/slow", 50)],
        "w5" => vec![LitServer::new("/predict", |_: Device| Ok(Crc))],
        "w6" => vec![embedder(16)?],
        "w6b1" => vec![embedder(1)?],
        "w9" => vec![relay("Relay"), echo("/echo")],
        "w9async" => vec![relay("AsyncRelay"), echo("/echo")],
        "w9hop" => vec![echo("/predict")],
        other => return Err(format!("litplex-rust has no {other}")),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, offline, model, sentences] = &arguments[..]
        && offline == "offline_w6"
    {
        return offline::measure(model, sentences);
    }
    let [_, workload, port] = &arguments[..] else {
        return Err("usage: litplex-rust WORKLOAD PORT, or offline_w6 MODEL SENTENCES".into());
    };
    run_servers(servers(workload)?).port(port.parse()?).run()?;
    Ok(())
}
