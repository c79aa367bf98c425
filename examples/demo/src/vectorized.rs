//! Functions of BERT that candle computes one number at a time: here many at once, with the widest
//! instructions of the CPU. They change a tensor in place.

use candle_core::{CpuStorage, DType, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};
use pulp::Arch;

/// Numbers that are reduced side by side: as many as two of the widest registers hold.
const LANES: usize = 32;

/// Replaces each x by `x * Φ(x)`, where Φ is the standard normal distribution function.
pub(crate) fn gelu(tensor: &Tensor) -> Result<()> {
    tensor.inplace_op1(&Gelu)
}

/// Replaces each score s of (text, head, token, token) by the softmax of `scale * s + hidden` over the last
/// dimension. `hidden`, of (text, token), is 0, or so little that it hides a token.
pub(crate) fn attention_weights(scores: &Tensor, hidden: &Tensor, scale: f32) -> Result<()> {
    scores.inplace_op2(hidden, &AttentionWeights { scale })
}

struct Gelu;

impl InplaceOp1 for Gelu {
    fn name(&self) -> &'static str {
        "vectorized-gelu"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let values = numbers_mut(storage, layout)?;
        Arch::new().dispatch(|| values.iter_mut().for_each(|x| *x = gelu_of(*x)));
        Ok(())
    }
}

struct AttentionWeights {
    scale: f32,
}

impl InplaceOp2 for AttentionWeights {
    fn name(&self) -> &'static str {
        "attention-weights"
    }

    fn cpu_fwd(
        &self,
        scores: &mut CpuStorage,
        scores_layout: &Layout,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
    ) -> Result<()> {
        let (texts, heads, rows, tokens) = scores_layout.shape().dims4()?;
        let hidden = numbers(hidden, hidden_layout)?;
        if hidden.len() != texts * tokens {
            bail!("{} hidden tokens for {texts} texts of {tokens}", hidden.len())
        }
        let texts = numbers_mut(scores, scores_layout)?.chunks_exact_mut(heads * rows * tokens);
        Arch::new().dispatch(|| {
            for (scores, hidden) in texts.zip(hidden.chunks_exact(tokens)) {
                for row in scores.chunks_exact_mut(tokens) {
                    softmax(row, hidden, self.scale);
                }
            }
        });
        Ok(())
    }
}

fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("strides are not supported")
    };
    Ok(&storage.as_slice()?[start..end])
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("strides are not supported")
    };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        _ => bail!("expected {:?}", DType::F32),
    }
}

#[inline(always)]
fn softmax(row: &mut [f32], hidden: &[f32], scale: f32) {
    row.iter_mut().zip(hidden).for_each(|(x, hidden)| *x = *x * scale + hidden);
    let most = reduce(row, f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    row.iter_mut().for_each(|x| *x = exp(*x - most));
    let inverse = 1.0 / reduce(row, 0.0, |a, b| a + b);
    row.iter_mut().for_each(|x| *x *= inverse);
}

/// Reduces lanes side by side, as the order of floating-point operations may not be changed otherwise.
#[inline(always)]
fn reduce(row: &[f32], start: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [start; LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, x);
        }
    }
    lanes.iter().chain(rest).fold(start, |a, &b| combine(a, b))
}

#[inline(always)]
fn gelu_of(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function, by formula 7.1.26 of Abramowitz and Stegun, *Handbook of Mathematical Functions*: its
/// absolute error is at most 1.5e-7, plus that of f32.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 5] =
        [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let polynomial = COEFFICIENTS.iter().fold(0.0, |sum, a| (sum + a) * t);
    (1.0 - polynomial * exp(-x * x)).copysign(x)
}

/// e^x for x ≤ 0, to 2 units in the last place: 2^n times a Taylor polynomial of the remainder, which
/// is at most ln(2)/2. Below -87 it stays at the least normal numbers.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added to a number of at most 22 bits, it rounds it to an integer, which the last bits then hold.
    const ROUNDS: f32 = 12_582_912.0;
    /// ln(2) in two parts, of which the first has few bits, so that n times it is exact.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    const INVERSE_FACTORIALS: [f32; 7] =
        [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUNDS;
    let n = shifted - ROUNDS;
    let r = (x - n * LN_2.0) - n * LN_2.1;
    let polynomial = INVERSE_FACTORIALS.iter().fold(0.0, |sum, a| sum * r + a);
    polynomial * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use candle_nn::ops::softmax_last_dim;

    use super::*;

    fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f32> {
        (a - b)?.abs()?.max_all()?.to_scalar()
    }

    #[test]
    fn gelu_is_that_of_candle() -> Result<()> {
        let x = Tensor::arange_step(-12.0_f32, 12.0, 0.001, &Device::Cpu)?;
        let expected = x.gelu_erf()?;
        gelu(&x)?;
        assert!(largest_difference(&x, &expected)? < 1e-6);
        Ok(())
    }

    #[test]
    fn the_exponential_function_is_exact_to_a_millionth() {
        for step in 0..870_000 {
            let x = -(step as f32) / 10_000.0;
            let (near, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((near / exact - 1.0).abs() < 3e-7, "e^{x}: {near}, not {exact}");
        }
        assert!(exp(f32::MIN) < 1e-37);
    }

    #[test]
    fn attention_weights_are_a_softmax_that_hides_tokens() -> Result<()> {
        for tokens in [1, 31, 32, 77] {
            let scores = Tensor::randn(0.0_f32, 9.0, (2, 3, tokens, tokens), &Device::Cpu)?;
            let hidden: Vec<_> =
                (0..2 * tokens).map(|at| if at % 3 == 1 { f32::MIN } else { 0.0 }).collect();
            let hidden = Tensor::from_vec(hidden, (2, tokens), &Device::Cpu)?;
            let shown = hidden.reshape((2, 1, 1, tokens))?;
            let expected = softmax_last_dim(&(&scores * 0.25)?.broadcast_add(&shown)?)?;
            attention_weights(&scores, &hidden, 0.25)?;
            assert!(largest_difference(&scores, &expected)? < 1e-6);
        }
        Ok(())
    }
}
