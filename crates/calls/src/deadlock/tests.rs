//! Deadlocks of known shape, told to the detector event by event.

use litplex_core::WorkerKey;

use super::{Deadlocks, Parent, Reads, WatchedCall, WatchedQueue};

fn chain(call: &mut WatchedCall) -> Option<String> {
    call.try_refused().map(|refusal| refusal.chain)
}

/// Returns an endpoint with this many workers and no room for more.
fn endpoint(
    deadlocks: &Deadlocks,
    name: &str,
    workers: usize,
    places: usize,
) -> (WatchedQueue, Vec<WorkerKey>) {
    let queue = deadlocks.watch(name, workers);
    let workers = (0..workers).map(|slot| queue.attached(slot, places)).collect();
    (queue, workers)
}

#[test]
fn a_hook_that_calls_the_only_worker_it_is_in_is_refused_at_once() {
    let deadlocks = Deadlocks::new();
    let (a, workers) = endpoint(&deadlocks, "/a", 1, 1);
    let mut call = a.begin(Parent::Hook(workers[0], &[7]), Reads::Whole, true);
    assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /a"));
}

#[test]
fn a_call_that_another_worker_can_take_is_not_refused() {
    let deadlocks = Deadlocks::new();
    let (a, workers) = endpoint(&deadlocks, "/a", 2, 1);
    let mut first = a.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut first), None);
    deadlocks.held(first.id(), workers[1], 1);
    let mut second = a.begin(Parent::Hook(workers[1], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut second).as_deref(), Some("/a#0 → /a#1 → /a"));
    assert_eq!(chain(&mut first), None, "the newest is refused alone");
    drop(second);
    deadlocks.ended(first.id());
    let mut third = a.begin(Parent::Hook(workers[1], &[2]), Reads::Whole, true);
    assert_eq!(chain(&mut third), None);
}

#[test]
fn endpoints_that_call_each_other_name_the_workers_that_wait() {
    let deadlocks = Deadlocks::new();
    let (a, a_workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (b, b_workers) = endpoint(&deadlocks, "/b", 1, 1);
    let mut outer = b.begin(Parent::Hook(a_workers[0], &[1]), Reads::Whole, true);
    deadlocks.held(outer.id(), b_workers[0], 5);
    let mut inner = a.begin(Parent::Hook(b_workers[0], &[5]), Reads::Whole, true);
    assert_eq!(chain(&mut inner).as_deref(), Some("/a#0 → /b#0 → /a"));
    assert_eq!(chain(&mut outer), None);
}

#[test]
fn an_idle_worker_of_an_endpoint_does_not_save_a_call_that_a_blocked_one_holds() {
    let deadlocks = Deadlocks::new();
    let (a, a_workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (b, b_workers) = endpoint(&deadlocks, "/b", 2, 1);
    let outer = b.begin(Parent::Hook(a_workers[0], &[1]), Reads::Whole, true);
    deadlocks.held(outer.id(), b_workers[0], 5);
    let mut inner = a.begin(Parent::Hook(b_workers[0], &[5]), Reads::Whole, true);
    assert_eq!(chain(&mut inner).as_deref(), Some("/a#0 → /b#0 → /a"));
}

#[test]
fn an_async_worker_is_stuck_when_its_last_place_waits() {
    let deadlocks = Deadlocks::new();
    let (a, workers) = endpoint(&deadlocks, "/a", 1, 3);
    let begin = |item| a.begin(Parent::Hook(workers[0], &[item]), Reads::Whole, true);
    let mut calls: Vec<_> = (0..3).map(begin).collect();
    let chains: Vec<_> = calls.iter_mut().map(chain).collect();
    assert_eq!(chains, [None, None, Some("/a#0 → /a".to_owned())]);
}

#[test]
fn a_later_call_counts_from_its_wait() {
    let deadlocks = Deadlocks::new();
    let (a, workers) = endpoint(&deadlocks, "/a", 1, 1);
    let mut call = a.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, false);
    assert_eq!(chain(&mut call), None);
    deadlocks.wait(call.id(), 0);
    assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /a"));
}

#[test]
fn a_call_that_waits_behind_a_knot_is_not_refused() {
    let deadlocks = Deadlocks::new();
    let (a, a_workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (b, b_workers) = endpoint(&deadlocks, "/b", 1, 1);
    let (_c, c_workers) = endpoint(&deadlocks, "/c", 1, 1);
    let outer = b.begin(Parent::Hook(a_workers[0], &[1]), Reads::Whole, true);
    deadlocks.held(outer.id(), b_workers[0], 1);
    let later = a.begin(Parent::Hook(b_workers[0], &[1]), Reads::Whole, false);
    // It is newer, and waits for /a only.
    let mut behind = a.begin(Parent::Hook(c_workers[0], &[1]), Reads::Whole, true);
    deadlocks.wait(later.id(), 0);
    let mut later = later;
    assert_eq!(chain(&mut later).as_deref(), Some("/a#0 → /b#0 → /a"));
    assert_eq!(chain(&mut behind), None);
}

#[test]
fn a_worker_that_can_start_is_waited_for_until_the_endpoint_may_have_fewer() {
    let deadlocks = Deadlocks::new();
    let a = deadlocks.watch("/a", 2);
    let worker = a.attached(0, 1);
    let mut call = a.begin(Parent::Hook(worker, &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut call), None);
    a.set_most_workers(1);
    assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /a"));
}

#[test]
fn the_loss_of_the_last_free_worker_closes_a_deadlock() {
    for is_lost in [true, false] {
        let deadlocks = Deadlocks::new();
        let (a, workers) = endpoint(&deadlocks, "/a", 2, 1);
        let mut call = a.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, true);
        a.set_most_workers(1);
        assert_eq!(chain(&mut call), None);
        match is_lost {
            true => deadlocks.gone(workers[1]),
            false => deadlocks.retiring(workers[1]),
        }
        assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /a"));
    }
}

#[test]
fn a_pipeline_hands_the_wait_of_its_stages_on() {
    let deadlocks = Deadlocks::new();
    let (a, workers) = endpoint(&deadlocks, "/a", 1, 1);
    let search = deadlocks.watch("/search", 0);
    let mut call = search.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, true);
    let mut stage = a.begin(Parent::Call(call.id()), Reads::Whole, true);
    assert_eq!(chain(&mut stage).as_deref(), Some("/a#0 → /search → /a"));
    assert_eq!(chain(&mut call), None);
}

#[test]
fn jobs_behind_a_blocked_hook_wait_with_it_and_those_of_a_lost_worker_do_not() {
    let deadlocks = Deadlocks::new();
    let (a, a_workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (b, b_workers) = endpoint(&deadlocks, "/b", 2, 1);
    let mut call = b.begin(Parent::Hook(a_workers[0], &[1]), Reads::Whole, true);
    // Another request of the same worker, ahead of the call, waits for /a.
    deadlocks.held(call.id(), b_workers[0], 2);
    let mut ahead = a.begin(Parent::Hook(b_workers[0], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut ahead).as_deref(), Some("/a#0 → /b#0 → /a"));
    drop(ahead);
    deadlocks.gone(b_workers[0]);
    deadlocks.requeued(call.id());
    assert_eq!(chain(&mut call), None);
}

/// A hook of /a that reads a stream of /b, whose hook then calls /a.
fn stream_that_calls_back(
    reads: Reads,
) -> (Deadlocks, [WatchedQueue; 2], WatchedCall, WatchedCall) {
    let deadlocks = Deadlocks::new();
    let (a, a_workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (b, b_workers) = endpoint(&deadlocks, "/b", 1, 1);
    let stream = b.begin(Parent::Hook(a_workers[0], &[1]), reads, true);
    deadlocks.held(stream.id(), b_workers[0], 1);
    deadlocks.add_part(stream.id());
    let call = a.begin(Parent::Hook(b_workers[0], &[1]), Reads::Whole, true);
    (deadlocks, [a, b], stream, call)
}

#[test]
fn a_hook_waits_for_the_next_part_of_a_stream_only_when_it_has_taken_all_that_came() {
    let (deadlocks, _queues, stream, mut call) = stream_that_calls_back(Reads::Parts);
    assert_eq!(chain(&mut call), None, "the hook of /a may return without the rest");
    deadlocks.wait(stream.id(), 0);
    assert_eq!(chain(&mut call), None, "the first part is on its way");
    deadlocks.wait(stream.id(), 1);
    assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /b#0 → /a"));
}

#[test]
fn a_hook_that_reads_a_stream_as_a_whole_waits_for_its_end() {
    let (_deadlocks, _queues, _stream, mut call) = stream_that_calls_back(Reads::Whole);
    assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /b#0 → /a"));
}

#[test]
fn a_stream_that_a_pipeline_relays_is_waited_for_through_it() {
    let deadlocks = Deadlocks::new();
    let (a, a_workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (b, b_workers) = endpoint(&deadlocks, "/b", 1, 1);
    let search = deadlocks.watch("/search", 0);
    let caller = Parent::Hook(a_workers[0], &[1]);
    let relayed = search.begin(caller, Reads::Parts, true);
    let stage = b.begin(Parent::Call(relayed.id()), Reads::Parts, true);
    deadlocks.held(stage.id(), b_workers[0], 1);
    deadlocks.add_part(stage.id());
    let caller = Parent::Hook(b_workers[0], &[1]);
    let mut call = a.begin(caller, Reads::Whole, true);
    deadlocks.wait(relayed.id(), 0);
    assert_eq!(chain(&mut call), None, "the server has not passed the part on");
    relayed.pass_part_on();
    stage.wait(1);
    assert_eq!(chain(&mut call), None, "the part is on its way to the hook");
    deadlocks.wait(relayed.id(), 1);
    assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /search → /b#0 → /a"));
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_waits() {
    let deadlocks = Deadlocks::new();
    let (a, workers) = endpoint(&deadlocks, "/a", 1, 1);
    let mut call = a.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, false);
    let (id, other) = (call.id(), deadlocks.clone());
    let wait = async { other.wait(id, 0) };
    let (refusal, ()) = tokio::join!(call.refused(), wait);
    let error = litplex_core::ServeError::from(refusal);
    assert_eq!(error.status(), 508);
    assert!(error.detail.contains("/a#0 → /a"), "{error}");
}

#[test]
fn workers_that_wait_for_a_call_in_their_own_queue_are_reported_stuck() {
    let deadlocks = Deadlocks::new();
    let a = deadlocks.watch("/a", 3);
    let (b, b_workers) = endpoint(&deadlocks, "/b", 1, 1);
    let worker = a.attached(0, 1);
    assert_eq!(a.stuck_workers(), 0);
    let outer = b.begin(Parent::Hook(worker, &[1]), Reads::Whole, true);
    deadlocks.held(outer.id(), b_workers[0], 1);
    assert_eq!(a.stuck_workers(), 0, "/b computes");
    let mut inner = a.begin(Parent::Hook(b_workers[0], &[1]), Reads::Whole, true);
    assert_eq!((chain(&mut inner), a.stuck_workers()), (None, 1));
    a.attached(1, 1);
    assert_eq!(a.stuck_workers(), 0);
}

#[test]
fn workers_of_another_generation_do_not_save_a_call() {
    let deadlocks = Deadlocks::new();
    let (old, workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (new, new_workers) = endpoint(&deadlocks, "/a", 1, 1);
    let mut to_new = new.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut to_new), None, "the new worker takes it");
    deadlocks.held(to_new.id(), new_workers[0], 1);
    let mut within = new.begin(Parent::Hook(new_workers[0], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut within).as_deref(), Some("/a#0 → /a"));
    // The generation that is rolled back has a call that goes back to the live one, which waits for it.
    let mut back = old.begin(Parent::Hook(new_workers[0], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut back).as_deref(), Some("/a#0 → /a#0 → /a"));
}

#[test]
fn a_call_that_another_generation_takes_over_waits_there() {
    let deadlocks = Deadlocks::new();
    let (live, workers) = endpoint(&deadlocks, "/a", 1, 1);
    let (canary, _) = endpoint(&deadlocks, "/a", 1, 1);
    let mut call = canary.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut call), None);
    live.take_over(call.id());
    assert_eq!(chain(&mut call).as_deref(), Some("/a#0 → /a"));
}

#[test]
fn a_call_of_a_generation_that_starts_in_place_waits_for_the_hooks_before_it() {
    let deadlocks = Deadlocks::new();
    let (old, workers) = endpoint(&deadlocks, "/a", 2, 1);
    let new = deadlocks.watch("/a", 2);
    new.start_after(&old);
    let mut first = new.begin(Parent::Client, Reads::Whole, true);
    assert_eq!(chain(&mut first), None, "the old workers finish");
    let mut own = new.begin(Parent::Hook(workers[0], &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut own).as_deref(), Some("/a#0 → /a"));
    drop(own);
    workers.iter().for_each(|worker| deadlocks.gone(*worker));
    drop(old);
    let worker = new.attached(0, 1);
    deadlocks.held(first.id(), worker, 1);
    let mut own = new.begin(Parent::Hook(worker, &[1]), Reads::Whole, true);
    assert_eq!(chain(&mut own), None, "a second worker may start");
}

#[test]
fn a_queue_is_watched_until_its_last_clone_is_dropped() {
    let deadlocks = Deadlocks::new();
    let (queue, workers) = endpoint(&deadlocks, "/a", 1, 1);
    let clone = queue.clone();
    let mut call = queue.begin(Parent::Client, Reads::Whole, true);
    drop(queue);
    assert_eq!(deadlocks.queues(), 1);
    drop(clone);
    assert_eq!(deadlocks.queues(), 0);
    // What refers to it still is harmless.
    deadlocks.held(call.id(), workers[0], 1);
    deadlocks.requeued(call.id());
    deadlocks.gone(workers[0]);
    assert_eq!(chain(&mut call), None);
}
