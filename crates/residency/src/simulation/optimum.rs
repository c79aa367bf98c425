//! The least reload seconds of a day: with the whole future known, and with the true rates known.

use super::trace::{MODELS, Set, Trace, half};

const SETS: usize = 1 << MODELS;

/// Returns the reload seconds of the best rule that knows every future request, and serves them in their order:
/// a dynamic programme over the sets of models, request by request.
pub(super) fn clairvoyant(trace: &Trace) -> f64 {
    let after: Vec<Vec<Vec<Set>>> = successors(trace);
    let mut costs = [f64::INFINITY; SETS];
    costs[0] = 0.0;
    for (_, model) in &trace.requests {
        let mut next = [f64::INFINITY; SETS];
        for set in (0..SETS).filter(|set| costs[*set].is_finite()) {
            if set >> model & 1 == 1 {
                next[set] = next[set].min(costs[set]);
            } else {
                for to in &after[set][*model] {
                    next[*to] = next[*to].min(costs[set] + trace.reload[*model]);
                }
            }
        }
        costs = next;
    }
    costs.into_iter().fold(f64::INFINITY, f64::min)
}

/// Returns the reload seconds of the best rule that knows the true rates, and not the future: the policy of an
/// average-cost Markov decision process over the sets, run on the same requests. Under a shift it knows the
/// new rates at once.
pub(super) fn informed(trace: &Trace) -> f64 {
    let after = successors(trace);
    let values = [0, 1].map(|half| relative_values(trace, &trace.shares[half], &after));
    let (mut set, mut cost) = (0, 0.0);
    for (now, model) in &trace.requests {
        if set >> model & 1 == 0 {
            cost += trace.reload[*model];
            let values = &values[half(*now)];
            let choices = after[set][*model].iter().copied();
            set =
                choices.min_by(|a, b| values[*a].total_cmp(&values[*b])).expect("each model fits");
        }
    }
    cost
}

/// Returns the relative value of each set under independent references: relative value iteration.
fn relative_values(trace: &Trace, shares: &[f64], after: &[Vec<Vec<Set>>]) -> [f64; SETS] {
    let mut values = [0.0; SETS];
    loop {
        let mut next = [0.0; SETS];
        for set in (0..SETS).filter(|set| trace.fits(*set)) {
            for (model, share) in shares.iter().enumerate() {
                next[set] += share
                    * if set >> model & 1 == 1 {
                        values[set]
                    } else {
                        let choices = after[set][model].iter().map(|to| values[*to]);
                        trace.reload[model] + choices.fold(f64::INFINITY, f64::min)
                    };
            }
        }
        let base = next[0];
        next.iter_mut().for_each(|value| *value -= base);
        // A set that does not fit is reached by no load.
        (0..SETS).filter(|set| !trace.fits(*set)).for_each(|set| next[set] = 0.0);
        let change = (0..SETS).map(|set| (next[set] - values[set]).abs()).fold(0.0, f64::max);
        values = next;
        if change < 1e-9 {
            return values;
        }
    }
}

/// Returns the sets that each set may become with the load of each model.
fn successors(trace: &Trace) -> Vec<Vec<Vec<Set>>> {
    let models = |set| (0..MODELS).map(|model| trace.after_load(set, model).collect()).collect();
    (0..SETS).map(models).collect()
}
