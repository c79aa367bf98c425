//! Samples every endpoint once a second, from counters that exist. One task owns the histories; requests
//! are not slowed down by it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use litplex_admin::{EndpointHistory, HistoryPoint, HistoryQuery};
use litplex_history::{BUCKETS, ErrorCounts, History, Located, Period, quantile};
use litplex_metrics::{
    CallTimes, CallTotals, Distribution, Edge, EdgeTotals, LATENCY_BOUNDS, RequestOutcome,
};
use litplex_supervisor::SlotState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::administered::Administered;
use crate::endpoints::{CurrentEndpoints, EndpointSet};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// The number of samples in a minute.
const MINUTE: usize = 60;

/// The number of queries that wait for the task. More wait for their turn.
const QUERIES: usize = 16;

/// The histories of all endpoints. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Histories(mpsc::Sender<Asked>);

#[derive(Debug)]
enum Asked {
    History { query: HistoryQuery, answer: oneshot::Sender<EndpointHistory> },
    Recent(oneshot::Sender<BTreeMap<String, Recent>>),
    Calls(oneshot::Sender<Vec<RecentCalls>>),
}

/// The calls of one endpoint by another in the last minute.
#[derive(Debug, Clone)]
pub(crate) struct RecentCalls {
    pub(crate) caller: String,
    pub(crate) callee: String,
    /// The calls that ended, per second.
    pub(crate) rate: f64,
    pub(crate) failed: u64,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// The last minute of an endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    /// The last ten seconds.
    pub(crate) seconds: Period,
    /// The last minute.
    pub(crate) minute: Period,
    /// The callee that took most of the time of its requests in the last minute, and the share.
    pub(crate) callee: Option<(String, f64)>,
}

impl Histories {
    /// Returns the histories of the endpoints, and the task that samples them. An endpoint that is removed has
    /// no history any more.
    pub(crate) fn of(
        endpoints: CurrentEndpoints,
        calls: CallTimes,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (asked, queries) = mpsc::channel(QUERIES);
        (Self(asked), follow(endpoints, calls, queries))
    }

    /// Returns the history that is asked for, of the endpoint with the label `query.endpoint`; `None` if
    /// there is none, or if the server ends.
    pub(crate) async fn read(&self, query: HistoryQuery) -> Option<EndpointHistory> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked::History { query, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Returns the calls between endpoints in the last minute; none if the server ends.
    pub(crate) async fn calls(&self) -> Vec<RecentCalls> {
        let (answer, answered) = oneshot::channel();
        match self.0.send(Asked::Calls(answer)).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Returns the last minute of each endpoint, by its label; `None` if the server ends.
    pub(crate) async fn recent(&self) -> Option<BTreeMap<String, Recent>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked::Recent(answer)).await.ok()?;
        answered.await.ok()
    }
}

type CallsByEdge = BTreeMap<(String, String), CallTotals>;

async fn follow(
    mut current: CurrentEndpoints,
    calls: CallTimes,
    mut queries: mpsc::Receiver<Asked>,
) {
    let mut endpoints = with_histories(Vec::new(), &current.borrow_and_update());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first tick is at once, before a second has passed.
    ticks.tick().await;
    let mut sampled = Instant::now();
    let mut read = VecDeque::from([CallsByEdge::new()]);
    loop {
        tokio::select! {
            now = ticks.tick() => {
                let seconds = (now - sampled).as_secs_f64().round() as u64;
                sampled = now;
                let totals = calls.totals();
                for endpoint in &mut endpoints {
                    endpoint.sample(seconds.max(1), &totals).await;
                }
                push_in_minute(&mut read, totals);
            }
            Ok(()) = current.changed() => {
                endpoints = with_histories(endpoints, &current.borrow_and_update());
            }
            asked = queries.recv() => {
                // The client may have left.
                match asked {
                    None => return,
                    Some(Asked::Recent(answer)) => {
                        let recent = endpoints.iter().map(|it| (it.label().to_owned(), it.recent()));
                        let _ = answer.send(recent.collect());
                    }
                    Some(Asked::Calls(answer)) => {
                        let _ = answer.send(recent_calls(&read));
                    }
                    Some(Asked::History { query, answer }) => {
                        let found = endpoints.iter().find(|it| it.label() == query.endpoint);
                        let _ = found.map(|endpoint| answer.send(endpoint.read(&query)));
                    }
                }
            }
        }
    }
}

/// Appends a reading of this second, and forgets the one of a minute ago.
fn push_in_minute<T>(readings: &mut VecDeque<T>, reading: T) {
    readings.push_back(reading);
    if readings.len() > MINUTE + 1 {
        readings.pop_front();
    }
}

/// Returns the calls between the first and the last of the readings of each second.
fn recent_calls(readings: &VecDeque<CallsByEdge>) -> Vec<RecentCalls> {
    let (Some(before), Some(now)) = (readings.front(), readings.back()) else { return Vec::new() };
    let seconds = readings.len().saturating_sub(1).max(1) as f64;
    let recent = now.iter().filter_map(|((caller, callee), now)| {
        let key = (caller.clone(), callee.clone());
        let before = before.get(&key).cloned().unwrap_or_default();
        let durations = now.durations.since(&before.durations);
        let ended = durations.count();
        let Distribution { bounds, counts, .. } = &durations;
        (ended > 0).then(|| RecentCalls {
            caller: key.0,
            callee: key.1,
            rate: ended as f64 / seconds,
            failed: now.failed.saturating_sub(before.failed),
            p50: quantile(counts, bounds, 0.5),
            p99: quantile(counts, bounds, 0.99),
        })
    });
    recent.collect()
}

/// Returns the endpoints of a set, with the histories that they have.
fn with_histories(before: Vec<Sampled>, set: &EndpointSet) -> Vec<Sampled> {
    let mut known: BTreeMap<_, _> =
        before.into_iter().map(|it| (it.label().to_owned(), it)).collect();
    let begin = |endpoint: &Arc<Administered>| {
        let label = endpoint.identity().label.clone();
        match known.remove(&label) {
            Some(sampled) => Sampled { endpoint: endpoint.clone(), ..sampled },
            None => Sampled::begin(label, endpoint.clone()),
        }
    };
    set.administered.iter().map(begin).collect()
}

/// An endpoint, its history, and its counters at the last sample.
struct Sampled {
    label: String,
    endpoint: Arc<Administered>,
    history: History,
    last: Counters,
    /// The seconds that its requests and its calls had taken, for each second of the last minute.
    spent: VecDeque<Spent>,
}

/// The seconds that the requests of an endpoint have taken since the start, and its calls by callee.
#[derive(Debug, Clone, Default)]
struct Spent {
    requests: f64,
    calls: BTreeMap<String, f64>,
}

/// The counters of an endpoint since its start.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    edge: EdgeTotals,
    generation: u64,
    jobs: u64,
    restarts: u64,
}

/// The levels of an endpoint now.
#[derive(Debug, Clone, Copy, Default)]
struct Levels {
    in_flight: usize,
    queued: usize,
    ready: usize,
}

impl Sampled {
    fn begin(label: String, endpoint: Arc<Administered>) -> Self {
        let spent = VecDeque::from([Spent::default()]);
        Self { label, endpoint, history: History::new(), last: Counters::default(), spent }
    }

    fn label(&self) -> &str {
        &self.label
    }

    /// Appends what happened since the last sample. If the server stood still, the missed seconds have
    /// the levels of now and no requests.
    async fn sample(&mut self, seconds: u64, totals: &CallsByEdge) {
        let (now, levels) = observe(&self.endpoint).await;
        let own = totals.iter().filter(|((caller, _), _)| caller == self.label());
        let calls = own.map(|((_, callee), calls)| (callee.clone(), calls.durations.sum)).collect();
        push_in_minute(&mut self.spent, Spent { requests: now.edge.seconds, calls });
        let period = period(&self.last, &now, levels);
        self.last = now;
        let missed = Period {
            in_flight: period.in_flight,
            queued: period.queued,
            ready: period.ready,
            ..Period::default()
        };
        (1..seconds.min(HistoryQuery::KEPT_SECONDS)).for_each(|_| self.history.push(&missed));
        self.history.push(&period);
    }

    fn recent(&self) -> Recent {
        Recent {
            seconds: self.history.sum(10),
            minute: self.history.sum(60),
            callee: self.spent.front().zip(self.spent.back()).and_then(|(a, b)| slowest(a, b)),
        }
    }

    fn read(&self, query: &HistoryQuery) -> EndpointHistory {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let points = self.history.last(query.seconds, query.step);
        EndpointHistory {
            endpoint: self.label().to_owned(),
            points: points.into_iter().map(|located| point(located, now)).collect(),
        }
    }
}

/// Returns the callee whose calls took most of the time between two readings, and their share of the time
/// of the requests that ended meanwhile.
fn slowest(before: &Spent, now: &Spent) -> Option<(String, f64)> {
    let requests = now.requests - before.requests;
    let calls = now.calls.iter().map(|(callee, seconds)| {
        (callee, seconds - before.calls.get(callee).copied().unwrap_or_default())
    });
    let (callee, seconds) = calls.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (requests > 0.0).then(|| (callee.clone(), seconds / requests))
}

async fn observe(endpoint: &Administered) -> (Counters, Levels) {
    match endpoint {
        Administered::Workers(generations) => {
            let controls = generations.live();
            // The task of the endpoint answers in microseconds.
            let load = controls.endpoint.load().await;
            let states = controls.view.states();
            let is_ready = |state: &&SlotState| matches!(state, SlotState::Ready(_));
            let counters = Counters {
                edge: controls.edge.totals(),
                generation: controls.generation,
                jobs: load.arrived,
                restarts: controls.view.record().restarts.iter().sum(),
            };
            let ready = states.iter().filter(is_ready).count();
            (counters, Levels { in_flight: load.in_flight, queued: load.queued, ready })
        }
        Administered::Pipeline(state) => {
            let counters = Counters { edge: state.edge.totals(), ..Counters::default() };
            (counters, Levels { in_flight: in_progress(&state.edge), ..Levels::default() })
        }
    }
}

fn in_progress(edge: &Edge) -> usize {
    usize::try_from(edge.inflight()).unwrap_or_default()
}

/// Returns what happened between two readings of the counters. Those of the queue and of the workers begin
/// again with each generation.
fn period(before: &Counters, now: &Counters, levels: Levels) -> Period {
    use RequestOutcome as Of;
    let queue = if now.generation == before.generation { *before } else { Counters::default() };
    let outcome =
        |of: Of| now.edge.outcomes[of as usize].saturating_sub(before.edge.outcomes[of as usize]);
    let latency = |at: usize| now.edge.latencies[at].saturating_sub(before.edge.latencies[at]);
    Period {
        seconds: 1,
        latencies: std::array::from_fn::<_, BUCKETS, _>(latency),
        errors: ErrorCounts {
            bad_input: outcome(Of::BadInput),
            model_error: outcome(Of::ModelError),
            timeout: outcome(Of::Timeout),
            cancelled: outcome(Of::Cancelled),
            unavailable: outcome(Of::Unavailable),
            worker_lost: outcome(Of::WorkerLost),
        },
        jobs: now.jobs.saturating_sub(queue.jobs),
        restarts: now.restarts.saturating_sub(queue.restarts),
        in_flight: levels.in_flight as u64,
        queued: levels.queued as u64,
        ready: levels.ready as u64,
    }
}

fn point(Located { age, period }: Located, now: f64) -> HistoryPoint {
    let quantile = |share| quantile(&period.latencies, &LATENCY_BOUNDS, share);
    HistoryPoint {
        time: now - age as f64,
        seconds: period.seconds,
        requests: period.ended(),
        rate: period.ended() as f64 / f64::from(period.seconds.max(1)),
        errors: period.errors,
        jobs: period.jobs,
        in_flight: period.in_flight,
        queued: period.queued,
        p50: quantile(0.5),
        p99: quantile(0.99),
        workers_ready: period.ready,
        restarts: period.restarts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_the_difference_of_two_readings() {
        let mut before = Counters { jobs: 5, restarts: 1, ..Counters::default() };
        before.edge.outcomes[RequestOutcome::Timeout as usize] = 3;
        before.edge.latencies[4] = 100;
        let mut now = before;
        now.edge.outcomes[RequestOutcome::Timeout as usize] = 5;
        now.edge.latencies[4] = 110;
        (now.jobs, now.restarts) = (25, 2);
        let reloaded = Counters { generation: 2, jobs: 4, restarts: 0, ..now };
        let first = period(&before, &reloaded, Levels::default());
        assert_eq!((first.ended(), first.jobs, first.restarts), (12, 4, 0));
        let levels = Levels { in_flight: 3, queued: 8, ready: 2 };
        let period = period(&before, &now, levels);
        assert_eq!((period.ended(), period.errors.timeout, period.latencies[4]), (12, 2, 10));
        assert_eq!((period.jobs, period.restarts), (20, 1));
        let shown = point(Located { age: 4, period: Period { seconds: 4, ..period } }, 1_000.0);
        assert!((shown.time - 996.0).abs() < 1e-9 && (shown.rate - 3.0).abs() < 1e-9);
        assert_eq!((shown.requests, shown.errors.total(), shown.queued), (12, 2, 8));
        assert!(shown.p50.is_some_and(|p50| (0.01..=0.025).contains(&p50)));
    }

    #[test]
    fn the_calls_of_the_last_minute_are_those_between_two_readings() {
        let bounds = vec![0.1, 1.0];
        let totals = |fast, slow, failed| {
            let durations =
                Distribution { bounds: bounds.clone(), counts: vec![fast, slow, 0], sum: 0.0 };
            let calls = CallTotals { durations, failed };
            CallsByEdge::from([(("/a".to_owned(), "/b".to_owned()), calls)])
        };
        let mut readings = VecDeque::from([totals(1_000, 0, 7)]);
        for second in 1..=100 {
            push_in_minute(&mut readings, totals(1_000 + second * 2, second, 7 + second / 20));
        }
        let [calls] = &recent_calls(&readings)[..] else { panic!() };
        assert_eq!((&*calls.caller, &*calls.callee, calls.failed), ("/a", "/b", 3));
        assert!((calls.rate - 3.0).abs() < 1e-9);
        assert!(calls.p50.is_some_and(|p50| p50 < 0.1));
        assert!(calls.p99.is_some_and(|p99| (0.9..=1.0).contains(&p99)));
        readings.clear();
        assert!(recent_calls(&readings).is_empty());
    }

    #[test]
    fn the_slowest_callee_is_that_of_the_time_between_two_readings() {
        let spent = |requests, ocr, embed| Spent {
            requests,
            calls: BTreeMap::from([("/ocr".to_owned(), ocr), ("/embed".to_owned(), embed)]),
        };
        let found = slowest(&spent(100.0, 90.0, 1.0), &spent(110.0, 92.0, 9.0));
        let (callee, share) = found.unwrap();
        assert_eq!(callee, "/embed");
        assert!((share - 0.8).abs() < 1e-9);
        assert_eq!(slowest(&spent(1.0, 1.0, 1.0), &spent(1.0, 1.0, 1.0)), None);
        assert_eq!(slowest(&Spent::default(), &Spent::default()), None);
    }
}
