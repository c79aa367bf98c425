//! A server for tests of clients: one endpoint, and no more behind it.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use litplex_core::BoxFuture;
use serde_json::{Value, json};

use crate::{
    Admin, Buckets, CallGraph, Configuration, EndpointBatches, EndpointGenerations,
    EndpointHistory, EndpointMode, EndpointReloaded, EndpointStatus, Event, Feed, FeedLimits,
    GenerationState, HistoryQuery, KeyHolders, Load, LogLevel, MemoryPlan, MemoryStatus, Mode,
    NextSwap, PlannedChange, PlannedEndpoint, ProgramReloaded, RecentRequests, Refusal,
    ReloadOptions, ReloadPlan, Reloaded, RequestDetails, RequestQuery, Scaled, Status, Swap,
    Upgraded, WorkerCount,
};

/// A server with one endpoint, `/embed`, which may have one to eight workers.
#[derive(Debug)]
pub struct MockAdmin {
    /// The port that its status shows.
    pub port: u16,
    /// Its events.
    pub events: Feed<Event>,
    /// Its log.
    pub log: Feed<String>,
    /// Whether it was asked to stop.
    pub stopped: Arc<AtomicBool>,
}

impl MockAdmin {
    /// Returns a server on this port.
    pub fn new(port: u16) -> Self {
        let limits = FeedLimits { items: 10, bytes: 10_000 };
        let (events, log) = (Feed::new(limits), Feed::new(limits));
        Self { port, events, log, stopped: Arc::default() }
    }

    /// Returns its status.
    pub fn shown(&self) -> Status {
        let endpoint = EndpointStatus {
            label: "/embed".into(),
            path: "/embed".into(),
            name: "Model".into(),
            aliases: Vec::new(),
            kind: "rust".into(),
            state: "ready".into(),
            problem: None,
            wanted: 1,
            min_workers: None,
            max_workers: None,
            queued: 0,
            in_flight: 0,
            requests: 7,
            batches: None,
            residency: None,
            tier: None,
            workers: Vec::new(),
            generations: Vec::new(),
            sources: Vec::new(),
        };
        let url = format!("http://127.0.0.1:{}", self.port);
        Status {
            pid: 7,
            url,
            admin_url: None,
            gpus: Vec::new(),
            port: self.port,
            uptime: 1.5,
            memory: None,
            failed_reload: None,
            endpoints: vec![endpoint],
        }
    }

    fn check(endpoint: &str) -> Result<(), Refusal> {
        match endpoint {
            "/embed" => Ok(()),
            _ => Err(Refusal::not_found(format!("there is no endpoint `{endpoint}`"))),
        }
    }
}

fn reloaded(
    endpoint: String,
    generation: u64,
    state: GenerationState,
    seconds: f64,
) -> Result<Reloaded, Refusal> {
    MockAdmin::check(&endpoint)?;
    Ok(Reloaded { endpoint, generation, state, seconds, changes: None })
}

impl Admin for MockAdmin {
    fn status(&self) -> BoxFuture<'_, Status> {
        Box::pin(ready(self.shown()))
    }

    fn endpoint(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointStatus, Refusal>> {
        let found = Self::check(&endpoint).map(|()| self.shown().endpoints.remove(0));
        Box::pin(ready(found))
    }

    fn scale(
        &self,
        endpoint: String,
        workers: WorkerCount,
    ) -> BoxFuture<'_, Result<Scaled, Refusal>> {
        let scaled = Self::check(&endpoint).and_then(|()| match workers {
            WorkerCount::Number(wanted @ 1..=8) => Ok(Scaled { endpoint, before: 1, wanted }),
            WorkerCount::Auto => Ok(Scaled { endpoint, before: 1, wanted: 2 }),
            _ => Err(Refusal::conflict(format!("`{endpoint}` may have 1 to 8 workers"))),
        });
        Box::pin(ready(scaled))
    }

    fn reload(
        &self,
        endpoint: String,
        options: ReloadOptions,
    ) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        let state = match options {
            ReloadOptions { canary: Some(_), .. } => GenerationState::Canary,
            ReloadOptions { shadow: Some(_), .. } => GenerationState::Shadow,
            _ => GenerationState::Live,
        };
        let seconds = options.limit.as_secs_f64();
        Box::pin(ready(reloaded(endpoint, 2, state, seconds)))
    }

    fn promote(&self, endpoint: String) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        Box::pin(ready(reloaded(endpoint, 2, GenerationState::Live, 0.0)))
    }

    fn rollback(
        &self,
        endpoint: String,
        generation: Option<u64>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        let (number, seconds) = (generation.unwrap_or(1), limit.as_secs_f64());
        Box::pin(ready(reloaded(endpoint, number, GenerationState::Live, seconds)))
    }

    fn generations(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointGenerations, Refusal>> {
        let generations = Self::check(&endpoint).map(|()| EndpointGenerations {
            endpoint,
            generations: Vec::new(),
            earlier: vec![1],
            next: NextSwap { swap: Swap::Overlap, reason: None, seconds: None },
        });
        Box::pin(ready(generations))
    }

    fn reload_program(
        &self,
        dry_run: bool,
        limit: Duration,
    ) -> BoxFuture<'_, Result<ProgramReloaded, Refusal>> {
        let change = PlannedChange::Reload;
        let planned = PlannedEndpoint {
            endpoint: "/embed".into(),
            change,
            options: Vec::new(),
            files: Vec::new(),
        };
        let plan = ReloadPlan { endpoints: vec![planned], ..ReloadPlan::default() };
        let reloaded = EndpointReloaded {
            endpoint: "/embed".into(),
            change,
            generation: Some(2),
            seconds: Some(limit.as_secs_f64()),
            error: None,
        };
        let results = if dry_run { Vec::new() } else { vec![reloaded] };
        Box::pin(ready(Ok(ProgramReloaded { plan, results })))
    }

    fn set_mode(&self, endpoint: String, mode: Mode) -> Result<EndpointMode, Refusal> {
        Self::check(&endpoint).map(|()| EndpointMode { endpoint, mode })
    }

    fn stack(&self, endpoint: String, slot: usize) -> BoxFuture<'_, Result<String, Refusal>> {
        let stack = Self::check(&endpoint).map(|()| format!("{endpoint}#{slot}\n"));
        Box::pin(ready(stack))
    }

    fn load(&self) -> BoxFuture<'_, Load> {
        Box::pin(ready(Load { endpoints: Vec::new() }))
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<EndpointHistory, Refusal>> {
        let HistoryQuery { endpoint, .. } = query;
        let history =
            Self::check(&endpoint).map(|()| EndpointHistory { endpoint, points: Vec::new() });
        Box::pin(ready(history))
    }

    fn batches(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointBatches, Refusal>> {
        let batches = Self::check(&endpoint).map(|()| EndpointBatches {
            endpoint,
            sizes: Buckets::default(),
            seconds: Buckets::default(),
            costs: None,
        });
        Box::pin(ready(batches))
    }

    fn memory(&self) -> BoxFuture<'_, MemoryPlan> {
        let memory = MemoryStatus { held: 1, templates: 0, budget: 2, gpus: Vec::new() };
        Box::pin(ready(MemoryPlan { memory, endpoints: Vec::new() }))
    }

    fn graph(&self) -> BoxFuture<'_, CallGraph> {
        Box::pin(ready(CallGraph { nodes: Vec::new(), edges: Vec::new() }))
    }

    fn keys(&self) -> KeyHolders {
        KeyHolders { scopes: Vec::new() }
    }

    fn configuration(&self) -> Configuration {
        Configuration { server: Vec::new(), endpoints: Vec::new() }
    }

    fn requests(&self, query: RequestQuery) -> Result<RecentRequests, Refusal> {
        query.endpoint.as_deref().map_or(Ok(()), Self::check).map(|()| RecentRequests::default())
    }

    fn request(&self, id: String) -> Result<RequestDetails, Refusal> {
        Err(Refusal::not_found(format!("unknown request `{id}`")))
    }

    fn describe(&self, endpoint: String) -> Result<Value, Refusal> {
        Self::check(&endpoint).map(|()| json!({ "paths": {} }))
    }

    fn call(
        &self,
        endpoint: String,
        request: Request<Body>,
    ) -> BoxFuture<'_, Result<Response<Body>, Refusal>> {
        let echo = Self::check(&endpoint).map(|()| {
            let (parts, body) = request.into_parts();
            let mut response = Response::new(body);
            *response.headers_mut() = parts.headers;
            response
        });
        Box::pin(ready(echo))
    }

    fn events(&self) -> &Feed<Event> {
        &self.events
    }

    fn log(&self) -> Option<&Feed<String>> {
        Some(&self.log)
    }

    fn log_level(&self) -> Result<LogLevel, Refusal> {
        Ok(LogLevel { level: "info".into() })
    }

    fn set_log_level(&self, level: LogLevel) -> Result<LogLevel, Refusal> {
        Ok(level)
    }

    fn upgrade(&self, limit: Duration) -> BoxFuture<'_, Result<Upgraded, Refusal>> {
        let (version, seconds) = ("1.2.3".to_owned(), limit.as_secs_f64());
        Box::pin(ready(Ok(Upgraded { before: 7, pid: 8, version, seconds })))
    }

    fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }
}
