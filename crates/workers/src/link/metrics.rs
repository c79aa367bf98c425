//! The metrics of a model, from the frames of its worker.

use litplex_metrics::UserSink;
use litplex_wire::{Frame, FrameError, Metrics};

/// The receiver of the metrics of one slot's worker. On drop, it reports that the worker is gone.
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
        self.sink.report(self.slot, metrics);
        Ok(())
    }
}

impl Drop for SlotMetrics {
    fn drop(&mut self) {
        self.sink.gone(self.slot);
    }
}
