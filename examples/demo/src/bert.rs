//! BERT, as far as sentence encoders need it: from tokens to a vector for each of them.

use candle_core::{D, Result, Tensor};
use candle_nn::{Embedding, LayerNorm, Module, VarBuilder, embedding, layer_norm};
use serde::Deserialize;

use crate::vectorized::{attention_weights, gelu};

/// The parts of `config.json` that say the shape of the model.
#[derive(Deserialize)]
pub(crate) struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
}

pub(crate) struct Bert {
    words: Embedding,
    positions: Tensor,
    types: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    heads: usize,
    /// Query, key and value, one after the other.
    attention: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

impl Bert {
    pub(crate) fn load(variables: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let names = variables.pp("embeddings");
        let size = config.hidden_size;
        let layers = variables.pp("encoder.layer");
        let layers =
            (0..config.num_hidden_layers).map(|index| Layer::load(&layers.pp(index), config));
        Ok(Self {
            words: embedding(config.vocab_size, size, names.pp("word_embeddings"))?,
            positions: names
                .get((config.max_position_embeddings, size), "position_embeddings.weight")?,
            types: embedding(config.type_vocab_size, size, names.pp("token_type_embeddings"))?,
            norm: layer_norm(size, config.layer_norm_eps, names.pp("LayerNorm"))?,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    /// Takes ids, types and a mask of (text, token), and returns (text, token, vector). Tokens whose mask
    /// is 0 fill up shorter texts.
    pub(crate) fn forward(&self, ids: &Tensor, types: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let positions = self.positions.narrow(0, 0, ids.dim(1)?)?;
        let x =
            (self.words.forward(ids)? + self.types.forward(types)?)?.broadcast_add(&positions)?;
        let mut x = self.norm.forward(&x)?;
        // Added to the scores of tokens: 0, or so little that it hides one.
        let hidden = mask.to_dtype(x.dtype())?.affine(-f64::from(f32::MIN), f64::from(f32::MIN))?;
        for layer in &self.layers {
            x = layer.forward(&x, &hidden)?;
        }
        Ok(x)
    }
}

impl Layer {
    fn load(names: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let (size, wide) = (config.hidden_size, config.intermediate_size);
        let linear = |inputs, outputs, name| Linear::load(inputs, outputs, &[names.pp(name)]);
        let attention = ["query", "key", "value"].map(|name| names.pp("attention.self").pp(name));
        let norm = |name| layer_norm(size, config.layer_norm_eps, names.pp(name));
        Ok(Self {
            heads: config.num_attention_heads,
            attention: Linear::load(size, size, &attention)?,
            attention_output: linear(size, size, "attention.output.dense")?,
            attention_norm: norm("attention.output.LayerNorm")?,
            up: linear(size, wide, "intermediate.dense")?,
            down: linear(wide, size, "output.dense")?,
            norm: norm("output.LayerNorm")?,
        })
    }

    fn forward(&self, x: &Tensor, hidden: &Tensor) -> Result<Tensor> {
        let attended = self.attention_output.forward(&self.attend(x, hidden)?)?;
        let x = self.attention_norm.forward(&(x + attended)?)?;
        let wide = self.up.forward(&x)?;
        gelu(&wide)?;
        self.norm.forward(&(&x + self.down.forward(&wide)?)?)
    }

    fn attend(&self, x: &Tensor, hidden: &Tensor) -> Result<Tensor> {
        let (texts, tokens, size) = x.dims3()?;
        let width = size / self.heads;
        let x = self.attention.forward(x)?.reshape((texts, tokens, 3, self.heads, width))?;
        let heads = |part| x.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (query, key, value) = (heads(0)?, heads(1)?, heads(2)?);
        let scores = query.matmul(&key.t()?)?;
        attention_weights(&scores, hidden, 1.0 / (width as f32).sqrt())?;
        let attended = scores.matmul(&value)?;
        attended.transpose(1, 2)?.flatten_from(D::Minus2)
    }
}

/// An affine map whose weights lie as the matrix product reads them: candle's own has them transposed, and
/// a third of its time goes into turning them around at each product.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Reads maps of the same inputs, whose outputs follow each other.
    fn load(inputs: usize, outputs: usize, parts: &[VarBuilder<'_>]) -> Result<Self> {
        let weights = parts.iter().map(|part| part.get((outputs, inputs), "weight"));
        let biases = parts.iter().map(|part| part.get(outputs, "bias"));
        Ok(Self {
            weight: Tensor::cat(&weights.collect::<Result<Vec<_>>>()?, 0)?.t()?.contiguous()?,
            bias: Tensor::cat(&biases.collect::<Result<Vec<_>>>()?, 0)?,
        })
    }

    /// Takes vectors of (text, token, input) and returns (text, token, output).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (texts, tokens, inputs) = x.dims3()?;
        let flat = x.reshape((texts * tokens, inputs))?.matmul(&self.weight)?;
        flat.broadcast_add(&self.bias)?.reshape((texts, tokens, ()))
    }
}
