//! Everything that observes a request until its response has ended.

use http::{HeaderMap, StatusCode};
use litplex_core::Reservation;
use litplex_http_core::stream::Broken;
use litplex_metrics::RequestGuard;

use crate::context::Context;
use crate::middleware::Record;
use crate::recording::Recording;

/// The metrics, the recording and the access record of one request, each if there is one. It is told of every
/// event of the response, and is dropped when the response has ended or its client has left.
#[derive(Debug, Default)]
pub(crate) struct RequestObserver {
    pub(crate) metrics: Option<RequestGuard>,
    pub(crate) record: Option<Record>,
    /// Boxed: a request with its observer is moved several times.
    pub(crate) recording: Option<Box<Recording>>,
    /// Holds the in-flight permit of the caller.
    pub(crate) context: Context,
    /// The memory that the request takes in addition to its body.
    pub(crate) head: Reservation,
}

impl RequestObserver {
    /// Notes that the head of the response is sent.
    pub(crate) fn on_headers(&mut self, status: StatusCode, headers: &HeaderMap) {
        if let Some(recording) = &mut self.recording {
            recording.on_headers(status, headers);
        }
        let status = status.as_u16();
        if let Some(metrics) = &mut self.metrics {
            metrics.answered(status);
        }
        if let Some(record) = &mut self.record {
            record.status = status;
        }
    }

    /// Notes that these bytes of the body are sent.
    pub(crate) fn on_bytes(&mut self, data: &[u8]) {
        let bytes = data.len();
        if let Some(metrics) = &mut self.metrics {
            metrics.sent(bytes);
        }
        if let Some(recording) = &mut self.recording {
            recording.on_bytes(data);
        }
        if let Some(record) = &mut self.record {
            record.bytes += bytes as u64;
        }
    }

    /// Notes that the whole body is sent.
    pub(crate) fn on_end(&mut self) {
        if let Some(metrics) = &mut self.metrics {
            metrics.ended();
        }
        if let Some(recording) = &mut self.recording {
            recording.on_end();
        }
        if let Some(record) = &mut self.record {
            record.is_complete = true;
        }
    }

    /// Notes that the body broke off.
    pub(crate) fn on_error(&mut self, broken: Broken) {
        if let Some(metrics) = &mut self.metrics {
            metrics.broke(broken.status);
        }
        if let Some(recording) = &mut self.recording {
            recording.on_error(broken);
        }
        // The client received the status of the response, unless it is the cause itself.
        if let Some(record) = self.record.as_mut().filter(|record| !record.is_complete)
            && broken == Broken::STALLED
        {
            record.status = broken.status;
        }
    }
}

impl Drop for RequestObserver {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            recording.finish(self.metrics.as_ref());
        }
    }
}
