//! BERT, as far as sentence encoders need it: from tokens to a vector for each of them.

use candle_core::{D, Result, Tensor};
use candle_nn::{
    Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, layer_norm, linear, ops,
};
use serde::Deserialize;

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
    query: Linear,
    key: Linear,
    value: Linear,
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
        // Added to the scores of (text, head, token, token): 0, or so little that it hides a token.
        let mask = mask.to_dtype(x.dtype())?.affine(-f64::from(f32::MIN), f64::from(f32::MIN))?;
        let mask = mask.unsqueeze(1)?.unsqueeze(1)?;
        for layer in &self.layers {
            x = layer.forward(&x, &mask)?;
        }
        Ok(x)
    }
}

impl Layer {
    fn load(names: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let (size, wide) = (config.hidden_size, config.intermediate_size);
        let square = |name| linear(size, size, names.pp(name));
        let norm = |name| layer_norm(size, config.layer_norm_eps, names.pp(name));
        Ok(Self {
            heads: config.num_attention_heads,
            query: square("attention.self.query")?,
            key: square("attention.self.key")?,
            value: square("attention.self.value")?,
            attention_output: square("attention.output.dense")?,
            attention_norm: norm("attention.output.LayerNorm")?,
            up: linear(size, wide, names.pp("intermediate.dense"))?,
            down: linear(wide, size, names.pp("output.dense"))?,
            norm: norm("output.LayerNorm")?,
        })
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let attended = self.attention_output.forward(&self.attend(x, mask)?)?;
        let x = self.attention_norm.forward(&(x + attended)?)?;
        let wide = self.up.forward(&x)?.gelu_erf()?;
        self.norm.forward(&(&x + self.down.forward(&wide)?)?)
    }

    fn attend(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (texts, tokens, size) = x.dims3()?;
        let width = size / self.heads;
        let heads = |linear: &Linear| {
            let x = linear.forward(x)?.reshape((texts, tokens, self.heads, width))?;
            x.transpose(1, 2)?.contiguous()
        };
        let scores = heads(&self.query)?.matmul(&heads(&self.key)?.t()?)?;
        let scores = (scores / (width as f64).sqrt())?.broadcast_add(mask)?;
        let attended = ops::softmax_last_dim(&scores)?.matmul(&heads(&self.value)?)?;
        attended.transpose(1, 2)?.flatten_from(D::Minus2)
    }
}
