//! A day of requests for six models.

use fastrand::Rng;

pub(super) const MODELS: usize = 6;

/// A day, in seconds.
const DAY: f64 = 86_400.0;

/// The mean time between two requests, in seconds.
const GAP: f64 = 2.0;

/// A set of models: a bit for each of them.
pub(super) type Set = usize;

/// The models, and the requests for them.
pub(super) struct Trace {
    /// The bytes of each model: 0.2 to 1.5 GB.
    pub(super) bytes: [u64; MODELS],
    /// The time to load each model: 0.3 to 3 s.
    pub(super) reload: [f64; MODELS],
    /// The memory for models: that of three of the mean size.
    pub(super) budget: u64,
    /// The probabilities of the models before and after the middle of the day.
    pub(super) shares: [[f64; MODELS]; 2],
    /// The instant in seconds, and the model, of each request.
    pub(super) requests: Vec<(f64, usize)>,
}

impl Trace {
    /// Returns a day with this Zipf exponent. With a shift the popularity of the models is another one from the
    /// middle of the day.
    pub(super) fn day(exponent: f64, has_shift: bool, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let spread = |from: f64, to: f64, random: &mut Rng| {
            let mut values: [f64; MODELS] =
                std::array::from_fn(|i| from + (to - from) * i as f64 / (MODELS - 1) as f64);
            random.shuffle(&mut values);
            values
        };
        let gigabytes = spread(0.2, 1.5, &mut random);
        let reload = spread(0.3, 3.0, &mut random);
        let before = zipf(exponent, &mut random);
        let after = if has_shift { zipf(exponent, &mut random) } else { before };
        let mut trace = Self {
            bytes: gigabytes.map(|it| (it * 1e9) as u64),
            reload,
            budget: (gigabytes.iter().sum::<f64>() / MODELS as f64 * 3.0 * 1e9) as u64,
            shares: [before, after],
            requests: Vec::new(),
        };
        let mut now = 0.0;
        loop {
            now -= GAP * (1.0 - random.f64()).ln();
            if now > DAY {
                return trace;
            }
            trace.requests.push((now, draw(&trace.shares[half(now)], random.f64())));
        }
    }

    pub(super) fn fits(&self, set: Set) -> bool {
        members(set).map(|model| self.bytes[model]).sum::<u64>() <= self.budget
    }

    /// Returns the sets after a load of `model`: that of all others which may stay.
    pub(super) fn after_load(&self, set: Set, model: usize) -> impl Iterator<Item = Set> {
        let all = (0..1 << MODELS).filter(move |kept| kept & !set == 0);
        all.map(move |kept| kept | 1 << model).filter(|set| self.fits(*set))
    }
}

/// Returns the half of the day: 0 or 1.
pub(super) fn half(now: f64) -> usize {
    usize::from(now > DAY / 2.0)
}

pub(super) fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..MODELS).filter(move |model| set >> model & 1 == 1)
}

fn zipf(exponent: f64, random: &mut Rng) -> [f64; MODELS] {
    let mut shares: [f64; MODELS] = std::array::from_fn(|rank| (rank as f64 + 1.0).powf(-exponent));
    let sum: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
    random.shuffle(&mut shares);
    shares
}

fn draw(shares: &[f64; MODELS], mut at: f64) -> usize {
    for (model, share) in shares.iter().enumerate() {
        at -= share;
        if at < 0.0 {
            return model;
        }
    }
    MODELS - 1
}
