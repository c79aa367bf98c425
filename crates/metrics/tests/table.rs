//! The table of metrics against the documentation and the rendered metrics.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use litplex_metrics::{
    BatchLimit, METRICS, Metrics, Observed, ObservedBatches, ObservedGpu, ObservedPlace,
    ObservedWorker, PROCESS_METRICS, StepOutcome, UserFamilies, table_markdown,
};

const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end -->\n";

/// Compares the table of the page, or writes it if `LITPLEX_GENERATE` is set (`make generate`).
#[test]
fn the_page_contains_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table_markdown());
    if std::env::var_os("LITPLEX_GENERATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(page == wanted, "docs/metrics.md differs from the table; run `make generate`");
}

#[test]
fn the_rendered_metrics_are_those_of_the_table() {
    let metrics = Metrics::new();
    let (edge, queue) = (metrics.edge(Some("/a")), metrics.queue("/a"));
    edge.begin().ended();
    edge.first_chunk(Duration::ZERO, 1);
    queue.batch_cost(1.0);
    queue.batch_limit(BatchLimit::Full);
    metrics.stages("/a").observe(&[0.1]);
    metrics.steps("/a").observe("b", StepOutcome::Ok, Duration::ZERO);
    metrics.calls().begin("/a".into()).ended(200);
    queue.flush();
    let observed = Observed {
        endpoint: "/a".into(),
        workers: vec![("ready", 1)],
        worker_start: Some(Duration::from_secs(1)),
        restarts: vec![("exit", 2)],
        batches: Some(ObservedBatches { basis: "padded", size: 8, error: 0.1 }),
        slots: vec![ObservedWorker {
            inflight: Some(1),
            memory: Some(3),
            gpu_memory: Some(1),
            gpu_memory_limit: Some(2),
            ..ObservedWorker::default()
        }],
        tier: Some("hot"),
        devices: vec![("cpu".into(), Duration::ZERO)],
        ..Observed::default()
    };
    let gpu = ObservedGpu { utilization: Some(0.5), ..ObservedGpu::default() };
    let place = ObservedPlace { place: "host".into(), held: 1, templates: 1, budget: 2 };
    let text = metrics.render(&[observed], &[gpu], &[place], UserFamilies::default());
    let found: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let process = PROCESS_METRICS.iter().map(|(name, _)| *name);
    let wanted: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).chain(process).collect();
    assert_eq!(found, wanted);
    assert!(text.contains("litplex_worker_restarts_total{endpoint=\"/a\",reason=\"exit\"} 2\n"));
}

#[test]
fn the_outcome_of_a_request_is_counted_once() {
    let metrics = Metrics::new();
    let edge = metrics.edge(Some("/a"));
    let mut whole = edge.begin();
    whole.answered(200);
    whole.sent(7);
    whole.ended();
    whole.broke(500);
    let mut broken = edge.begin();
    broken.answered(200);
    broken.broke(504);
    let gone = edge.begin();
    let page = || metrics.render(&[], &[], &[], UserFamilies::default());
    assert!(page().contains("litplex_inflight_requests{endpoint=\"/a\"} 3\n"));
    drop((whole, broken, gone));
    for line in [
        "litplex_requests_total{code=\"200\",endpoint=\"/a\",outcome=\"ok\"} 1\n",
        "litplex_requests_total{code=\"200\",endpoint=\"/a\",outcome=\"timeout\"} 1\n",
        "litplex_requests_total{code=\"\",endpoint=\"/a\",outcome=\"cancelled\"} 1\n",
        "litplex_response_body_bytes_total{endpoint=\"/a\"} 7\n",
        "litplex_inflight_requests{endpoint=\"/a\"} 0\n",
    ] {
        assert!(page().contains(line), "{line}{}", page());
    }
    assert_eq!(edge.inflight(), 0);
}

#[tokio::test(start_paused = true)]
async fn totals_are_those_of_the_requests_that_ended() {
    let metrics = Metrics::new();
    let edge = metrics.edge(Some("/a"));
    assert_eq!(edge.totals(), litplex_metrics::EdgeTotals::default());
    for (status, milliseconds) in [(200, 0), (200, 20), (200, 90_000), (504, 3_000)] {
        let mut request = edge.begin();
        tokio::time::advance(Duration::from_millis(milliseconds)).await;
        request.answered(status);
        request.ended();
    }
    drop(edge.begin());
    let totals = edge.totals();
    assert_eq!(totals.outcomes, [3, 0, 0, 1, 1, 0, 0]);
    let mut latencies = [0; 16];
    (latencies[0], latencies[4], latencies[15]) = (1, 1, 1);
    assert_eq!(totals.latencies, latencies, "0 s, 20 ms, and more than a minute");
    assert!((totals.seconds - 93.02).abs() < 0.001, "{}", totals.seconds);
}
