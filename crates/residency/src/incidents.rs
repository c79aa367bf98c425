//! Incidents of other servers, each as a test whose name says what happened there.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Action, Ask, EndpointId, Event, EvictionCause, Memory, Patience, Plan, Refusal, RefusalReason,
    Residency, ResidencySettings, StartHistory, Usage, WorkerId,
};

/// A residency with a clock. Each endpoint has a model of so many GB, which takes a second to load.
struct Bench {
    residency: Residency,
    now: Instant,
}

impl Bench {
    fn new(budget: u64, models: &[u64]) -> Self {
        let settings = models.iter().map(|_| ResidencySettings::default()).collect();
        Self::with(budget, models, settings, Patience::default())
    }

    fn with(
        budget: u64,
        models: &[u64],
        settings: Vec<ResidencySettings>,
        patience: Patience,
    ) -> Self {
        let now = Instant::now();
        let mut residency = Residency::new(gigabytes(budget), patience);
        for ((id, size), settings) in (0..).zip(models).zip(settings) {
            let mut history = StartHistory::default();
            history.add(Duration::from_secs(1), gigabytes(*size));
            residency.set_endpoint(EndpointId(id), settings, history, now);
        }
        Self { residency, now }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.residency.handle(event, self.now)
    }

    fn after(&mut self, seconds: f64) -> Vec<Action> {
        self.now += Duration::from_secs_f64(seconds);
        self.tell(Event::Tick)
    }

    fn ask(&mut self, id: usize) -> Vec<Action> {
        self.ask_for(id, &[], 60.0)
    }

    fn ask_for(&mut self, id: usize, chain: &[usize], seconds: f64) -> Vec<Action> {
        let deadline = self.now + Duration::from_secs_f64(seconds);
        let chain = chain.iter().copied().map(EndpointId).collect();
        self.tell(Event::Ask(Ask {
            worker: worker(id),
            gpu: None,
            is_required: false,
            queued: 1,
            chain,
            deadline,
        }))
    }

    fn usage(&mut self, id: usize, usage: Usage) -> Vec<Action> {
        self.tell(Event::Usage(EndpointId(id), usage))
    }

    /// Loads a model, which then serves so many requests.
    fn load(&mut self, id: usize, requests: usize) {
        assert_eq!(self.ask(id), [Action::Grant(worker(id))]);
        let size = self.residency.workers[&worker(id)].memory.clone();
        assert_eq!(self.tell(Event::Started(worker(id), size)), []);
        for _ in 0..requests {
            self.tell(Event::Arrivals(EndpointId(id), 1));
        }
        self.usage(id, Usage::Busy);
        self.usage(id, Usage::Idle);
    }

    /// Ends a worker; its memory is back.
    fn end(&mut self, id: usize) -> Vec<Action> {
        assert_eq!(self.tell(Event::Gone(worker(id))), [], "memory that is not back is granted");
        self.tell(Event::MemoryBack(worker(id)))
    }
}

fn gigabytes(amount: u64) -> Memory {
    Memory::on_host(amount * 1_000_000_000)
}

fn worker(id: usize) -> WorkerId {
    WorkerId { endpoint: EndpointId(id), slot: 0 }
}

/// Returns the endpoints that are evicted.
fn evicted(actions: &[Action]) -> Vec<usize> {
    let victim = |action: &Action| match action {
        Action::Evict { worker, .. } => Some(worker.endpoint.0),
        _ => None,
    };
    actions.iter().filter_map(victim).collect()
}

fn refused(actions: &[Action]) -> Option<&Refusal> {
    actions.iter().find_map(|action| match action {
        Action::Refuse(refusal) => Some(refusal),
        _ => None,
    })
}

#[test]
fn a_victim_that_gets_a_request_while_it_leaves_is_loaded_again_and_hangs_no_load_ollama_17408() {
    let mut bench = Bench::new(2, &[2, 2]);
    bench.load(0, 0);
    assert_eq!(evicted(&bench.ask(1)), [0]);
    assert!(!bench.residency.is_resident(worker(0)), "a victim gets no more jobs");
    assert_eq!(bench.ask(0), [], "its request waits for its reload");
    assert_eq!(bench.end(0), [Action::Grant(worker(1))], "the newcomer comes first");
    bench.tell(Event::Started(worker(1), gigabytes(2)));
    bench.usage(1, Usage::Busy);
    assert_eq!(evicted(&bench.usage(1, Usage::Idle)), [1]);
    assert_eq!(bench.end(1), [Action::Grant(worker(0))]);
}

#[test]
fn a_reload_under_load_that_never_ends_is_bounded_ollama_14407() {
    let mut bench = Bench::new(2, &[2, 2]);
    bench.load(0, 0);
    bench.usage(0, Usage::Busy);
    assert_eq!(bench.ask(1), [], "what is busy stays for a while: its requests are collated");
    assert_eq!(bench.after(9.9), []);
    assert_eq!(evicted(&bench.after(0.2)), [0], "then it drains");
}

#[test]
fn models_that_are_loaded_do_not_wait_behind_an_eviction_ollama_14578_15126() {
    let mut bench = Bench::new(4, &[2, 2, 2]);
    bench.load(0, 0);
    bench.load(1, 9);
    assert_eq!(evicted(&bench.ask(2)), [0]);
    assert!(bench.residency.is_resident(worker(1)));
}

#[test]
fn the_end_of_another_worker_wakes_no_ask_that_does_not_fit_ollama_17309() {
    let mut bench = Bench::new(4, &[3, 1, 4]);
    bench.load(0, 0);
    bench.load(1, 0);
    assert_eq!(evicted(&bench.ask(2)).len(), 2);
    assert_eq!(bench.end(1), []);
    assert_eq!(bench.tell(Event::MemoryBack(worker(0))), [], "its process is still there");
    assert_eq!(bench.end(0), [Action::Grant(worker(2))]);
}

#[test]
fn memory_that_is_back_after_a_crash_is_granted_at_once_ollama_11997() {
    let mut bench = Bench::new(2, &[2]);
    bench.load(0, 1);
    assert_eq!(bench.tell(Event::Gone(worker(0))), []);
    assert_eq!(bench.ask(0), []);
    assert_eq!(bench.tell(Event::MemoryBack(worker(0))), [Action::Grant(worker(0))]);
}

#[test]
fn a_failed_load_leaks_no_memory_ollama_10433() {
    let mut bench = Bench::new(2, &[2, 2]);
    bench.ask(0);
    assert_eq!(bench.ask(1), []);
    assert_eq!(bench.tell(Event::Gone(worker(0))), []);
    assert_eq!(bench.tell(Event::MemoryBack(worker(0))), [Action::Grant(worker(1))]);
    assert_eq!(bench.residency.held(), gigabytes(2));
}

#[test]
fn an_endless_keep_alive_is_no_pin_and_a_pin_is_one_ollama_10948() {
    let forever = ResidencySettings { is_kept: true, ..Default::default() };
    let pinned = ResidencySettings { is_pinned: true, ..Default::default() };
    let settings = vec![forever, pinned, ResidencySettings::default()];
    let mut bench = Bench::with(4, &[2, 2, 2], settings, Patience::default());
    bench.load(0, 0);
    bench.load(1, 0);
    assert_eq!(bench.ask(2), []);
    assert_eq!(evicted(&bench.after(10.0)), [0]);
}

#[test]
fn the_fewest_workers_of_an_endpoint_stay() {
    let kept = ResidencySettings { min_workers: 1, ..Default::default() };
    let settings = vec![kept, ResidencySettings::default()];
    let mut bench = Bench::with(2, &[2, 2], settings, Patience::default());
    bench.load(0, 0);
    let actions = bench.ask(1);
    assert_eq!(refused(&actions).map(|it| it.reason), Some(RefusalReason::TooLarge));
}

#[test]
fn a_load_that_does_not_pay_waits_until_it_does() {
    let mut bench = Bench::new(2, &[2, 2]);
    bench.load(0, 50);
    assert_eq!(bench.ask(1), []);
    let due = bench.residency.next_due(bench.now).expect("the caller is told when to ask again");
    assert!(due <= bench.now + Duration::from_millis(1_100));
    bench.tell(Event::Queued(EndpointId(1), 100));
    assert_eq!(evicted(&bench.after(0.02)), [0], "a hundred requests pay sooner");
}

#[test]
fn concurrent_first_requests_load_one_copy_lm_studio_1751() {
    let mut bench = Bench::new(9, &[2]);
    assert_eq!(bench.ask(0), [Action::Grant(worker(0))]);
    assert_eq!(bench.ask(0), []);
    assert_eq!(bench.residency.held(), gigabytes(2));
    bench.tell(Event::Started(worker(0), gigabytes(2)));
    assert_eq!(bench.ask(0), []);
}

#[test]
fn models_that_were_loaded_by_hand_are_evicted_too_lm_studio_2051() {
    let mut bench = Bench::new(2, &[2, 2]);
    let deadline = bench.now + Duration::from_secs(60);
    bench.tell(Event::Ask(Ask {
        worker: worker(0),
        gpu: None,
        is_required: false,
        queued: 1,
        chain: Vec::new(),
        deadline,
    }));
    bench.tell(Event::Started(worker(0), gigabytes(2)));
    assert_eq!(bench.ask(1), [], "it has just been loaded");
    assert_eq!(evicted(&bench.after(1.0)), [0]);
}

#[test]
fn loads_that_fit_go_side_by_side_ray_65346() {
    let mut bench = Bench::new(4, &[2, 2]);
    assert_eq!(bench.ask(0), [Action::Grant(worker(0))]);
    assert_eq!(bench.ask(1), [Action::Grant(worker(1))]);
}

#[test]
fn a_small_embedder_is_not_evicted_to_keep_a_large_model_local_ai_9527() {
    let mut bench = Bench::new(14, &[1, 13, 13]);
    bench.load(0, 0);
    bench.load(1, 5);
    bench.now += Duration::from_secs(20);
    assert_eq!(evicted(&bench.ask(2)), Vec::<usize>::new());
    assert_eq!(evicted(&bench.after(2.0)), [1], "the embedder would not free enough");
}

#[test]
fn memory_that_is_needed_is_not_reclaimed_while_no_ask_needs_it_local_ai_9375() {
    let mut bench = Bench::new(4, &[2, 2]);
    bench.load(0, 1);
    bench.load(1, 1);
    assert_eq!(bench.after(86_400.0), [], "a full budget is no reason to evict");
}

#[test]
fn a_model_of_unknown_size_starts_and_its_measured_size_counts_local_ai_6068() {
    let mut bench = Bench::new(4, &[2]);
    let (id, settings) = (EndpointId(7), ResidencySettings::default());
    bench.residency.set_endpoint(id, settings, StartHistory::default(), bench.now);
    bench.load(0, 0);
    assert_eq!(bench.ask(7), [Action::Grant(worker(7))]);
    let actions = bench.tell(Event::Started(worker(7), gigabytes(3)));
    let cause = EvictionCause::OverBudget;
    assert_eq!(actions, [Action::Evict { worker: worker(0), cause }]);
    assert_eq!(bench.residency.prediction(id).map(|it| it.0), Some(gigabytes(3)));
}

#[test]
fn a_call_chain_that_does_not_fit_at_once_is_refused_with_the_sum() {
    let mut bench = Bench::new(4, &[3, 2]);
    bench.load(0, 0);
    bench.usage(0, Usage::Busy);
    let actions = bench.ask_for(1, &[0], 60.0);
    let refusal = refused(&actions).expect("the caller holds the memory");
    assert_eq!((refusal.reason, refusal.retry_after), (RefusalReason::TooLarge, None));
    assert!(refusal.to_string().contains("needs 2.00 GB beside 3.00 GB, of 4.00 GB"));
}

#[test]
fn a_blocked_caller_is_no_victim_of_another_ask() {
    let mut bench = Bench::new(4, &[2, 2, 2]);
    bench.load(0, 0);
    bench.load(1, 9);
    assert_eq!(evicted(&bench.ask_for(2, &[0], 60.0)), [1], "worth more, but no caller");
}

#[test]
fn calls_that_wait_for_the_memory_of_each_others_callers_are_refused_but_one() {
    // Each chain fits, and both do not.
    let mut bench = Bench::new(5, &[2, 2, 2, 2]);
    for caller in [0, 1] {
        bench.ask(caller);
        bench.tell(Event::Started(worker(caller), gigabytes(2)));
        // It was just loaded, and stays until it has served something.
        bench.usage(caller, Usage::Busy);
    }
    assert_eq!(bench.ask_for(2, &[0], 60.0), []);
    bench.now += Duration::from_millis(1);
    let actions = bench.ask_for(3, &[1], 60.0);
    let refusal = refused(&actions).expect("a knot");
    assert_eq!((refusal.reason, refusal.worker), (RefusalReason::Knot, worker(3)));
    assert_eq!(evicted(&bench.usage(1, Usage::Idle)), [1], "its caller got an error, and leaves");
}

#[test]
fn a_model_that_was_just_loaded_serves_something_first() {
    let mut bench = Bench::new(2, &[2, 2]);
    bench.ask(0);
    bench.tell(Event::Started(worker(0), gigabytes(2)));
    assert_eq!(bench.ask(1), []);
    bench.usage(0, Usage::Busy);
    assert_eq!(evicted(&bench.usage(0, Usage::Idle)), [0], "idle after its work");
}

#[test]
fn requests_for_the_same_model_are_served_together_llama_swap_790() {
    let mut bench = Bench::new(2, &[2, 2]);
    bench.load(0, 0);
    bench.usage(0, Usage::Busy);
    bench.ask(1);
    assert_eq!(bench.ask(1), [], "B joins B");
    assert_eq!(bench.tell(Event::Arrivals(EndpointId(0), 1)), [], "A joins A");
    bench.now += Duration::from_secs(2);
    assert_eq!(evicted(&bench.usage(0, Usage::Idle)), [0], "then all of B");
}

#[test]
fn memory_that_comes_back_is_not_taken_by_a_smaller_ask_that_came_later() {
    let mut bench = Bench::new(4, &[2, 2, 4, 2]);
    bench.load(0, 0);
    bench.load(1, 0);
    assert_eq!(evicted(&bench.ask(2)), [1, 0]);
    assert_eq!(bench.end(0), []);
    assert_eq!(bench.ask(3), []);
    assert_eq!(bench.end(1), [Action::Grant(worker(2))]);
}

#[test]
fn a_start_that_no_request_wants_any_more_takes_nothing() {
    let mut bench = Bench::new(2, &[2, 2]);
    bench.load(0, 0);
    bench.usage(0, Usage::Busy);
    bench.ask(1);
    bench.tell(Event::Withdraw(worker(1)));
    assert_eq!((bench.after(60.0), bench.residency.asks()), (vec![], 0));
}

#[test]
fn a_lower_budget_shrinks_to_it_and_spares_what_is_busy() {
    let mut bench = Bench::new(6, &[2, 2, 2]);
    (0..3).for_each(|id| bench.load(id, 0));
    bench.usage(0, Usage::Busy);
    assert_eq!(evicted(&bench.tell(Event::Budget(gigabytes(2)))), [2, 1]);
    assert_eq!(evicted(&bench.tell(Event::Budget(gigabytes(1)))), [0]);
}

#[test]
fn a_plan_says_what_a_request_would_lead_to_and_changes_nothing() {
    let mut bench = Bench::new(4, &[2, 2, 2, 5]);
    bench.load(0, 0);
    let plan = |bench: &Bench, id| bench.residency.plan(EndpointId(id), None, bench.now).unwrap();
    assert_eq!(plan(&bench, 0), Plan::Resident);
    assert_eq!(plan(&bench, 1), Plan::Fits);
    bench.load(1, 0);
    bench.now += Duration::from_secs(5);
    assert!(matches!(plan(&bench, 2), Plan::Evicts(ids) if ids.len() == 1));
    let Plan::Never(refusal) = plan(&bench, 3) else { panic!("5 GB of 4") };
    assert_eq!(refusal.need, gigabytes(5));
    assert!(
        bench.residency.has_resident(EndpointId(0)) && bench.residency.has_resident(EndpointId(1))
    );
    assert!(bench.residency.plan(EndpointId(9), None, bench.now).is_none());
}

#[test]
fn workers_of_one_endpoint_of_which_nothing_is_known_load_until_they_are_measured() {
    let mut bench = Bench::new(4, &[]);
    let settings = ResidencySettings { min_workers: 5, ..ResidencySettings::default() };
    let now = bench.now;
    bench.residency.set_endpoint(EndpointId(0), settings, StartHistory::default(), now);
    let ask = |slot| {
        let worker = WorkerId { endpoint: EndpointId(0), slot };
        let deadline = now + Duration::from_secs(60);
        Event::Ask(Ask {
            worker,
            gpu: None,
            queued: 0,
            is_required: true,
            chain: Vec::new(),
            deadline,
        })
    };
    // 1 GB is assumed of each.
    let granted: usize = (0..5).map(|slot| bench.tell(ask(slot)).len()).sum();
    assert_eq!((granted, bench.residency.asks()), (4, 1), "the fifth waits, and is not refused");
    let first = WorkerId { endpoint: EndpointId(0), slot: 0 };
    let small = Memory::on_host(60_000_000);
    assert_eq!(bench.tell(Event::Started(first, small)).len(), 1, "then there is room for it");
}

#[test]
fn a_required_worker_starts_above_a_budget_that_is_a_guess() {
    let ask = |bench: &Bench, is_required| {
        let deadline = bench.now + Duration::from_secs(60);
        let chain = Vec::new();
        Event::Ask(Ask { worker: worker(0), gpu: None, queued: 1, is_required, chain, deadline })
    };
    let mut bench = Bench::new(2, &[3]);
    let required = ask(&bench, true);
    assert!(matches!(bench.tell(required)[..], [Action::Refuse(_)]), "of a budget that was set");
    let mut bench = Bench::new(2, &[3]);
    bench.residency.patience.is_strict = false;
    let (elastic, required) = (ask(&bench, false), ask(&bench, true));
    assert!(matches!(bench.tell(elastic)[..], [Action::Refuse(_)]));
    assert_eq!(bench.tell(required), [Action::Grant(worker(0))]);
}

#[test]
fn a_worker_needs_the_memory_of_its_own_gpu_alone() {
    let mut bench = Bench::new(9, &[]);
    let mut history = StartHistory::default();
    for gpu in 0..2 {
        history.add(Duration::from_secs(1), Memory::on_host(1).with_device(gpu, 45));
    }
    let now = bench.now;
    bench.tell(Event::Budget(Memory::on_host(9).with_device(0, 72).with_device(1, 72)));
    let settings = ResidencySettings { min_workers: 2, ..ResidencySettings::default() };
    bench.residency.set_endpoint(EndpointId(0), settings, history, now);
    assert_eq!(bench.residency.plan(EndpointId(0), Some(0), now), Some(Plan::Fits));
    for slot in 0..2 {
        let worker = WorkerId { endpoint: EndpointId(0), slot };
        let (deadline, chain) = (now + Duration::from_secs(60), Vec::new());
        let gpu = Some(slot);
        let ask = Ask { worker, gpu, queued: 0, is_required: true, chain, deadline };
        assert_eq!(bench.tell(Event::Ask(ask)), [Action::Grant(worker)], "slot {slot}");
    }
}
