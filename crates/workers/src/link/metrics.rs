//! What a model has measured itself, from its worker's frames.

use litplex_metrics::{Change, Delta, UserSink};
use litplex_wire::{Frame, FrameError, Metric, MetricChange, Metrics};

/// Takes what the worker of one slot has measured. Dropped, it says that the worker is gone.
#[derive(Debug)]
pub(crate) struct SlotMetrics {
    sink: UserSink,
    slot: usize,
}

impl SlotMetrics {
    pub(crate) fn new(sink: UserSink, slot: usize) -> Self {
        Self { sink, slot }
    }

    pub(crate) fn take(&self, frame: &Frame) -> Result<(), FrameError> {
        let Metrics { metrics } =
            serde_json::from_slice(&frame.payload).map_err(|_| FrameError::Message)?;
        self.sink.report(self.slot, metrics.into_iter().map(delta).collect());
        Ok(())
    }
}

impl Drop for SlotMetrics {
    fn drop(&mut self) {
        self.sink.gone(self.slot);
    }
}

fn delta(metric: Metric) -> Delta {
    let Metric { name, help, change } = metric;
    let value = match change {
        MetricChange::Counter { value } => Change::Counter(value),
        MetricChange::Gauge { value } => Change::Gauge(value),
        MetricChange::Summary { count, sum } => Change::Summary { count, sum },
        MetricChange::Histogram { bounds, counts, sum } => {
            Change::Histogram { bounds, counts, sum }
        }
    };
    Delta { name, help, value }
}
