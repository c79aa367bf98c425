//! The requests that a server remembers, as the admin API shows them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use litplex_admin::{
    RecentRequests, RequestBatch, RequestBody, RequestDetails, RequestQuery, RequestStage,
    RequestSummary, StageKind as Kind, StageSeconds,
};
use litplex_history::{Choice, KeptBody, RequestLog, RequestLogs, RequestRecord, Stage, StageKind};
use litplex_metrics::RequestOutcome;

/// The status of a request whose client left, as in the access log.
const CLIENT_LEFT: u16 = 499;

/// Returns the requests that are asked for, of the endpoint with the label `query.endpoint`.
pub(crate) fn recent(logs: &RequestLogs, query: &RequestQuery) -> RecentRequests {
    let RequestQuery { slowest, statuses, limit, .. } = *query;
    let chosen = logs.chosen(query.endpoint.as_deref(), Choice { slowest, statuses, limit });
    let requests = chosen.iter().map(|(log, record)| summary(log, record)).collect();
    RecentRequests { remembered: logs.remembered(), requests }
}

/// Returns a request with all its stages.
pub(crate) fn details(
    logs: &RequestLogs,
    log: &RequestLog,
    record: &RequestRecord,
) -> RequestDetails {
    let stages = record.stages.iter();
    RequestDetails {
        request: summary(log, record),
        waterfall: stages.map(|stage| shown(logs, stage)).collect(),
        left_out: record.left_out,
        request_body: record.request_body.as_ref().map(body),
        response_body: record.response_body.as_ref().map(body),
    }
}

fn body(kept: &KeptBody) -> RequestBody {
    let (content_type, text) = (kept.content_type.to_string(), kept.text.to_string());
    RequestBody { content_type, text, is_cut: kept.is_cut }
}

fn summary(log: &RequestLog, record: &RequestRecord) -> RequestSummary {
    let own = Own { label: log.label(), stages: &record.stages };
    let status = match (record.broken, record.status) {
        (Some(broken), _) => broken,
        (None, Some(status)) if record.is_complete => status,
        _ => CLIENT_LEFT,
    };
    let outcome = match status {
        CLIENT_LEFT => RequestOutcome::Cancelled,
        status => RequestOutcome::from_status(status),
    };
    let (worker, generation) = own.last_worker().unzip();
    RequestSummary {
        number: record.number,
        id: record.id.to_string(),
        endpoint: log.label().to_owned(),
        method: record.method.to_owned(),
        path: record.path.to_string(),
        status,
        outcome: outcome.as_str().to_owned(),
        time: arrival(record),
        duration: record.duration.as_secs_f64(),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        generation,
        worker,
        attempts: own.attempts(),
        is_recorded: record.is_recorded,
        stages: own.seconds(),
        trace_id: record.trace_id.map(|id| format!("{id:032x}")),
    }
}

/// Returns the arrival of a request in seconds since 1970.
fn arrival(record: &RequestRecord) -> f64 {
    let arrived = SystemTime::now() - record.began.elapsed();
    arrived.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The stages of a request that are those of its own endpoint.
struct Own<'a> {
    label: &'a str,
    stages: &'a [Stage],
}

impl Own<'_> {
    /// Returns its stages that this function accepts. Those inside a worker have no endpoint.
    fn of(&self, fits: impl Fn(&StageKind) -> bool) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(move |stage| fits(&stage.kind) && self.is_own(stage))
    }

    fn is_own(&self, stage: &Stage) -> bool {
        match (&stage.endpoint, stage.parent.and_then(|parent| self.stages.get(parent))) {
            (Some(endpoint), _) => endpoint.label == self.label,
            (None, Some(parent)) => self.is_own(parent),
            (None, None) => true,
        }
    }

    fn last_worker(&self) -> Option<(usize, u64)> {
        let worker = |stage: &Stage| match stage.kind {
            StageKind::Worker { slot, generation, .. } => Some((slot, generation)),
            _ => None,
        };
        self.of(is_worker).max_by_key(|stage| stage.start).and_then(worker)
    }

    /// Returns the number of times that a job was sent to a worker: once for all jobs of the request, and
    /// once more for each that waited again.
    fn attempts(&self) -> usize {
        let is_retry = |kind: &StageKind| *kind == StageKind::Queue { is_retry: true };
        let is_begun = self.of(is_worker).next().is_some();
        usize::from(is_begun) + self.of(is_retry).count()
    }

    fn seconds(&self) -> StageSeconds {
        let longest = |fits: fn(&StageKind) -> bool| {
            let longest = self.of(fits).map(|stage| stage.duration).max();
            longest.as_ref().map_or(0.0, Duration::as_secs_f64)
        };
        StageSeconds {
            edge: longest(|kind| *kind == StageKind::Edge),
            queue: longest(|kind| matches!(kind, StageKind::Queue { .. })),
            cold_start: longest(|kind| *kind == StageKind::ColdStart),
            worker: longest(is_worker),
            decode: longest(|kind| *kind == StageKind::Decode),
            predict: longest(|kind| *kind == StageKind::Predict),
            encode: longest(|kind| *kind == StageKind::Encode),
            response: longest(|kind| *kind == StageKind::Response),
        }
    }
}

fn is_worker(kind: &StageKind) -> bool {
    matches!(kind, StageKind::Worker { .. })
}

fn shown(logs: &RequestLogs, stage: &Stage) -> RequestStage {
    let plain = |kind| RequestStage {
        kind,
        parent: stage.parent,
        start: stage.start.as_secs_f64(),
        duration: stage.duration.as_secs_f64(),
        endpoint: stage.endpoint.as_ref().map(|endpoint| endpoint.label.clone()),
        step: None,
        failed: None,
        worker: None,
        generation: None,
        batch: None,
    };
    match &stage.kind {
        StageKind::Edge => plain(Kind::Edge),
        StageKind::Queue { is_retry: false } => plain(Kind::Queue),
        StageKind::Queue { is_retry: true } => plain(Kind::Retry),
        StageKind::ColdStart => plain(Kind::ColdStart),
        StageKind::Decode => plain(Kind::Decode),
        StageKind::Predict => plain(Kind::Predict),
        StageKind::Encode => plain(Kind::Encode),
        StageKind::Response => plain(Kind::Response),
        StageKind::Step { name, failed } => {
            RequestStage { step: Some(name.to_string()), failed: *failed, ..plain(Kind::Step) }
        }
        StageKind::Worker { slot, generation, batch_size, mates } => RequestStage {
            worker: Some(*slot),
            generation: Some(*generation),
            batch: batch_size.map(|size| RequestBatch {
                size,
                mates: mates.iter().filter_map(|&mate| logs.id(mate)).map(String::from).collect(),
            }),
            ..plain(Kind::Worker)
        },
    }
}
