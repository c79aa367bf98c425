//! The model of batches in simulations: clients in a loop, and models whose times are known.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use crate::{Basis, BatchModel, BatchWork};

/// A closed loop of clients, each of which sends its next job when it has a response. Returns the jobs
/// per second of a worker whose batches take the time that `time` returns.
struct Loop {
    clients: usize,
    max_jobs: usize,
    batches: usize,
    noise: f64,
}

const LOOP: Loop = Loop { clients: 32, max_jobs: 16, batches: 2000, noise: 0.03 };

impl Loop {
    fn run(
        &self,
        sizes: impl Fn(&mut fastrand::Rng) -> f64,
        time: impl Fn(&BatchWork, usize) -> f64,
        mut choose: impl FnMut(&BatchModel, &[f64]) -> Vec<usize>,
    ) -> f64 {
        let mut random = fastrand::Rng::with_seed(7);
        let mut queue: VecDeque<f64> = (0..self.clients).map(|_| sizes(&mut random)).collect();
        let mut model = BatchModel::adaptive();
        let (mut jobs, mut seconds) = (0, 0.0);
        for batch in 0..self.batches {
            let waiting = Vec::from_iter(queue.iter().copied());
            let chosen = choose(&model, &waiting);
            assert_eq!(chosen[0], 0);
            let work = BatchWork::of(chosen.iter().map(|at| waiting[*at]));
            chosen.iter().rev().for_each(|at| {
                queue.remove(*at);
            });
            let noise = 1.0 + self.noise * (2.0 * random.f64() - 1.0);
            let took = time(&work, batch) * noise;
            model.observe(&work, self.max_jobs, Duration::from_secs_f64(took));
            queue.extend(chosen.iter().map(|_| sizes(&mut random)));
            jobs += work.jobs;
            seconds += took;
        }
        jobs as f64 / seconds
    }

    /// Returns the rates of learned batches, of full ones and of single jobs.
    fn rates(
        &self,
        sizes: impl Fn(&mut fastrand::Rng) -> f64 + Copy,
        time: impl Fn(&BatchWork, usize) -> f64 + Copy,
    ) -> [f64; 3] {
        let most = self.max_jobs;
        let first = |count: usize| {
            move |_: &BatchModel, waiting: &[f64]| (0..waiting.len().min(count)).collect::<Vec<_>>()
        };
        [
            self.run(sizes, time, |model, waiting| model.choose(waiting, most, f64::INFINITY)),
            self.run(sizes, time, first(most)),
            self.run(sizes, time, first(1)),
        ]
    }
}

/// Lengths of texts as in a mixed load: many short ones, some long ones.
fn lengths(random: &mut fastrand::Rng) -> f64 {
    30.0 + 600.0 * random.f64().powi(4)
}

#[test]
fn texts_of_mixed_length_are_batched_by_length() {
    let time = |work: &BatchWork, _| 0.002 + 20e-6 * work.padded();
    let [learned, full, single] = LOOP.rates(lengths, time);
    assert!(learned > 1.8 * full, "{learned} {full}");
    assert!(learned > 1.1 * single, "{learned} {single}");
}

/// The lengths in bytes of the texts of W6 in `bench/`, in their order.
const TEXTS: [u16; 200] = [
    156, 226, 72, 444, 667, 157, 415, 159, 21, 27, 426, 256, 33, 64, 36, 28, 35, 88, 414, 27, 77,
    84, 80, 73, 175, 26, 32, 166, 28, 29, 160, 72, 71, 33, 181, 244, 168, 79, 65, 29, 73, 29, 65,
    33, 156, 70, 231, 35, 237, 412, 252, 89, 162, 23, 249, 31, 81, 28, 34, 78, 84, 165, 31, 30, 72,
    72, 713, 73, 80, 75, 71, 145, 77, 59, 73, 382, 80, 159, 86, 33, 420, 68, 77, 70, 140, 173, 274,
    84, 179, 26, 84, 31, 181, 81, 31, 74, 232, 88, 169, 166, 77, 33, 28, 75, 26, 244, 87, 85, 422,
    33, 31, 35, 81, 85, 30, 77, 78, 70, 424, 28, 89, 82, 161, 73, 248, 78, 633, 77, 32, 622, 85,
    159, 27, 175, 175, 235, 176, 243, 160, 83, 37, 79, 79, 84, 78, 71, 82, 80, 76, 254, 416, 415,
    160, 74, 247, 156, 66, 83, 31, 245, 73, 28, 28, 75, 152, 175, 81, 243, 26, 162, 77, 74, 81, 32,
    159, 157, 60, 82, 75, 33, 232, 415, 35, 156, 254, 172, 72, 146, 660, 164, 81, 250, 241, 411,
    75, 39, 78, 75, 668, 255,
];

/// The numbers of jobs of the recorded batches.
const JOBS: [usize; 5] = [1, 2, 4, 8, 16];

/// The times in milliseconds of batches of W6's model, all-MiniLM-L6-v2 in ONNX Runtime 1.32 on one thread, by the
/// length in bytes of their texts: medians of seven, on 2026-11-29.
const RECORDED: [(f64, [f64; 5]); 9] = [
    (21.0, [4.70, 5.71, 8.80, 14.87, 27.17]),
    (35.0, [5.15, 7.09, 11.32, 19.66, 36.93]),
    (77.0, [6.23, 9.90, 17.25, 32.28, 62.23]),
    (88.0, [6.26, 9.44, 16.45, 30.93, 58.00]),
    (173.0, [9.53, 16.36, 30.40, 58.42, 115.15]),
    (245.0, [12.85, 22.90, 43.82, 91.50, 171.80]),
    (415.0, [20.90, 39.28, 76.95, 151.79, 326.15]),
    (633.0, [29.81, 57.30, 112.57, 228.49, 477.99]),
    (713.0, [33.86, 65.24, 132.01, 270.27, 557.81]),
];

/// Returns the place of a value among growing ones: the index of the lower neighbour, and the part of the way to the
/// next.
fn between(values: impl Fn(usize) -> f64, count: usize, value: f64) -> (usize, f64) {
    let low = (0..count - 1).rfind(|at| values(*at) <= value).unwrap_or(0);
    (low, ((value - values(low)) / (values(low + 1) - values(low))).clamp(0.0, 1.0))
}

/// Returns the recorded time in seconds of a batch, interpolated. Shorter texts are padded to the longest.
fn recorded(work: &BatchWork) -> f64 {
    let (row, down) = between(|at| RECORDED[at].0, RECORDED.len(), work.largest);
    let (column, right) = between(|at| JOBS[at] as f64, JOBS.len(), work.jobs as f64);
    let in_row = |row: usize| {
        let times = RECORDED[row].1;
        times[column] + right * (times[column + 1] - times[column])
    };
    (in_row(row) + down * (in_row(row + 1) - in_row(row))) / 1e3
}

#[test]
fn recorded_texts_are_computed_nearly_as_fast_as_sorted_ones() {
    let mut sorted = TEXTS.map(f64::from);
    sorted.sort_unstable_by(f64::total_cmp);
    let offline: f64 =
        sorted.chunks(16).map(|batch| recorded(&BatchWork::of(batch.iter().copied()))).sum();
    let offline = TEXTS.len() as f64 / offline;
    let text = |random: &mut fastrand::Rng| f64::from(TEXTS[random.usize(..TEXTS.len())]);
    let [learned, full, single] = LOOP.rates(text, |work, _| recorded(work));
    assert!(learned > 2.0 * full && learned > 1.15 * single, "{learned} {full} {single}");
    assert!(learned > 0.95 * offline, "{learned} {offline}");
}

#[test]
fn little_time_passes_until_batches_are_better() {
    let time = |work: &BatchWork, _| 0.002 + 20e-6 * work.padded();
    let [learned, full, _] = Loop { batches: 30, ..LOOP }.rates(lengths, time);
    assert!(learned > 1.3 * full, "{learned} {full}");
}

#[test]
fn images_of_two_sizes_are_batched_by_size() {
    let sizes = |random: &mut fastrand::Rng| if random.bool() { 10_000.0 } else { 90_000.0 };
    let time = |work: &BatchWork, _| 0.005 + 1e-7 * work.padded();
    let [learned, full, single] = LOOP.rates(sizes, time);
    assert!(learned > 1.3 * full && learned > 1.3 * single, "{learned} {full} {single}");
}

#[test]
fn a_model_whose_time_does_not_depend_on_the_batch_has_full_ones() {
    let [learned, full, _] = LOOP.rates(lengths, |_, _| 0.02);
    assert!(learned > 0.98 * full, "{learned} {full}");
}

#[test]
fn a_model_without_padding_has_full_batches() {
    let time = |work: &BatchWork, _| 0.004 + 20e-6 * work.sum;
    let [learned, full, _] = LOOP.rates(lengths, time);
    assert!(learned > 0.98 * full, "{learned} {full}");
    let mut model = BatchModel::adaptive();
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..100 {
        let work = BatchWork::of((0..16).map(|_| lengths(&mut random)));
        model.observe(&work, 16, Duration::from_secs_f64(time(&work, 0)));
    }
    assert_eq!(model.basis(), Basis::Sum);
    assert!(!model.chooses(), "no trial is left over");
}

#[test]
fn batches_end_before_a_cliff() {
    let time =
        |work: &BatchWork, _| 0.001 * work.jobs as f64 + if work.jobs > 8 { 0.02 } else { 0.002 };
    let [learned, full, single] = LOOP.rates(|_| 100.0, time);
    assert!(learned > 1.7 * full && learned > 1.5 * single, "{learned} {full} {single}");
}

#[test]
fn jobs_are_computed_alone_where_batches_lose() {
    let time = |work: &BatchWork, _| 0.001 * (work.jobs as f64).powf(1.3);
    let [learned, full, single] = Loop { batches: 20_000, ..LOOP }.rates(|_| 100.0, time);
    assert!(learned > 0.97 * single && learned > 2.0 * full, "{learned} {full} {single}");
}

#[test]
fn a_model_that_changes_is_learned_anew() {
    let time = |work: &BatchWork, batch: usize| match batch {
        ..1000 => 0.02,
        _ => 0.002 + 20e-6 * work.padded(),
    };
    let [learned, full, _] = LOOP.rates(lengths, time);
    assert!(learned > 1.3 * full, "{learned} {full}");
}

proptest! {
    #[test]
    fn a_batch_respects_every_limit_whatever_was_learned(
        observed in prop::collection::vec((1usize..20, 1.0f64..1e6, 0.0f64..10.0), 0..200),
        sizes in prop::collection::vec(1.0f64..1e6, 0..200),
        max_jobs in 1usize..40,
    ) {
        let mut model = BatchModel::adaptive();
        for (jobs, size, seconds) in observed {
            let work = BatchWork::of(std::iter::repeat_n(size, jobs.min(max_jobs)));
            model.observe(&work, max_jobs, Duration::from_secs_f64(seconds));
            let most = model.most_jobs(max_jobs);
            prop_assert!((1..=max_jobs).contains(&most));
        }
        let batch = model.choose(&sizes, max_jobs, f64::INFINITY);
        prop_assert!(batch.len() <= model.most_jobs(max_jobs));
        prop_assert!(batch.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(batch.first().copied(), (!sizes.is_empty()).then_some(0));
    }
}
