//! Sentence vectors from all-MiniLM-L6-v2, computed by candle on the CPU.

use std::error::Error;
use std::fs;
use std::mem::take;
use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use tokenizers::{Encoding, PaddingParams, Tokenizer, TruncationParams, pad_encodings};

use crate::bert::{Bert, Config};

const MAX_TOKENS: usize = 256;
const LENGTH_STEP: usize = 16;
const TOKENS_AT_ONCE: usize = 512;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

pub(crate) struct Encoder {
    model: Bert,
    tokenizer: Tokenizer,
}

impl Encoder {
    /// Reads `config.json`, `tokenizer.json` and `model.safetensors` from `folder`.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let config: Config = serde_json::from_slice(&read(folder, "config.json")?)?;
        let weights = read(folder, "model.safetensors")?;
        let variables = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        Ok(Self {
            model: Bert::load(&variables, &config)?,
            tokenizer: tokenizer(&read(folder, "tokenizer.json")?)?,
        })
    }

    /// One vector of length 1 per text, in the order of the texts.
    ///
    /// Texts of about the same length go through the model together. Padding every text to the
    /// longest of a mixed batch costs ten times as much as this does.
    pub(crate) fn encode(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        let mut encodings = self.tokenizer.encode_batch(texts, true)?;
        let mut order: Vec<usize> = (0..encodings.len()).collect();
        order.sort_by_key(|&index| encodings[index].len());

        let mut vectors = vec![Vec::new(); encodings.len()];
        for group in groups(&order, &encodings) {
            let batch = group.iter().map(|&index| take(&mut encodings[index])).collect();
            for (&index, vector) in group.iter().zip(self.forward(batch)?) {
                vectors[index] = vector;
            }
        }
        Ok(vectors)
    }

    fn forward(&self, mut batch: Vec<Encoding>) -> Result<Vec<Vec<f32>>> {
        pad_encodings(&mut batch, &PaddingParams::default())?;
        let ids = stack(&batch, Encoding::get_ids)?;
        let types = stack(&batch, Encoding::get_type_ids)?;
        let mask = stack(&batch, Encoding::get_attention_mask)?;
        let tokens = self.model.forward(&ids, &types, &mask)?;
        Ok(normalize(&mean_over_mask(&tokens, &mask)?)?.to_vec2()?)
    }
}

/// Cuts `order`, which is sorted by length, into runs that cost little padding and fit the cache.
fn groups<'a>(order: &'a [usize], encodings: &[Encoding]) -> Vec<&'a [usize]> {
    let step = |index: usize| encodings[index].len().div_ceil(LENGTH_STEP);
    let alike = order.chunk_by(|&a, &b| step(a) == step(b));
    alike
        .flat_map(|run| run.chunks((TOKENS_AT_ONCE / (step(run[0]) * LENGTH_STEP)).max(1)))
        .collect()
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

fn tokenizer(json: &[u8]) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json)?;
    // The file pads and truncates to 128 tokens; the model was made for 256, and each group is
    // padded by itself.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(Some(TruncationParams {
        max_length: MAX_TOKENS,
        ..TruncationParams::default()
    }))?;
    Ok(tokenizer)
}

fn stack(encodings: &[Encoding], part: fn(&Encoding) -> &[u32]) -> Result<Tensor> {
    let rows = encodings.iter().map(|encoding| Tensor::new(part(encoding), &Device::Cpu));
    Ok(Tensor::stack(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

fn mean_over_mask(tokens: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let mask = mask.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
    tokens.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)
}

fn normalize(vectors: &Tensor) -> candle_core::Result<Tensor> {
    vectors.broadcast_div(&vectors.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Reference {
        items: Vec<Item>,
    }

    #[derive(serde::Deserialize)]
    struct Item {
        text: String,
        embedding: Vec<f32>,
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn assert_reference(vectors: &[Vec<f32>], items: &[Item]) {
        assert_eq!(vectors.len(), items.len());
        for (vector, item) in vectors.iter().zip(items) {
            let cosine = cosine(vector, &item.embedding);
            assert!(cosine >= 0.9999, "cosine {cosine} for {:.60?}", item.text);
        }
    }

    #[test]
    #[ignore = "needs the weights, which `make demo` fetches"]
    fn vectors_match_the_reference_alone_and_in_a_batch() -> Result<()> {
        let encoder =
            Encoder::load(Path::new(&crate::setting("LITPLEX_DEMO_MODEL", crate::MODEL)))?;
        let reference: Reference = serde_json::from_str(include_str!("../reference.json"))?;
        let texts: Vec<_> = reference.items.iter().map(|item| item.text.clone()).collect();

        assert_reference(&encoder.encode(texts.clone())?, &reference.items);
        for (text, item) in texts.into_iter().zip(&reference.items) {
            assert_reference(&encoder.encode(vec![text])?, std::slice::from_ref(item));
        }
        Ok(())
    }
}
