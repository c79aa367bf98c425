//! The metrics that models define, summed over all workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use litplex_wire::{self as wire, MetricChange};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use tokio::sync::{mpsc, oneshot};

use crate::observed::pair;

/// The most metrics that the models of one endpoint may define.
const MAX_METRICS: usize = 100;

/// The longest name of a metric, in bytes.
const MAX_NAME: usize = 64;

const PREFIX: &str = "litplex_user_";

/// The metrics of all models, summed over their workers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UserMetrics(mpsc::UnboundedSender<Event>);

/// The sink for reports of an endpoint's workers.
#[derive(Debug, Clone)]
pub struct UserSink {
    /// The label of the endpoint. Each sink has an allocation of its own, by which it is known.
    endpoint: Arc<str>,
    events: mpsc::UnboundedSender<Event>,
}

#[derive(Debug)]
enum Event {
    Report { endpoint: Arc<str>, slot: usize, reported: Vec<wire::Metric> },
    Gone { endpoint: Arc<str>, slot: usize },
    Read(oneshot::Sender<Vec<MetricFamily>>),
}

impl UserMetrics {
    /// Starts the task that owns the metrics. Must be called within a runtime.
    pub fn spawn() -> Self {
        // Bounded by the workers: each sends a report at most once per interval, and a model has at
        // most `MAX_METRICS` metrics; the task only adds numbers.
        let (events, inbox) = mpsc::unbounded_channel();
        tokio::spawn(Families::default().run(inbox));
        Self(events)
    }

    /// Returns the sink for reports of an endpoint's workers.
    pub fn sink(&self, endpoint: &str) -> UserSink {
        UserSink { endpoint: endpoint.into(), events: self.0.clone() }
    }

    /// Returns the current values of all metrics.
    pub async fn read(&self) -> UserFamilies {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Event::Read(answer));
        UserFamilies(answered.await.unwrap_or_default())
    }
}

/// The values that [`UserMetrics::read`] returns.
#[derive(Debug, Default)]
pub struct UserFamilies(pub(crate) Vec<MetricFamily>);

impl UserSink {
    /// Adds the changes that the worker of a slot reports.
    pub fn report(&self, slot: usize, reported: Vec<wire::Metric>) {
        let endpoint = self.endpoint.clone();
        let _ = self.events.send(Event::Report { endpoint, slot, reported });
    }

    /// Removes the gauges of a slot whose worker is gone. Its counts remain.
    pub fn gone(&self, slot: usize) {
        let _ = self.events.send(Event::Gone { endpoint: self.endpoint.clone(), slot });
    }
}

/// The metrics of all models by their full names.
#[derive(Default)]
struct Families {
    families: BTreeMap<String, Family>,
    /// The sink of the worker that reported last for a slot: while an endpoint is reloaded, two workers of
    /// a slot report, and the end of the older one must not remove the gauges of the newer one.
    reporters: BTreeMap<(Arc<str>, usize), Arc<str>>,
    /// The refused metrics, each of which is logged once.
    refused: BTreeSet<(Arc<str>, String)>,
}

struct Family {
    help: String,
    series: BTreeMap<Labels, MetricChange>,
}

type Labels = (Arc<str>, Option<usize>);

impl Families {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        while let Some(event) = inbox.recv().await {
            match event {
                Event::Report { endpoint, slot, reported } => {
                    reported.into_iter().for_each(|metric| self.take(&endpoint, slot, metric));
                    self.reporters.insert((endpoint.clone(), slot), endpoint);
                }
                Event::Gone { endpoint, slot } => {
                    let reporter = self.reporters.get(&(endpoint.clone(), slot));
                    if reporter.is_some_and(|reporter| Arc::ptr_eq(reporter, &endpoint)) {
                        self.forget(&endpoint, slot);
                    }
                }
                // The receiver may have left, which is no error.
                Event::Read(answer) => drop(answer.send(self.families())),
            }
        }
    }

    fn take(&mut self, endpoint: &Arc<str>, slot: usize, metric: wire::Metric) {
        let wire::Metric { name, help, change } = metric;
        if let Err(why) = self.merge(endpoint, slot, &name, help, change)
            && self.refused.len() < MAX_METRICS
            && self.refused.insert((endpoint.clone(), name.clone()))
        {
            tracing::warn!(endpoint = &**endpoint, "the metric {name:?} is not exported: {why}");
        }
    }

    fn merge(
        &mut self,
        endpoint: &Arc<str>,
        slot: usize,
        name: &str,
        help: String,
        value: MetricChange,
    ) -> Result<(), &'static str> {
        check(name, &value)?;
        let full = full_name(name, &value);
        let has_endpoint =
            |family: &&Family| family.series.keys().any(|(owner, _)| owner == endpoint);
        let names = self.families.values().filter(has_endpoint).count();
        let is_new = !self.families.get(&full).is_some_and(|family| has_endpoint(&family));
        if is_new && names >= MAX_METRICS {
            return Err("its endpoint has reached the limit of metrics");
        }
        let family = match self.families.get_mut(&full) {
            Some(family) => family,
            None => self.families.entry(full).or_insert(Family { help, series: BTreeMap::new() }),
        };
        if family.series.values().any(|other| !fits(other, &value)) {
            return Err(
                "a metric of this name and another kind exists in another endpoint or worker",
            );
        }
        let worker = matches!(value, MetricChange::Gauge { .. }).then_some(slot);
        match family.series.get_mut(&(endpoint.clone(), worker)) {
            Some(total) => add(total, value),
            None => drop(family.series.insert((endpoint.clone(), worker), value)),
        }
        Ok(())
    }

    /// Removes the gauges of a worker that is gone.
    fn forget(&mut self, endpoint: &Arc<str>, slot: usize) {
        let own = (endpoint.clone(), Some(slot));
        self.families.retain(|_, family| {
            family.series.remove(&own);
            !family.series.is_empty()
        });
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.families.iter().map(|(name, family)| family.proto(name)).collect()
    }
}

/// Checks a change as workers do before they report it.
fn check(name: &str, value: &MetricChange) -> Result<(), &'static str> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > MAX_NAME
        || !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.chars().all(is_allowed)
    {
        return Err(
            "invalid name: expected a letter, then letters, digits and `_`, at most 64 in all",
        );
    }
    match value {
        MetricChange::Counter { value: by } if !(by.is_finite() && *by >= 0.0) => {
            Err("invalid increment: a counter can only grow")
        }
        MetricChange::Histogram { bounds, counts, .. }
            if counts.len() != bounds.len() + 1 || !bounds.is_sorted_by(|a, b| a < b) =>
        {
            Err("invalid buckets: expected increasing bounds and one count more than bounds")
        }
        _ => Ok(()),
    }
}

fn full_name(name: &str, value: &MetricChange) -> String {
    match value {
        MetricChange::Counter { .. } if !name.ends_with("_total") => {
            format!("{PREFIX}{name}_total")
        }
        _ => format!("{PREFIX}{name}"),
    }
}

/// Returns whether both can belong to one family.
fn fits(one: &MetricChange, other: &MetricChange) -> bool {
    match (one, other) {
        (
            MetricChange::Histogram { bounds, .. },
            MetricChange::Histogram { bounds: others, .. },
        ) => bounds == others,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

fn add(total: &mut MetricChange, more: MetricChange) {
    match (total, more) {
        (MetricChange::Counter { value }, MetricChange::Counter { value: by }) => *value += by,
        (MetricChange::Gauge { value }, MetricChange::Gauge { value: now }) => *value = now,
        (
            MetricChange::Summary { count, sum },
            MetricChange::Summary { count: more, sum: added },
        ) => {
            *count += more;
            *sum += added;
        }
        (
            MetricChange::Histogram { counts, sum, .. },
            MetricChange::Histogram { counts: more, sum: added, .. },
        ) => {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            *sum += added;
        }
        _ => unreachable!("the kinds differ. This is a bug."),
    }
}

impl Family {
    fn proto(&self, name: &str) -> MetricFamily {
        let mut kind = MetricType::COUNTER;
        let metrics = self.series.iter().map(|((endpoint, worker), value)| {
            let mut labels = vec![pair("endpoint", endpoint.to_string())];
            labels.extend(worker.map(|slot| pair("worker", slot.to_string())));
            let (of, metric) = metric(labels, value);
            kind = of;
            metric
        });
        let metrics = metrics.collect();
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(self.help.clone());
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    }
}

fn metric(labels: Vec<LabelPair>, value: &MetricChange) -> (MetricType, Metric) {
    let mut metric = Metric::from_label(labels);
    let kind = match value {
        MetricChange::Counter { value } => {
            let mut counter = proto::Counter::default();
            counter.set_value(*value);
            metric.set_counter(counter);
            MetricType::COUNTER
        }
        MetricChange::Gauge { value } => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*value);
            metric.set_gauge(gauge);
            MetricType::GAUGE
        }
        MetricChange::Summary { count, sum } => {
            let mut summary = proto::Summary::default();
            summary.set_sample_count(*count);
            summary.set_sample_sum(*sum);
            metric.set_summary(summary);
            MetricType::SUMMARY
        }
        MetricChange::Histogram { bounds, counts, sum } => {
            let mut seen = 0;
            let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
                seen += count;
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(seen);
                bucket
            });
            let mut histogram = proto::Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(counts.iter().sum());
            histogram.set_sample_sum(*sum);
            metric.set_histogram(histogram);
            MetricType::HISTOGRAM
        }
    };
    (kind, metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    fn reported(name: &str, change: MetricChange) -> wire::Metric {
        wire::Metric { name: name.into(), help: "A sentence.".into(), change }
    }

    /// Returns the lines of the models' metrics.
    async fn lines(user: &UserMetrics) -> Vec<String> {
        let text = Metrics::new().render(&[], &[], &[], user.read().await);
        text.lines().filter(|line| line.starts_with(PREFIX)).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn counters_of_all_workers_add_up_and_outlive_them() {
        let user = UserMetrics::spawn();
        let sink = user.sink("/a");
        sink.report(0, vec![reported("tokens", MetricChange::Counter { value: 2.0 })]);
        sink.report(1, vec![reported("tokens", MetricChange::Counter { value: 3.0 })]);
        sink.gone(0);
        sink.report(0, vec![reported("tokens", MetricChange::Counter { value: 0.5 })]);
        user.sink("/b")
            .report(0, vec![reported("tokens_total", MetricChange::Counter { value: 1.0 })]);
        let expected = [
            "litplex_user_tokens_total{endpoint=\"/a\"} 5.5",
            "litplex_user_tokens_total{endpoint=\"/b\"} 1",
        ];
        assert_eq!(lines(&user).await, expected);
    }

    #[tokio::test]
    async fn each_worker_has_its_own_gauge_until_it_is_gone() {
        let user = UserMetrics::spawn();
        let sink = user.sink("/a");
        sink.report(0, vec![reported("free", MetricChange::Gauge { value: 2.0 })]);
        sink.report(1, vec![reported("free", MetricChange::Gauge { value: 3.0 })]);
        sink.report(1, vec![reported("free", MetricChange::Gauge { value: 1.0 })]);
        sink.gone(0);
        let expected = ["litplex_user_free{endpoint=\"/a\",worker=\"1\"} 1"];
        assert_eq!(lines(&user).await, expected);
    }

    #[tokio::test]
    async fn the_gauges_of_a_newer_worker_of_a_slot_outlive_the_older_one() {
        let user = UserMetrics::spawn();
        let (older, newer) = (user.sink("/a"), user.sink("/a"));
        older.report(0, vec![reported("free", MetricChange::Gauge { value: 2.0 })]);
        newer.report(0, vec![reported("free", MetricChange::Gauge { value: 3.0 })]);
        older.gone(0);
        let expected = ["litplex_user_free{endpoint=\"/a\",worker=\"0\"} 3"];
        assert_eq!(lines(&user).await, expected);
        newer.gone(0);
        assert!(lines(&user).await.is_empty());
    }

    #[tokio::test]
    async fn values_are_counted_in_buckets() {
        let user = UserMetrics::spawn();
        let sink = user.sink("/a");
        for _ in 0..2 {
            let (bounds, counts) = (vec![1.0, 2.5], vec![1, 2, 3]);
            sink.report(
                0,
                vec![reported("size", MetricChange::Histogram { bounds, counts, sum: 9.0 })],
            );
            sink.report(0, vec![reported("length", MetricChange::Summary { count: 2, sum: 7.0 })]);
        }
        let expected = [
            "litplex_user_length_sum{endpoint=\"/a\"} 14",
            "litplex_user_length_count{endpoint=\"/a\"} 4",
            "litplex_user_size_bucket{endpoint=\"/a\",le=\"1\"} 2",
            "litplex_user_size_bucket{endpoint=\"/a\",le=\"2.5\"} 6",
            "litplex_user_size_bucket{endpoint=\"/a\",le=\"+Inf\"} 12",
            "litplex_user_size_sum{endpoint=\"/a\"} 18",
            "litplex_user_size_count{endpoint=\"/a\"} 12",
        ];
        assert_eq!(lines(&user).await, expected);
    }

    #[tokio::test]
    async fn invalid_metrics_are_not_exported() {
        let user = UserMetrics::spawn();
        let sink = user.sink("/a");
        let histogram =
            |bounds, counts| reported("h", MetricChange::Histogram { bounds, counts, sum: 0.0 });
        let long = "x".repeat(65);
        for name in ["", "1a", "a b", "a-b", "ß", "a\nb 1", &long] {
            sink.report(0, vec![reported(name, MetricChange::Counter { value: 1.0 })]);
        }
        sink.report(0, vec![reported("shrinks", MetricChange::Counter { value: -1.0 })]);
        sink.report(0, vec![histogram(vec![1.0], vec![1]), histogram(vec![2.0, 1.0], vec![0; 3])]);
        assert!(lines(&user).await.is_empty());
        sink.report(0, vec![reported("a", MetricChange::Gauge { value: 1.0 })]);
        user.sink("/b")
            .report(0, vec![reported("a", MetricChange::Summary { count: 1, sum: 2.0 })]);
        assert_eq!(lines(&user).await, ["litplex_user_a{endpoint=\"/a\",worker=\"0\"} 1"]);
    }

    #[tokio::test]
    async fn the_number_of_metrics_of_an_endpoint_is_limited() {
        let user = UserMetrics::spawn();
        for number in 0..2 * MAX_METRICS {
            let delta = reported(&format!("name_{number}"), MetricChange::Counter { value: 1.0 });
            user.sink("/a").report(0, vec![delta]);
        }
        user.sink("/b").report(0, vec![reported("name_0", MetricChange::Counter { value: 1.0 })]);
        assert_eq!(lines(&user).await.len(), MAX_METRICS + 1);
    }
}
