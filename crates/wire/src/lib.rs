//! The framed protocol between litplex and a worker process: frames, messages and versions.
//!
//! `protocol/PROTOCOL.md` is its specification. The tests of this crate and those of the Python
//! worker read the same golden frames (`protocol/golden.json`). The crate handles bytes only: it
//! has no tasks and no policy.

mod frame;
mod message;

pub use frame::{Decoder, Flags, Frame, FrameError, HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES};
pub use message::{
    CallMeta, EndMeta, Failed, Hello, LoadedFile, Metric, MetricChange, Metrics, PROTOCOL,
    PROTOCOL_OLDEST, Patch, Patched, Ready, Refuse, RequestContent, RequestContext, RequestMeta,
    RequestPart, ResponseMeta, Role, Setup, SlowImport, SourceText, Sources, Welcome, negotiate,
};
