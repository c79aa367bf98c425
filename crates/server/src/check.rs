//! `litplex check`: checks that need no model, and with `--load` a launch of every model.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{NextLoad, PlannedMemory, RunDir};
use litplex_config::{ConfigError, Endpoint, Program, Source, Workers};
use litplex_core::{Cause, Device, LaunchError};
use litplex_devices::Threads;
use litplex_supervisor::SlotState;
use litplex_workers::{Inspected, Inspection, Overrides, Sdk, default_interpreter, inspect};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::access::{Access, EndpointGuard};
use crate::app_host::AppHostSockets;
use crate::controls::EndpointControls;
use crate::endpoints::{EndpointSet, Endpoints};
use crate::events::Events;
use crate::fits::{self, Description};
use crate::generations::Generations;
use crate::launch::{WorkerEnvironment, locate_cache, python_sdk, variables};
use crate::log::Log;
use crate::placement::{Placement, place_all};
use crate::signals::Signals;
use crate::size::Size;
use crate::telemetry::Telemetry;
use crate::{Error, ModelSource, secrets, tls};

/// The time that workers have to exit after they were ready.
const STOP_TIME: Duration = Duration::from_secs(5);

/// The time in which the memory of a worker that is ready is measured.
const MEASURE_TIME: Duration = Duration::from_secs(5);

/// Checks everything that a server needs, and inspects each Python model in its own interpreter.
/// Returns the properties of the models, in the order of the endpoints.
///
/// # Errors
/// All errors at once.
pub async fn check(
    config: &Program,
    models: &[ModelSource],
    limit: Duration,
) -> Result<Vec<Inspected>, ConfigError> {
    let mut mistakes = Vec::new();
    let mut note = |ConfigError(found)| mistakes.extend(found);
    let _ = tls::read(config).map_err(&mut note);
    let _ = Access::load(config).map_err(&mut note);
    note(ConfigError(files_not_written(config)));
    let placed = place_all(&config.endpoints).map_err(&mut note);
    let inspected = inspect_all(config, placed.ok(), limit).await.map_err(&mut note);
    if let Ok(inspected) = &inspected {
        note(ConfigError(fits::errors(
            &config.endpoints,
            &descriptions(config, models, inspected),
        )));
    }
    match inspected {
        Ok(inspected) if mistakes.is_empty() => Ok(inspected),
        _ => Err(ConfigError(mistakes)),
    }
}

/// Returns the descriptions of models, as far as they are known before the models are loaded.
fn descriptions(
    config: &Program,
    models: &[ModelSource],
    inspected: &[Inspected],
) -> Vec<Description> {
    let endpoints = config.endpoints.iter().zip(models).zip(inspected);
    let description =
        |((endpoint, source), model): ((&Endpoint, &ModelSource), &Inspected)| match fits::graph(
            endpoint,
        ) {
            Some(graph) => Description::pipeline(&source.schema, graph),
            None => Description::inspected(&source.schema, model),
        };
    endpoints.map(description).collect()
}

/// Returns an error for each log file that cannot be written. No file is created.
fn files_not_written(config: &Program) -> Vec<String> {
    let access_log = config.access_log.as_deref().filter(|file| *file != Path::new("-"));
    let access_log =
        access_log.and_then(|file| Some(format!("server: `access_log`: {}", not_written(file)?)));
    let log_file = |endpoint: &Endpoint| {
        let wrong = not_written(endpoint.log_file.as_deref()?)?;
        Some(format!("endpoint `{}`: `log_file`: {wrong}", endpoint.label()))
    };
    access_log.into_iter().chain(config.endpoints.iter().filter_map(log_file)).collect()
}

fn not_written(file: &Path) -> Option<String> {
    use rustix::fs::{Access, access};
    let directory = file.parent().unwrap_or(Path::new("/"));
    let (place, may) =
        if file.exists() { (file, Access::WRITE_OK) } else { (directory, Access::WRITE_OK) };
    if file.is_dir() {
        return Some(format!("{} is a directory; name a file", file.display()));
    }
    access(place, may).err().map(|error| format!("{}: {error}", place.display()))
}

async fn inspect_all(
    config: &Program,
    placed: Option<Vec<Option<Placement>>>,
    limit: Duration,
) -> Result<Vec<Inspected>, ConfigError> {
    let cache = locate_cache(config).map_err(|error| ConfigError(vec![error.to_string()]))?;
    let sdk = python_sdk(config, cache.as_ref());
    let secrets = secrets::hidden_from_models(config);
    let look = |endpoint, placement| {
        let inspection: Inspection = inspection(endpoint, placement)?;
        let (sdk, cache, secrets) = (sdk.clone(), cache.clone(), secrets.clone());
        Some(Inspection { sdk, cache, secrets, limit, ..inspection })
    };
    let mut looking = JoinSet::new();
    for (index, endpoint) in config.endpoints.iter().enumerate() {
        let placement = placed.as_ref().and_then(|placed| placed[index].as_ref());
        if let Some(inspection) = look(endpoint, placement) {
            let whose = endpoint.label().to_owned();
            looking.spawn(async move {
                let found = inspect(&inspection).await;
                (index, found.map_err(|mistake| format!("endpoint `{whose}`: {mistake}")))
            });
        }
    }
    collect(looking.join_all().await, config.endpoints.len())
}

/// Returns the inspected models by the index of their endpoint, or all errors in that order.
fn collect(
    results: Vec<(usize, Result<Inspected, String>)>,
    endpoints: usize,
) -> Result<Vec<Inspected>, ConfigError> {
    let mut inspected = vec![Inspected::default(); endpoints];
    let mut errors = Vec::new();
    for (index, result) in results {
        match result {
            Ok(model) => inspected[index] = model,
            Err(error) => errors.push((index, error)),
        }
    }
    errors.sort();
    let errors: Vec<_> = errors.into_iter().map(|(_, error)| error).collect();
    if errors.is_empty() { Ok(inspected) } else { Err(ConfigError(errors)) }
}

/// Returns the inspection of an endpoint whose model is in Python, without the parts that are the
/// same for all endpoints.
pub(crate) fn inspection(endpoint: &Endpoint, placement: Option<&Placement>) -> Option<Inspection> {
    let Source::Python(load) = &endpoint.source else { return None };
    let devices = placement.map(|placement| placement.devices.clone()).unwrap_or_default();
    let threads = placement.map_or(Threads::chosen(1), |placement| placement.threads);
    Some(Inspection {
        endpoint: endpoint.label().to_owned(),
        interpreter: endpoint.python.clone().unwrap_or_else(default_interpreter),
        requirements: endpoint.requirements.clone(),
        sdk: Sdk::default(),
        cache: None,
        secrets: Vec::new(),
        env: variables(endpoint, &devices, threads),
        cwd: endpoint.cwd.clone(),
        pythonpath: endpoint.pythonpath.clone(),
        load: load.clone(),
        device: devices.first().map_or_else(|| "cpu".into(), ToString::to_string),
        overrides: Overrides {
            max_batch_size: endpoint.max_batch_size,
            batch_timeout: endpoint.batch_timeout,
            stream: endpoint.stream,
            max_concurrency: endpoint.max_concurrency,
        },
        limit: Duration::ZERO,
    })
}

/// Sets the smallest number of workers that loads the model on each device, if it is loaded at the start.
fn want_one_worker(endpoint: &mut Endpoint) {
    endpoint.workers = match endpoint.workers {
        Workers::PerDevice(_) => Workers::PerDevice(1),
        Workers::Between { min, max } => Workers::Between { min: min.min(1), max },
    };
}

/// Loads every model in a worker on each of its devices, and the app if there is one; then stops
/// them. Nothing is served. Models that sleep at the start are loaded one after the other, beside those that do not:
/// all together may be more than the memory has room for.
///
/// # Errors
/// The first model that cannot be loaded, or a signal that came before all were loaded.
pub async fn load(mut config: Program, models: Vec<ModelSource>, log: Log) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    config.endpoints.iter_mut().for_each(want_one_worker);
    let run_dir = RunDir::create()?;
    let app_host = AppHostSockets::open(&config, &run_dir)?;
    let telemetry = Telemetry::new();
    let environment = Arc::new(WorkerEnvironment::new(&config, &run_dir, log, &telemetry, false)?);
    let events = Events::default();
    let guards = config.endpoints.iter().map(|_| EndpointGuard::default()).collect();
    let place = app_host.as_ref().map(|sockets| &sockets.place);
    let endpoints =
        Endpoints::launch(&config, models, guards, &environment, place, &telemetry, &events)?;
    let set = endpoints.now();
    let loaded = Notify::new();
    let result = tokio::select! {
        failed = set.watch(&events, || loaded.notify_one()) => Err(failed),
        result = async { loaded.notified().await; load_in_turn(&set).await } => result,
        signal = signals.stop() => {
            let early = format!("received {signal} before all models were loaded");
            Err(std::io::Error::new(std::io::ErrorKind::Interrupted, early).into())
        }
    };
    endpoints.stop(STOP_TIME).await;
    result
}

/// Loads the models that sleep, each once the one before it is gone.
async fn load_in_turn(set: &EndpointSet) -> Result<(), Error> {
    let sleep = |controls: &Arc<EndpointControls>| controls.view.wanted() == 0;
    for controls in set.generations().iter().map(Generations::live).filter(sleep) {
        // Slots repeat the devices.
        let devices: BTreeSet<&str> = controls.devices.iter().map(Device::as_str).collect();
        let configured = Size::configured(&controls.spec.config, controls.devices.len());
        controls.resize(configured.by_hand(devices.len()));
        let mut view = controls.view.clone();
        while !are_loaded(&view.states()).map_err(|cause| failed(&controls, cause))?
            && view.changed().await
        {}
        if controls.patience.is_some() {
            // Some systems let no process be measured.
            let _ = timeout(MEASURE_TIME, controls.memory.measured()).await;
        }
        controls.resize(configured.cold());
        while !view.states().is_empty() && view.changed().await {}
    }
    fit(set).await?;
    let errors = set.neighbours().errors();
    if !errors.is_empty() {
        return Err(ConfigError(errors).into());
    }
    set.warn_of_cycles();
    Ok(())
}

/// Fails for a model that never fits, as was measured.
async fn fit(set: &EndpointSet) -> Result<(), Error> {
    let Some(generations) = set.generations().into_iter().next() else { return Ok(()) };
    let plan = generations.live().memory.plan().await;
    match plan.endpoints.into_iter().find(|it| it.next == NextLoad::Never) {
        Some(PlannedMemory { endpoint, reason, .. }) => {
            let cause = LaunchError::new(reason.unwrap_or_default());
            Err(Error::Launch { endpoint, cause })
        }
        None => Ok(()),
    }
}

fn failed(controls: &EndpointControls, cause: LaunchError) -> Error {
    Error::Launch { endpoint: controls.label().to_owned(), cause }
}

/// Returns whether all workers are ready, where there is room for them: on a second device there may be none.
///
/// # Errors
/// One of them cannot be loaded, or none has room.
fn are_loaded(states: &[SlotState]) -> Result<bool, LaunchError> {
    let mut no_room = None;
    for state in states {
        match state {
            SlotState::Failed(cause) => return Err(cause.clone()),
            SlotState::BackingOff { gone, traceback, .. } => {
                let traceback = traceback.clone();
                let error = LaunchError { traceback, ..LaunchError::new(gone.to_string()) };
                if gone.cause != Cause::NoRoom {
                    return Err(error);
                }
                no_room = Some(error);
            }
            _ => {}
        }
    }
    let is_starting = |state: &SlotState| matches!(state, SlotState::Starting { .. });
    if states.is_empty() || states.iter().any(is_starting) {
        return Ok(false);
    }
    let is_ready = |state: &SlotState| matches!(state, SlotState::Ready(_));
    no_room.filter(|_| !states.iter().any(is_ready)).map_or(Ok(true), Err)
}
