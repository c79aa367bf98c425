//! Calls of endpoints: the part of serving a client that does not depend on its protocol.
//!
//! ```text
//! Registry ─label─► Target     Call::run(request) ─► cost ─► queue of the target ─► Output
//!                                                            ▲
//!                    CancelOnDrop ──the caller has left──────┘
//! ```
//!
//! A [`Call`] has a target, a [`TimeBudget`] and perhaps a trace. It determines the cost of a request, queues it
//! as a job, and returns a whole response or a stream of items. A call that is dropped before its end
//! cancels its job. The crate knows no HTTP: bodies, headers and statuses belong to its clients.

mod base64;
mod budget;
mod call;
mod composed;
mod deadlock;
mod demand;
mod graph;
mod items;
mod observed;
mod off_thread;
mod registry;
mod service;
mod shadow;
mod status;
mod target;
mod trial;

pub use budget::TimeBudget;
pub use call::{Call, Caller, Output};
pub use composed::{Composed, Inherited};
pub use deadlock::{
    Deadlocks, DeclaredCalls, DeclaredCycle, Parent, Reads, Refusal, StreamWatch, WatchedCall,
    WatchedQueue, declared_cycles,
};
pub use demand::Demand;
pub use graph::{CallEdge, EdgeKind, add_edge, graph_json, graph_text};
pub use items::ItemStream;
pub use observed::ObservedRequest;
pub use off_thread::{off_thread, turn};
pub use registry::{Registry, TargetRef, Targets};
pub use service::{CallService, DialectCalls, QueueCalls};
pub use shadow::ShadowPlan;
pub use status::{EndpointReport, Report};
pub use target::{Backend, ColdStart, Lease, Target};
pub use trial::{Compared, CopyRequests, ReportSender, Side, Trial, TrialReport, Tried};
