//! The choice of the next token.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    random: StdRng,
}

impl Sampler {
    /// Returns a sampler; without a `seed` its choices are random. A temperature of 0 always chooses
    /// the most likely token.
    pub(crate) fn new(temperature: f32, top_p: f32, seed: Option<i64>) -> Self {
        let random = match seed {
            Some(seed) => StdRng::seed_from_u64(seed.cast_unsigned()),
            None => StdRng::from_os_rng(),
        };
        Self { temperature, top_p, random }
    }

    pub(crate) fn sample(&mut self, logits: &[f32]) -> u32 {
        let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let best = best.unwrap_or_default();
        if self.temperature <= 0.0 {
            return best as u32;
        }
        let weight = |index: usize| ((logits[index] - logits[best]) / self.temperature).exp();
        let mut weights: Vec<(u32, f32)> =
            (0..logits.len()).map(|index| (index as u32, weight(index))).collect();
        if self.top_p < 1.0 {
            keep_most_likely(&mut weights, self.top_p);
        }
        self.draw(&weights).unwrap_or(best as u32)
    }

    fn draw(&mut self, weights: &[(u32, f32)]) -> Option<u32> {
        let total: f32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.random::<f32>() * total;
        let found = weights.iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        found.map(|&(token, _)| token)
    }
}

/// Keeps the fewest most likely tokens that have a share of `top_p` of all weights.
fn keep_most_likely(weights: &mut Vec<(u32, f32)>, top_p: f32) {
    weights.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
    let mut left = top_p * weights.iter().map(|(_, weight)| weight).sum::<f32>();
    let kept = weights.iter().take_while(|(_, weight)| {
        let is_kept = left > 0.0;
        left -= weight;
        is_kept
    });
    let kept = kept.count().max(1);
    weights.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, 2.0];

    fn draws(temperature: f32, top_p: f32) -> [usize; 4] {
        let mut sampler = Sampler::new(temperature, top_p, Some(7));
        let mut counts = [0; 4];
        (0..10_000).for_each(|_| counts[sampler.sample(&LOGITS) as usize] += 1);
        counts
    }

    #[test]
    fn without_temperature_the_first_of_the_most_likely_is_chosen() {
        assert_eq!(draws(0.0, 1.0), [0, 10_000, 0, 0]);
    }

    #[test]
    fn tokens_are_drawn_by_their_probability() {
        let total: f32 = LOGITS.iter().map(|logit| logit.exp()).sum();
        for (count, logit) in draws(1.0, 1.0).into_iter().zip(LOGITS) {
            let expected = 10_000.0 * logit.exp() / total;
            assert!((count as f32 - expected).abs() < 5.0 * expected.sqrt(), "{count} {expected}");
        }
    }

    #[test]
    fn top_p_leaves_out_the_unlikely() {
        let [none, one, little, other] = draws(1.0, 0.75);
        assert_eq!((none, little), (0, 0));
        assert!(one > 4_000 && other > 4_000);
        assert_eq!(draws(1.0, 0.1).iter().filter(|count| **count > 0).count(), 1);
    }

    #[test]
    fn a_seed_repeats_the_choices() {
        let chosen = |seed| {
            let mut sampler = Sampler::new(1.0, 1.0, Some(seed));
            (0..50).map(|_| sampler.sample(&LOGITS)).collect::<Vec<_>>()
        };
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(-1));
    }
}
