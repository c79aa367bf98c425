//! The rules of other servers, which serve requests in their order and load at once.

use super::trace::{MODELS, Set, Trace, members};

/// The time after which Ollama unloads an idle model, in seconds.
const OLLAMA_KEEP_ALIVE: f64 = 300.0;

/// Returns the reload seconds of the rule that evicts what was used the longest time ago.
pub(super) fn lru(trace: &Trace) -> f64 {
    let mut used = [0.0; MODELS];
    run(trace, |now, model, is_hit, set| match (is_hit, set) {
        (Some(_), set) => {
            used[model] = now;
            set
        }
        (None, set) => without_least(set, &used),
    })
}

/// Returns the reload seconds of Ollama's rule: idle models first, of these the shortest keep-alive, of equal ones
/// the first by name. A model without a request for 5 minutes is unloaded.
pub(super) fn ollama(trace: &Trace) -> f64 {
    let mut used = [0.0; MODELS];
    let name: [f64; MODELS] = std::array::from_fn(|model| model as f64);
    run(trace, |now, model, is_hit, set| match is_hit {
        Some(_) => {
            used[model] = now;
            members(set)
                .filter(|other| now - used[*other] > OLLAMA_KEEP_ALIVE)
                .fold(set, |set, other| set & !(1 << other))
        }
        None => without_least(set, &name),
    })
}

/// Returns the reload seconds of GreedyDual-Size-Frequency as published: `H = L + frequency * cost / size` at
/// each use, and `L` becomes the H of each victim. The frequency counts since the load.
pub(super) fn gdsf(trace: &Trace) -> f64 {
    let (mut level, mut h, mut count) = (0.0, [0.0; MODELS], [0.0; MODELS]);
    run(trace, |_, model, is_hit, set| match is_hit {
        Some(is_hit) => {
            count[model] = if is_hit { count[model] + 1.0 } else { 1.0 };
            h[model] = level + count[model] * trace.reload[model] / trace.bytes[model] as f64;
            set
        }
        None => {
            let after = without_least(set, &h);
            level = members(set & !after).map(|victim| h[victim]).fold(level, f64::max);
            after
        }
    })
}

/// Serves the requests. The rule is told of each use, with whether it was a hit, and asked for a smaller set while
/// a model does not fit.
fn run(trace: &Trace, mut rule: impl FnMut(f64, usize, Option<bool>, Set) -> Set) -> f64 {
    let (mut set, mut cost) = (0, 0.0);
    for (now, model) in trace.requests.iter().copied() {
        let is_hit = set >> model & 1 == 1;
        if !is_hit {
            cost += trace.reload[model];
            while !trace.fits(set | 1 << model) {
                set = rule(now, model, None, set);
            }
            set |= 1 << model;
        }
        set = rule(now, model, Some(is_hit), set);
    }
    cost
}

fn without_least(set: Set, values: &[f64; MODELS]) -> Set {
    let least = members(set).min_by(|a, b| values[*a].total_cmp(&values[*b]));
    least.map_or(set, |victim| set & !(1 << victim))
}
