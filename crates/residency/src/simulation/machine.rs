//! The state machine, with simulated workers and a simulated clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use super::trace::{MODELS, Trace};
use crate::{
    Action, Ask, EndpointId, Event, Memory, Patience, Residency, ResidencySettings, StartHistory,
    Usage, WorkerId,
};

/// The time to answer a request, in seconds.
const SERVICE: f64 = 0.05;

/// The time from the end of a worker's last request until its memory is back, in seconds.
const UNLOAD: f64 = 0.1;

/// The time that a client waits, in seconds.
const CLIENT: f64 = 60.0;

/// The result of a day.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Day {
    /// The time of all loads, in seconds.
    pub(super) reload: f64,
    /// The time that requests waited for a load, in seconds, all together.
    pub(super) waited: f64,
    pub(super) requests: f64,
    pub(super) refused: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Arrival(usize),
    Answered(usize),
    Loaded(usize),
    Unloaded(usize),
    Tick,
}

#[derive(Default, Clone)]
struct Model {
    is_resident: bool,
    is_leaving: bool,
    in_flight: usize,
    /// The arrivals of the requests that wait for a load.
    queue: Vec<f64>,
}

struct Machine<'a> {
    trace: &'a Trace,
    start: Instant,
    residency: Residency,
    models: Vec<Model>,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    /// The instant of the next tick, of which there is only one.
    tick: Option<u64>,
    now: u64,
    day: Day,
}

/// Returns a day of the state machine.
pub(super) fn run(trace: &Trace, patience: Patience) -> Day {
    let start = Instant::now();
    let mut residency = Residency::new(Memory::on_host(trace.budget), patience);
    for model in 0..MODELS {
        let mut history = StartHistory::default();
        let memory = Memory::on_host(trace.bytes[model]);
        history.add(Duration::from_secs_f64(trace.reload[model]), memory);
        residency.set_endpoint(EndpointId(model), ResidencySettings::default(), history, start);
    }
    let (models, due) = (vec![Model::default(); MODELS], BinaryHeap::new());
    let day = Day { requests: trace.requests.len() as f64, ..Day::default() };
    let mut machine = Machine { trace, start, residency, models, due, tick: None, now: 0, day };
    for (at, model) in &trace.requests {
        machine.due.push(Reverse((micros(*at), Due::Arrival(*model))));
    }
    while let Some(Reverse((now, due))) = machine.due.pop() {
        machine.now = now;
        machine.step(&due);
    }
    assert!(machine.models.iter().all(|model| model.queue.is_empty()), "requests hang");
    machine.day
}

impl Machine<'_> {
    fn step(&mut self, due: &Due) {
        match *due {
            Due::Arrival(model) => self.arrive(model),
            Due::Answered(model) => {
                self.models[model].in_flight -= 1;
                self.has_answered(model);
            }
            Due::Loaded(model) => self.loaded(model),
            Due::Unloaded(model) => {
                self.models[model].is_leaving = false;
                self.tell(Event::Gone(worker(model)));
                self.tell(Event::MemoryBack(worker(model)));
            }
            Due::Tick if self.tick != Some(self.now) => {}
            Due::Tick => {
                self.tick = None;
                self.tell(Event::Tick);
            }
        }
    }

    fn arrive(&mut self, model: usize) {
        self.tell(Event::Arrivals(EndpointId(model), 1));
        if self.models[model].is_resident {
            self.serve(model);
            return;
        }
        self.models[model].queue.push(self.now as f64 / 1e6);
        let queued = self.models[model].queue.len();
        let deadline = self.instant() + Duration::from_secs_f64(CLIENT);
        let ask = Ask {
            worker: worker(model),
            gpu: None,
            is_required: false,
            queued,
            chain: Vec::new(),
            deadline,
        };
        self.tell(Event::Ask(ask));
    }

    fn serve(&mut self, model: usize) {
        self.models[model].in_flight += 1;
        self.tell(Event::Usage(EndpointId(model), Usage::Busy));
        self.after(SERVICE, Due::Answered(model));
    }

    fn has_answered(&mut self, model: usize) {
        if self.models[model].in_flight > 0 {
            return;
        }
        match self.models[model].is_leaving {
            true => self.after(UNLOAD, Due::Unloaded(model)),
            false => self.tell(Event::Usage(EndpointId(model), Usage::Idle)),
        }
    }

    fn loaded(&mut self, model: usize) {
        self.models[model].is_resident = true;
        let waited = std::mem::take(&mut self.models[model].queue);
        self.day.waited += waited.iter().map(|at| self.now as f64 / 1e6 - at).sum::<f64>();
        self.tell(Event::Started(worker(model), Memory::on_host(self.trace.bytes[model])));
        waited.iter().for_each(|_| self.serve(model));
    }

    fn tell(&mut self, event: Event) {
        let now = self.instant();
        for action in self.residency.handle(event, now) {
            self.act(&action);
        }
        assert!(self.residency.held().host <= self.trace.budget, "above the budget");
        if let Some(due) = self.residency.next_due(now) {
            let due = micros((due - self.start).as_secs_f64()) + 1;
            if self.tick.is_none_or(|tick| due < tick) {
                self.tick = Some(due);
                self.due.push(Reverse((due, Due::Tick)));
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Grant(worker) => {
                let model = worker.endpoint.0;
                self.day.reload += self.trace.reload[model];
                self.after(self.trace.reload[model], Due::Loaded(model));
            }
            Action::Evict { worker, .. } => {
                let model = worker.endpoint.0;
                (self.models[model].is_resident, self.models[model].is_leaving) = (false, true);
                if self.models[model].in_flight == 0 {
                    self.after(UNLOAD, Due::Unloaded(model));
                }
            }
            Action::End(_) => unreachable!("no model hibernates"),
            Action::Refuse(refusal) => {
                let refused = std::mem::take(&mut self.models[refusal.worker.endpoint.0].queue);
                self.day.refused += refused.len();
            }
        }
    }

    fn after(&mut self, seconds: f64, due: Due) {
        self.due.push(Reverse((self.now + micros(seconds), due)));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }
}

fn worker(model: usize) -> WorkerId {
    WorkerId { endpoint: EndpointId(model), slot: 0 }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}
