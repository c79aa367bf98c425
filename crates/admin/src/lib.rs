//! The admin interface of a running server: its operations, the HTTP API that offers them, and a client.
//!
//! A running server has a [`RunDir`], a directory that only its user can enter. In it, the server
//! listens on an [`AdminSocket`], a Unix socket, whose requests an [`Admin`] handles, and, where it is
//! configured, on an [`AdminPort`], which an [`AdminGuard`] opens to clients with a key. A [`SharedDashboard`]
//! is the part for the server's own port. [`running`] finds the servers of this user; a [`Client`] sends requests
//! to one of them, or to a port. The API describes itself at `/openapi.json`.
//!
//! A [`Feed`] keeps the last items of something that goes on, such as events and lines of the log, and
//! hands the next ones to its readers.

mod client;
mod dashboard;
mod event;
mod feed;
mod forward;
mod guard;
mod history;
mod inventory;
#[cfg(any(test, feature = "mock"))]
pub mod mock;
mod operations;
mod port;
mod remote;
mod requests;
mod routes;
mod run_dir;
mod shared;
mod socket;
mod status;

pub use client::{AskError, Client, Lines, running};
pub use event::{Event, EventKind};
pub use feed::{Feed, FeedLimits, FeedReader};
pub use guard::AdminGuard;
pub use history::{EndpointHistory, EndpointLoad, HistoryPoint, HistoryQuery, Load};
pub use inventory::{
    Buckets, CallGraph, Configuration, EndpointBatches, EndpointSettings, GraphEdge, GraphNode,
    KeyHolders, KeyScope, Setting,
};
pub use litplex_history::ErrorCounts;
pub use operations::{Admin, Refusal, RefusalKind, ReloadOptions};
pub use port::AdminPort;
pub use remote::RemoteOptions;
pub use requests::{
    RecentRequests, RequestBatch, RequestBody, RequestDetails, RequestQuery, RequestStage,
    RequestSummary, StageKind, StageSeconds,
};
pub use routes::document;
pub use run_dir::{RunDir, RunDirError};
pub use shared::SharedDashboard;
pub use socket::AdminSocket;
pub use status::{
    ComparedAnswers, EndpointGenerations, EndpointMode, EndpointReloaded, EndpointStatus,
    FailedReload, GenerationState, GenerationStatus, GpuBudget, GpuStatus, LastLine, LogLevel,
    MemoryPlan, MemoryStatus, Mode, NextLoad, NextSwap, PlannedChange, PlannedEndpoint,
    PlannedMemory, PlannedOption, ProgramReloaded, Reload, ReloadPlan, ReloadProgram, Reloaded,
    ResidencyStatus, Rollback, Scale, Scaled, Status, Swap, Tier, Upgrade, UpgradeState, Upgraded,
    WorkerCount, WorkerStatus,
};
