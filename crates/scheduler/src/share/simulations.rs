//! Simulations of endpoints on one device, and random schedules of its events.

use fastrand::Rng;
use litplex_core::Priority;
use tokio::time::{Duration, Instant};

use super::device::{Ask, Change, Device, MemberId};
use crate::event::WorkerId;

const SCHEDULES: u64 = 10_000;
const FOREVER: f64 = 1e9;
const SECOND: Duration = Duration::from_secs(1);

/// A worker that computes one batch after the other.
#[derive(Clone, Copy)]
struct Spec {
    member: u64,
    /// The seconds of a batch, and those between its end and the arrival of the next job.
    batch: f64,
    think: f64,
    demand: f64,
    can_pause: bool,
    class: Priority,
}

const SLOW: Spec = Spec {
    member: 0,
    batch: FOREVER,
    think: 0.0,
    demand: 1.0,
    can_pause: true,
    class: Priority::Interactive,
};

const FAST: Spec = Spec { member: 1, batch: 0.005, think: 0.0002, ..SLOW };

#[derive(Clone, Copy, PartialEq)]
enum Doing {
    Nothing { until: f64 },
    Waits,
    Runs,
    Paused,
}

struct Simulated {
    spec: Spec,
    id: WorkerId,
    doing: Doing,
    yields: bool,
    asked: f64,
    left: f64,
    /// The seconds in which it has run.
    ran: f64,
    /// The seconds from the arrival to the end of each batch.
    took: Vec<f64>,
}

struct Simulation {
    device: Device,
    start: Instant,
    now: f64,
    workers: Vec<Simulated>,
}

impl Simulation {
    fn new(capacity: f64, weights: &[f64], specs: &[Spec]) -> Self {
        let start = Instant::now();
        let mut device = Device::new(capacity, start);
        for (member, weight) in weights.iter().enumerate() {
            device.join(MemberId(member as u64), *weight, start);
        }
        let worker = |spec: &Spec| Simulated {
            spec: *spec,
            id: WorkerId::next(),
            doing: Doing::Nothing { until: 0.0 },
            yields: false,
            asked: 0.0,
            left: 0.0,
            ran: 0.0,
            took: Vec::new(),
        };
        Self { device, start, now: 0.0, workers: specs.iter().map(worker).collect() }
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.now)
    }

    fn run_until(&mut self, end: f64) {
        while self.now < end {
            self.begin_and_end();
            let now = self.instant();
            for (id, change) in self.device.decide(now) {
                self.apply(id, change);
            }
            let due = self.device.due().map_or(FOREVER, |due| (due - self.start).as_secs_f64());
            let next = self.workers.iter().map(|worker| match worker.doing {
                Doing::Nothing { until } => until,
                Doing::Runs => self.now + worker.left,
                Doing::Waits | Doing::Paused => FOREVER,
            });
            let next = next.fold(due.min(end), f64::min).max(self.now + 1e-6);
            for worker in &mut self.workers {
                if worker.doing == Doing::Runs {
                    worker.ran += next - self.now;
                    worker.left -= next - self.now;
                }
            }
            self.now = next;
        }
    }

    fn begin_and_end(&mut self) {
        let now = self.instant();
        for worker in &mut self.workers {
            if worker.doing == Doing::Runs && worker.left <= 1e-9 {
                worker.took.push(self.now - worker.asked);
                // With jobs waiting the worker keeps its turn, unless it must yield.
                if worker.spec.think > 0.0 || worker.yields {
                    self.device.end(worker.id, now);
                    worker.yields = false;
                    worker.doing = Doing::Nothing { until: self.now + worker.spec.think };
                } else {
                    (worker.asked, worker.left) = (self.now, worker.spec.batch);
                }
            }
            if let Doing::Nothing { until } = worker.doing
                && until <= self.now
            {
                let Spec { member, demand, can_pause, class, batch, .. } = worker.spec;
                let (turn, member) = (worker.id, MemberId(member));
                self.device.ask(Ask { turn, member, class, demand, can_pause }, now);
                (worker.doing, worker.asked, worker.left) = (Doing::Waits, self.now, batch);
            }
        }
    }

    fn apply(&mut self, id: WorkerId, change: Change) {
        let worker = self.workers.iter_mut().find(|worker| worker.id == id).unwrap();
        match (change, worker.doing) {
            (Change::Granted, Doing::Waits) | (Change::Resumed, Doing::Paused) => {
                worker.doing = Doing::Runs;
            }
            (Change::Paused, Doing::Runs) if worker.spec.can_pause => worker.doing = Doing::Paused,
            (Change::Yield, Doing::Runs) if !worker.spec.can_pause => worker.yields = true,
            _ => panic!("{change:?} of a worker that cannot be changed so"),
        }
    }

    /// Returns the parts of the device's time that workers have had since `ran` was as given.
    fn parts(&self, before: &[f64]) -> Vec<f64> {
        let ran: Vec<_> = self.workers.iter().zip(before).map(|(it, was)| it.ran - was).collect();
        let sum: f64 = ran.iter().sum();
        ran.into_iter().map(|ran| ran / sum).collect()
    }

    fn ran(&self) -> Vec<f64> {
        self.workers.iter().map(|worker| worker.ran).collect()
    }
}

fn parts(capacity: f64, weights: &[f64], specs: &[Spec], seconds: f64) -> Vec<f64> {
    let mut simulation = Simulation::new(capacity, weights, specs);
    simulation.run_until(seconds);
    simulation.parts(&vec![0.0; specs.len()])
}

fn assert_near(found: &[f64], wanted: &[f64], error: f64) {
    let near = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= error);
    assert!(near, "{found:?}, and not {wanted:?}");
}

fn percentile(took: &[f64], part: f64) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() as f64 * part) as usize]
}

#[test]
fn the_device_is_divided_by_weight() {
    let other = Spec { member: 1, ..SLOW };
    assert_near(&parts(1.0, &[1.0, 1.0], &[SLOW, other], 10.0), &[0.5, 0.5], 0.01);
    assert_near(&parts(1.0, &[3.0, 1.0], &[SLOW, other], 10.0), &[0.75, 0.25], 0.01);
    let third = Spec { member: 2, ..SLOW };
    let found = parts(1.0, &[6.0, 3.0, 1.0], &[SLOW, other, third], 20.0);
    assert_near(&found, &[0.6, 0.3, 0.1], 0.01);
}

#[test]
fn the_number_of_workers_of_an_endpoint_does_not_change_its_share() {
    let other = Spec { member: 1, ..SLOW };
    let found = parts(1.0, &[1.0, 1.0], &[SLOW, SLOW, SLOW, other], 20.0);
    assert_near(&found, &[1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5], 0.02);
}

#[test]
fn batches_that_cannot_be_interrupted_are_fair_up_to_a_batch() {
    for (weights, wanted) in [([1.0, 1.0], 0.5), ([3.0, 1.0], 0.75)] {
        let long = Spec { batch: 0.3, can_pause: false, ..SLOW };
        let short = Spec { member: 1, batch: 0.02, think: 0.0, can_pause: false, ..SLOW };
        let mut simulation = Simulation::new(1.0, &weights, &[long, short]);
        simulation.run_until(30.0);
        let ran = simulation.ran();
        let fair = wanted * (ran[0] + ran[1]);
        assert!((ran[0] - fair).abs() <= 0.3 + 0.05, "{ran:?}, and not {fair}");
    }
}

#[test]
fn short_batches_beside_a_saturated_worker_take_at_most_twice_as_long() {
    for (capacity, slow) in [(1.0, 1.0), (2.0, 2.0)] {
        let slow = Spec { demand: slow, ..SLOW };
        for (think, least) in [(0.0002, 0.49), (0.02, 0.79)] {
            let fast = Spec { think, ..FAST };
            let mut simulation = Simulation::new(capacity, &[1.0, 1.0], &[slow, fast]);
            simulation.run_until(10.0);
            let p99 = percentile(&simulation.workers[1].took, 0.99);
            assert!(p99 <= 2.0 * fast.batch + 0.001, "{p99}");
            assert!(simulation.workers[0].ran / 10.0 >= least, "{:?}", simulation.ran());
        }
    }
}

#[test]
fn a_worker_of_several_makes_room_and_they_take_turns() {
    let mut simulation = Simulation::new(2.0, &[1.0, 1.0], &[SLOW, SLOW, FAST]);
    simulation.run_until(10.0);
    let [first, second, fast] = &simulation.workers[..] else { panic!() };
    assert!(percentile(&fast.took, 0.99) < 1.05 * FAST.batch);
    assert!((first.ran - second.ran).abs() < 0.3, "{} {}", first.ran, second.ran);
    assert!(first.ran + second.ran >= 10.0, "a core is always theirs");
}

#[test]
fn what_fits_on_the_device_runs_together() {
    let other = Spec { member: 1, ..SLOW };
    let mut simulation = Simulation::new(2.0, &[9.0, 1.0], &[SLOW, other]);
    simulation.run_until(5.0);
    assert_near(&simulation.ran(), &[5.0, 5.0], 1e-3);
}

#[test]
fn a_newcomer_has_no_credit_for_its_idle_time() {
    let late = Spec { member: 1, ..SLOW };
    let mut simulation = Simulation::new(1.0, &[1.0, 1.0], &[SLOW, late]);
    simulation.workers[1].doing = Doing::Nothing { until: 100.0 };
    simulation.run_until(100.0);
    let before = simulation.ran();
    simulation.run_until(101.0);
    assert_near(&simulation.parts(&before), &[0.5, 0.5], 0.02);
}

#[test]
fn a_newcomer_begins_at_once_and_what_was_owed_is_forgotten_in_time() {
    let mut simulation = Simulation::new(1.0, &[1.0, 1.0], &[SLOW, Spec { think: 1.0, ..FAST }]);
    simulation.workers[1].doing = Doing::Nothing { until: 1.0 };
    simulation.run_until(20.0);
    let took = &simulation.workers[1].took;
    assert!(percentile(took, 0.99) < 1.01 * FAST.batch, "{took:?}");
}

#[test]
fn a_pause_between_requests_cancels_no_debt() {
    let mut simulation = Simulation::new(1.0, &[1.0, 1.0], &[SLOW, Spec { think: 1e-4, ..FAST }]);
    simulation.run_until(10.0);
    assert!(simulation.workers[0].ran >= 4.9, "{:?}", simulation.ran());
}

#[test]
fn interactive_jobs_go_first_within_the_share() {
    let batch = Spec { class: Priority::Batch, ..SLOW };
    let burst = Spec { batch: 0.04, think: 1.0, ..FAST };
    let second = |class| Spec { class, ..burst };
    let longest = |class| {
        let mut simulation = Simulation::new(1.0, &[1.0, 1.0], &[batch, second(class)]);
        simulation.run_until(20.0);
        percentile(&simulation.workers[1].took, 0.99)
    };
    assert!(longest(Priority::Interactive) < 0.041);
    assert!(longest(Priority::Batch) > 0.05, "it is interrupted");
    let both = [batch, Spec { member: 1, ..SLOW }];
    assert_near(&parts(1.0, &[1.0, 1.0], &both, 20.0), &[0.5, 0.5], 0.01);
}

#[test]
fn a_worker_that_departs_gives_its_turn_back() {
    let now = Instant::now();
    let mut device = Device::new(1.0, now);
    let (first, second) = (WorkerId::next(), WorkerId::next());
    for (member, turn) in [(0, first), (1, second)] {
        let member = MemberId(member);
        device.join(member, 1.0, now);
        let class = Priority::Interactive;
        device.ask(Ask { turn, member, class, demand: 1.0, can_pause: false }, now);
    }
    assert_eq!(device.decide(now), [(first, Change::Granted)]);
    assert!(!device.end(first, now));
    assert_eq!(device.decide(now), [(second, Change::Granted)]);
    assert!(!device.end(first, now), "it has no turn any more");
    device.leave(MemberId(1), now);
    assert_eq!((device.running().count(), device.due()), (0, None));
}

/// A turn in the view of a random schedule.
struct Held {
    id: WorkerId,
    member: u64,
    demand: f64,
    can_pause: bool,
    state: Doing,
    since: Duration,
}

#[test]
fn random_schedules_waste_no_device_and_starve_no_worker() {
    let start = Instant::now();
    for seed in 0..SCHEDULES {
        random_schedule(Rng::with_seed(seed), start, seed % 20 == 0);
    }
}

fn random_schedule(mut random: Rng, start: Instant, to_the_end: bool) {
    let capacity = f64::from(random.u32(1..4));
    let members = random.u64(1..5);
    let mut device = Device::new(capacity, start);
    let mut now = start;
    for member in 0..members {
        device.join(MemberId(member), [0.5, 1.0, 3.0][random.usize(..3)], now);
    }
    let mut turns: Vec<Held> = Vec::new();
    for _ in 0..40 {
        match random.u32(..4) {
            0 | 1 if turns.len() < 8 => {
                let (id, member) = (WorkerId::next(), random.u64(..members));
                let demand = [0.0, 0.5, 1.0, 2.0, 5.0][random.usize(..5)];
                let can_pause = random.u32(..3) > 0;
                let class = if random.bool() { Priority::Batch } else { Priority::Interactive };
                let ask = Ask { turn: id, member: MemberId(member), class, demand, can_pause };
                device.ask(ask, now);
                let (state, since) = (Doing::Waits, now - start);
                turns.push(Held { id, member, demand, can_pause, state, since });
            }
            2 if !turns.is_empty() => {
                let turn = turns.swap_remove(random.usize(..turns.len()));
                let is_paused = device.end(turn.id, now);
                assert_eq!(is_paused, turn.state == Doing::Paused);
            }
            3 if random.u32(..20) == 0 => {
                let member = random.u64(..members);
                device.leave(MemberId(member), now);
                turns.retain(|turn| turn.member != member);
                device.join(MemberId(member), 1.0, now);
            }
            _ => now += Duration::from_micros(random.u64(..20_000)),
        }
        decide(&mut device, &mut turns, capacity, start, now);
    }
    if !to_the_end {
        return;
    }
    // Every worker runs within a time, whatever the others do; those that must yield do.
    let mut has_run: Vec<_> =
        turns.iter().filter(|it| it.state == Doing::Runs).map(|it| it.id).collect();
    let yielding: Vec<_> = turns
        .iter()
        .filter(|it| !it.can_pause && it.state == Doing::Runs)
        .map(|it| it.id)
        .collect();
    for id in yielding {
        device.end(id, now);
        turns.retain(|turn| turn.id != id);
        decide(&mut device, &mut turns, capacity, start, now);
    }
    let end = now + Duration::from_secs(10);
    while now < end {
        let Some(due) = device.due() else { break };
        assert!(due > now, "time stands still");
        now = due;
        decide(&mut device, &mut turns, capacity, start, now);
        let runs: Vec<_> =
            turns.iter().filter(|it| it.state == Doing::Runs).map(|it| it.id).collect();
        for id in runs {
            if !has_run.contains(&id) {
                has_run.push(id);
            }
            // One that cannot be interrupted ends, as its batch does.
            if turns.iter().any(|it| it.id == id && !it.can_pause) {
                device.end(id, now);
                turns.retain(|turn| turn.id != id);
            }
        }
        decide(&mut device, &mut turns, capacity, start, now);
        if turns.iter().all(|turn| has_run.contains(&turn.id)) {
            break;
        }
    }
    let starved = turns.iter().find(|it| it.state != Doing::Runs && !has_run.contains(&it.id));
    assert!(
        starved.is_none(),
        "{:?} starves at {:?}: {device:?}",
        starved.map(|it| it.id),
        now - start
    );
}

fn decide(device: &mut Device, turns: &mut [Held], capacity: f64, start: Instant, now: Instant) {
    for (id, change) in device.decide(now) {
        let turn = turns.iter_mut().find(|turn| turn.id == id).expect("a turn that is there");
        turn.state = match (change, turn.state) {
            (Change::Granted, Doing::Waits) | (Change::Resumed, Doing::Paused) => Doing::Runs,
            (Change::Paused, Doing::Runs) if turn.can_pause => Doing::Paused,
            (Change::Yield, Doing::Runs) if !turn.can_pause => Doing::Runs,
            (change, _) => panic!("{change:?} of a turn that cannot be changed so"),
        };
        if change == Change::Paused {
            turn.since = now - start;
        }
    }
    let runs = || turns.iter().filter(|turn| turn.state == Doing::Runs);
    let used: f64 = runs().map(|turn| turn.demand).sum();
    assert_eq!(runs().count(), device.running().count());
    assert!(turns.is_empty() || runs().next().is_some(), "the device is idle while workers wait");
    for turn in turns.iter().filter(|turn| turn.state != Doing::Runs) {
        // A member whose worker has waited for long leaves it the room.
        let waits = |it: &Held| it.state != Doing::Runs && now - start - it.since >= SECOND;
        let makes_room = turns.iter().any(|it| it.member == turn.member && waits(it));
        assert!(
            makes_room || used + turn.demand > capacity + 0.25,
            "a worker waits for a device that has room"
        );
    }
    // What cannot be stopped runs on, and one worker always may.
    let stoppable: f64 = runs().filter(|turn| turn.can_pause).map(|turn| turn.demand).sum();
    assert!(
        used <= capacity + 0.25 || stoppable == 0.0 || runs().count() == 1,
        "more run than the device has room for"
    );
}
