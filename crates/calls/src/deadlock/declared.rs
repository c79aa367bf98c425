//! Cycles among the calls that endpoints declare, and the number of requests for which they are safe.
//!
//! A request that goes round a cycle once holds a place of the endpoint where it entered while it waits
//! for another place of it. Of every other endpoint it needs one place at a time. So N requests that are
//! inside at once cannot wait for each other if each endpoint where they enter has N + 1 places: of
//! each endpoint, all requests that still wait hold at most one place, N together, and one is left.

use std::collections::HashMap;
use std::fmt;

/// The most cycles that are returned.
const MOST_CYCLES: usize = 20;

/// The most steps of the search. Endpoints that nearly all call each other have a number of cycles that no
/// list can hold.
const MOST_STEPS: usize = 100_000;

/// An endpoint, and the calls that it declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredCalls {
    /// The name of the endpoint, as chains of calls have it.
    pub endpoint: String,
    /// The names of the endpoints that it calls.
    pub callees: Vec<String>,
    /// The most hooks that it runs at once: its workers × `max_concurrency`; `None` for a pipeline, which
    /// needs no place.
    pub places: Option<usize>,
}

/// Endpoints that call each other in a circle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredCycle {
    /// The endpoints in the order of their calls; the last one calls the first.
    pub endpoints: Vec<String>,
    /// The endpoint with the fewest places, and their number; `None` if all are pipelines.
    fewest_places: Option<(String, usize)>,
}

impl DeclaredCycle {
    /// Returns the number of requests that may be inside the cycle at once without a deadlock, if each
    /// goes round once; `None` without a limit.
    pub fn safe_requests(&self) -> Option<usize> {
        self.fewest_places.as_ref().map(|(_, places)| places.saturating_sub(1))
    }
}

impl fmt::Display for DeclaredCycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.endpoints.first().map(String::as_str).unwrap_or_default();
        write!(f, "cycle of calls `{} → {first}`: ", self.endpoints.join(" → "))?;
        let Some((fewest, places)) = &self.fewest_places else {
            return f.write_str("these pipelines call each other without an end");
        };
        match places {
            0 | 1 => write!(
                f,
                "`{fewest}` computes one request at a time, so that a request which enters there and \
                 comes back waits for itself and is refused with 508; give it 2 workers for one such \
                 request at a time"
            )?,
            _ => write!(
                f,
                "`{fewest}` computes {places} requests at a time, which is safe for {} inside the cycle \
                 at once; more can wait for each other, and then one is refused with 508",
                places - 1
            )?,
        }
        f.write_str(
            ". N requests at once that go round once need N + 1 places (workers × `max_concurrency`) at \
             each endpoint where they enter; each further round needs N more at each endpoint",
        )
    }
}

/// Returns the elementary cycles among declared calls: each without a part that is a cycle itself, and at
/// most 20. Callees that are not among the endpoints are left out.
pub fn declared_cycles(declared: &[DeclaredCalls]) -> Vec<DeclaredCycle> {
    let index: HashMap<_, _> =
        declared.iter().enumerate().map(|(at, calls)| (calls.endpoint.as_str(), at)).collect();
    let callees = |calls: &DeclaredCalls| {
        let mut callees: Vec<_> =
            calls.callees.iter().filter_map(|name| index.get(name.as_str()).copied()).collect();
        callees.sort_unstable();
        callees.dedup();
        callees
    };
    let graph: Vec<_> = declared.iter().map(callees).collect();
    let mut search = Search { graph, steps: 0, path: Vec::new(), cycles: Vec::new() };
    for first in 0..declared.len() {
        search.path = vec![first];
        search.extend();
    }
    search.cycles.iter().map(|cycle| describe(declared, cycle)).collect()
}

fn describe(declared: &[DeclaredCalls], cycle: &[usize]) -> DeclaredCycle {
    let places = |at: &usize| declared[*at].places.map(|places| (places, *at));
    let fewest = cycle.iter().filter_map(places).min();
    DeclaredCycle {
        endpoints: cycle.iter().map(|at| declared[*at].endpoint.clone()).collect(),
        fewest_places: fewest.map(|(places, at)| (declared[at].endpoint.clone(), places)),
    }
}

/// A search in depth for the cycles whose first endpoint in order is the first of the path.
struct Search {
    graph: Vec<Vec<usize>>,
    steps: usize,
    path: Vec<usize>,
    cycles: Vec<Vec<usize>>,
}

impl Search {
    fn extend(&mut self) {
        let (first, last) = (self.path[0], self.path[self.path.len() - 1]);
        for at in 0..self.graph[last].len() {
            self.steps += 1;
            if self.steps > MOST_STEPS || self.cycles.len() == MOST_CYCLES {
                return;
            }
            let next = self.graph[last][at];
            if next == first {
                self.cycles.push(self.path.clone());
            } else if next > first && !self.path.contains(&next) {
                self.path.push(next);
                self.extend();
                self.path.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Deadlocks, Parent, Reads, WatchedCall};
    use super::*;

    fn calls(endpoint: &str, callees: &[&str], places: impl Into<Option<usize>>) -> DeclaredCalls {
        let callees = callees.iter().map(ToString::to_string).collect();
        DeclaredCalls { endpoint: endpoint.to_owned(), callees, places: places.into() }
    }

    fn names(declared: &[DeclaredCalls]) -> Vec<String> {
        let cycles = declared_cycles(declared);
        cycles.iter().map(|cycle| cycle.endpoints.join(" ")).collect()
    }

    #[test]
    fn each_elementary_cycle_is_found_once() {
        let declared = [
            calls("a", &["b", "c", "elsewhere"], 1),
            calls("b", &["a", "c", "b"], 1),
            calls("c", &["a", "d"], 1),
            calls("d", &[], 1),
        ];
        assert_eq!(names(&declared), ["a b", "a b c", "a c", "b"]);
        assert_eq!(names(&declared[2..]), Vec::<String>::new());
    }

    #[test]
    fn endpoints_that_all_call_each_other_give_a_short_list() {
        let all: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let declared: Vec<_> = all.iter().map(|name| calls(name, &all, 1)).collect();
        assert_eq!(names(&declared).len(), MOST_CYCLES);
    }

    #[test]
    fn the_sentence_names_the_endpoint_with_the_fewest_places() {
        let text = |a: Option<usize>, b: Option<usize>| {
            declared_cycles(&[calls("/a", &["/b"], a), calls("/b", &["/a"], b)])[0].to_string()
        };
        let one = text(Some(64), Some(1));
        assert!(
            one.starts_with("cycle of calls `/a → /b → /a`: `/b` computes one request"),
            "{one}"
        );
        let three = text(Some(3), None);
        assert!(
            three.contains("`/a` computes 3 requests at a time, which is safe for 2"),
            "{three}"
        );
        assert!(text(None, None).ends_with("without an end"));
    }

    /// A request that goes round a cycle: it enters an endpoint, and each hook calls the next endpoint.
    struct Request {
        entry: usize,
        calls: Vec<WatchedCall>,
        /// The items of its places.
        items: Vec<u64>,
        waits: bool,
    }

    /// Returns whether N requests that go `rounds` times round a cycle of endpoints with these places
    /// have a deadlock.
    fn has_deadlock(
        seed: u64,
        length: usize,
        requests: usize,
        rounds: usize,
        places: usize,
    ) -> bool {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut below = |bound: usize| random.usize(..bound);
        let deadlocks = Deadlocks::new();
        let queues: Vec<_> = (0..length).map(|_| deadlocks.watch("", 1)).collect();
        let workers: Vec<_> = queues.iter().map(|queue| queue.attached(0, places)).collect();
        let mut free = vec![places; length];
        let new = |entry| Request { entry, calls: Vec::new(), items: Vec::new(), waits: true };
        let mut requests: Vec<_> = (0..requests).map(|_| new(below(length))).collect();
        let mut item = 0;
        while !requests.is_empty() {
            let at = below(requests.len());
            let Request { entry, calls, items, waits } = &mut requests[at];
            let endpoint = |level: usize| (*entry + level) % length;
            if *waits {
                let endpoint = endpoint(items.len());
                if free[endpoint] > 0 {
                    (free[endpoint], item, *waits) = (free[endpoint] - 1, item + 1, false);
                    items.push(item);
                    if let Some(call) = calls.last() {
                        deadlocks.held(call.id(), workers[endpoint], item);
                    }
                }
            } else if items.len() <= rounds * length {
                let (caller, callee) = (endpoint(items.len() - 1), endpoint(items.len()));
                let parent = Parent::Hook(workers[caller], &items[items.len() - 1..]);
                calls.push(queues[callee].begin(parent, Reads::Whole, true));
                *waits = true;
            } else {
                (0..items.len()).for_each(|level| free[endpoint(level)] += 1);
                requests.remove(at);
            }
            let mut calls = requests.iter_mut().flat_map(|request| &mut request.calls);
            if calls.any(|call| call.try_refused().is_some()) {
                return true;
            }
        }
        false
    }

    #[test]
    fn the_number_of_places_in_the_sentence_is_enough_and_one_less_is_not() {
        for (length, requests, rounds) in
            [(1, 1, 1), (1, 3, 1), (2, 1, 1), (2, 2, 1), (2, 3, 1), (3, 3, 1), (1, 2, 2), (2, 2, 2)]
        {
            let any =
                |places| (0..2000).any(|seed| has_deadlock(seed, length, requests, rounds, places));
            let enough = rounds * requests + 1;
            assert!(!any(enough), "{requests} requests, {length} endpoints, {enough} places");
            assert!(any(requests), "{requests} requests, {length} endpoints");
        }
    }
}
