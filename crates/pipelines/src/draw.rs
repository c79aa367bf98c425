//! Draws of a splitter's branch, by weight.

/// Weights of branches. Each draw has a branch.
#[derive(Debug)]
pub(crate) struct Weights {
    /// The sums of the weights up to each branch.
    sums: Vec<f64>,
}

impl Weights {
    /// Returns the weights, all of them positive.
    pub(crate) fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let add = |weight| {
            sum += weight;
            sum
        };
        Self { sums: weights.into_iter().map(add).collect() }
    }

    /// Returns the share of each branch, above 0 and at most 1.
    pub(crate) fn shares(&self) -> impl Iterator<Item = f64> {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let before = [0.0].into_iter().chain(self.sums.iter().copied());
        self.sums.iter().zip(before).map(move |(sum, before)| (sum - before) / total)
    }

    /// Returns the branch of a number in [0, 1).
    pub(crate) fn branch(&self, at: f64) -> usize {
        let Some((total, others)) = self.sums.split_last() else { return 0 };
        // The last branch takes the rest: rounding cannot lose a draw.
        others.iter().position(|sum| at * total < *sum).unwrap_or(others.len())
    }
}

/// Returns a random number in [0, 1).
pub(crate) fn random() -> f64 {
    // A system without randomness takes the first branch; it cannot serve TLS or ids either.
    let bits = getrandom::u64().unwrap_or_default();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns Pearson's statistic of a million draws.
    fn chi_squared(weights: &[f64]) -> f64 {
        const DRAWS: usize = 1_000_000;
        let (drawn, total) = (Weights::new(weights.iter().copied()), weights.iter().sum::<f64>());
        let mut counts = vec![0_usize; weights.len()];
        for _ in 0..DRAWS {
            counts[drawn.branch(random())] += 1;
        }
        assert_eq!(counts.iter().sum::<usize>(), DRAWS, "each draw has a branch");
        let part = |(count, weight): (&usize, &f64)| {
            let expected = DRAWS as f64 * weight / total;
            (*count as f64 - expected).powi(2) / expected
        };
        counts.iter().zip(weights).map(part).sum()
    }

    #[test]
    fn a_million_draws_follow_the_weights_and_none_is_lost() {
        // The quantiles of chi squared at 1 - 1e-6, for 1, 2 and 3 degrees of freedom.
        assert!(chi_squared(&[90.0, 10.0]) < 23.93);
        assert!(chi_squared(&[1.0, 1.0, 1.0]) < 27.63);
        assert!(chi_squared(&[0.1, 0.7, 33.0, 5e-3]) < 30.67);
    }

    #[test]
    fn the_ends_of_the_range_have_a_branch() {
        let weights = Weights::new([0.1, 0.2, 0.3]);
        assert_eq!(weights.branch(0.0), 0);
        assert_eq!(weights.branch(1.0 - f64::EPSILON / 2.0), 2);
        assert_eq!(weights.branch(0.4), 1);
        assert_eq!(Weights::new([7.0]).branch(0.99), 0);
    }
}
