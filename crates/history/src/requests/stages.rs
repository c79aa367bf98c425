//! The stages of a request, from the steps that were noted while it ran.

use litplex_core::{BatchTrace, Place, Step};
use tokio::time::Instant;

use super::record::{Stage, StageKind};

/// The most stages of a request that are remembered.
const MOST_STAGES: usize = 256;

/// The times of a request in the server.
#[derive(Debug, Clone, Copy)]
struct Times {
    began: Instant,
    /// The start of the response, if it began.
    answered: Option<Instant>,
    ended: Instant,
}

/// Returns the stages of the request with this number, in the order of a walk through their tree, and how
/// many were left out. It arrived at `began`, and its response was sent from `answered`, if it began, to
/// `ended`.
pub fn recorded_stages(
    request: u64,
    steps: &[Step],
    began: Instant,
    answered: Option<Instant>,
    ended: Instant,
) -> (Vec<Stage>, usize) {
    let mut tree = Tree { times: Times { began, answered, ended }, found: Vec::new() };
    let placed: Vec<_> = steps.iter().map(|step| tree.add(request, step)).collect();
    for (step, &at) in steps.iter().zip(&placed) {
        let by_span = || steps.iter().position(|other| other.span == Some(step.parent));
        let parent = by_span().or(step.caller).and_then(|parent| placed.get(parent));
        tree.found[at].parent = parent.copied().filter(|&parent| parent != at);
    }
    tree.add_edges();
    let left_out = tree.found.len().saturating_sub(MOST_STAGES);
    (in_order(&tree.found), left_out)
}

/// The stages, each with the place of the one around it.
struct Tree {
    times: Times,
    found: Vec<Stage>,
}

impl Tree {
    /// Adds the stages of a step; returns the place of the outermost.
    fn add(&mut self, request: u64, step: &Step) -> usize {
        let ended = step.ended.unwrap_or(self.times.ended);
        let at = self.found.len();
        let kind = kind(request, &step.place);
        self.push(kind, None, step.began, ended);
        self.found[at].endpoint.clone_from(&step.endpoint);
        match &step.place {
            Place::Queue { ready: Some(ready), .. } if *ready > step.began => {
                self.push(StageKind::ColdStart, Some(at), step.began, (*ready).min(ended));
            }
            Place::Worker { stages, .. } => {
                for (name, from, to) in stages.placed(step.began, ended) {
                    let kind = match name {
                        "decode" => StageKind::Decode,
                        "encode" => StageKind::Encode,
                        _ => StageKind::Predict,
                    };
                    self.push(kind, Some(at), from, to);
                }
            }
            Place::Queue { .. } | Place::Pipeline { .. } => {}
        }
        at
    }

    /// Adds what the edge did before the first stage, and after the response began.
    fn add_edges(&mut self) {
        let Times { began, answered, ended } = self.times;
        let first = self.found.iter().map(|stage| stage.start).min();
        let first = first.map(|start| began + start).or(answered).unwrap_or(ended);
        self.push(StageKind::Edge, None, began, first);
        if let Some(answered) = answered {
            self.push(StageKind::Response, None, answered, ended);
        }
    }

    fn push(&mut self, kind: StageKind, parent: Option<usize>, from: Instant, to: Instant) {
        let start = from.saturating_duration_since(self.times.began);
        let duration = to.saturating_duration_since(from);
        self.found.push(Stage { kind, endpoint: None, parent, start, duration });
    }
}

fn kind(request: u64, place: &Place) -> StageKind {
    match place {
        Place::Queue { is_retry, .. } => StageKind::Queue { is_retry: *is_retry },
        Place::Pipeline { step, failed } => {
            StageKind::Step { name: step.as_str().into(), failed: *failed }
        }
        Place::Worker { slot, generation, batch, .. } => StageKind::Worker {
            slot: *slot,
            generation: *generation,
            batch_size: batch.as_ref().map(|batch| batch.size),
            mates: batch.as_deref().map(|batch| mates(request, batch)).unwrap_or_default(),
        },
    }
}

/// Returns the numbers of the other recorded requests in a batch.
fn mates(request: u64, batch: &BatchTrace) -> Box<[u64]> {
    let mut mates: Vec<_> = batch.members.iter().map(|member| member.request).collect();
    mates.retain(|&mate| mate != request);
    mates.dedup();
    mates.into()
}

/// Returns the first stages of a walk through their tree: each follows the one around it, and those beside
/// each other are in the order of their start.
fn in_order(found: &[Stage]) -> Vec<Stage> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); found.len() + 1];
    for (at, stage) in found.iter().enumerate() {
        children[stage.parent.unwrap_or(found.len())].push(at);
    }
    for beside in &mut children {
        beside.sort_by_key(|&at| (rank(&found[at].kind), found[at].start, at));
    }
    let mut ordered: Vec<Stage> = Vec::new();
    // The next one is at the end.
    let mut open: Vec<(usize, Option<usize>)> =
        children[found.len()].iter().rev().map(|&at| (at, None)).collect();
    while let Some((at, parent)) = open.pop() {
        if ordered.len() == MOST_STAGES {
            break;
        }
        let place = ordered.len();
        ordered.push(Stage { parent, ..found[at].clone() });
        open.extend(children[at].iter().rev().map(|&child| (child, Some(place))));
    }
    ordered
}

/// Returns the place of a stage among those that start at the same time or later.
fn rank(kind: &StageKind) -> u8 {
    match kind {
        StageKind::Edge => 0,
        StageKind::Response => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use litplex_core::{
        Dispatch, Identity, Job, Request, Response, SpanContext, Stages, Trace, reply,
        trace_dispatch,
    };
    use tokio::time::advance;

    use super::*;

    fn context() -> SpanContext {
        SpanContext { trace_id: 1, span_id: 9, is_sampled: false }
    }

    fn job(trace: &Arc<Trace>, label: &str) -> Job {
        let (reply, _) = reply();
        let now = Instant::now();
        let identity = Identity { label: label.into(), ..Identity::default() };
        let reply = reply.traced(Some(trace.clone()), &Arc::new(identity));
        Job::new(Request::json("1"), now, now, reply)
    }

    fn dispatch(jobs: &mut [Job], slot: usize, ready: Instant, is_batch: bool) {
        let to = Dispatch { slot, generation: 2, ready: Some(ready), now: Instant::now() };
        trace_dispatch(jobs, is_batch, to);
    }

    /// Returns the depth, kind, endpoint, start and length of each stage, in milliseconds.
    fn shown(stages: &[Stage]) -> Vec<String> {
        let depth = |mut at: usize| {
            let mut depth = 0;
            while let Some(parent) = stages[at].parent {
                (at, depth) = (parent, depth + 1);
            }
            depth
        };
        let line = |(at, stage): (usize, &Stage)| {
            let word = match &stage.kind {
                StageKind::Worker { slot, generation, batch_size, mates } => {
                    format!("worker {slot} {generation} {batch_size:?} {mates:?}")
                }
                StageKind::Step { name, failed } => format!("step {name} {failed:?}"),
                StageKind::Queue { is_retry: true } => "retry".into(),
                StageKind::Queue { .. } => "queue".into(),
                kind => format!("{kind:?}").to_lowercase(),
            };
            let endpoint = stage.endpoint.as_ref().map_or("", |endpoint| &endpoint.label);
            let (start, length) = (stage.start.as_millis(), stage.duration.as_millis());
            format!("{}{word} {endpoint} {start}+{length}", "  ".repeat(depth(at)))
        };
        stages.iter().enumerate().map(line).collect()
    }

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn the_stages_of_a_request_are_a_tree_in_the_order_of_time() {
        let began = Instant::now();
        let trace = Arc::new(Trace::new(context(), 7));
        let other = Arc::new(Trace::new(context(), 8));
        advance(MS).await;
        let mut jobs = [job(&trace, "/outer"), job(&other, "/outer")];
        advance(4 * MS).await;
        let ready = Instant::now();
        advance(MS).await;
        dispatch(&mut jobs, 3, ready, true);
        let [mut first, _mate] = jobs;
        advance(MS).await;
        let calls = first.reply.trace().unwrap().for_calls();
        let mut inner = [job(&calls, "/inner")];
        dispatch(&mut inner, 0, ready, false);
        advance(2 * MS).await;
        let [inner] = inner;
        inner.reply.send(Ok(Response::json("1")));
        let stages = Stages { decode: Some(MS), predict: Some(2 * MS), ..Stages::default() };
        first.trace().unwrap().took(stages);
        first.reply.send(Ok(Response::json("1")));
        let answered = Instant::now();
        advance(3 * MS).await;
        let steps = trace.take();
        let (stages, left_out) = recorded_stages(7, &steps, began, Some(answered), Instant::now());
        assert_eq!(left_out, 0);
        assert_eq!(
            shown(&stages),
            [
                "edge  0+1",
                "queue /outer 1+5",
                "  coldstart  1+4",
                "worker 3 2 Some(2) [8] /outer 6+3",
                "  decode  6+1",
                "  predict  7+2",
                "  queue /inner 7+0",
                "  worker 0 2 None [] /inner 7+2",
                "response  9+3",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_worker_and_the_steps_of_a_pipeline_are_shown() {
        let began = Instant::now();
        let trace = Arc::new(Trace::new(context(), 7));
        let step = trace.child();
        let mut jobs = [job(&step, "/a")];
        dispatch(&mut jobs, 0, began, false);
        advance(MS).await;
        jobs[0].note_requeued(Instant::now());
        advance(MS).await;
        dispatch(&mut jobs, 1, began, false);
        advance(MS).await;
        drop(jobs);
        step.end(Place::Pipeline { step: "read".into(), failed: Some(502) }, began);
        let (stages, _) = recorded_stages(7, &trace.take(), began, None, Instant::now());
        assert_eq!(
            shown(&stages),
            [
                "edge  0+0",
                "step read Some(502)  0+3",
                "  queue /a 0+0",
                "  worker 0 2 None [] /a 0+1",
                "  retry /a 1+1",
                "  worker 1 2 None [] /a 2+1",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_stages_of_a_request_with_many_jobs_are_bounded() {
        let began = Instant::now();
        let trace = Arc::new(Trace::new(context(), 7));
        let mut jobs: Vec<_> = (0..300).map(|_| job(&trace, "/a")).collect();
        dispatch(&mut jobs, 0, began, false);
        drop(jobs);
        let (stages, left_out) = recorded_stages(7, &trace.take(), began, None, Instant::now());
        assert_eq!((stages.len(), left_out), (MOST_STAGES, 601 - MOST_STAGES));
    }
}
