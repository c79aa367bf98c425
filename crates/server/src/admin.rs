//! The operations of an operator on a running server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use litplex_admin::{
    Admin, CallGraph, Configuration, EndpointBatches, EndpointGenerations, EndpointHistory,
    EndpointMode, EndpointStatus, Event, EventKind, Feed, HistoryQuery, KeyHolders, Load, LogLevel,
    MemoryPlan, Mode, ProgramReloaded, RecentRequests, Refusal, ReloadOptions, Reloaded,
    RequestDetails, RequestQuery, Scaled, Status, Upgraded, WorkerCount,
};
use litplex_config::Workers;
use litplex_core::{BoxFuture, Identity};
use litplex_history::RequestLogs;
use litplex_http::App;
use litplex_metrics::Metrics;
use serde_json::Value;
use tokio::time::Instant;

use crate::administered::Administered;
use crate::announce::Announcer;
use crate::canary::TrialShare;
use crate::events::Events;
use crate::fleet::{self, FleetHandle};
use crate::generations::{Generations, Order};
use crate::history::Histories;
use crate::inventory;
use crate::load::load_of;
use crate::log::OperatedLog;
use crate::observed_workers::WorkerObserver;
use crate::requests;
use crate::upgrade::{Upgrades, memory_note};

/// The handler of the admin API.
pub(crate) struct AdminHandler {
    url: String,
    admin_url: Option<String>,
    port: u16,
    started: Instant,
    fleet: FleetHandle,
    histories: Histories,
    observer: WorkerObserver,
    events: Events,
    requests: Option<RequestLogs>,
    metrics: Metrics,
    log: Option<OperatedLog>,
    app: Arc<App>,
    upgrades: Upgrades,
}

impl AdminHandler {
    /// Returns the handler of a server that starts now, and the task that samples its history.
    pub(crate) fn new(
        announcer: &Announcer,
        fleet: &FleetHandle,
        app: &Arc<App>,
        events: &Events,
        log: Option<OperatedLog>,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let Announcer { url, admin_url, port, .. } = announcer;
        let (histories, sampling) = Histories::of(fleet.current(), metrics.calls());
        let lines = log.as_ref().map(|log| log.history.clone());
        let handler = Self {
            observer: WorkerObserver::new(&fleet.current().borrow().administered, events, lines),
            url: url.clone(),
            admin_url: admin_url.clone(),
            port: *port,
            started: Instant::now(),
            fleet: fleet.clone(),
            histories,
            events: events.clone(),
            requests: app.requests().cloned(),
            metrics,
            log,
            app: app.clone(),
            upgrades: Upgrades::default(),
        };
        (handler, sampling)
    }

    /// Passes requests for upgrades on to a task.
    pub(crate) fn upgraded_by(self, upgrades: Upgrades) -> Self {
        Self { upgrades, ..self }
    }

    /// Returns the endpoints now.
    fn endpoints(&self) -> Vec<Arc<Administered>> {
        self.fleet.current().borrow().administered.clone()
    }

    fn find(&self, endpoint: &str) -> Result<Arc<Administered>, Refusal> {
        let mut endpoints = self.endpoints();
        let identities: Vec<_> = endpoints.iter().map(|endpoint| endpoint.identity()).collect();
        let found = Identity::find(identities.iter().map(|identity| &**identity), endpoint);
        let found = found.map_err(|error| Refusal::not_found(error.to_string()))?;
        Ok(endpoints.swap_remove(found))
    }

    /// Returns an endpoint with workers; `instead` says what to do with a pipeline.
    fn with_workers(&self, endpoint: &str, instead: &str) -> Result<Generations, Refusal> {
        match &*self.find(endpoint)? {
            Administered::Workers(generations) => Ok(generations.clone()),
            Administered::Pipeline(_) => Err(Refusal::conflict(format!(
                "`{endpoint}` is a pipeline, which has no workers; {instead}"
            ))),
        }
    }

    fn request_logs(&self) -> Result<&RequestLogs, Refusal> {
        let logs = self.requests.as_ref();
        logs.ok_or_else(|| Refusal::conflict("the option `recent_requests` of this server is 0"))
    }

    fn reloadable(&self, endpoint: &str) -> Result<Generations, Refusal> {
        self.with_workers(endpoint, "reload the endpoints that it calls")
    }

    fn operated_log(&self) -> Result<&OperatedLog, Refusal> {
        self.log.as_ref().ok_or_else(|| {
            Refusal::conflict("this program logs by itself; its own settings have the level")
        })
    }
}

impl Admin for AdminHandler {
    fn status(&self) -> BoxFuture<'_, Status> {
        Box::pin(async {
            let (now, mut endpoints) = (self.endpoints(), Vec::new());
            for endpoint in &now {
                endpoints.push(endpoint.status().await);
            }
            let gpus = self.observer.complete(now.iter(), &mut endpoints).await;
            Status {
                gpus,
                pid: std::process::id(),
                url: self.url.clone(),
                admin_url: self.admin_url.clone(),
                port: self.port,
                uptime: self.started.elapsed().as_secs_f64(),
                memory: now.iter().find_map(|it| it.controls()).map(|it| it.memory.memory_status()),
                failed_reload: self.fleet.failed(),
                endpoints,
            }
        })
    }

    fn endpoint(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointStatus, Refusal>> {
        Box::pin(async move {
            let endpoint = self.find(&endpoint)?;
            let mut status = [endpoint.status().await];
            self.observer.complete([&endpoint].into_iter(), &mut status).await;
            let [mut status] = status;
            let loaded = endpoint.controls().map(|controls| controls.sources()).unwrap_or_default();
            let paths: BTreeSet<_> = loaded.into_iter().map(|file| file.path).collect();
            status.sources = paths.into_iter().collect();
            Ok(status)
        })
    }

    fn scale(&self, endpoint: String, to: WorkerCount) -> BoxFuture<'_, Result<Scaled, Refusal>> {
        Box::pin(async move {
            let controls =
                self.with_workers(&endpoint, "scale the endpoints that it calls")?.live();
            let endpoint = controls.label().to_owned();
            if let (Workers::Between { max, .. }, WorkerCount::Number(workers)) =
                (controls.workers, to)
                && workers > max
            {
                return Err(Refusal::conflict(format!(
                    "`{endpoint}` has at most {max} workers (`max_workers`); choose 0 to {max}"
                )));
            }
            let before = controls.view.wanted();
            let wanted = controls.scale(to);
            let scaled = Scaled { endpoint: endpoint.clone(), before, wanted };
            self.events.record(EventKind::Scaled { endpoint, before, wanted });
            Ok(scaled)
        })
    }

    fn set_mode(&self, endpoint: String, mode: Mode) -> Result<EndpointMode, Refusal> {
        let generations =
            self.with_workers(&endpoint, "pause or drain the endpoints that it calls")?;
        generations.set_mode(mode);
        let endpoint = generations.identity().label.clone();
        self.events.record(EventKind::Mode { endpoint: endpoint.clone(), mode });
        Ok(EndpointMode { endpoint, mode })
    }

    fn stack(&self, endpoint: String, slot: usize) -> BoxFuture<'_, Result<String, Refusal>> {
        Box::pin(async move {
            let controls = self.with_workers(&endpoint, "name an endpoint that it calls")?.live();
            controls.stack(slot).await
        })
    }

    fn load(&self) -> BoxFuture<'_, Load> {
        Box::pin(async {
            let recent = self.histories.recent().await.unwrap_or_default();
            let mut endpoints = Vec::new();
            for endpoint in &self.endpoints() {
                let recent = recent.get(&endpoint.identity().label).cloned().unwrap_or_default();
                endpoints.push(load_of(endpoint, &recent).await);
            }
            Load { endpoints }
        })
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<EndpointHistory, Refusal>> {
        Box::pin(async move {
            let endpoint = self.find(&query.endpoint)?.identity().label.clone();
            let found = self.histories.read(HistoryQuery { endpoint, ..query }).await;
            found.ok_or_else(|| Refusal::conflict("the server ends"))
        })
    }

    fn reload(
        &self,
        endpoint: String,
        options: ReloadOptions,
    ) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        Box::pin(async move {
            let ReloadOptions { limit, canary, shadow, allow_effects, swap } = options;
            let canary = canary.map(TrialShare::Canary);
            let shadow =
                shadow.map(|share| TrialShare::Shadow { share, allows_effects: allow_effects });
            let label = self.find(&endpoint)?.identity().label.clone();
            let prepared = self.fleet.prepare(&label, limit).await?;
            let (spec, among) = (prepared.spec.clone(), prepared.among.clone());
            let order = Order { spec, limit, trial: canary.or(shadow), swap, among };
            let reloaded = prepared.generations.reload(order).await?;
            self.fleet.adopt(prepared).await;
            Ok(reloaded)
        })
    }

    fn reload_program(
        &self,
        dry_run: bool,
        limit: Duration,
    ) -> BoxFuture<'_, Result<ProgramReloaded, Refusal>> {
        let order = fleet::Order::new(dry_run, limit);
        Box::pin(self.fleet.reload(order))
    }

    fn batches(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointBatches, Refusal>> {
        Box::pin(async move {
            let controls = self.with_workers(&endpoint, "name an endpoint that it calls")?.live();
            // The queue flushes what it has observed when it is asked for its load.
            controls.endpoint.load().await;
            Ok(inventory::batches(controls.label(), self.metrics.batches(controls.label())))
        })
    }

    fn memory(&self) -> BoxFuture<'_, MemoryPlan> {
        Box::pin(async {
            let member = self.endpoints().iter().find_map(|it| it.controls());
            match member {
                Some(controls) => controls.memory.plan().await,
                None => MemoryPlan::default(),
            }
        })
    }

    fn graph(&self) -> BoxFuture<'_, CallGraph> {
        Box::pin(async { inventory::graph(&self.app.report(), &self.histories.calls().await) })
    }

    fn keys(&self) -> KeyHolders {
        inventory::keys(&self.fleet.config())
    }

    fn configuration(&self) -> Configuration {
        inventory::configuration(&self.fleet.config())
    }

    fn requests(&self, query: RequestQuery) -> Result<RecentRequests, Refusal> {
        let logs = self.request_logs()?;
        let label = |endpoint: &String| match logs.get(endpoint) {
            // Calls of tools have a log, and are no endpoint.
            Some(_) => Ok(endpoint.clone()),
            None => self.find(endpoint).map(|endpoint| endpoint.identity().label.clone()),
        };
        let endpoint = query.endpoint.as_ref().map(label).transpose()?;
        Ok(requests::recent(logs, &RequestQuery { endpoint, ..query }))
    }

    fn request(&self, id: String) -> Result<RequestDetails, Refusal> {
        let logs = self.request_logs()?;
        let (log, record) = logs.find(&id).ok_or_else(|| {
            let remembered = match logs.remembered() {
                1 => "1 request".to_owned(),
                many => format!("{many} requests"),
            };
            Refusal::not_found(format!(
                "unknown request `{id}`: the server remembers {remembered}; `litplex requests` shows \
                 the last ones"
            ))
        })?;
        Ok(requests::details(logs, &log, &record))
    }

    fn promote(&self, endpoint: String) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        Box::pin(async move { self.reloadable(&endpoint)?.promote().await })
    }

    fn rollback(
        &self,
        endpoint: String,
        generation: Option<u64>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Reloaded, Refusal>> {
        Box::pin(async move {
            let among = self.fleet.current().borrow().neighbours();
            self.reloadable(&endpoint)?.roll_back(generation, limit, among).await
        })
    }

    fn generations(&self, endpoint: String) -> BoxFuture<'_, Result<EndpointGenerations, Refusal>> {
        Box::pin(async move { Ok(self.reloadable(&endpoint)?.overview().await) })
    }

    fn describe(&self, endpoint: String) -> Result<Value, Refusal> {
        let path = &self.find(&endpoint)?.identity().path;
        let mut document = self.app.document();
        if let Some(paths) = document["paths"].as_object_mut() {
            paths.retain(|each, _| each == path);
        }
        Ok(document)
    }

    fn call(
        &self,
        endpoint: String,
        mut request: Request<Body>,
    ) -> BoxFuture<'_, Result<Response<Body>, Refusal>> {
        Box::pin(async move {
            let path = litplex_http::encode_path(&self.find(&endpoint)?.identity().path);
            *request.uri_mut() = path.parse().map_err(|_| {
                Refusal::conflict(format!("the path of `{endpoint}` cannot be requested"))
            })?;
            match litplex_http::exchange(&self.app, request).await {
                Ok(response) => Ok(response.map(Body::new)),
                Err(_) => Err(Refusal::conflict("the server broke the request off")),
            }
        })
    }

    fn events(&self) -> &Feed<Event> {
        self.events.feed()
    }

    fn log(&self) -> Option<&Feed<String>> {
        self.log.as_ref().map(|log| &log.history)
    }

    fn log_level(&self) -> Result<LogLevel, Refusal> {
        Ok(LogLevel { level: self.operated_log()?.level.text() })
    }

    fn set_log_level(&self, LogLevel { level }: LogLevel) -> Result<LogLevel, Refusal> {
        let log = self.operated_log()?;
        log.level.set(&level).map_err(Refusal::invalid)?;
        let level = log.level.text();
        tracing::info!("the log level is `{level}`");
        self.events.record(EventKind::LogLevel { level: level.clone() });
        Ok(LogLevel { level })
    }

    fn upgrade(&self, limit: Duration) -> BoxFuture<'_, Result<Upgraded, Refusal>> {
        Box::pin(async move {
            match memory_note(&self.status().await) {
                Some((note, true)) => tracing::info!("upgrade: {note}"),
                Some((note, false)) => tracing::warn!("upgrade: {note}"),
                None => {}
            }
            self.upgrades.upgrade(limit).await
        })
    }

    fn stop(&self) {
        tracing::info!("an operator stops this server");
        self.app.request_shutdown();
    }
}
