//! Whether calls wait for each other, as pure functions over the [`State`].
//!
//! A call is *stuck* if no order of events lets it end: the greatest set of calls in which each waits
//! for others of the set only. It ends if hooks return and jobs are dispatched; deaths of workers and
//! deadlines are no hope.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use litplex_core::CallId;

use super::state::{BlockedPlace, Call, Caller, Progress, Queue, QueueKey, State, Worker};

/// The depth of the quick search, before the whole state around a call is examined.
const QUICK_DEPTH: usize = 32;

/// The most names in a chain of calls.
const LONGEST_CHAIN: usize = 12;

/// Calls that wait for each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deadlock {
    /// The newest of them.
    pub(super) newest: CallId,
    /// The calls from the one that `newest` waits for up to `newest`, as `/a#0 → /b#0 → /a`.
    pub(super) chain: String,
}

/// Returns a deadlock, if one of these calls is stuck. In a state that had no stuck call before an
/// event, the event can have closed a deadlock only with the calls that it concerns.
pub(super) fn find(state: &State, concerned: &[CallId]) -> Option<Deadlock> {
    let mut known = HashMap::new();
    let surely_moves = |id: &CallId| surely_moves(state, *id, &mut known, 0);
    if concerned.iter().all(surely_moves) {
        return None;
    }
    let stuck = stuck_calls(state, concerned, Hope::Starts);
    let first = concerned.iter().find(|id| stuck.contains(id))?;
    let knot = knot(state, &stuck, *first);
    let newest = *knot.iter().max()?;
    Some(Deadlock { newest, chain: chain(state, &knot, newest) })
}

/// Returns the number of workers of a queue, if a call in it is stuck unless a worker starts; otherwise 0.
pub(super) fn stuck_workers(state: &State, key: QueueKey) -> usize {
    let Some(queue) = state.queues.get(&key) else { return 0 };
    if queue.has_open_worker() || queue.workers.is_empty() {
        return 0;
    }
    let queued = state.queued(key);
    let stuck = stuck_calls(state, &queued, Hope::Workers);
    if queued.iter().any(|id| stuck.contains(id)) { queue.workers.len() } else { 0 }
}

/// Returns the names of the endpoints whose hooks are blocked in calls that wait in a queue, directly or over
/// other calls.
pub(super) fn blocked_callers(state: &State, key: QueueKey) -> Vec<Arc<str>> {
    let (mut names, mut seen) = (BTreeSet::new(), HashSet::new());
    let mut calls = state.queued(key);
    while let Some(id) = calls.pop() {
        let Some(call) = state.calls.get(&id).filter(|_| seen.insert(id)) else { continue };
        match &call.caller {
            Caller::Client => {}
            Caller::Call(parent) => calls.push(*parent),
            Caller::Hook(worker, _) if call.waits => {
                let queue = state.workers.get(worker).and_then(|it| state.queues.get(&it.queue));
                names.extend(queue.map(|queue| queue.name.clone()));
                let is_held =
                    |call: &Call| matches!(call.progress, Progress::Held(by, _) if by == *worker);
                let held = state.calls.iter().filter(|(_, call)| is_held(call));
                calls.extend(held.map(|(id, _)| *id));
            }
            Caller::Hook(..) => {}
        }
    }
    names.into_iter().collect()
}

/// The events that may bring calls on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hope {
    /// The events of the workers that there are.
    Workers,
    /// These events, and starts of workers as far as endpoints may have more.
    Starts,
}

/// Returns whether a call can end, given which other calls can.
fn can_end(state: &State, call: &Call, hope: Hope, mut ends: impl FnMut(CallId) -> bool) -> bool {
    let mut moves = |place: &BlockedPlace| place.waits.iter().all(|wait| ends(*wait));
    match call.progress {
        Progress::InServer => call.stages.iter().all(|stage| ends(*stage)),
        Progress::Queued => {
            // Without the queue, its jobs are refused.
            let Some(queue) = state.queues.get(&call.callee) else { return true };
            let may_start = match hope {
                Hope::Starts => queue.may_start_workers(),
                Hope::Workers => queue.workers.is_empty(),
            };
            let mut workers = queue.workers.iter().map(|key| &state.workers[key]);
            let mut before = state.workers_before(queue);
            queue.has_open_worker()
                || (may_start && before.all(|worker| worker.blocked_places().all(&mut moves)))
                || workers.any(|worker| worker.blocked_places().any(&mut moves))
        }
        Progress::Held(worker, item) => match state.workers.get(&worker) {
            // The worker was lost: the call is queued again or ends.
            None => true,
            Some(worker) => match worker.blocked_place(item) {
                Some(place) => moves(place),
                None => worker.has_free_place() || worker.blocked_places().any(&mut moves),
            },
        },
    }
}

/// Returns whether a call can end, as far as a short search shows. A call that is already on the way
/// counts as one that cannot.
fn surely_moves(
    state: &State,
    id: CallId,
    known: &mut HashMap<CallId, bool>,
    depth: usize,
) -> bool {
    let Some(call) = state.calls.get(&id) else { return true };
    if let Some(moves) = known.get(&id) {
        return *moves;
    }
    if depth == QUICK_DEPTH {
        return false;
    }
    known.insert(id, false);
    let moves =
        can_end(state, call, Hope::Starts, |wait| surely_moves(state, wait, known, depth + 1));
    known.insert(id, moves);
    moves
}

/// Returns the stuck calls among these calls and all that they wait for.
fn stuck_calls(state: &State, from: &[CallId], hope: Hope) -> HashSet<CallId> {
    let order = reachable(from, |id| waits_of(state, id));
    let mut stuck: HashSet<_> = order.iter().copied().collect();
    loop {
        let before = stuck.len();
        // Backwards: first the calls that others wait for.
        for id in order.iter().rev() {
            if stuck.contains(id)
                && can_end(state, &state.calls[id], hope, |wait| !stuck.contains(&wait))
            {
                stuck.remove(id);
            }
        }
        if stuck.len() == before {
            return stuck;
        }
    }
}

/// Returns the calls that must move before a call does: all of them, or one of them.
fn waits_of(state: &State, id: CallId) -> Vec<CallId> {
    let Some(call) = state.calls.get(&id) else { return Vec::new() };
    let mut waits = Vec::new();
    let mut visit = |place: &BlockedPlace| waits.extend_from_slice(&place.waits);
    match call.progress {
        Progress::InServer => return call.stages.clone(),
        Progress::Queued => {
            let Some(queue) = state.queues.get(&call.callee) else { return waits };
            let workers = queue.workers.iter().map(|key| &state.workers[key]);
            let workers = workers.chain(state.workers_before(queue));
            workers.flat_map(Worker::blocked_places).for_each(visit);
        }
        Progress::Held(worker, item) => {
            if let Some(worker) = state.workers.get(&worker) {
                match worker.blocked_place(item) {
                    Some(place) => visit(place),
                    None => worker.blocked_places().for_each(visit),
                }
            }
        }
    }
    waits
}

/// Returns a knot that `from` waits for: stuck calls each of which waits, over others, for each, and for
/// no call outside. As long as none of a knot is refused, none of it moves; the stuck calls outside
/// wait behind knots.
fn knot(state: &State, stuck: &HashSet<CallId>, from: CallId) -> HashSet<CallId> {
    let waits = |id| waits_of(state, id).into_iter().filter(|wait| stuck.contains(wait));
    let mut from = from;
    loop {
        let ahead = reachable(&waits(from).collect::<Vec<_>>(), waits);
        let leads_back = leading_to(from, &ahead, waits);
        match ahead.iter().find(|id| !leads_back.contains(id)) {
            // From there, fewer calls can be reached: `from` cannot.
            Some(id) => from = *id,
            None => return leads_back,
        }
    }
}

/// Returns `to` and those of these calls that wait for it, over each other.
fn leading_to<I: Iterator<Item = CallId>>(
    to: CallId,
    calls: &[CallId],
    waits: impl Fn(CallId) -> I,
) -> HashSet<CallId> {
    let mut waiting: HashMap<CallId, Vec<CallId>> = HashMap::new();
    for id in calls {
        waits(*id).for_each(|wait| waiting.entry(wait).or_default().push(*id));
    }
    let leading = reachable(&[to], |id| waiting.get(&id).cloned().unwrap_or_default());
    leading.into_iter().collect()
}

/// Returns the calls that can be reached from these, with them, the nearest first.
fn reachable<I: IntoIterator<Item = CallId>>(
    from: &[CallId],
    next: impl Fn(CallId) -> I,
) -> Vec<CallId> {
    let mut seen: HashSet<_> = from.iter().copied().collect();
    let mut order = from.to_vec();
    let mut at = 0;
    while at < order.len() {
        order.extend(next(order[at]).into_iter().filter(|id| seen.insert(*id)));
        at += 1;
    }
    order
}

/// Returns the text of a way through a knot from a call back to it: each place that waits, and at the end
/// the callee of `newest`. Where the call's own callers lead there, the text follows them.
fn chain(state: &State, knot: &HashSet<CallId>, newest: CallId) -> String {
    let calls = own_cycle(state, knot, newest).unwrap_or_else(|| cycle(state, knot, newest));
    let mut names: Vec<_> = calls.iter().map(|id| caller_name(state, *id)).collect();
    names.push(endpoint_name(state, state.calls[&newest].callee));
    let left_out = names.len().saturating_sub(LONGEST_CHAIN);
    if left_out > 0 {
        let middle = LONGEST_CHAIN / 2;
        names.splice(middle..middle + left_out, [format!("… {left_out} more …")]);
    }
    names.join(" → ")
}

/// Returns a call with the calls for which it is made, up to the first that a hook of its callee makes.
fn own_cycle(state: &State, knot: &HashSet<CallId>, newest: CallId) -> Option<Vec<CallId>> {
    let mut calls = vec![newest];
    while let Some(parent) = parent_of(state, knot, calls[calls.len() - 1]) {
        calls.push(parent);
    }
    let callee = state.calls[&newest].callee;
    let is_of_callee = |id: &CallId| match &state.calls[id].caller {
        Caller::Hook(worker, _) => {
            state.workers.get(worker).is_some_and(|worker| worker.queue == callee)
        }
        _ => false,
    };
    let last = calls.iter().rposition(is_of_callee)?;
    calls.truncate(last + 1);
    calls.reverse();
    Some(calls)
}

/// Returns the call of a knot for which another one is made.
fn parent_of(state: &State, knot: &HashSet<CallId>, id: CallId) -> Option<CallId> {
    match &state.calls[&id].caller {
        Caller::Client => None,
        Caller::Call(parent) => Some(*parent).filter(|parent| knot.contains(parent)),
        Caller::Hook(worker, items) => {
            let is_parent = |id: &&CallId| match state.calls[*id].progress {
                Progress::Held(holder, item) => holder == *worker && items.contains(&item),
                _ => false,
            };
            knot.iter().filter(is_parent).min().copied()
        }
    }
}

/// Returns the calls of the shortest cycle through a call, which comes last.
fn cycle(state: &State, knot: &HashSet<CallId>, through: CallId) -> Vec<CallId> {
    let mut before: HashMap<CallId, CallId> = HashMap::new();
    let mut queue = VecDeque::from([through]);
    while let Some(id) = queue.pop_front() {
        for wait in waits_of(state, id).into_iter().filter(|wait| knot.contains(wait)) {
            before.entry(wait).or_insert_with(|| {
                queue.push_back(wait);
                id
            });
        }
        if before.contains_key(&through) {
            break;
        }
    }
    let mut calls = vec![through];
    while let Some(id) = before.get(&calls[calls.len() - 1]).filter(|id| **id != through) {
        calls.push(*id);
    }
    calls.reverse();
    calls
}

/// Returns the name of the place that waits for a call: `/a#0`, or `/search` for a pipeline.
fn caller_name(state: &State, id: CallId) -> String {
    match &state.calls[&id].caller {
        Caller::Client => "a client".to_owned(),
        Caller::Call(parent) => match state.calls.get(parent) {
            Some(parent) => endpoint_name(state, parent.callee),
            None => "a client".to_owned(),
        },
        Caller::Hook(worker, _) => match state.workers.get(worker) {
            Some(worker) => format!("{}#{}", endpoint_name(state, worker.queue), worker.slot),
            None => "a worker".to_owned(),
        },
    }
}

fn endpoint_name(state: &State, queue: QueueKey) -> String {
    let name = |queue: &Queue| queue.name.to_string();
    state.queues.get(&queue).map_or_else(|| "an endpoint".to_owned(), name)
}
