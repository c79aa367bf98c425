//! Which template the workers of an endpoint are forked from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use litplex_wire::SlowImport;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::adopted::can_adopt;
use super::memory::Footprint;
use super::output::OutputSpec;
use super::template::Template;
use super::template_process::{PreloadedModule, TemplateSpec};

/// The time, in seconds, that the imports of a worker must take for a template to be worth its memory.
const WORTH: f64 = 0.2;

/// The time that a launch waits for a template that imports its modules.
const IMPORT_TIME: Duration = Duration::from_secs(120);

/// The modules that an endpoint's template imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preload {
    /// The modules of these names. Without any there is no template. A launch waits for the template.
    Named(Vec<String>),
    /// The modules that the first worker took long to import. No launch waits for the template.
    Found,
}

/// The templates of a server. Endpoints whose workers have all in common share one.
#[derive(Debug, Clone, Default)]
pub struct Templates(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    by_spec: Mutex<HashMap<TemplateSpec, Weak<Template>>>,
    /// The last footprint of each process.
    footprints: Mutex<HashMap<u32, Footprint>>,
    /// Notified when a template is started for the first time.
    begun: Notify,
}

impl Templates {
    /// Returns whether no endpoint has a template.
    pub fn is_empty(&self) -> bool {
        self.running().is_empty()
    }

    /// Returns whether a template imports its modules, so that its memory grows.
    pub fn are_starting(&self) -> bool {
        self.running().iter().any(|template| template.is_starting())
    }

    /// Resolves when a template was started since the last call. One that starts again is not reported.
    pub async fn begun(&self) {
        self.0.begun.notified().await;
    }

    /// Measures the bytes of memory that all templates have, of which pages that workers share count in part. Blocks
    /// for milliseconds.
    pub fn footprint(&self) -> u64 {
        // Not under the lock of the templates: launches take it.
        let templates = self.running();
        let mut footprints = locked(&self.0.footprints);
        let measured = templates.iter().filter_map(|template| {
            let process = template.process()?;
            Some((process, Footprint::measure(process, footprints.get(&process).copied())?))
        });
        *footprints = measured.collect();
        footprints.values().map(|footprint| footprint.bytes).sum()
    }

    fn running(&self) -> Vec<Arc<Template>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Returns the running template of this specification, or starts it.
    fn get(&self, spec: TemplateSpec, output: &OutputSpec) -> Arc<Template> {
        let mut templates = self.lock();
        templates.retain(|_, template| template.strong_count() > 0);
        if let Some(template) = templates.get(&spec).and_then(Weak::upgrade) {
            return template;
        }
        let template = Arc::new(Template::start(spec.clone(), output));
        templates.insert(spec, Arc::downgrade(&template));
        self.0.begun.notify_one();
        template
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TemplateSpec, Weak<Template>>> {
        locked(&self.0.by_spec)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The template of an endpoint's workers.
#[derive(Debug)]
pub(super) struct Preloaded {
    preload: Preload,
    templates: Templates,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The modules that a worker took long to import.
    found: Option<Vec<PreloadedModule>>,
    template: Option<(TemplateSpec, Arc<Template>)>,
}

impl Preloaded {
    pub(super) fn new(preload: Preload, templates: Templates) -> Self {
        Self { preload, templates, held: Mutex::default() }
    }

    /// Returns whether the next worker is to report its imports.
    pub(super) fn asks_for_imports(&self) -> bool {
        self.preload == Preload::Found && self.held().found.is_none() && can_adopt()
    }

    /// Takes the imports that a worker has reported. The template is started if it is worth it.
    pub(super) fn learn(
        &self,
        imports: &[SlowImport],
        spec: impl FnOnce() -> TemplateSpec,
        output: &OutputSpec,
    ) {
        self.held().found = Some(worthwhile(imports));
        self.hold(spec, output);
    }

    /// Returns the template that a worker may be forked from, if there is one now, or soon.
    pub(super) async fn template(
        &self,
        spec: impl FnOnce() -> TemplateSpec,
        output: &OutputSpec,
    ) -> Option<Arc<Template>> {
        let template = self.hold(spec, output)?;
        if matches!(self.preload, Preload::Named(_)) {
            let _ = timeout(IMPORT_TIME, template.started()).await;
        }
        template.is_ready().then_some(template)
    }

    /// Returns whether workers can be forked from a template now.
    pub(super) fn is_ready(&self) -> bool {
        self.held().template.as_ref().is_some_and(|(_, template)| template.is_ready())
    }

    /// Returns the template of this specification, which is held as long as the endpoint is launched.
    fn hold(
        &self,
        spec: impl FnOnce() -> TemplateSpec,
        output: &OutputSpec,
    ) -> Option<Arc<Template>> {
        let mut held = self.held();
        let modules = match &self.preload {
            Preload::Named(names) => {
                let module = |name: &String| PreloadedModule { name: name.clone(), file: None };
                names.iter().map(module).collect()
            }
            Preload::Found => held.found.clone()?,
        };
        if modules.is_empty() || !can_adopt() {
            return None;
        }
        let spec = TemplateSpec { modules, ..spec() };
        if let Some((known, template)) = &held.template
            && *known == spec
        {
            return Some(template.clone());
        }
        let template = self.templates.get(spec.clone(), output);
        held.template = Some((spec, template.clone()));
        Some(template)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        locked(&self.held)
    }
}

/// Returns the modules to import for workers, if the time is worth a template.
fn worthwhile(imports: &[SlowImport]) -> Vec<PreloadedModule> {
    let seconds: f64 = imports.iter().map(|import| import.seconds).sum();
    let modules = imports.iter().map(|import| PreloadedModule {
        name: import.module.clone(),
        file: Some(import.file.clone()),
    });
    if seconds >= WORTH { modules.collect() } else { Vec::new() }
}

/// Returns the directories in which a worker that loads this model looks for modules first, as
/// `_worker/_load.py` adds them.
pub(super) fn module_path(load: &Value, cwd: Option<&Path>, own: &[PathBuf]) -> Vec<PathBuf> {
    let script = if load["kind"] == "pickle" { &load["script"] } else { load };
    let mut path: Vec<PathBuf> = match load["kind"].as_str() {
        Some("reference") => vec![directory_of_reference(load, cwd)],
        _ => {
            let entries = script["path"].as_array().into_iter().flatten();
            entries.filter_map(Value::as_str).map(PathBuf::from).collect()
        }
    };
    path.extend_from_slice(own);
    path
}

fn directory_of_reference(load: &Value, cwd: Option<&Path>) -> PathBuf {
    let directory = load["directory"].as_str().map(Path::new).or(cwd).unwrap_or(Path::new(""));
    let (place, _) = load["name"].as_str().and_then(|it| it.rsplit_once(':')).unwrap_or_default();
    let file = Path::new(place);
    match file.extension() {
        Some(extension) if extension == "py" => {
            directory.join(file.parent().unwrap_or(Path::new("")))
        }
        _ => directory.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn import(module: &str, seconds: f64) -> SlowImport {
        SlowImport { module: module.into(), file: format!("/lib/{module}.py"), seconds }
    }

    #[test]
    fn imports_are_worth_a_template_if_they_take_long_together() {
        let imports = [import("numpy", 0.1), import("pandas", 0.15)];
        let modules = worthwhile(&imports);
        assert_eq!(modules.len(), 2);
        assert_eq!(modules[0].name, "numpy");
        assert_eq!(modules[0].file.as_deref(), Some("/lib/numpy.py"));
        assert!(worthwhile(&imports[..1]).is_empty());
    }

    #[test]
    fn modules_are_looked_for_where_the_worker_does() {
        let path = |load: Value| module_path(&load, Some(Path::new("/app")), &["/lib".into()]);
        let file = json!({"kind": "reference", "name": "models/ocr.py:API"});
        assert_eq!(path(file), [Path::new("/app/models"), Path::new("/lib")]);
        let module = json!({"kind": "reference", "name": "ocr:API", "directory": "/srv"});
        assert_eq!(path(module), [Path::new("/srv"), Path::new("/lib")]);
        let script = json!({"kind": "script", "path": ["/app", "/more"]});
        assert_eq!(
            path(script.clone()),
            [Path::new("/app"), Path::new("/more"), Path::new("/lib")]
        );
        assert_eq!(path(json!({"kind": "pickle", "script": script})).len(), 3);
    }
}
