//! The load of an endpoint now, and why it is slow.

use litplex_admin::EndpointLoad;
use litplex_history::{Batch, Situation, explanation, quantile};
use litplex_metrics::LATENCY_BOUNDS;
use litplex_scheduler::EndpointLoad as QueueLoad;
use litplex_supervisor::SlotState;
use tokio::task::spawn_blocking;

use crate::administered::Administered;
use crate::controls::EndpointControls;
use crate::history::Recent;

/// Returns the load of an endpoint with this last minute.
pub(crate) async fn load_of(endpoint: &Administered, recent: &Recent) -> EndpointLoad {
    let quantile = |share| quantile(&recent.minute.latencies, &LATENCY_BOUNDS, share);
    let p50 = quantile(0.5);
    let (status, mut situation, memory) = match endpoint {
        Administered::Workers(generations) => {
            let controls = generations.live();
            let queue = controls.endpoint.load().await;
            (controls.status(&queue), observe(&controls, &queue), memory(&controls).await)
        }
        Administered::Pipeline(state) => (state.status(), Situation::default(), None),
    };
    situation.p50 = p50;
    situation.restarts = recent.minute.restarts;
    situation.callee = recent.callee.as_ref().map(|(callee, share)| (callee.as_str(), *share));
    let per_second = |count: u64| count as f64 / f64::from(recent.seconds.seconds.max(1));
    EndpointLoad {
        endpoint: status.label,
        state: status.state,
        workers_ready: situation.ready,
        workers: status.wanted,
        in_flight: status.in_flight,
        queued: status.queued,
        rate: per_second(recent.seconds.ended()),
        job_rate: per_second(recent.seconds.jobs),
        errors: recent.minute.errors,
        p50,
        p99: quantile(0.99),
        memory,
        slow: explanation(&situation),
        batches: status.batches,
    }
}

fn observe(controls: &EndpointControls, load: &QueueLoad) -> Situation<'static> {
    let states = controls.view.states();
    let doing = |fits: fn(&SlotState) -> bool| states.iter().filter(|state| fits(state)).count();
    let ready = doing(|state| matches!(state, SlotState::Ready(_)));
    let info = controls.endpoint.model_info();
    Situation {
        mode: load.mode,
        has_workers: true,
        queued: load.queued,
        in_flight: load.in_flight,
        ready,
        starting: doing(|state| matches!(state, SlotState::Starting { .. })),
        wanted: controls.view.wanted(),
        places: info.map_or(0, |info| {
            ready.saturating_mul(info.max_batch_size.saturating_mul(info.concurrency))
        }),
        batch: info.filter(|info| info.max_batch_size > 1).map(|info| Batch {
            size: info.max_batch_size,
            timeout: info.batch_timeout.as_secs_f64(),
        }),
        ..Situation::default()
    }
}

/// Returns the bytes of memory that the workers use, which the kernel adds up.
async fn memory(controls: &EndpointControls) -> Option<u64> {
    let slots = 0..controls.view.states().len();
    let monitors: Vec<_> = slots.filter_map(|slot| controls.view.monitor(slot)).collect();
    let used = spawn_blocking(move || {
        let used = monitors.iter().filter_map(|monitor| monitor.usage(None).memory);
        used.reduce(|all, more| all + more)
    });
    used.await.ok().flatten()
}
