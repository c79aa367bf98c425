//! The Llama architecture: one forward pass computes the new tokens of many sequences.
//!
//! The tokens of all sequences pass the linear layers as the rows of one matrix, without padding. Only
//! the attention is computed for each sequence alone, over its own cache of keys and values. So a
//! sequence can join or leave between any two passes, whatever the others do.
//!
//! The weights are widened to float32. candle has no fast kernel for 4-bit weights with a minimum (`Q4_1`),
//! and would round the activations to 8 bits, which costs this small model some of its answers.

use candle_core::{Device, Result, Tensor};
use candle_nn::kv_cache::KvCache;
use candle_nn::{ops, rotary_emb};

use crate::gguf::Gguf;

/// The tokens by which a cache grows.
const CACHE_STEP: usize = 256;

pub(crate) struct Llama {
    /// A row for each token of the vocabulary.
    embeddings: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    output: Linear,
    rope: Rope,
    heads: Heads,
    /// The most tokens of a sequence.
    pub(crate) window: usize,
}

struct Layer {
    attention_norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    ffn_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The keys and values of a sequence, so far.
pub(crate) struct Cache(Vec<KvCache>);

/// The new tokens of one sequence.
pub(crate) struct Part<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) cache: &'a mut Cache,
}

impl Llama {
    /// Loads the weights; `window` limits the tokens of a sequence further than the model does.
    pub(crate) fn load(gguf: &mut Gguf, window: usize) -> litplex::Result<Self> {
        let heads = Heads {
            query: gguf.size("llama.attention.head_count")?,
            key: gguf.size("llama.attention.head_count_kv")?,
            width: gguf.size("llama.rope.dimension_count")?,
        };
        let window = window.min(gguf.size("llama.context_length")?);
        let epsilon = gguf.float("llama.attention.layer_norm_rms_epsilon")?;
        let layers = 0..gguf.size("llama.block_count")?;
        let embeddings = gguf.tensor("token_embd.weight")?.dequantize(&Device::Cpu)?;
        Ok(Self {
            layers: layers
                .map(|index| Layer::load(gguf, index, epsilon))
                .collect::<litplex::Result<_>>()?,
            norm: Norm::load(gguf, "output_norm.weight", epsilon)?,
            rope: Rope::new(gguf.float("llama.rope.freq_base")?, heads.width, window)?,
            // The embeddings are the output's weights, too.
            output: Linear::new(&embeddings)?,
            embeddings,
            heads,
            window,
        })
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache(self.layers.iter().map(|_| KvCache::new(1, CACHE_STEP)).collect())
    }

    /// Adds the new tokens to their sequences, and returns the logits after each sequence.
    pub(crate) fn forward(&self, parts: &mut [Part<'_>]) -> Result<Vec<Vec<f32>>> {
        let spans = spans(parts);
        let tokens: Vec<u32> = parts.iter().flat_map(|part| part.tokens).copied().collect();
        let rotation = self.rope.rows(&spans)?;
        let masks = spans.iter().map(Span::mask).collect::<Result<Vec<_>>>()?;
        let mut x = self.embeddings.index_select(&indices(&tokens)?, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let attend = |normed: &Tensor| {
                let (q, k, v) = layer.project(normed, &self.heads, &rotation)?;
                let mut rows = Vec::with_capacity(spans.len());
                for ((part, span), mask) in parts.iter_mut().zip(&spans).zip(&masks) {
                    let [q, k, v] = [&q, &k, &v].map(|all| span.of(all));
                    let (k, v) = part.cache.0[index].append(&k?, &v?)?;
                    rows.push(self.heads.attend(&q?, &k, &v, mask.as_ref())?);
                }
                Tensor::cat(&rows, 0)
            };
            x = layer.forward(&x, attend)?;
        }
        let last: Vec<u32> =
            spans.iter().map(|span| (span.start + span.count - 1) as u32).collect();
        let x = x.index_select(&indices(&last)?, 0)?;
        self.output.forward(&self.norm.forward(&x)?)?.to_vec2()
    }
}

impl Layer {
    fn load(gguf: &mut Gguf, index: usize, epsilon: f32) -> litplex::Result<Self> {
        let mut weights = |name| -> litplex::Result<Linear> {
            let weights = gguf.tensor(&format!("blk.{index}.{name}.weight"))?;
            Ok(Linear::new(&weights.dequantize(&Device::Cpu)?)?)
        };
        Ok(Self {
            query: weights("attn_q")?,
            key: weights("attn_k")?,
            value: weights("attn_v")?,
            attention_output: weights("attn_output")?,
            gate: weights("ffn_gate")?,
            up: weights("ffn_up")?,
            down: weights("ffn_down")?,
            attention_norm: Norm::load(gguf, &format!("blk.{index}.attn_norm.weight"), epsilon)?,
            ffn_norm: Norm::load(gguf, &format!("blk.{index}.ffn_norm.weight"), epsilon)?,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        attend: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let attended = attend(&self.attention_norm.forward(x)?)?;
        let x = (x + self.attention_output.forward(&attended)?)?;
        let normed = self.ffn_norm.forward(&x)?;
        let gated = (self.gate.forward(&normed)?.silu()? * self.up.forward(&normed)?)?;
        x + self.down.forward(&gated)?
    }

    /// Returns queries, keys and values, each as (head, token, width).
    fn project(
        &self,
        x: &Tensor,
        heads: &Heads,
        rope: &Rotation,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let query = heads.split(&self.query.forward(x)?, heads.query)?;
        let key = heads.split(&self.key.forward(x)?, heads.key)?;
        let value = heads.split(&self.value.forward(x)?, heads.key)?;
        Ok((rope.apply(&query)?, rope.apply(&key)?, value))
    }
}

/// The shape of the attention. Groups of query heads share a head of keys and values.
struct Heads {
    query: usize,
    key: usize,
    width: usize,
}

impl Heads {
    fn split(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        x.reshape(((), heads, self.width))?.transpose(0, 1)?.contiguous()
    }

    /// Returns the attention of new tokens to all tokens of their sequence, a row for each new token.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let count = q.dim(1)?;
        let q = q.reshape((self.key, (), self.width))?;
        let scores = (q.matmul(&k.t()?)? / (self.width as f64).sqrt())?;
        let scores = match mask {
            Some(mask) => {
                let grouped = scores.reshape((self.query, count, ()))?.broadcast_add(mask)?;
                grouped.reshape(scores.shape())?
            }
            None => scores,
        };
        let attended = ops::softmax_last_dim(&scores)?.matmul(v)?;
        attended.reshape((self.query, count, self.width))?.transpose(0, 1)?.flatten_from(1)
    }
}

/// The place of a part among the rows of a pass, and in its sequence.
struct Span {
    start: usize,
    count: usize,
    /// The tokens of the sequence before it.
    past: usize,
}

fn spans(parts: &[Part<'_>]) -> Vec<Span> {
    let mut start = 0;
    let span = |part: &Part<'_>| {
        let past = part.cache.0.first().map_or(0, KvCache::current_seq_len);
        let span = Span { start, count: part.tokens.len(), past };
        start += span.count;
        span
    };
    parts.iter().map(span).collect()
}

impl Span {
    fn of(&self, heads: &Tensor) -> Result<Tensor> {
        heads.narrow(1, self.start, self.count)?.contiguous()
    }

    /// Returns what hides later tokens from earlier ones; a single token sees all before it.
    fn mask(&self) -> Result<Option<Tensor>> {
        if self.count == 1 {
            return Ok(None);
        }
        let seen = self.past + self.count;
        let hidden =
            |row| move |column| if column > self.past + row { f32::NEG_INFINITY } else { 0. };
        let values: Vec<f32> = (0..self.count).flat_map(|row| (0..seen).map(hidden(row))).collect();
        Tensor::from_vec(values, (self.count, seen), &Device::Cpu).map(Some)
    }
}

/// Rotary position embeddings, for all positions.
struct Rope {
    cos: Tensor,
    sin: Tensor,
}

/// The rotary position embeddings of the rows of a pass.
struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    fn new(base: f32, width: usize, positions: usize) -> Result<Self> {
        let frequency = |index| base.powf(-(index as f32) / width as f32);
        let frequencies: Vec<f32> = (0..width).step_by(2).map(frequency).collect();
        let angle = |position| frequencies.iter().map(move |frequency| position as f32 * frequency);
        let angles: Vec<f32> = (0..positions).flat_map(angle).collect();
        let angles = Tensor::from_vec(angles, (positions, width / 2), &Device::Cpu)?;
        Ok(Self { cos: angles.cos()?, sin: angles.sin()? })
    }

    fn rows(&self, spans: &[Span]) -> Result<Rotation> {
        let positions = spans.iter().flat_map(|span| span.past..span.past + span.count);
        let positions = indices(&positions.map(|position| position as u32).collect::<Vec<_>>())?;
        let rows = |all: &Tensor| all.index_select(&positions, 0);
        Ok(Rotation { cos: rows(&self.cos)?, sin: rows(&self.sin)? })
    }
}

impl Rotation {
    /// Rotates (head, token, width). GGUF files of this architecture have interleaved pairs.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        rotary_emb::rope_i(&x.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0)
    }
}

struct Norm {
    weight: Tensor,
    epsilon: f32,
}

impl Norm {
    fn load(gguf: &mut Gguf, name: &str, epsilon: f32) -> litplex::Result<Self> {
        Ok(Self { weight: gguf.tensor(name)?.dequantize(&Device::Cpu)?, epsilon })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.weight, self.epsilon)
    }
}

struct Linear(Tensor);

impl Linear {
    fn new(weights: &Tensor) -> Result<Self> {
        Ok(Self(weights.t()?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.0)
    }
}

fn indices(values: &[u32]) -> Result<Tensor> {
    Tensor::new(values, &Device::Cpu)
}
