//! The operations that a server offers to its operators.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use litplex_core::BoxFuture;
use serde_json::Value;

use crate::event::Event;
use crate::feed::Feed;
use crate::history::{EndpointHistory, HistoryQuery, Load};
use crate::inventory::{CallGraph, Configuration, EndpointBatches, KeyHolders};
use crate::requests::{RecentRequests, RequestDetails, RequestQuery};
use crate::status::{
    EndpointGenerations, EndpointMode, EndpointStatus, LogLevel, MemoryPlan, Mode, ProgramReloaded,
    Reloaded, Scaled, Status, Swap, Upgraded, WorkerCount,
};

/// The operations of a server. A reference to an endpoint is its path, its name or an alias.
pub trait Admin: Send + Sync {
    /// Returns the status of the server.
    fn status(&self) -> BoxFuture<'_, Status>;

    /// Returns the status of an endpoint.
    fn endpoint(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointStatus, Refusal>>;

    /// Sets the number of workers of an endpoint. Returns when the number is set, not when the workers
    /// run.
    fn scale(
        &self,
        endpoint: String,
        workers: WorkerCount,
    ) -> BoxFuture<'_, Result<Scaled, Refusal>>;

    /// Replaces the workers of an endpoint by a new generation. Returns once it takes the requests, or its
    /// share of them, or has failed; then the live generation goes on.
    fn reload(
        &self,
        endpoint: String,
        options: ReloadOptions,
    ) -> BoxFuture<'_, Result<Reloaded, Refusal>>;

    /// Makes the canary, or the shadow, of an endpoint its live generation.
    fn promote(&self, endpoint: String) -> BoxFuture<'_, Result<Reloaded, Refusal>>;

    /// Ends the trial of a generation, or a start of a generation; otherwise starts an earlier generation
    /// again, by default the one before the live one, which has `limit` to become ready. Returns the live
    /// generation.
    fn rollback(
        &self,
        endpoint: String,
        generation: Option<u64>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Reloaded, Refusal>>;

    /// Returns the generations of an endpoint.
    fn generations(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointGenerations, Refusal>>;

    /// Reads the configuration again, and applies what has changed; with `dry_run` it only compares. The new
    /// workers of each endpoint have `limit` to become ready. Returns once all changes are made or have failed;
    /// an endpoint whose change fails stays as it was.
    fn reload_program(
        &self,
        dry_run: bool,
        limit: Duration,
    ) -> BoxFuture<'_, Result<ProgramReloaded, Refusal>>;

    /// Changes what an endpoint does with requests.
    fn set_mode(&self, endpoint: String, mode: Mode) -> Result<EndpointMode, Refusal>;

    /// Returns the stacks of all threads of a worker, as text.
    fn stack(&self, endpoint: String, slot: usize) -> BoxFuture<'_, Result<String, Refusal>>;

    /// Returns the load of all endpoints, and why each is slow.
    fn load(&self) -> BoxFuture<'_, Load>;

    /// Returns the last seconds of an endpoint.
    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<EndpointHistory, Refusal>>;

    /// Returns the batches of an endpoint since the start.
    fn batches(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointBatches, Refusal>>;

    /// Returns the memory of all workers, and what a request for each endpoint would lead to.
    fn memory(&self) -> BoxFuture<'_, MemoryPlan>;
    /// Returns the graph of the calls between endpoints, with those of the last minute.
    fn graph(&self) -> BoxFuture<'_, CallGraph>;

    /// Returns the callers and operators that are admitted.
    fn keys(&self) -> KeyHolders;

    /// Returns the options of the server and its endpoints.
    fn configuration(&self) -> Configuration;

    /// Returns the last requests, or the slowest.
    fn requests(&self, query: RequestQuery) -> Result<RecentRequests, Refusal>;

    /// Returns the last request with this id, with all its stages.
    fn request(&self, id: String) -> Result<RequestDetails, Refusal>;

    /// Returns the `OpenAPI` document of an endpoint.
    fn describe(&self, endpoint: String) -> Result<Value, Refusal>;

    /// Sends a request to an endpoint as a client does, through the same layers, guard and queue. Its path is
    /// that of the endpoint.
    fn call(
        &self,
        endpoint: String,
        request: Request<Body>,
    ) -> BoxFuture<'_, Result<Response<Body>, Refusal>>;

    /// Returns the events of the server.
    fn events(&self) -> &Feed<Event>;

    /// Returns the log, whose lines are JSON objects; `None` if the program has a log of its own.
    fn log(&self) -> Option<&Feed<String>>;

    /// Returns the level of the log.
    fn log_level(&self) -> Result<LogLevel, Refusal>;

    /// Sets the level of the log until the server ends.
    fn set_log_level(&self, level: LogLevel) -> Result<LogLevel, Refusal>;

    /// Replaces the server by a new process of its program, which has `limit` to become ready. Returns once
    /// that serves, or has failed; then this server goes on.
    fn upgrade(&self, limit: Duration) -> BoxFuture<'_, Result<Upgraded, Refusal>>;

    /// Asks the server to stop: requests in progress are answered first.
    fn stop(&self);
}

/// The way in which a generation is replaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReloadOptions {
    /// The time that the new workers have to become ready.
    pub limit: Duration,
    /// The share of the requests that the new generation gets on trial, above 0 and at most 1.
    pub canary: Option<f64>,
    /// The share of the requests of which the new generation gets copies, above 0 and at most 1; not with
    /// `canary`.
    pub shadow: Option<f64>,
    /// Whether requests of an endpoint that is not idempotent may be copied.
    pub allow_effects: bool,
    /// The way in which the new generation takes the place of the live one.
    pub swap: Option<Swap>,
}

/// The refusal of an operation: its kind, and a sentence for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The kind.
    pub kind: RefusalKind,
    /// The problem, and what to do about it.
    pub reason: String,
}

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request is invalid.
    Invalid,
    /// There is no such endpoint or worker.
    NotFound,
    /// The operation does not fit what is there now.
    Conflict,
}

impl Refusal {
    /// Returns the refusal of an invalid request.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Invalid, reason: reason.into() }
    }

    /// Returns the refusal of a request for something that is not there.
    pub fn not_found(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::NotFound, reason: reason.into() }
    }

    /// Returns the refusal of an operation that is not possible now.
    pub fn conflict(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Conflict, reason: reason.into() }
    }
}
