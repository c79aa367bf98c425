//! The framed protocol between litplex and a worker process: frames, messages and versions.
//!
//! `protocol/PROTOCOL.md` is its specification, and the golden frames beside it are read by the
//! tests of this crate and by those of the Python worker. Bytes only: no tasks, no policy.

mod frame;
mod message;

pub use frame::{Decoder, Flags, Frame, FrameError, HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES};
pub use message::{
    EndMeta, Failed, Hello, Metric, MetricChange, Metrics, PROTOCOL, PROTOCOL_OLDEST, Ready,
    Refuse, RequestContent, RequestContext, RequestMeta, RequestPart, ResponseMeta, Role, Setup,
    Spec, Welcome, negotiate,
};
