//! The comparison of a canary, or a shadow, with the live generation: a sequential test on failures, and one on
//! latencies. Answers that differ are counted, and decide nothing: a model may answer otherwise each time.
//!
//! Both tests are e-processes. Each multiplies, over blocks of jobs, factors whose expected value is at most 1
//! while the canary is no worse than the live generation. The chance that such a product ever exceeds `1 / a`
//! is at most `a` (Ville's inequality), however often it is checked and however long the comparison lasts.
//!
//! **Failures.** A block has `l` jobs of the live generation and `c` of the canary. With an assumed rate of
//! failures of each, `p` and `q`, and their mean `m = (l p + c q) / (l + c)`, the factor is the likelihood
//! of the block under `p` and `q`, divided by that under `m` for both. If in truth both fail at a rate `t`, the
//! expected factor is a product of `l + c` numbers whose arithmetic mean is 1, so that it is at most 1,
//! whatever `t`, `p` and `q` are. `p` is estimated from the blocks before; for `q - p` several values are
//! assumed, and the mean of their products is the test. A canary is accepted by Wald's ratio. (Turner, Ly and Grünwald: "Generic E-variables for
//! exact sequential k-sample tests", 2024.)
//!
//! **Latencies.** Jobs of a block are paired. If the canary is no slower, its job is the slower one of its
//! pair in at most half of all pairs. The factor bets on more: 2 b for a slower job and 2 (1 - b) for others.

use std::collections::VecDeque;
use std::time::Duration;

use litplex_admin::ComparedAnswers;
use litplex_calls::{Side, Tried};

/// The chances that a canary which is no worse is rolled back: for its failures, and for its latencies.
const FALSE_FAILURES: f64 = 0.005;
const FALSE_SLOWNESS: f64 = 0.002;

/// The chance that a canary is promoted which fails more often by the smallest of [`EXCESSES`].
const MISSED: f64 = 0.05;

/// The assumed additional rates of failures of a canary.
const EXCESSES: [f64; 5] = [0.025, 0.05, 0.1, 0.3, 0.9];

/// The assumed parts of pairs in which the canary is the slower one.
const SLOWER_PARTS: [f64; 2] = [0.75, 0.95];

/// A job of the canary is slower than its pair if it takes this many times as long, and [`JITTER`] longer.
const SLOWER: f64 = 1.5;
const JITTER: Duration = Duration::from_millis(2);

/// The jobs of the canary before it can be promoted, and those after which it is: by then any regression
/// that matters has been found.
const FEWEST_JOBS: u64 = 100;
const MOST_JOBS: u64 = 5_000;

/// The latencies of each side that are kept: for pairs, and for the medians in messages.
const KEPT: usize = 64;

/// The result of a comparison so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More jobs are needed.
    Open,
    /// The canary is no worse.
    Promote,
    /// The canary is worse, in words.
    RollBack(String),
}

/// The comparison of a canary with the live generation.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    failures: FailureTest,
    slowness: SlownessTest,
    /// The jobs since the last block.
    block: Block,
    live: Counts,
    canary: Counts,
    medians: [VecDeque<Duration>; 2],
    /// The answers of a shadow that were compared, and those that differ.
    answers: ComparedAnswers,
}

impl Comparison {
    /// Counts an answer of a shadow that was compared.
    pub(crate) fn add_answer(&mut self, differs: bool) {
        self.answers.compared += 1;
        self.answers.differed += u64::from(differs);
    }

    /// Returns the counts of answers that were compared.
    pub(crate) fn answers(&self) -> ComparedAnswers {
        self.answers
    }

    /// Adds a job.
    pub(crate) fn add(&mut self, job: Tried) {
        let (counts, totals, took, kept) = match job.side {
            Side::Live => (&mut self.block.live, &mut self.live, &mut self.block.live_took, 0),
            Side::Tried => {
                (&mut self.block.canary, &mut self.canary, &mut self.block.canary_took, 1)
            }
        };
        counts.add(job.has_failed);
        totals.add(job.has_failed);
        if !job.has_failed {
            keep(took, job.took);
            keep(&mut self.medians[kept], job.took);
        }
        // A block that ends with a job of the canary has the jobs of the live generation since the one before.
        if job.side == Side::Tried && self.block.live.jobs > 0 {
            self.close();
        }
    }

    /// Adds the block to the tests. When a block ends does not depend on its outcomes.
    fn close(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.slowness.add(&block);
        self.failures.add(&block);
    }

    /// Returns the result so far.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.failures.is_worse() {
            return Verdict::RollBack(format!(
                "{} failed, and {} of the live generation",
                self.canary.text(),
                self.live.text()
            ));
        }
        if self.slowness.is_worse() {
            let [live, canary] = self.medians.each_ref().map(|took| median(took).as_secs_f64());
            return Verdict::RollBack(format!(
                "its requests take longer: {:.1} ms in the median of the last, and {:.1} ms on the live \
                 generation",
                canary * 1e3,
                live * 1e3
            ));
        }
        let is_alike = self.failures.is_alike() && self.slowness.is_alike();
        match self.canary.jobs {
            FEWEST_JOBS.. if is_alike => Verdict::Promote,
            MOST_JOBS.. => Verdict::Promote,
            _ => Verdict::Open,
        }
    }
}

/// Some jobs of both generations.
#[derive(Debug, Default)]
struct Block {
    live: Counts,
    canary: Counts,
    live_took: VecDeque<Duration>,
    canary_took: VecDeque<Duration>,
}

/// Jobs, and those of them that failed.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    jobs: u64,
    failed: u64,
}

impl Counts {
    fn add(&mut self, has_failed: bool) {
        self.jobs += 1;
        self.failed += u64::from(has_failed);
    }

    /// Returns the logarithm of the likelihood at this rate of failures.
    fn log_likelihood(self, rate: f64) -> f64 {
        self.failed as f64 * rate.ln() + (self.jobs - self.failed) as f64 * (1.0 - rate).ln()
    }

    fn text(self) -> String {
        let share = 100.0 * self.failed as f64 / self.jobs.max(1) as f64;
        format!("{} of {} requests ({share:.1} %)", self.failed, self.jobs)
    }
}

/// The test whether the canary fails more often.
#[derive(Debug, Default)]
struct FailureTest {
    /// The logarithm of the product for each of [`EXCESSES`].
    logs: [f64; EXCESSES.len()],
    /// The logarithm of the likelihood of the canary's jobs if it fails more often by the smallest of
    /// [`EXCESSES`], divided by that if it fails as the live generation does (Wald's ratio).
    excess: f64,
    /// The jobs of the live generation in all blocks so far.
    live: Counts,
}

impl FailureTest {
    fn add(&mut self, block: &Block) {
        let Block { live, canary, .. } = block;
        let usual = self.usual_rate();
        for (log, excess) in self.logs.iter_mut().zip(EXCESSES) {
            let worse = usual + excess * (1.0 - usual);
            let (l, c) = (live.jobs as f64, canary.jobs as f64);
            let mean = (l * usual + c * worse) / (l + c);
            *log += live.log_likelihood(usual) + canary.log_likelihood(worse);
            *log -= live.log_likelihood(mean) + canary.log_likelihood(mean);
        }
        let worse = usual + EXCESSES[0] * (1.0 - usual);
        self.excess += canary.log_likelihood(worse) - canary.log_likelihood(usual);
        self.live.jobs += live.jobs;
        self.live.failed += live.failed;
    }

    /// Returns the rate at which the live generation fails, as the blocks so far show it; never 0 or 1.
    fn usual_rate(&self) -> f64 {
        (self.live.failed as f64 + 0.5) / (self.live.jobs as f64 + 100.0)
    }

    fn is_worse(&self) -> bool {
        mean_of_exponentials(&self.logs) >= 1.0 / FALSE_FAILURES
    }

    fn is_alike(&self) -> bool {
        self.excess <= MISSED.ln()
    }
}

/// The test whether the canary is slower.
#[derive(Debug, Default)]
struct SlownessTest {
    /// The logarithm of the product for each of [`SLOWER_PARTS`].
    logs: [f64; SLOWER_PARTS.len()],
}

impl SlownessTest {
    fn add(&mut self, block: &Block) {
        for (live, canary) in block.live_took.iter().zip(&block.canary_took) {
            let is_slower = *canary > live.mul_f64(SLOWER) + JITTER;
            for (log, part) in self.logs.iter_mut().zip(SLOWER_PARTS) {
                *log += (2.0 * if is_slower { part } else { 1.0 - part }).ln();
            }
        }
    }

    fn is_worse(&self) -> bool {
        mean_of_exponentials(&self.logs) >= 1.0 / FALSE_SLOWNESS
    }

    fn is_alike(&self) -> bool {
        self.logs[0] <= MISSED.ln()
    }
}

fn mean_of_exponentials(logs: &[f64]) -> f64 {
    logs.iter().map(|log| log.exp()).sum::<f64>() / logs.len() as f64
}

fn keep(kept: &mut VecDeque<Duration>, took: Duration) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(took);
}

fn median(took: &VecDeque<Duration>) -> Duration {
    let mut sorted = Vec::from_iter(took.iter().copied());
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A generation whose jobs fail at this rate, and take about this many milliseconds.
    #[derive(Debug, Clone, Copy)]
    struct Behaviour {
        failures: f64,
        millis: f64,
    }

    const LIVE: Behaviour = Behaviour { failures: 0.001, millis: 20.0 };

    impl Behaviour {
        fn job(self, side: Side, random: &mut fastrand::Rng) -> Tried {
            // About log-normal: the sum of uniform numbers is about normal.
            let normal: f64 = (0..6).map(|_| random.f64() - 0.5).sum();
            let took = Duration::from_secs_f64(self.millis / 1e3 * (0.5 * normal).exp());
            Tried { side, has_failed: random.f64() < self.failures, took }
        }
    }

    /// Runs a canary with this share until a verdict, or until it had so many jobs; returns the verdict and
    /// the jobs.
    fn run(live: Behaviour, canary: Behaviour, share: f64, most: u64, seed: u64) -> (Verdict, u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut comparison = Comparison::default();
        let between = (1.0 / share).round() as u64 - 1;
        loop {
            comparison.add_live(live, between, &mut random);
            comparison.add(canary.job(Side::Tried, &mut random));
            let (verdict, jobs) = (comparison.verdict(), comparison.canary.jobs);
            if verdict != Verdict::Open || jobs >= most {
                return (verdict, jobs);
            }
        }
    }

    impl Comparison {
        /// Adds so many jobs of the live generation, of which one has a latency: `add` for each of them would
        /// take minutes.
        fn add_live(&mut self, live: Behaviour, jobs: u64, random: &mut fastrand::Rng) {
            // The gaps between failures are geometric.
            let mut gap = || (random.f64().ln() / (1.0 - live.failures).ln()).max(0.0) as u64;
            let failed = if live.failures == 0.0 {
                0
            } else {
                let mut at = gap();
                let mut failed = 0;
                while at < jobs {
                    failed += 1;
                    at = at.saturating_add(1).saturating_add(gap());
                }
                failed
            };
            let counts = Counts { jobs: jobs - 1, failed: failed.min(jobs - 1) };
            for all in [&mut self.block.live, &mut self.live] {
                (all.jobs, all.failed) = (all.jobs + counts.jobs, all.failed + counts.failed);
            }
            self.add(Tried { has_failed: false, ..live.job(Side::Live, random) });
        }
    }

    /// Returns the number of rollbacks and promotions in these runs.
    fn outcomes(runs: u64, run: impl Fn(u64) -> Verdict) -> (u64, u64) {
        (0..runs).map(run).fold((0, 0), |(back, promoted), verdict| match verdict {
            Verdict::RollBack(_) => (back + 1, promoted),
            Verdict::Promote => (back, promoted + 1),
            Verdict::Open => (back, promoted),
        })
    }

    const RUNS: u64 = 10_000;

    #[test]
    fn a_canary_that_is_no_worse_is_rarely_rolled_back() {
        // Where much fails anyway, a comparison takes long.
        for (failures, runs) in [(0.001, RUNS), (0.0, 1_000), (0.02, 500), (0.2, 100)] {
            let usual = Behaviour { failures, ..LIVE };
            let (back, promoted) = outcomes(runs, |seed| run(usual, usual, 0.01, 5_000, seed).0);
            assert!(back * 100 < runs, "{back} of {runs} with {failures}");
            assert_eq!(back + promoted, runs, "with {failures}");
        }
        let (verdict, jobs) = run(LIVE, LIVE, 0.01, 5_000, 1);
        assert!(verdict == Verdict::Promote && jobs < 500, "{verdict:?} after {jobs}");
    }

    #[test]
    fn a_regression_to_five_percent_is_found_within_300_jobs() {
        let worse = Behaviour { failures: 0.05, ..LIVE };
        let (back, promoted) = outcomes(RUNS, |seed| run(LIVE, worse, 0.01, 300, seed).0);
        assert!((RUNS - back) * 100 < RUNS, "{back} of {RUNS}");
        assert!(promoted * 100 < RUNS, "{promoted} of {RUNS}");
    }

    #[test]
    fn a_canary_that_is_three_times_slower_is_found_within_100_jobs() {
        let slower = Behaviour { millis: 60.0, ..LIVE };
        for share in [0.01, 0.3] {
            let (back, _) = outcomes(RUNS, |seed| run(LIVE, slower, share, 100, seed).0);
            assert!((RUNS - back) * 100 < RUNS, "{back} of {RUNS}");
        }
        let (_, jobs) = run(LIVE, Behaviour { millis: 600.0, ..LIVE }, 0.05, 300, 1);
        assert!(jobs < 30, "{jobs}");
    }

    #[test]
    fn a_canary_that_always_fails_is_found_within_a_few_jobs() {
        let broken = Behaviour { failures: 1.0, ..LIVE };
        for share in [0.01, 0.1, 0.5] {
            let (verdict, jobs) = run(LIVE, broken, share, 300, 7);
            assert!(matches!(verdict, Verdict::RollBack(_)), "{share}");
            assert!(jobs <= 10, "{jobs} with {share}");
        }
    }

    proptest! {
        /// The bound on false alarms rests on this: no rate of failures that both have makes a block worth more
        /// than 1 on average.
        #[test]
        fn a_block_is_worth_no_more_than_one_if_both_fail_alike(
            live in 1_u64..8, canary in 1_u64..8, rate in 0.0..1.0, before in 0_u64..50, failed in 0_u64..50,
        ) {
            let before = Counts { jobs: before.max(failed), failed };
            let mut expected = [0.0; EXCESSES.len()];
            for l in 0..=live {
                for c in 0..=canary {
                    let mut test = FailureTest { live: before, ..FailureTest::default() };
                    test.add(&Block {
                        live: Counts { jobs: live, failed: l },
                        canary: Counts { jobs: canary, failed: c },
                        ..Block::default()
                    });
                    let chance = binomial(live, l, rate) * binomial(canary, c, rate);
                    for (expected, log) in expected.iter_mut().zip(test.logs) {
                        *expected += chance * log.exp();
                    }
                }
            }
            prop_assert!(expected.iter().all(|value| *value <= 1.0 + 1e-9), "{expected:?}");
        }

        /// More failures of the canary never speak for it.
        #[test]
        fn a_failure_of_the_canary_speaks_against_it(live in 1_u64..200, failed in 0_u64..20) {
            let logs = |canary_failed| {
                let mut test = FailureTest::default();
                test.add(&Block {
                    live: Counts { jobs: live, failed: failed.min(live) },
                    canary: Counts { jobs: 1, failed: canary_failed },
                    ..Block::default()
                });
                test.logs
            };
            for (without, with) in logs(0).into_iter().zip(logs(1)) {
                prop_assert!(without <= with);
            }
        }
    }

    fn binomial(all: u64, chosen: u64, rate: f64) -> f64 {
        let ways: f64 = (0..chosen).map(|i| (all - i) as f64 / (i + 1) as f64).product();
        ways * rate.powi(chosen as i32) * (1.0 - rate).powi((all - chosen) as i32)
    }
}
